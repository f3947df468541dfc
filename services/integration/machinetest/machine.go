package machinetest

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

//go:embed machine.sh
var machineScript string

// stopTimeout is how long what is left of a machine may keep its console open.
const stopTimeout = 10 * time.Second

// names are those that are a host name and a machine name of systemd's.
var names = regexp.MustCompile(`^[a-z][a-z0-9]{0,31}$`)

// Machine is one booted machine.
type Machine struct {
	Name    string // its host name
	Address string // IPv4, on the lab's network

	t testing.TB
	*container
}

// container is what runs a machine, the same for every test that looks at it.
type container struct {
	ns    *holder // of its network
	dir   string  // its files and, by its last element, its control groups
	boots boots
	stop  func() // may be called again

	logons int // so far
}

// Start boots a machine with Debian's minimal system, sudo and systemd, and waits until all its services
// have started. The name, [a-z][a-z0-9]*, is its host name. It is stopped when the test ends.
func (l *Lab) Start(name string) *Machine {
	l.t.Helper()
	if !names.MatchString(name) || l.machines == maxMachines {
		l.t.Fatalf("machine %q: the name must match %s, and a lab has room for %d machines", name, names, maxMachines)
	}
	l.machines++
	m := &Machine{Name: name, Address: network + strconv.Itoa(firstMachine+l.machines), t: l.t, container: &container{ns: newNetwork(l.t)}}
	l.join(m.ns, "v"+strconv.Itoa(l.machines), m.Address)
	m.boot(l.base)
	return m
}

// For gives the same machine to a part of the test: what fails there fails that part.
func (m *Machine) For(t testing.TB) *Machine {
	part := *m
	part.t = t
	return &part
}

// boot runs machine.sh, which holds the machine until its standard input ends and then cleans up.
func (m *Machine) boot(base string) {
	m.t.Helper()
	// Not the test's directory: the path of a socket must be short, and machine.sh removes it.
	var err error
	if m.dir, err = os.MkdirTemp("", "chandler-machine-"); err != nil {
		m.t.Fatal(err)
	}
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(m.dir, "notify"), Net: "unixgram"})
	if err != nil {
		m.t.Fatal(err)
	}
	var console bytes.Buffer
	cmd := exec.Command("setsid", "unshare", "--mount", "--propagation", "private", "sh", "-euc", machineScript, "sh", base, m.dir, m.Name, m.ns.pid())
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+filepath.Join(m.dir, "notify"))
	cmd.Stdout, cmd.Stderr = &console, &console
	cmd.WaitDelay = stopTimeout
	stdin, err := cmd.StdinPipe()
	if err != nil {
		m.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		m.t.Fatalf("start machine %s: %v", m.Name, err)
	}
	go m.boots.listen(notify)
	ended := make(chan error, 1)
	go func() {
		ended <- cmd.Wait()
		close(ended)
		notify.Close() // nobody is left to notify
	}()
	t := m.t // not that of a part of the test
	m.stop = func() {
		stdin.Close()
		if err := <-ended; err != nil {
			t.Errorf("machine %s did not end cleanly: %v\n%s", m.Name, err, console.Bytes())
		}
	}
	t.Cleanup(m.stop)
	if err := m.boots.await(1); err != nil {
		stdin.Close()
		<-ended // the console is complete
		t.Fatalf("machine %s did not boot: %v\n%s", m.Name, err, console.Bytes())
	}
}

// Stop ends the machine as a power cut would and removes its files. Without it, the test's end does.
func (m *Machine) Stop() {
	m.t.Helper()
	m.stop()
}

// Command prepares a program in the machine, as root, with the working directory / and a plain environment.
func (m *Machine) Command(args ...string) *exec.Cmd { return m.command(m.t.Context(), args...) }

func (m *Machine) command(ctx context.Context, args ...string) *exec.Cmd {
	enter := []string{"--target", m.boots.leader(), "--mount", "--pid", "--uts", "--net", "--ipc", "--cgroup", "--"}
	cmd := exec.CommandContext(ctx, "nsenter", append(enter, args...)...)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8"}
	return cmd
}

// Exec runs a program in the machine and gives its output and error output without the last line end. The
// test fails if the program does.
func (m *Machine) Exec(args ...string) string {
	m.t.Helper()
	out, err := m.Command(args...).CombinedOutput()
	if err != nil {
		m.t.Fatalf("%s: %s: %v\n%s", m.Name, strings.Join(args, " "), err, out)
	}
	return strings.TrimSuffix(string(out), "\n")
}

// CopyIn copies a file into the machine, making the directories above it, owned by root.
func (m *Machine) CopyIn(from, to string, mode fs.FileMode) {
	m.t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		m.t.Fatal(err)
	}
	m.WriteFile(to, data, mode)
}

// WriteFile writes a file of the machine, making the directories above it, owned by root.
func (m *Machine) WriteFile(to string, data []byte, mode fs.FileMode) {
	m.t.Helper()
	if err := m.write(to, data, mode); err != nil {
		m.t.Fatalf("write to machine %s: %v", m.Name, err)
	}
}

func (m *Machine) write(to string, data []byte, mode fs.FileMode) error {
	root, err := m.root()
	if err != nil {
		return err
	}
	defer root.Close()
	name := inside(to)
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	if err := root.WriteFile(name, data, mode); err != nil {
		return err
	}
	return root.Chmod(name, mode) // the umask does not apply
}

// ReadFile reads a file of the machine; ok is false where there is none.
func (m *Machine) ReadFile(name string) (data []byte, ok bool) {
	m.t.Helper()
	root, err := m.root()
	if err != nil {
		m.t.Fatal(err)
	}
	defer root.Close()
	data, err = root.ReadFile(inside(name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		m.t.Fatalf("read from machine %s: %v", m.Name, err)
	}
	return data, err == nil
}

// Files is the directory of the machine's files as this machine sees it, for whoever reads all of them: links in it lead
// elsewhere, and nothing is to be written there.
func (m *Machine) Files() string { return filepath.Join("/proc", m.boots.leader(), "root") }

// root is the machine's directory of files: an os.Root, since an absolute symbolic link in the machine would
// lead out of it.
func (m *Machine) root() (*os.Root, error) {
	return os.OpenRoot(m.Files())
}

// inside is an absolute path of the machine, for root.
func inside(name string) string { return strings.TrimPrefix(path.Clean(name), "/") }
