// Package sambatest gives tests a real file server: a Samba of their own, with users of its own, that tells who logged on,
// who opened what, and how often somebody came with a wrong secret.
//
// The machine is left as it was: smbd sees a private /etc/passwd and /etc/group in a mount namespace of its own, and all it
// writes lies in a folder that goes with the test. It needs root, samba, smbclient and util-linux; without them a test is
// skipped, or fails where CHANDLER_TEST_REQUIRE=1.
package sambatest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"chandler/events/resource"
)

// Options of a server. The zero value is one share of the name software, on the loopback interface.
type Options struct {
	Shares   []Share
	Settings []string // further lines of the section [global], such as "server min protocol = SMB2_02"
	// Listen is an IP address and port, such as 10.77.0.1:445. Empty: the loopback interface and a free port.
	Listen string
	// Prefix is put before smbd's command, such as ip netns exec NAME.
	Prefix []string
}

// Share of a server.
type Share struct {
	Name     string
	Users    []string          // who may enter; nil: everybody whom the server knows
	Files    map[string][]byte // by paths with /
	Settings []string          // further lines of its section
}

// Server is a Samba that runs until the test ends.
type Server struct {
	t      testing.TB
	o      Options
	dir    string
	listen string
	users  []string
	smbd   *exec.Cmd
	ended  chan struct{} // closed when smbd is gone
}

// Software is the name of the share that a server has whose options name none.
const Software = "software"

// unsynced makes Samba's data bases quick: they need not outlive a power failure.
const unsynced = "TDB_NO_FSYNC=1"

// firstUID of the users of a server. Nobody on a machine has such a number.
const firstUID = 61_400

// New starts a server.
func New(t testing.TB, o Options) *Server {
	t.Helper()
	need(t)
	if o.Shares == nil {
		o.Shares = []Share{{Name: Software}}
	}
	s := &Server{t: t, o: o, listen: o.Listen}
	if s.listen == "" {
		free, err := net.Listen("tcp", "127.0.0.1:0")
		s.must(err)
		s.listen = free.Addr().String()
		s.must(free.Close())
	}
	dir, err := os.MkdirTemp("", "sambatest-")
	s.must(err)
	s.dir = dir
	t.Cleanup(func() {
		s.Stop()
		os.RemoveAll(dir)
	})
	s.must(os.Chmod(dir, 0o755)) // the server's users pass through it
	for _, file := range []string{"passwd", "group"} {
		text, err := os.ReadFile("/etc/" + file)
		s.must(err)
		s.must(os.WriteFile(s.own(file), text, 0o644))
	}
	s.configure()
	s.run("", "pdbedit", "-s", s.own("smb.conf"), "-P", "bad lockout attempt", "-C", "50") // without it nothing is counted
	s.Start()
	return s
}

func need(t testing.TB) {
	t.Helper()
	why := ""
	if os.Geteuid() != 0 {
		why = "run the tests as root: Samba acts as its users"
	}
	for _, program := range []string{"smbd", "smbpasswd", "pdbedit", "net", "setsid", "unshare", "mount"} {
		if _, err := exec.LookPath(program); err != nil && why == "" {
			why = "apt-get install samba smbclient util-linux: " + program + " is missing"
		}
	}
	switch {
	case why == "":
	case os.Getenv("CHANDLER_TEST_REQUIRE") == "1":
		t.Fatal(why)
	default:
		t.Skip(why)
	}
}

func (s *Server) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// own is a file of the server's folder.
func (s *Server) own(parts ...string) string {
	return filepath.Join(append([]string{s.dir}, parts...)...)
}

// configure writes smb.conf and the shares' files.
func (s *Server) configure() {
	s.t.Helper()
	host, port, err := net.SplitHostPort(s.listen)
	s.must(err)
	var text bytes.Buffer
	fmt.Fprintf(&text, "[global]\nsmb ports = %s\ninterfaces = %s\nbind interfaces only = yes\ndisable netbios = yes\n", port, host)
	text.WriteString("map to guest = Never\nserver min protocol = SMB2_02\nload printers = no\nprinting = bsd\ndisable spoolss = yes\n")
	fmt.Fprintf(&text, "passdb backend = tdbsam:%s\nlog file = %s\nmax log size = 0\nlog level = 1 auth_audit:3\n", s.own("private", "passdb.tdb"), s.own("log"))
	text.WriteString("full_audit:syslog = false\nfull_audit:prefix = " + auditMark + "|%u|%S\nfull_audit:success = connect create_file\nfull_audit:failure = connect create_file\n")
	for option, folder := range map[string]string{
		"private dir": "private", "lock directory": "lock", "state directory": "state", "cache directory": "cache", "pid directory": "pid", "ncalrpc dir": "ncalrpc",
	} {
		s.must(os.Mkdir(s.own(folder), 0o755))
		fmt.Fprintf(&text, "%s = %s\n", option, s.own(folder))
	}
	text.WriteString(strings.Join(s.o.Settings, "\n") + "\n")
	for _, share := range s.o.Shares {
		fmt.Fprintf(&text, "[%s]\npath = %s\nread only = yes\nvfs objects = full_audit\n", share.Name, s.Dir(share.Name))
		if share.Users != nil {
			fmt.Fprintf(&text, "valid users = %s\n", strings.Join(share.Users, " "))
		}
		text.WriteString(strings.Join(share.Settings, "\n") + "\n")
		s.must(os.MkdirAll(s.Dir(share.Name), 0o755))
		for path, data := range share.Files {
			s.Write(share.Name, path, data)
		}
	}
	s.must(os.WriteFile(s.own("smb.conf"), text.Bytes(), 0o644))
}

