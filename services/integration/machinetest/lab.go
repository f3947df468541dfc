package machinetest

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

// network is that of every lab; labs do not see each other. Its first address is the lab's own.
const (
	network      = "10.77.0."
	firstMachine = 10
	maxMachines  = 200
)

// tools that a lab needs, and the Debian package of each.
var tools = map[string]string{
	"systemd-nspawn": "systemd-container", "mmdebstrap": "mmdebstrap", "ip": "iproute2",
	"nsenter": "util-linux", "unshare": "util-linux", "setsid": "util-linux", "flock": "util-linux", "pkill": "procps",
}

// Lab is a network of throw-away machines.
type Lab struct {
	t        testing.TB
	base     string // directory of the file system that all machines start from
	ns       *holder
	machines int
}

// NewLab makes an empty network; it goes away when the test ends.
func NewLab(t testing.TB) *Lab {
	t.Helper()
	if why := missing(); why != "" {
		unavailable(t, why)
	}
	l := &Lab{t: t, base: baseRoot(t), ns: newNetwork(t)}
	l.script(`
		if [ -e /proc/sys/net/bridge/bridge-nf-call-iptables ]; then echo 0 > /proc/sys/net/bridge/bridge-nf-call-iptables; fi
		ip link set lo up
		ip link add br0 type bridge
		ip addr add "$1/24" dev br0
		ip link set br0 up`, l.Address())
	return l
}

// Address is where machines reach what Command runs: an IPv4 address without port.
func (l *Lab) Address() string { return network + "1" }

// Command prepares a program that runs on this machine, with its files, in the lab's network. It can
// listen on Address and reach every machine; nothing outside the lab reaches it. The caller ends it.
func (l *Lab) Command(name string, args ...string) *exec.Cmd {
	argv := append(append(l.Prefix(), name), args...)
	return exec.CommandContext(l.t.Context(), argv[0], argv[1:]...)
}

// Prefix is what a command line begins with whose program is to run in the lab's network.
func (l *Lab) Prefix() []string { return []string{"nsenter", "--net", "--target", l.ns.pid(), "--"} }

// dialTimeout is how long a connection within the lab may take.
const dialTimeout = 10 * time.Second

// Dial connects this process to an address of the lab's network: numbers, since nobody knows names there.
func (l *Lab) Dial(network, address string) (net.Conn, error) {
	return dialIn(l.ns.pid(), network, address)
}

func (l *Lab) script(script string, args ...string) {
	l.t.Helper()
	out, err := l.Command("sh", append([]string{"-euc", script, "sh"}, args...)...).CombinedOutput()
	if err != nil {
		l.t.Fatalf("set up the lab's network: %v\n%s", err, out)
	}
}

// join gives a machine's network namespace an interface on the lab's network, with the address.
func (l *Lab) join(ns *holder, link, address string) {
	l.t.Helper()
	l.script(`
		ip link add "$1" type veth peer name eth0 netns "$2"
		ip link set "$1" master br0 up
		nsenter --net --target "$2" sh -euc 'ip link set lo up; ip addr add "$1/24" dev eth0; ip link set eth0 up' sh "$3"`,
		link, ns.pid(), address)
}

// holder is a process that does nothing but keep a network namespace until its standard input ends, which
// is at the latest when this process does.
type holder struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
}

// newNetwork makes a network namespace that lives as long as the test.
func newNetwork(t testing.TB) *holder {
	t.Helper()
	// Its first byte of output says that the namespace is there.
	cmd := exec.Command("setsid", "unshare", "--net", "sh", "-c", "echo; exec cat")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("make a network namespace: %v", err)
	}
	h := &holder{cmd: cmd, stdin: stdin}
	t.Cleanup(h.release)
	if _, err := io.ReadFull(stdout, make([]byte, 1)); err != nil {
		t.Fatalf("make a network namespace: the process that holds it ended: %v", err)
	}
	return h
}

func (h *holder) pid() string { return strconv.Itoa(h.cmd.Process.Pid) }

func (h *holder) release() {
	h.stdin.Close()
	_ = h.cmd.Wait() // how it ended says nothing
}

// missing says what this machine lacks; empty: nothing.
func missing() string {
	if runtime.GOOS != "linux" || os.Geteuid() != 0 {
		return "throw-away machines need Linux and root"
	}
	var packages []string
	for tool, pkg := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			packages = append(packages, pkg)
		}
	}
	if len(packages) > 0 {
		return fmt.Sprintf("throw-away machines need more programs: apt-get install %s", strings.Join(packages, " "))
	}
	return ""
}

// unavailable skips the test, unless everything is required.
func unavailable(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("CHANDLER_TEST_REQUIRE") == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
}
