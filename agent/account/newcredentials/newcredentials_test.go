package newcredentials

import (
	"bytes"
	"errors"
	"runtime"
	"strings"
	"testing"
	"unicode/utf16"

	"chandler/agent/account"
)

const planted = "Pl4nted-sécret-𝄞"

// fakeSystem remembers what it was asked for.
type fakeSystem struct {
	asked  []string
	handed []uint16
	err    error
	closed []uint64
}

func (f *fakeSystem) LogOn(user, domain string, secret []uint16) (uint64, error) {
	if len(secret) == 0 || secret[len(secret)-1] != 0 {
		return 0, errors.New("the secret has no end")
	}
	f.asked = append(f.asked, domain+"|"+user+"|"+string(utf16.Decode(secret[:len(secret)-1])))
	f.handed = secret
	return 77, f.err
}

func (f *fakeSystem) Close(token uint64) { f.closed = append(f.closed, token) }

func TestATokenIsMadeOfWhatWasGivenAndNothingOfItIsKept(t *testing.T) {
	for _, refused := range []error{nil, errors.New("the handle is invalid")} {
		for _, c := range []struct{ user, domain string }{{"reader", "EXAMPLE"}, {"reader@example.org", ""}, {"reader", "."}} {
			f, secret := &fakeSystem{err: refused}, []byte(planted)
			token, done, err := tokenBy(f, c.user, c.domain, secret)
			if !errors.Is(err, refused) || len(f.asked) != 1 || f.asked[0] != c.domain+"|"+c.user+"|"+planted {
				t.Errorf("%v: asked %q: %v", c, f.asked, err)
			}
			if refused == nil {
				if token != 77 || len(f.closed) != 0 {
					t.Errorf("token %d, closed %d", token, f.closed)
				}
				if done(); len(f.closed) != 1 || f.closed[0] != 77 {
					t.Errorf("closed %d", f.closed)
				}
			} else if done != nil || strings.Contains(err.Error(), planted) {
				t.Errorf("refused with %v", err)
			}
			if !bytes.Equal(secret, []byte(planted)) {
				t.Error("the caller's secret was changed")
			}
			for _, unit := range f.handed {
				if unit != 0 {
					t.Fatal("the copy of the secret was not cleared")
				}
			}
		}
	}
}

func TestWhatCanBeNoLoginIsNotAskedFor(t *testing.T) {
	for name, c := range map[string]struct{ user, domain, secret string }{
		"no user":                 {"", "EXAMPLE", planted},
		"no domain":               {"reader", "", planted},
		"two domains":             {`OTHER\reader`, "EXAMPLE", planted},
		"a NUL in the user":       {"rea\x00der", "EXAMPLE", planted},
		"no secret":               {"reader", "EXAMPLE", ""},
		"a NUL in the secret":     {"reader", "EXAMPLE", planted + "\x00"},
		"a secret of other bytes": {"reader", "EXAMPLE", planted + "\xff"},
		"a secret without end":    {"reader", "EXAMPLE", strings.Repeat("x", maxSecret+1)},
	} {
		f := &fakeSystem{}
		_, done, err := tokenBy(f, c.user, c.domain, []byte(c.secret))
		if err == nil || done != nil || len(f.asked) != 0 || strings.Contains(err.Error(), planted) {
			t.Errorf("%s: asked %q: %v", name, f.asked, err)
		}
	}
}

func TestElsewhereThanOnWindowsThereIsNoToken(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("this is Windows")
	}
	if _, done, err := Token("reader", "EXAMPLE", []byte(planted)); !errors.Is(err, account.ErrNoLogon) || done != nil {
		t.Errorf("%v", err)
	}
}