// private is a command that sees the server's users.
func (s *Server) private(argv ...string) []string {
	script := `mount --bind "$1" /etc/passwd && mount --bind "$2" /etc/group && shift 2 && exec "$@"`
	return append([]string{"unshare", "--mount", "sh", "-c", script, "sh", s.own("passwd"), s.own("group")}, argv...)
}

// Start runs the server, which is stopped.
func (s *Server) Start() {
	s.t.Helper()
	// In a session of its own: when smbd ends it signals its whole group.
	argv := slices.Concat(s.o.Prefix, []string{"setsid"}, s.private("smbd", "--foreground", "--no-process-group", "-s", s.own("smb.conf")))
	var said bytes.Buffer
	s.smbd = exec.Command(argv[0], argv[1:]...)
	s.smbd.Env = append(s.smbd.Environ(), unsynced)
	s.smbd.Stdout, s.smbd.Stderr = &said, &said
	s.smbd.WaitDelay = 10 * time.Second
	s.must(s.smbd.Start())
	s.ended = make(chan struct{})
	go func() {
		_ = s.smbd.Wait()
		close(s.ended)
	}()
	patience := time.After(30 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !listens(s.t, s.smbd.Process.Pid, s.listen) {
		select {
		case <-tick.C:
		case <-s.ended:
			s.t.Fatalf("smbd ended: %s%s", said.String(), s.log())
		case <-patience:
			s.t.Fatalf("smbd does not listen: %s", s.log())
		}
	}
}

// listens says whether a process listens at the port of an address, in whatever network it is.
func listens(t testing.TB, pid int, address string) bool {
	t.Helper()
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range []string{"tcp", "tcp6"} {
		table, _ := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, family))
		for line := range strings.Lines(string(table)) {
			// number, local address, remote address, state: 0A is listening
			if f := strings.Fields(line); len(f) > 3 && f[3] == "0A" && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", number)) {
				return true
			}
		}
	}
	return false
}

func (s *Server) log() string {
	text, err := os.ReadFile(s.own("log"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		s.t.Fatal(err)
	}
	return string(text)
}

// Stop ends the server and its connections, if it runs.
func (s *Server) Stop() {
	if s.smbd == nil {
		return
	}
	_ = s.smbd.Process.Signal(syscall.SIGTERM) // at which it ends its children too
	<-s.ended
	s.smbd = nil
}

// run runs one of Samba's tools, which must succeed.
func (s *Server) run(stdin string, argv ...string) string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	all := s.private(argv...)
	cmd := exec.CommandContext(ctx, all[0], all[1:]...)
	cmd.Stdin = strings.NewReader(stdin)
	cmd.Env = append(cmd.Environ(), unsynced)
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.t.Fatalf("%s: %v: %s", argv[0], err, out)
	}
	return string(out)
}

// Host is what addresses name: an IP address and port, without the port if it is 445.
func (s *Server) Host() string { return strings.TrimSuffix(s.listen, ":445") }

// Address is that of a share, or of a path in it.
func (s *Server) Address(share, path string) string {
	r := resource.Resource{Scheme: resource.SMB, Host: s.Host(), Path: "/" + share}
	if path != "" {
		r = r.Join(path)
	}
	return r.String()
}

// Dir is where a share's files are on this machine.
func (s *Server) Dir(share string) string { return s.own("shares", share) }

// Write puts a file into a share, over what is there; everybody may read it.
func (s *Server) Write(share, path string, data []byte) {
	s.t.Helper()
	name := filepath.Join(s.Dir(share), filepath.FromSlash(path))
	s.must(os.MkdirAll(filepath.Dir(name), 0o755))
	s.must(os.WriteFile(name, data, 0o644))
}

// Deny takes a file or folder of a share away from a user, or from everybody if user is empty.
func (s *Server) Deny(share, path, user string) {
	s.t.Helper()
	name := filepath.Join(s.Dir(share), filepath.FromSlash(path))
	if user == "" {
		s.must(os.Chmod(name, 0))
		return
	}
	// Whoever owns a file is judged by the owner's rights alone.
	s.must(os.Chown(name, firstUID+slices.Index(s.users, user), -1))
	s.must(os.Chmod(name, 0o055))
}
