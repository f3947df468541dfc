// Package sourcetest says what a reader of external sources must do, as a test that every source passes.
//
// The source's own test serves files the way that its addresses are served (a Server) and calls Run. What is checked:
// whole files and any part of them, from one goroutine and from several; folders; that every fault has its reason and
// its code and is no short file; that one opening tries one login once; that a login without a user never leaves the
// machine; that opening and reading end with their context and after silence; that no secret is in errors, and that
// nothing is left running.
package sourcetest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"chandler/agent/source"
	"chandler/events"
	"chandler/events/resource"
)

// Fault is what is wrong with a server, a file of it, or the login that comes with it.
type Fault string

// The faults.
const (
	None        Fault = "none"
	NoShare     Fault = "no share"     // the address' share, or whatever is the root of its paths, does not exist
	Denied      Fault = "denied"       // the login is good and may not read the files
	DeniedRoot  Fault = "denied root"  // the login is good and may not enter the share at all
	WrongSecret Fault = "wrong secret" // the account's secret is another
	NoUser      Fault = "no user"      // there is no such account
	Disabled    Fault = "disabled"     // the account is disabled, the secret is right
	MustChange  Fault = "must change"  // the account must change its secret first
	Locked      Fault = "locked"       // the account was locked after too many wrong secrets
	Outdated    Fault = "outdated"     // the account has expired
	Unreachable Fault = "unreachable"  // nobody listens at the address
	Mute        Fault = "mute"         // somebody accepts connections and never says a word
	Slow        Fault = "slow"         // bytes come in pieces, with pauses shorter than the source's patience
	Silent      Fault = "silent"       // after half of the file's bytes nothing comes and nothing ends
	Cut         Fault = "cut"          // after half of the file's bytes the connection breaks, once
	Changed     Fault = "changed"      // Change writes over the file, in the same size
	Shortened   Fault = "shortened"    // Change cuts the file to a quarter
	Replaced    Fault = "replaced"     // Change puts another file of another size in its place
)

// Server is how a test serves files.
type Server struct {
	// Source to be tested, with a patience of at most two seconds.
	Source source.Source
	// Folders says that the source has folders that can be listed.
	Folders bool
	// Serve makes files (by paths relative to a root) available with a fault, until the test ends. ok is false where the
	// kind of source cannot have the fault.
	Serve func(t *testing.T, files map[string][]byte, fault Fault) (served Served, ok bool)
	// Settle ends what the source keeps for later openings; nil if it keeps nothing.
	Settle func()
}

// Served is what was served.
type Served struct {
	Root     string       // the address of the root, as [resource.Resource.String] spells it
	Login    source.Login // who reads; the zero login where the kind of source knows no accounts
	Logons   func() int   // how often somebody logged on, or tried to, since it was served; nil where there are no accounts
	Contacts func() int   // how often somebody connected since it was served; nil where there are no accounts
	Change   func()       // does to the large file what the fault says; nil for other faults
}

// large is the file that faults in the middle of reading are about.
const large = "software/setup.bin"

// odd is a name whose every character must come through.
const odd = "software/My App/a%20b#ü+c.txt"

// Run tests a source.
func Run(t *testing.T, s Server) {
	files := Files()
	t.Run("whole files arrive as they are", func(t *testing.T) { s.whole(t, files) })
	t.Run("reading begins and ends anywhere", func(t *testing.T) { s.offsets(t, files) })
	t.Run("several read at once", func(t *testing.T) { s.concurrent(t, files) })
	t.Run("folders are listed", func(t *testing.T) { s.folders(t, files) })
	t.Run("slow is not wrong", func(t *testing.T) {
		o := s.open(t, s.serve(t, files, Slow), large)
		wantBytes(t, o, files[large])
	})
	t.Run("each fault has its reason and its code", func(t *testing.T) { s.faults(t, files) })
	t.Run("silence ends with the source's patience", func(t *testing.T) { s.silence(t, files) })
	t.Run("what was cut is resumed by opening again", func(t *testing.T) { s.cut(t, files) })
	t.Run("a file that changes is never a mixture", func(t *testing.T) { s.changes(t, files) })
	t.Run("opening and reading end with their context", func(t *testing.T) { s.cancelled(t, files) })
	t.Run("a secret without a user is tried nowhere", func(t *testing.T) { s.noUser(t, files) })
	t.Run("closing ends everything", func(t *testing.T) { s.closed(t, files) })
}

