package filesource

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"chandler/agent/source"
	"chandler/agent/supervise/supervisetest"
	"chandler/events"
	"chandler/events/resource"
)

// fakeSystem is Windows as far as names go, and remembers what is done.
type fakeSystem struct {
	mu                   sync.Mutex
	done                 []string
	pose, revert, opened error
	open                 func() (*os.File, error)
}

func (f *fakeSystem) Local(path string) (string, error)       { return windowsLocal(path) }
func (f *fakeSystem) Share(host, path string) (string, error) { return windowsShare(host, path) }

func (f *fakeSystem) did(what string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.done = append(f.done, what)
}

func (f *fakeSystem) Open(name string) (*os.File, error) {
	f.did("open " + name)
	if f.opened != nil {
		return nil, f.opened
	}
	return f.open()
}

func (f *fakeSystem) Pose(uint64) error {
	f.did("pose")
	return f.pose
}

func (f *fakeSystem) Revert() error {
	f.did("revert")
	return f.revert
}

func (f *fakeSystem) token(err error) func(user, domain string, secret []byte) (uint64, func(), error) {
	return func(user, domain string, secret []byte) (uint64, func(), error) {
		f.done = append(f.done, "token of "+domain+"|"+user+"|"+string(secret))
		return 7, func() { f.done = append(f.done, "close") }, err
	}
}

func TestAShareIsOpenedAsTheLoginAndTheThreadIsItselfAgain(t *testing.T) {
	refused := errors.New("refused")
	const name = `\\?\UNC\files\apps\x`
	for _, c := range []struct {
		name                       string
		user                       string
		token, pose, revert, opens error
		want                       []string
		fails                      bool
	}{
		{"all goes well", `EXAMPLE\reader`, nil, nil, nil, nil, []string{"token of EXAMPLE|reader|hunter2", "pose", "open " + name, "revert", "close"}, false},
		{"a user with an @", `reader@example.org`, nil, nil, nil, nil, []string{"token of |reader@example.org|hunter2", "pose", "open " + name, "revert", "close"}, false},
		{"there is no token", `EXAMPLE\reader`, refused, nil, nil, nil, []string{"token of EXAMPLE|reader|hunter2"}, true},
		{"the thread cannot pose", `EXAMPLE\reader`, nil, refused, nil, nil, []string{"token of EXAMPLE|reader|hunter2", "pose", "close"}, true},
		{"the file is refused", `EXAMPLE\reader`, nil, nil, nil, refused, []string{"token of EXAMPLE|reader|hunter2", "pose", "open " + name, "revert", "close"}, true},
		{"the thread stays another", `EXAMPLE\reader`, nil, nil, refused, nil, []string{"token of EXAMPLE|reader|hunter2", "pose", "open " + name, "revert", "close"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(supervisetest.TempDir(t), "x")
			if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
			f := &fakeSystem{pose: c.pose, revert: c.revert, opened: c.opens, open: func() (*os.File, error) { return os.Open(path) }}
			file, err := posing{f, f.token(c.token)}.opener(name, source.Login{User: c.user, Secret: []byte("hunter2")})()
			if (err != nil) != c.fails || (file == nil) != c.fails || !slices.Equal(f.done, c.want) {
				t.Errorf("did %q, want %q: %v", f.done, c.want, err)
			}
			if file != nil {
				file.Close()
			}
		})
	}
}

