//go:build unix

package asuser

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"chandler/agent/execute"
	"chandler/agent/logon"
	"chandler/agent/source"
	"chandler/agent/source/filesource"
	"chandler/agent/source/smbsource"
	"chandler/agent/source/sourcetest"
	"chandler/agent/supervise"
	"chandler/events"
	"chandler/events/resource"
)

const (
	testPatience = time.Second
	asReader     = "read-as-user"
	asForker     = "fork-and-stay"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == asReader {
		own := sourceFunc(func(context.Context, string, source.Login) (source.Object, error) { return aboutSelf() })
		err := Main(os.Stdin, os.Stdout, map[string]source.Source{"file": filesource.New(filesource.Options{Patience: testPatience}), "smb": smbsource.New(smbsource.Options{}), "s3": own})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if len(os.Args) == 2 && os.Args[1] == asForker {
		select {} // deaf, and not to be ended but by force
	}
	os.Exit(m.Run())
}

// aboutSelf is a file that tells about the process that reads it.
func aboutSelf() (source.Object, error) {
	status, _ := os.ReadFile("/proc/self/status")
	dir, _ := os.Getwd()
	var core syscall.Rlimit
	syscall.Getrlimit(syscall.RLIMIT_CORE, &core)
	groups, _ := os.Getgroups()
	text := fmt.Sprintf("pid %d\nuid %d\ngid %d\ngroups %v\ndir %s\ncore %d %d\nenv %q\n%s", os.Getpid(), os.Getuid(), os.Getgid(), groups, dir, core.Cur, core.Max, os.Environ(), status)
	m := &memory{files: map[string][]byte{"self": []byte(text)}}
	return m.Open(context.Background(), "s3://h/self", source.Login{})
}

// program is this test, where every user may execute it.
func program(t *testing.T, mode string) []string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(publicDir(t), "reader")
	if err := os.WriteFile(path, data, 0o755); err != nil {
		t.Fatal(err)
	}
	return []string{path, mode}
}

// publicDir is one that every user may pass.
func publicDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "asuser-")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// games is a user that every machine has and nobody uses.
type games struct{}

const gamesID = 5

func (games) Prepare(context.Context, execute.Request) (execute.Prepared, error) {
	return execute.Prepared{Executor: "games", Credential: &supervise.Credential{UID: gamesID, GID: 60, Groups: []uint32{60}}, Env: []string{"HOME=/nonexistent", "PATH=/usr/bin", "XDG_SESSION_ID=c1"}}, nil
}

// asGames reads as another user, for which the test must be root.
func asGames(t *testing.T, mode string) *Source {
	t.Helper()
	needRoot(t)
	return newSource(t, Options{Program: program(t, mode), Session: logon.Session{User: "games", UID: gamesID}, Runner: games{}, Patience: 5 * time.Second})
}

func needRoot(t *testing.T) {
	t.Helper()
	switch {
	case os.Geteuid() == 0:
	case os.Getenv("CHANDLER_TEST_REQUIRE") == "1":
		t.Fatal("run as root")
	default:
		t.Skip("run as root")
	}
}

func newSource(t *testing.T, o Options) *Source {
	t.Helper()
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestReadingAsAUserIsASource(t *testing.T) {
	sourcetest.Run(t, sourcetest.Server{Source: asGames(t, asReader), Folders: true, Serve: serveFiles})
}

func serveFiles(t *testing.T, files map[string][]byte, fault sourcetest.Fault) (sourcetest.Served, bool) {
	dir := publicDir(t)
	for name, data := range files {
		write(t, filepath.Join(dir, name), data)
	}
	served := sourcetest.Served{Root: addressOf(dir)}
	const large = "software/setup.bin"
	path := filepath.Join(dir, large)
	switch fault {
	case sourcetest.None:
	case sourcetest.NoShare:
		served.Root = addressOf(filepath.Join(dir, "nothing"))
	case sourcetest.Denied:
		chmod(t, path, 0o600)
	case sourcetest.DeniedRoot:
		chmod(t, dir, 0o700)
	case sourcetest.Changed:
		served.Change = func() {
			write(t, path, bytes.Repeat([]byte{7}, len(files[large])))
			if err := os.Chtimes(path, time.Time{}, time.Now().Add(time.Hour)); err != nil {
				t.Error(err)
			}
		}
	case sourcetest.Shortened:
		served.Change = func() { write(t, path, files[large][:len(files[large])/4]) }
	default:
		return served, false
	}
	return served, true
}

func addressOf(path string) string {
	return resource.Resource{Scheme: resource.File, Path: path}.String()
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = os.WriteFile(path, data, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func chmod(t *testing.T, path string, mode os.FileMode) {
	t.Helper()
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

// about asks the reader about itself.
func about(t *testing.T, s *Source) (text string, lines map[string]string) {
	t.Helper()
	o, err := s.Open(t.Context(), "s3://h/self", source.Login{})
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	data := make([]byte, o.Info().Size)
	if _, err := o.ReadAt(t.Context(), data, 0); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	lines = map[string]string{}
	for line := range strings.Lines(string(data)) {
		name, value, _ := strings.Cut(strings.Replace(line, ":\t", " ", 1), " ")
		lines[name] = strings.TrimSpace(value)
	}
	return string(data), lines
}

func TestTheReaderIsTheUserAndHasNothingOfTheAgents(t *testing.T) {
	t.Setenv("AGENTS_SECRET", "hunter2")
	text, is := about(t, asGames(t, asReader))
	want := map[string]string{"uid": "5", "gid": "60", "groups": "[60]", "dir": "/", "core": "0 0", "env": `["HOME=/nonexistent" "PATH=/usr/bin" "XDG_SESSION_ID=c1"]`}
	if runtime.GOOS == "linux" {
		want["NoNewPrivs"], want["CapEff"], want["CapPrm"] = "1", "0000000000000000", "0000000000000000"
	}
	for name, value := range want {
		if is[name] != value {
			t.Errorf("%s is %q, want %q", name, is[name], value)
		}
	}
	if strings.Contains(text, "hunter2") {
		t.Error("the agent's environment is there")
	}
}

func TestTheAgentItselfKeepsItsRights(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux takes any away")
	}
	for range 5 {
		about(t, asGames(t, asReader))
	}
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			status, err := exec.Command("cat", "/proc/self/status").Output()
			if err != nil || !bytes.Contains(status, []byte("NoNewPrivs:\t0")) {
				t.Errorf("a program of the agent has lost rights: %v", err)
			}
		})
	}
	all.Wait()
}

