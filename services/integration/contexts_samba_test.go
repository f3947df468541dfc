package integration

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// domain is a Samba on the loopback interface, with a user database of its own that knows one user: it says who came
// with a wrong secret.
type domain struct {
	t    *testing.T
	dir  string
	port string
	user string
}

// localUser is who the domain's user is on this machine. Every Debian has it and nobody logs on as it.
const localUser = "games"

// domainConfiguration is that of a domain in a directory, at a port.
const domainConfiguration = `[global]
smb ports = %[2]s
interfaces = lo
bind interfaces only = yes
map to guest = Never
server min protocol = SMB3
load printers = no
disable spoolss = yes
username map = %[1]s/users
passdb backend = tdbsam:%[1]s/private/passdb.tdb
log file = %[1]s/log
private dir = %[1]s/private
lock directory = %[1]s/lock
state directory = %[1]s/state
cache directory = %[1]s/cache
pid directory = %[1]s/pid
ncalrpc dir = %[1]s/ncalrpc
[software]
path = /usr/share/common-licenses
read only = yes
valid users = ` + localUser + `
`

// newDomain starts a domain with one user, until the test ends.
func newDomain(t *testing.T, user, secret string) *domain {
	t.Helper()
	if os.Geteuid() != 0 {
		lacking(t, "Samba acts as its users, for which it must be root")
	}
	for _, program := range []string{"setsid", "smbd", "smbclient", "smbpasswd", "pdbedit"} {
		if _, err := exec.LookPath(program); err != nil {
			lacking(t, "a domain needs "+program+": apt-get install samba smbclient")
		}
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	_, port, err := net.SplitHostPort(free.Addr().String())
	must(t, err)
	must(t, free.Close())
	d := &domain{t: t, dir: t.TempDir(), port: port, user: user}
	for _, name := range []string{"private", "lock", "state", "cache", "pid", "ncalrpc"} {
		must(t, os.Mkdir(filepath.Join(d.dir, name), 0o755))
	}
	must(t, os.WriteFile(d.config(), fmt.Appendf(nil, domainConfiguration, d.dir, port), 0o644))
	must(t, os.WriteFile(filepath.Join(d.dir, "users"), fmt.Appendf(nil, "%s = %q\n", localUser, user), 0o644))
	d.setSecret(secret)
	d.run("", "pdbedit", "-s", d.config(), "-P", "bad lockout attempt", "-C", "5") // without it nothing is counted

	// In a group of its own: when it ends it signals the whole of it.
	smbd := exec.Command("setsid", "smbd", "--foreground", "--no-process-group", "-s", d.config())
	must(t, smbd.Start())
	t.Cleanup(func() {
		_ = smbd.Process.Signal(syscall.SIGTERM) // at which it ends its children too
		_ = smbd.Wait()
	})
	eventually(t, "the domain listens", func() bool {
		conn, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err != nil {
			return false
		}
		return conn.Close() == nil
	})
	return d
}

func (d *domain) config() string { return filepath.Join(d.dir, "smb.conf") }

func (d *domain) run(stdin string, argv ...string) string {
	d.t.Helper()
	cmd := exec.CommandContext(d.t.Context(), argv[0], argv[1:]...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		d.t.Fatalf("%s: %v: %s", argv[0], err, out)
	}
	return string(out)
}

// setSecret changes the user's secret in the domain.
func (d *domain) setSecret(secret string) {
	d.t.Helper()
	d.run(secret+"\n"+secret+"\n", "smbpasswd", "-c", d.config(), "-s", "-a", localUser)
}

// reads says whether the user gets at a file of the domain by this secret.
func (d *domain) reads(user, secret string) bool {
	d.t.Helper()
	file := filepath.Join(d.t.TempDir(), "credentials")
	must(d.t, os.WriteFile(file, fmt.Appendf(nil, "username = %s\npassword = %s\n", user, secret), 0o600))
	out, err := exec.CommandContext(d.t.Context(), "smbclient", "//127.0.0.1/software", "-p", d.port, "-s", d.config(), "-A", file, "-c", "get GPL-3 /dev/null").CombinedOutput()
	if err != nil && !strings.Contains(string(out), "NT_STATUS_LOGON_FAILURE") {
		d.t.Fatalf("smbclient: %v: %s", err, out)
	}
	return err == nil
}

// badPasswords is how often somebody came with a wrong secret since the last right one.
func (d *domain) badPasswords() string {
	d.t.Helper()
	for line := range strings.Lines(d.run("", "pdbedit", "-s", d.config(), "-v", "-u", localUser)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "Bad password count" {
			return strings.TrimSpace(value)
		}
	}
	d.t.Fatal("pdbedit does not tell the bad password count")
	return ""
}
