package credentials

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"chandler/events"
)

// sambaUser is a user that every Debian has and nobody logs on as. In the domain of these tests, a Samba with a
// user database of its own, it is the domain's client token account.
const sambaUser = "games"

// samba is a real file server for one test, on the loopback interface.
type samba struct {
	t    *testing.T
	dir  string
	conf string
	port string
}

// need skips a test whose component is missing, or fails it where all must be there.
func need(t *testing.T, ok bool, what string) {
	t.Helper()
	switch {
	case ok:
	case os.Getenv("CHANDLER_TEST_REQUIRE") == "1":
		t.Fatal("missing: " + what)
	default:
		t.Skip("missing: " + what)
	}
}

func newSamba(t *testing.T) *samba {
	need(t, os.Geteuid() == 0, "root, for Samba to act as its users")
	for _, program := range []string{"smbd", "smbclient", "smbpasswd", "pdbedit"} {
		_, err := exec.LookPath(program)
		need(t, err == nil, program+": apt-get install samba smbclient")
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(free.Addr().String())
	free.Close()
	s := &samba{t: t, dir: t.TempDir(), port: port}
	s.conf = filepath.Join(s.dir, "smb.conf")
	share := filepath.Join(s.dir, "share")
	text := "[global]\nsmb ports = " + port + "\ninterfaces = lo\nbind interfaces only = yes\nmap to guest = Never\nserver min protocol = SMB3\nload printers = no\ndisable spoolss = yes\n" +
		"passdb backend = tdbsam:" + filepath.Join(s.dir, "private", "passdb.tdb") + "\nlog file = " + filepath.Join(s.dir, "log") + "\n"
	for _, kind := range []string{"private", "lock", "state", "cache", "pid", "ncalrpc"} {
		option := map[string]string{"private": "private dir", "lock": "lock directory", "state": "state directory", "cache": "cache directory", "pid": "pid directory", "ncalrpc": "ncalrpc dir"}[kind]
		text += option + " = " + filepath.Join(s.dir, kind) + "\n"
		if err := os.Mkdir(filepath.Join(s.dir, kind), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	text += "[software]\npath = " + share + "\nread only = yes\nvalid users = " + sambaUser + "\n"
	for path, data := range map[string]string{s.conf: text, filepath.Join(share, "before.txt"): "read before the rotation", filepath.Join(share, "after.txt"): "read after the rotation"} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// The user passes through every directory above the share.
	for dir := share; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// start runs smbd until the test ends.
func (s *samba) start() {
	s.t.Helper()
	cmd := exec.Command("smbd", "--foreground", "--no-process-group", "-s", s.conf)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // when it ends it signals its whole group
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // smbd ends its children when it ends by a signal that it knows
		_ = cmd.Wait()
	})
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := net.Dial("tcp", "127.0.0.1:"+s.port)
		if err == nil {
			conn.Close()
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			s.t.Fatalf("smbd does not listen: %v", err)
		}
	}
}

func (s *samba) run(stdin string, argv ...string) string {
	s.t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.t.Fatalf("%s: %v: %s", argv[0], err, out)
	}
	return string(out)
}

// password is what the domain does when the account's secret is changed.
func (s *samba) password(secret string) {
	s.t.Helper()
	s.run(secret+"\n"+secret+"\n", "smbpasswd", "-c", s.conf, "-s", "-a", sambaUser)
}

// badPasswords is how often somebody came with a wrong secret since the last right one.
func (s *samba) badPasswords() string {
	s.t.Helper()
	for line := range strings.Lines(s.run("", "pdbedit", "-s", s.conf, "-v", "-u", sambaUser)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "Bad password count" {
			return strings.TrimSpace(value)
		}
	}
	s.t.Fatal("pdbedit does not tell the bad password count")
	return ""
}

// session is one logon that reads file after file, as an installer would.
type session struct {
	t    *testing.T
	in   io.WriteCloser
	out  *bufio.Reader
	wait func() error
}

func (s *samba) logon(secret string) *session {
	s.t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := w.WriteString(secret + "\n"); err != nil {
		s.t.Fatal(err)
	}
	w.Close()
	cmd := exec.Command("smbclient", "//127.0.0.1/software", "-p", s.port, "-U", sambaUser, "-s", s.conf)
	cmd.Env = append(os.Environ(), "PASSWD_FD=3")
	cmd.ExtraFiles = []*os.File{r}
	in, err := cmd.StdinPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	r.Close()
	watch := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
	return &session{s.t, in, bufio.NewReader(out), func() error { defer watch.Stop(); return cmd.Wait() }}
}

// read a file of the share, and hold its text against what is expected.
func (c *session) read(file, want string) {
	c.t.Helper()
	if _, err := fmt.Fprintf(c.in, "get %s /dev/stdout\n", file); err != nil {
		c.t.Errorf("read %s: %v", file, err)
		return
	}
	var seen strings.Builder
	for !strings.Contains(seen.String(), want) {
		b, err := c.out.ReadByte()
		if err != nil {
			c.t.Errorf("read %s: %v: %s", file, err, seen.String())
			return
		}
		seen.WriteByte(b)
	}
}

func (c *session) end() error {
	c.in.Close()
	_, _ = io.Copy(io.Discard, c.out)
	return c.wait()
}

// TestTwoControllersUseOneAccountWhileItRotatesAndTheDomainSeesNoBadPassword: both log on by what they were lent,
// work on across the rotation in the sessions that they have, and log on anew by what they are lent afterwards.
func TestTwoControllersUseOneAccountWhileItRotatesAndTheDomainSeesNoBadPassword(t *testing.T) {
	s := newSamba(t)
	const first, second = secret + "-1", secret + "-2"
	s.password(first)
	s.run("", "pdbedit", "-s", s.conf, "-P", "bad lockout attempt", "-C", "5") // without it Samba does not count
	s.start()

	l := newLender(t)
	l.account("domain-token", events.ClientTokenDomain, first)
	wishes := []*wish{l.domainWish(l.controller()).offer(1), l.domainWish(l.controller()).offer(1)}
	each := func(do func(i int)) {
		var both sync.WaitGroup
		for i := range wishes {
			both.Go(func() { do(i) })
		}
		both.Wait()
	}
	lent := func(version int) (secrets []string) {
		for _, w := range wishes {
			g, got := w.again().granted()
			if g.Version != version || g.Account != "domain-token" {
				t.Errorf("lent %s version %d, want %d", g.Account, g.Version, version)
			}
			secrets = append(secrets, got)
		}
		return secrets
	}
	secrets, sessions := lent(1), make([]*session, 2)
	each(func(i int) {
		sessions[i] = s.logon(secrets[i])
		sessions[i].read("before.txt", "read before the rotation")
	})
	s.password(second)
	l.account("domain-token", events.ClientTokenDomain, second)
	each(func(i int) {
		sessions[i].read("after.txt", "read after the rotation")
		if err := sessions[i].end(); err != nil {
			t.Errorf("controller %d: %v", i, err)
		}
	})
	secrets = lent(2)
	each(func(i int) {
		again := s.logon(secrets[i])
		again.read("after.txt", "read after the rotation")
		if err := again.end(); err != nil {
			t.Errorf("controller %d: %v", i, err)
		}
	})
	if n := s.badPasswords(); n != "0" {
		t.Errorf("the domain saw %s bad passwords", n)
	}
	// The count would have told: the secret of before the rotation is wrong now.
	if err := s.logon(first).end(); err == nil {
		t.Error("the old secret is good for a new session")
	}
	if n := s.badPasswords(); n != "1" {
		t.Errorf("after one bad password the domain saw %s", n)
	}
	l.leaks()
}