func TestTheUsersOwnSessionIsReadAs(t *testing.T) {
	needRoot(t)
	own := logon.Session{User: "root", UID: 0}
	_, is := about(t, newSource(t, Options{Program: program(t, asReader), Session: own}))
	if is["uid"] != "0" || !strings.Contains(is["env"], `"USER=root"`) || !strings.Contains(is["env"], `"HOME=/root"`) {
		t.Errorf("uid %s, env %s", is["uid"], is["env"])
	}
	nobody := newSource(t, Options{Program: program(t, asReader), Session: logon.Session{User: "no-such-user", UID: 4711}})
	_, err := nobody.Open(t.Context(), "s3://h/self", source.Login{})
	wantReason(t, err, events.AccountUnusable, "no-such-user")
}

func TestAReaderThatDiesIsReplaced(t *testing.T) {
	s := asGames(t, asReader)
	path := filepath.Join(publicDir(t), "x")
	write(t, path, []byte("x"))
	o, err := s.Open(t.Context(), addressOf(path), source.Login{})
	if err != nil {
		t.Fatal(err)
	}
	_, is := about(t, s)
	kill(t, is["pid"], syscall.SIGKILL)
	_, err = o.ReadAt(t.Context(), make([]byte, 1), 0)
	wantReason(t, err, events.SourceUnreachable, "it ended")
	_, again := about(t, s)
	if again["pid"] == is["pid"] {
		t.Error("it is the same process")
	}
	o.Close()
}

func kill(t *testing.T, pid string, signal syscall.Signal) {
	t.Helper()
	var number int
	if _, err := fmt.Sscan(pid, &number); err != nil || number < 2 {
		t.Fatalf("process %q", pid)
	}
	if err := syscall.Kill(number, signal); err != nil {
		t.Fatal(err)
	}
}

func TestTheReaderEndsWithItsAgentAndWithClose(t *testing.T) {
	for name, end := range map[string]func(s *Source){
		"the agent is gone": func(s *Source) { s.talk.input.Close() }, // as the kernel closes it
		"it is closed":      func(s *Source) { s.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			s := asGames(t, asReader)
			about(t, s)
			end(s)
			<-s.talk.gone
			if err := s.talk.failure(); err == nil {
				t.Error("it goes on")
			}
		})
	}
	s := asGames(t, asForker)
	ctx, cancel := context.WithCancel(t.Context())
	go cancel()
	if _, err := s.Open(ctx, "s3://h/self", source.Login{}); !errors.Is(err, context.Canceled) {
		t.Errorf("error: %v", err)
	}
	began := time.Now()
	s.Close()
	if took := time.Since(began); took > 3*grace {
		t.Errorf("a deaf reader takes %v", took)
	}
	_, err := s.Open(t.Context(), "s3://h/self", source.Login{})
	wantReason(t, err, events.OtherReason, "closed")
}

func TestWhatCannotBeReadAsAUserIsSaid(t *testing.T) {
	s := newSource(t, Options{Program: []string{filepath.Join(t.TempDir(), "nothing")}, Session: logon.Session{User: "games"}, Runner: games{}})
	_, err := s.Open(t.Context(), "smb://files/s/x", source.Login{})
	wantReason(t, err, events.CouldNotStart, "the reader of user games does not start: ")
	_, err = s.Open(t.Context(), "smb://files/s/x", source.Login{User: "x", Secret: []byte("hunter2")})
	wantReason(t, err, events.SourceUnsupported, "by no other account")
	for _, address := range []string{"x", "http://files/x", (&url.URL{Scheme: "smb", Host: "h", Path: "/a/../b"}).String()} {
		_, err = s.Open(t.Context(), address, source.Login{})
		wantReason(t, err, events.SourceUnsupported, "not an address")
	}
	for name, o := range map[string]Options{"no program": {Session: logon.Session{User: "x"}}, "a program somewhere": {Program: []string{"x"}, Session: logon.Session{User: "x"}}, "nobody": {Program: []string{"/x"}}} {
		if _, err := New(o); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}