// Files are those that Run serves: more than one block and no multiple of anything, none at all, and an odd name.
func Files() map[string][]byte {
	return map[string][]byte{large: random(1, events.BlockSize+events.BlockSize/2+17), "software/empty": {}, odd: []byte("x")}
}

func (s Server) serve(t *testing.T, files map[string][]byte, fault Fault) Served {
	t.Helper()
	served, ok := s.Serve(t, files, fault)
	if !ok {
		t.Skipf("this kind of source cannot have the fault: %s", fault)
	}
	return served
}

// address of a file below the root.
func (v Served) address(t *testing.T, path string) string {
	t.Helper()
	root, err := resource.Parse(v.Root)
	if err != nil {
		t.Fatalf("root %q: %v", v.Root, err)
	}
	if path == "" {
		return root.String()
	}
	return root.Join(path).String()
}

// tryOpen opens, and checks what is true of every error and of every login.
func (s Server) tryOpen(t *testing.T, ctx context.Context, v Served, path string) (source.Object, error) {
	t.Helper()
	secret := bytes.Clone(v.Login.Secret)
	o, err := s.Source.Open(ctx, v.address(t, path), v.Login)
	if !bytes.Equal(secret, v.Login.Secret) {
		t.Error("the source changed a secret that is not its own")
	}
	v.clean(t, err)
	if err == nil {
		t.Cleanup(func() { o.Close() })
	}
	return o, err
}

func (s Server) open(t *testing.T, v Served, path string) source.Object {
	t.Helper()
	o, err := s.tryOpen(t, t.Context(), v, path)
	if err != nil {
		t.Fatalf("open %s: %v", path, err)
	}
	return o
}

// clean checks that an error tells no secret.
func (v Served) clean(t *testing.T, err error) {
	t.Helper()
	for e := err; e != nil; e = errors.Unwrap(e) {
		if len(v.Login.Secret) > 0 && strings.Contains(e.Error(), string(v.Login.Secret)) {
			t.Error("the secret is in the error")
		}
	}
}

func wantReason(t *testing.T, err error, reason events.Reason) *source.Error {
	t.Helper()
	e, ok := errors.AsType[*source.Error](err)
	if !ok {
		t.Errorf("error %v, want one with reason %s", err, reason)
		return &source.Error{}
	}
	if e.Reason != reason || e.Answer == "" {
		t.Errorf("reason %s, answer %q, want %s: %v", e.Reason, e.Answer, reason, e.Err)
	}
	return e
}

func wantBytes(t *testing.T, o source.Object, want []byte) {
	t.Helper()
	got, err := read(t.Context(), o, 0)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("read %d bytes, want %d: %v", len(got), len(want), err)
	}
}

// read reads from an offset to the end, in pieces as a copy does, and once more beyond the end.
func read(ctx context.Context, o source.Object, offset int64) (got []byte, err error) {
	p := make([]byte, 128<<10)
	for {
		n, err := o.ReadAt(ctx, p, offset+int64(len(got)))
		got = append(got, p[:n]...)
		switch {
		case err == nil && n < len(p):
			return got, errors.New("fewer bytes than asked for, and no error")
		case errors.Is(err, io.EOF):
			return got, nil
		case err != nil:
			return got, err
		}
	}
}

// within fails a test that takes longer than anything here may.
func within(t *testing.T, what string, do func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); do() }()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatalf("%s does not end", what)
	}
}

func random(seed byte, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}