func TestALoginOfAShareIsAPassword(t *testing.T) {
	for _, c := range []struct {
		login  source.Login
		reason events.Reason
	}{
		{source.Login{User: `EXAMPLE\`, Secret: []byte("hunter2")}, events.CredentialRejected},
		{source.Login{Secret: []byte("hunter2")}, events.CredentialRejected},
		{source.Login{User: `EXAMPLE\reader`}, events.CredentialRejected},
		{source.Login{User: "x", Method: events.ByBearer, Secret: []byte("hunter2")}, events.SourceUnsupported},
	} {
		f := &fakeSystem{}
		s := New(Options{})
		s.system = f
		_, err := s.Open(t.Context(), "file://files/apps/x", c.login)
		wantReason(t, err, c.reason, "")
		if len(f.done) != 0 || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("did %q: %v", f.done, err)
		}
	}
}

func TestPathsAreNamedForWindowsLiterally(t *testing.T) {
	for address, want := range map[string]string{
		"file:///C:/software/My%20App./x": `\\?\C:\software\My App.\x`,
		"file:///c:/":                     `\\?\c:\`,
		"file:///c:":                      `\\?\c:\`,
		"file:///srv/software":            "",
		"file:///C:x/y":                   "",
		"file:///1:/x":                    "",
		"file:///C:/x:stream":             "",
		"file://files/apps/x":             `\\?\UNC\files\apps\x`,
		"file://files/apps/x:stream":      "",
		"file://files:445/apps/x":         "",
		"file://[::1]/apps/x":             "",
		"file://files/PIPE/x":             "",
		"file://files/IPC$":               "",
		"file://files/mailslot/x":         "",
	} {
		where, err := resource.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		got, err := windowsLocal(where.Path)
		if where.Host != "" {
			got, err = windowsShare(where.Host, where.Path)
		}
		if got != want || (err != nil) != (want == "") {
			t.Errorf("%s is named %s, want %s: %v", address, got, want, err)
		}
	}
}

func FuzzWindowsNames(f *testing.F) {
	for _, address := range []string{"file:///C:/x", "file://files/apps/x", "file:///C:", "file://h/pipe", "file:///C:/CON", "file:///C:/a/%3f"} {
		f.Add(address)
	}
	f.Fuzz(func(t *testing.T, address string) {
		where, err := resource.Parse(address)
		if err != nil || where.Scheme != resource.File {
			return
		}
		name, err := windowsLocal(where.Path)
		root := `\\?\`
		if where.Host != "" {
			name, err = windowsShare(where.Host, where.Path)
			root = `\\?\UNC\` + where.Host + `\`
		}
		if err != nil {
			return
		}
		rest, ok := strings.CutPrefix(name, root)
		if !ok || strings.ContainsAny(rest, "/\x00") || strings.Contains(`\`+rest+`\`, `\..\`) || strings.Count(rest, ":") > 1 {
			t.Errorf("%s is named %q", address, name)
		}
	})
}

func TestEveryAnswerOfWindowsHasAReason(t *testing.T) {
	for code, want := range map[source.Code]events.Reason{
		2: events.SourceNotFound, 3: events.SourceNotFound, 67: events.SourceNotFound, 123: events.SourceNotFound,
		5: events.NetworkAccessDenied, 65: events.NetworkAccessDenied,
		53: events.SourceUnreachable, 59: events.SourceUnreachable, 64: events.SourceUnreachable, 1231: events.SourceUnreachable, 99999: events.SourceUnreachable,
		1326: events.CredentialRejected, 1328: events.CredentialRejected, 1330: events.CredentialRejected, 1331: events.CredentialRejected, 1907: events.CredentialRejected,
		1909: events.CredentialRejected, 1793: events.CredentialRejected, 1317: events.CredentialRejected, 86: events.CredentialRejected,
		50: events.SourceUnsupported,
	} {
		if got := meanings(code); got.reason != want {
			t.Errorf("%d is %s, want %s", code, got.reason, want)
		}
	}
}

func TestAFileSystemThatDoesNotAnswerIsLeftBehind(t *testing.T) {
	path := filepath.Join(supervisetest.TempDir(t), "x")
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		awake := make(chan struct{})
		late := make(chan *os.File, 2)
		f := &fakeSystem{open: func() (*os.File, error) {
			<-awake
			file, err := os.Open(path)
			late <- file
			return file, err
		}}
		s := New(Options{Patience: time.Minute})
		s.system = f
		before := time.Now()
		_, err := s.Open(t.Context(), "file:///C:/x", source.Login{})
		wantReason(t, err, events.SourceUnreachable, "does not answer (53/")
		if waited := time.Since(before); waited != time.Minute {
			t.Errorf("waited %v", waited)
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if _, err := s.Open(ctx, "file:///C:/x", source.Login{}); !errors.Is(err, context.Canceled) {
			t.Errorf("given up: %v", err)
		}
		close(awake)
		synctest.Wait()
		// What came too late is closed.
		for range 2 {
			if err := (<-late).Close(); !errors.Is(err, fs.ErrClosed) {
				t.Errorf("close says %v", err)
			}
		}
		if len(s.calls.slots) != 0 {
			t.Errorf("%d calls are left", len(s.calls.slots))
		}
	})
}

func TestOnlySoManyCallsAreLeftBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		awake := make(chan struct{})
		c := &calls{patience: time.Minute, slots: make(chan struct{}, maxCalls)}
		var began atomic.Int32
		for range maxCalls {
			if _, err := inTime(t.Context(), c, func() (int, error) { began.Add(1); <-awake; return 0, nil }); !errors.Is(err, errSilent) {
				t.Fatal(err)
			}
		}
		_, err := inTime(t.Context(), c, func() (int, error) { began.Add(1); return 0, nil })
		if !errors.Is(err, errSilent) || !strings.Contains(err.Error(), "64 calls wait") || began.Load() != maxCalls {
			t.Errorf("%d calls: %v", began.Load(), err)
		}
		close(awake)
		synctest.Wait()
		if n, err := inTime(t.Context(), c, func() (int, error) { return 3, nil }); n != 3 || err != nil {
			t.Errorf("afterwards: %d, %v", n, err)
		}
	})
}

func wantReason(t *testing.T, err error, reason events.Reason, words string) {
	t.Helper()
	e, ok := errors.AsType[*source.Error](err)
	if !ok || e.Reason != reason || !strings.Contains(e.Answer, words) {
		t.Errorf("error %v, want %s with %q", err, reason, words)
	}
}
