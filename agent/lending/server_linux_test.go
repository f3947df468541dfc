package lending

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"chandler/agent/source"
	"chandler/events"
)

// desk is a server for this process as supervisor of the run "/runs/1".
type desk struct {
	Options
	mu  sync.Mutex
	log bytes.Buffer
}

func (d *desk) Write(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.log.Write(p)
}

func (d *desk) logged() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.log.String()
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	dir, err := os.MkdirTemp("", "lend") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	d := &desk{}
	d.Options = Options{
		Path: filepath.Join(dir, "s"), Log: slog.New(slog.NewTextHandler(d, nil)),
		Supervisor: func(run string) (int, error) {
			if run != "/runs/1" {
				return 0, errors.New("no such run")
			}
			return os.Getpid(), nil
		},
		Lend: func(_ context.Context, dir, address string) (Loan, error) {
			if dir != "/runs/1" || address != "smb://f/a" {
				return Loan{}, &source.Error{Reason: events.NetworkAccessAccountMissing, Answer: "none for " + address}
			}
			return loan(), nil
		},
	}
	return d
}

func (d *desk) serve(t *testing.T) (stop func()) {
	t.Helper()
	s, err := Listen(d.Options)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func wantReason(t *testing.T, err error, want events.Reason) {
	t.Helper()
	if e, ok := errors.AsType[*source.Error](err); !ok || e.Reason != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

func TestASupervisorIsLentTo(t *testing.T) {
	d := newDesk(t)
	given := make(chan Loan, 2)
	inner := d.Lend
	d.Lend = func(ctx context.Context, dir, address string) (Loan, error) {
		l, err := inner(ctx, dir, address)
		given <- l
		return l, err
	}
	stop := d.serve(t)
	got, err := Dial(d.Path, "/runs/1").Login(t.Context(), "smb://f/a")
	if err != nil || string(got.Secret) != secret || got.User != `EXAMPLE\reader` || got.Version != 7 {
		t.Errorf("%v, %v", got, err)
	}
	_, err = Dial(d.Path, "/runs/1").Login(t.Context(), "smb://f/b")
	wantReason(t, err, events.NetworkAccessAccountMissing)
	stop()
	if l := <-given; !bytes.Equal(l.Secret, make([]byte, len(secret))) {
		t.Error("the server keeps the secret")
	}
	if info, err := os.Stat(filepath.Dir(d.Path)); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info, err)
	}
	if strings.Contains(d.logged(), secret) {
		t.Error(d.logged())
	}
}

func TestWhoDoesNotWatchOverTheRunIsRefusedAndLogged(t *testing.T) {
	for name, supervisor := range map[string]func(string) (int, error){
		"another process does":      func(string) (int, error) { return os.Getppid(), nil },
		"nobody does":               func(string) (int, error) { return 0, errors.New("it is over") },
		"nobody does, and no error": func(string) (int, error) { return 0, nil },
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t)
			d.Supervisor = supervisor
			d.Lend = func(context.Context, string, string) (Loan, error) {
				t.Error("it is lent")
				return loan(), nil
			}
			d.serve(t)
			_, err := Dial(d.Path, "/runs/1").Login(t.Context(), "smb://f/a")
			wantReason(t, err, events.CredentialDenied)
			if !strings.Contains(d.logged(), "is refused") {
				t.Errorf("logged %q", d.logged())
			}
		})
	}
}

func TestAnotherUserIsNotEvenAnswered(t *testing.T) {
	d := newDesk(t)
	s, err := Listen(d.Options)
	if err != nil {
		t.Fatal(err)
	}
	s.own = os.Geteuid() + 1 // as if the caller had another
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx) }()
	conn, err := net.Dial("unix", d.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.Write(request{"/runs/1", "smb://f/a"}.encode())
	if body, err := readFrame(conn); err == nil {
		t.Errorf("answered %q", body)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if !strings.Contains(d.logged(), "is refused") {
		t.Errorf("logged %q", d.logged())
	}
}

func TestACallerThatSaysNothingOrNonsenseIsInNobodysWay(t *testing.T) {
	d := newDesk(t)
	d.serve(t)
	for _, said := range [][]byte{nil, {0xff, 0xff, 0xff, 0xff}, frame(kindLoan, nil), []byte("GET / HTTP/1.1\r\n\r\n")} {
		conn, err := net.Dial("unix", d.Path)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.Write(said)
	}
	if _, err := Dial(d.Path, "/runs/1").Login(t.Context(), "smb://f/a"); err != nil {
		t.Error(err)
	}
}

func TestAClientWaitsForAnAgentThatRestarts(t *testing.T) {
	d := newDesk(t)
	asked, restart := make(chan struct{}), make(chan struct{})
	inner := d.Lend
	d.Lend = func(ctx context.Context, _, _ string) (Loan, error) { // the first agent ends while it asks
		close(asked)
		<-ctx.Done()
		return Loan{}, ctx.Err()
	}
	stop := d.serve(t)
	go func() {
		<-asked
		stop()
		close(restart)
	}()
	type result struct {
		loan Loan
		err  error
	}
	got := make(chan result)
	go func() {
		l, err := Dial(d.Path, "/runs/1").Login(t.Context(), "smb://f/a")
		got <- result{l, err}
	}()
	<-restart
	d.Lend = inner
	d.serve(t)
	if r := <-got; r.err != nil || string(r.loan.Secret) != secret {
		t.Errorf("%v, %v", r.loan, r.err)
	}
}

func TestAClientsPatienceEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		_, err := Dial(filepath.Join(os.TempDir(), "no-such-socket"), "/runs/1").Login(t.Context(), "smb://f/a")
		wantReason(t, err, events.CredentialUnavailable)
		if waited := time.Since(began); waited < time.Minute || waited > 2*time.Minute {
			t.Errorf("after %v", waited)
		}
	})
}

func TestASocketIsNotPutWhereOthersReachItNorOverAnythingElse(t *testing.T) {
	d := newDesk(t)
	if err := os.WriteFile(d.Path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := Listen(d.Options); err == nil {
		s.listener.Close()
		t.Error("a file was replaced")
	}
	if err := errors.Join(os.Remove(d.Path), os.Chmod(filepath.Dir(d.Path), 0o755)); err != nil {
		t.Fatal(err)
	}
	if s, err := Listen(d.Options); err == nil {
		s.listener.Close()
		t.Error("in a directory that is open to others")
	}
	d.Path = "s"
	if _, err := Listen(d.Options); err == nil {
		t.Error("at a relative path")
	}
}
