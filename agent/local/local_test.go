package local

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// serve gives the socket of a server that knows one item.
func serve(t *testing.T, change func(*Options)) (path string) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("nothing says who asks on this system: there is no socket")
	}
	dir, err := os.MkdirTemp("", "local") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(dir, "agent.sock")
	o := Options{Path: path, Log: slog.New(slog.DiscardHandler),
		List:  func(Caller) []Item { return []Item{{Deployment: "hello", Package: "hello", Version: "1"}} },
		Start: func(_ context.Context, c Caller, name string) (string, error) { return c.Name + " starts " + name, nil }}
	if change != nil {
		change(&o)
	}
	s, err := Listen(o)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { ended <- s.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		os.RemoveAll(dir)
	})
	return path
}

func TestAUserListsAndStarts(t *testing.T) {
	var who Caller
	path := serve(t, func(o *Options) {
		o.Start = func(_ context.Context, c Caller, name string) (string, error) { who = c; return "starts " + name, nil }
	})
	items, err := List(t.Context(), path)
	if diff := cmp.Diff([]Item{{Deployment: "hello", Package: "hello", Version: "1"}}, items); diff != "" || err != nil {
		t.Fatal(err, diff)
	}
	words, err := Start(t.Context(), path, "hello")
	if err != nil || words != "starts hello" {
		t.Fatalf("%q, %v", words, err)
	}
	if who.Root != (os.Geteuid() == 0) || who.Name == "" {
		t.Errorf("the caller is %+v", who)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o666 {
		t.Errorf("not every user may ask: %v, %v", st.Mode(), err)
	}
}

func TestWhyTheAgentRefusesIsSaidAndWhatWentWrongInItIsNot(t *testing.T) {
	path := serve(t, func(o *Options) {
		o.Start = func(_ context.Context, _ Caller, name string) (string, error) {
			if name == "old" {
				return "", &Refused{"it ran before"}
			}
			return "", errors.New("disk /secret is full")
		}
	})
	_, err := Start(t.Context(), path, "old")
	if refused, ok := errors.AsType[*Refused](err); !ok || refused.Why != "it ran before" {
		t.Errorf("%v", err)
	}
	if _, err := Start(t.Context(), path, "broken"); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("%v", err)
	}
}

func TestWhatBreaksABoundIsCutOff(t *testing.T) {
	path := serve(t, nil)
	for name, said := range map[string]string{
		"a line without an end":   strings.Repeat("x", maxRequest+1),
		"what is no request":      "hello\n",
		"a verb that there isn't": `{"verb":"stop","name":"hello"}` + "\n",
		"a start of nothing":      `{"verb":"start"}` + "\n",
		"a name that is too long": `{"verb":"start","name":"` + strings.Repeat("x", maxName+1) + `"}` + "\n",
	} {
		conn, err := dial(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(requestLimit))
		if _, err := conn.Write([]byte(said)); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var got bytes.Buffer
		got.ReadFrom(conn) // an end of the connection is an answer, too
		if got.Len() > 0 && !strings.Contains(got.String(), "not understood") {
			t.Errorf("%s is answered: %s", name, got.String())
		}
		conn.Close()
	}
}

func TestOneUserCannotKeepTheOthersOut(t *testing.T) {
	now := time.Date(2026, 12, 1, 8, 0, 0, 0, time.UTC)
	s := &Server{Options: Options{Clock: func() time.Time { return now }}, users: map[string]*usage{}}
	for range maxCallsOfUser {
		if !s.enter("1000") {
			t.Fatal("refused within bounds")
		}
	}
	if s.enter("1000") {
		t.Error("one user has more calls at once than are allowed")
	}
	if !s.enter("1001") {
		t.Error("another user is kept out")
	}
	for range maxCallsOfUser {
		s.leave("1000")
	}
	allowed := maxCallsOfUser
	for s.enter("1000") {
		allowed++
		s.leave("1000")
	}
	if allowed != maxCallsPerMin {
		t.Errorf("%d calls in a minute", allowed)
	}
	if now = now.Add(time.Minute); !s.enter("1000") {
		t.Error("refused in the next minute, too")
	}
	for i := range maxUsersCounted * 2 {
		s.enter(string(rune('a' + i)))
	}
	if len(s.users) > maxUsersCounted {
		t.Errorf("%d users are counted", len(s.users))
	}
}

func TestASocketIsTakenOverFromTheDeadAlone(t *testing.T) {
	path := serve(t, nil)
	if _, err := Listen(Options{Path: path}); err == nil || !strings.Contains(err.Error(), "another agent") {
		t.Errorf("taken from a running agent: %v", err)
	}
	dir := filepath.Dir(path)
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(Options{Path: file}); err == nil {
		t.Error("a file is taken for a socket")
	}
	open := filepath.Join(dir, "open")
	if err := os.Mkdir(open, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(Options{Path: filepath.Join(open, "s")}); err == nil {
		t.Error("a socket is made where others could replace it")
	}
	left := filepath.Join(dir, "left")
	l, err := listen(left)
	if err != nil {
		t.Fatal(err)
	}
	l.(interface{ SetUnlinkOnClose(bool) }).SetUnlinkOnClose(false)
	l.Close()
	if l, err = listen(left); err != nil {
		t.Fatalf("what an ended agent left: %v", err)
	}
	l.Close()
}

func FuzzRequest(f *testing.F) {
	f.Add([]byte(`{"verb":"start","name":"hello"}`))
	f.Add([]byte(`{"verb":"list"}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := parseRequest(line)
		if err != nil {
			return
		}
		if len(r.Name) > maxName || r.Verb != verbList && r.Verb != verbStart || r.Verb == verbStart && r.Name == "" {
			t.Fatalf("%+v", r)
		}
	})
}
