package account

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/google/go-cmp/cmp"
)

// fakeSAM is a machine with at most one user, which writes down what is done to it.
type fakeSAM struct {
	user    *samUser
	secrets []string
	steps   []string
	fail    string // the step that fails
}

func (f *fakeSAM) do(step string) error {
	f.steps = append(f.steps, step)
	if name, _, _ := strings.Cut(step, " "); name == f.fail {
		return errors.New("refused by the test")
	}
	return nil
}

func (f *fakeSAM) Find(string) (samUser, error) {
	if f.user == nil {
		return samUser{}, fmt.Errorf("find: %w", ErrNotFound)
	}
	return *f.user, nil
}

func (f *fakeSAM) Add(name, comment string, secret []uint16) error {
	if err := f.do("add " + name); err != nil {
		return err
	}
	f.user = &samUser{sid: "S-1-5-21-1-2-3-1001", comment: comment, flags: flagDisabled, expires: never}
	return f.keep(secret)
}

func (f *fakeSAM) keep(secret []uint16) error {
	if len(secret) == 0 || secret[len(secret)-1] != 0 {
		return errors.New("the secret does not end in zero")
	}
	f.secrets = append(f.secrets, string(utf16.Decode(secret[:len(secret)-1])))
	return nil
}

func (f *fakeSAM) JoinUsers(sid string) error { return f.do("join " + sid) }

func (f *fakeSAM) Entitle(_ string, rights []string) error {
	return f.do("entitle " + strings.Join(rights, ","))
}

func (f *fakeSAM) SetSecret(_ string, secret []uint16) error {
	if err := f.do("secret"); err != nil {
		return err
	}
	return f.keep(secret)
}

func (f *fakeSAM) SetDisabled(_ string, disabled bool) error {
	if disabled {
		return f.do("disable")
	}
	return f.do("enable")
}

func (f *fakeSAM) LogOn(_, _ string, secret []uint16) (uintptr, error) {
	if got := string(utf16.Decode(secret[:len(secret)-1])); got != f.secrets[len(f.secrets)-1] {
		return 0, errors.New("wrong password")
	}
	return 42, f.do("logon")
}

func (f *fakeSAM) Close(token uintptr) error { return f.do(fmt.Sprint("close ", token)) }

func TestAWindowsAccountIsOrdinaryFromItsFirstMoment(t *testing.T) {
	rights := "entitle SeBatchLogonRight,SeDenyInteractiveLogonRight,SeDenyRemoteInteractiveLogonRight,SeDenyNetworkLogonRight"
	join := "join S-1-5-21-1-2-3-1001"
	machine := &fakeSAM{}
	sid, created, err := ensureSAM(machine, "a&")
	if err != nil || !created || sid != "S-1-5-21-1-2-3-1001" {
		t.Fatalf("%s, created %v, %v", sid, created, err)
	}
	if diff := cmp.Diff([]string{"add a&", join, rights}, machine.steps); diff != "" {
		t.Error(diff)
	}
	machine.steps, machine.user.groups = nil, []string{usersSID}
	if _, created, err := ensureSAM(machine, "a&"); err != nil || created {
		t.Errorf("again: created %v, %v", created, err)
	}
	if diff := cmp.Diff([]string{join, rights}, machine.steps); diff != "" {
		t.Errorf("what a crash may have left out is not done again: %s", diff)
	}
}

func TestAWindowsAccountWithMoreThanItShouldHaveIsNotTouched(t *testing.T) {
	for name, test := range map[string]struct {
		user samUser
		want string
	}{
		"an administrator": {samUser{comment: Comment, groups: []string{usersSID, "S-1-5-32-544"}}, "is in the group S-1-5-32-544"},
		"somebody else's":  {samUser{comment: "backup"}, `was not made by the agent, as its comment "backup" tells`},
	} {
		machine := &fakeSAM{user: &test.user}
		_, created, err := ensureSAM(machine, "a&")
		var unusable *Unusable
		if !errors.As(err, &unusable) || !strings.Contains(unusable.Why, test.want) || created || len(machine.steps) > 0 {
			t.Errorf("%s: %v after %q", name, err, machine.steps)
		}
	}
}

func TestTheAccountIsEnabledOnlyForTheLogon(t *testing.T) {
	for name, test := range map[string]struct {
		fail  string
		token uintptr
		steps []string
	}{
		"all goes well":                 {"", 42, []string{"secret", "enable", "logon", "disable"}},
		"the password is refused":       {"secret", 0, []string{"secret"}},
		"it cannot be enabled":          {"enable", 0, []string{"secret", "enable", "disable"}},
		"it cannot log on":              {"logon", 0, []string{"secret", "enable", "logon", "disable"}},
		"it cannot be disabled at last": {"disable", 0, []string{"secret", "enable", "logon", "disable", "close 42"}},
	} {
		machine := &fakeSAM{fail: test.fail}
		token, err := freshLogOn(machine, "a&")
		if token != test.token || (err == nil) != (test.fail == "") {
			t.Errorf("%s: token %d, %v", name, token, err)
		}
		if diff := cmp.Diff(test.steps, machine.steps); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestNoTwoLogonsAndNoTwoMachinesShareASecret(t *testing.T) {
	one, other := &fakeSAM{}, &fakeSAM{}
	for _, machine := range []*fakeSAM{one, other} {
		if _, _, err := ensureSAM(machine, "a&"); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if _, err := freshLogOn(machine, "a&"); err != nil {
				t.Fatal(err)
			}
		}
	}
	secrets := slices.Concat(one.secrets, other.secrets)
	slices.Sort(secrets)
	if len(slices.Compact(slices.Clone(secrets))) != 6 {
		t.Errorf("secrets are repeated: %d of them", len(secrets))
	}
	for _, secret := range secrets {
		if len(secret) < 40 || !strings.ContainsAny(secret, "0123456789") || strings.ToLower(secret) == secret || strings.ToUpper(secret) == secret || !strings.Contains(secret, "-") {
			t.Errorf("a secret of %d characters does not meet every policy", len(secret))
		}
	}
}

func TestASecretIsWidenedAsWindowsWantsIt(t *testing.T) {
	for _, secret := range []string{"", "pass word", "lösen日本", "🔑", "a\xffb"} {
		want := append(utf16.Encode([]rune(secret)), 0)
		if got := wideSecret([]byte(secret)); !slices.Equal(got, want) || cap(got) != len(secret)+1 {
			t.Errorf("%q: %v, want %v", secret, got, want)
		}
	}
}

func TestAWindowsUserEndsAsItsFlagsSay(t *testing.T) {
	now := time.Unix(1000, 0)
	for want, user := range map[string]samUser{
		"":                                  {expires: never},
		"is disabled":                       {expires: never, flags: flagDisabled},
		"is locked out after bad passwords": {expires: never, flags: flagLocked},
		"has expired":                       {expires: 1000},
	} {
		if got := user.ended(now); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	for user, want := range map[string][2]string{`EXAMPLE\a`: {"EXAMPLE", "a"}, "a@example.com": {"", "a@example.com"}, "a": {".", "a"}} {
		if domain, name := SplitUser(user); domain != want[0] || name != want[1] {
			t.Errorf("%s: domain %q, name %q", user, domain, name)
		}
	}
}
