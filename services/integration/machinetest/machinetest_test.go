package machinetest

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// listenVariable turns the test's program into a server that greets one caller.
const listenVariable = "CHANDLER_MACHINETEST_LISTEN"

// dieVariable makes TestDies start a machine and die.
const dieVariable = "CHANDLER_MACHINETEST_DIE"

func TestMain(m *testing.M) {
	if address := os.Getenv(listenVariable); address != "" {
		if err := greetOne(address); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func greetOne(address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	fmt.Println("listening")
	conn, err := l.Accept()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(conn, "hello", conn.RemoteAddr().(*net.TCPAddr).IP)
	return errors.Join(err, conn.Close())
}

func TestAMachineRunsUnitsOfItsOwn(t *testing.T) {
	m := NewLab(t).Start("alpha")
	if got := m.Exec("systemctl", "is-system-running"); got != "running" {
		t.Errorf("systemd is %q, want running", got)
	}
	if got := m.Exec("uname", "-n"); got != "alpha" {
		t.Errorf("the host name is %q, want alpha", got)
	}
	script := filepath.Join(t.TempDir(), "greet")
	if err := os.WriteFile(script, []byte("#!/bin/sh\necho hello from $(cat /etc/hostname) > /run/greeting\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	m.CopyIn(script, "/opt/greet/greet", 0o755)
	m.WriteFile("/etc/systemd/system/greet.service", []byte("[Service]\nType=oneshot\nExecStart=/opt/greet/greet\n"), 0o644)
	m.Exec("systemctl", "daemon-reload")
	m.Exec("systemctl", "start", "greet.service")
	if got := m.Exec("cat", "/run/greeting"); got != "hello from alpha" {
		t.Errorf("the unit wrote %q", got)
	}
}

func TestAMachineReachesWhatRunsInTheLabAndNothingElse(t *testing.T) {
	lab := NewLab(t)
	m := lab.Start("alpha")
	server := greeter(t, lab)
	if got, want := m.Exec("bash", "-c", "cat < /dev/tcp/"+lab.Address()+"/4222"), "hello "+m.Address; got != want {
		t.Errorf("the machine reads %q, want %q", got, want)
	}
	if err := server.Wait(); err != nil {
		t.Error(err)
	}
	if out, err := m.Command("ip", "route", "get", "192.0.2.1").CombinedOutput(); err == nil {
		t.Errorf("the machine has a way out of the lab: %s", out)
	}
}

func TestATestReachesTheLabByDialling(t *testing.T) {
	lab := NewLab(t)
	server := greeter(t, lab)
	conn, err := lab.Dial("tcp", lab.Address()+":4222")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || line != "hello "+lab.Address()+"\n" {
		t.Errorf("the test reads %q: %v", line, err)
	}
	if err := server.Wait(); err != nil {
		t.Error(err)
	}
}

// greeter is a server in the lab, at port 4222, that greets one caller and ends.
func greeter(t *testing.T, lab *Lab) *exec.Cmd {
	t.Helper()
	server := lab.Command(os.Args[0])
	server.Env = append(os.Environ(), listenVariable+"="+lab.Address()+":4222")
	server.Stderr = os.Stderr
	stdout, err := server.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil || line != "listening\n" {
		t.Fatalf("the server says %q: %v", line, err)
	}
	return server
}

func TestAMachineStartsAgainWithItsFiles(t *testing.T) {
	m := NewLab(t).Start("alpha")
	boot := func() string { return m.Exec("cat", "/proc/sys/kernel/random/boot_id") }
	m.WriteFile("/var/lib/kept", []byte("kept"), 0o600)
	m.WriteFile("/run/gone", nil, 0o600)
	first := boot()

	m.Reboot()
	second := boot()
	if _, there := m.ReadFile("/run/gone"); there || first == second {
		t.Errorf("after the restart: boot %s, before it %s; what was in memory is there: %t", second, first, there)
	}
	if data, _ := m.ReadFile("/var/lib/kept"); string(data) != "kept" {
		t.Errorf("a file holds %q after the restart", data)
	}

	// As a program in the machine does, of which nobody here knows when.
	m.Exec("systemd-run", "--quiet", "systemctl", "reboot")
	m.AwaitBoot(3)
	if third := boot(); third == second {
		t.Errorf("after the second restart: boot %s, as before", third)
	}
	if got := m.Exec("systemctl", "is-system-running"); got != "running" {
		t.Errorf("systemd is %q, want running", got)
	}
}

func TestAMachineThatSwitchedItselfOffCanBeStopped(t *testing.T) {
	m := NewLab(t).Start("alpha")
	leader := m.boots.leader()
	m.Exec("systemctl", "--no-block", "poweroff")
	m.await("the machine is off", func() error {
		if _, err := os.Stat(filepath.Join("/proc", leader)); err == nil {
			return errors.New("its systemd runs")
		}
		return nil
	})
	m.Stop()
	if got := traces(t, []string{m.dir}, []string{leader}); len(got) > 0 {
		t.Errorf("it left behind %q", got)
	}
}

func TestUsersLogOnAndOff(t *testing.T) {
	m := NewLab(t).Start("alpha")
	m.AddUser("alice", "staff", "testers")
	m.AddUser("bob")
	alice, bob := m.Login("alice"), m.GraphicalLogin("bob")
	for _, want := range []struct {
		*Session
		kind, display string
	}{{alice, "tty", ""}, {bob, "x11", display}} {
		got := m.properties(want.ID)
		if got["Name"] != want.User || got["Type"] != want.kind || got["Display"] != want.display || got["Active"] != "yes" || got["Remote"] != "no" {
			t.Errorf("the session of %s is %v", want.User, got)
		}
		if _, err := os.Stat(filepath.Join("/proc", m.boots.leader(), "root/proc", strconv.Itoa(want.Leader))); err != nil {
			t.Errorf("the leader of %s's session: %v", want.User, err)
		}
		uid := m.Exec("id", "-u", want.User)
		if got := m.Exec("stat", "-c", "%u", "/run/user/"+uid, "/run/user/"+uid+"/bus"); got != uid+"\n"+uid {
			t.Errorf("the directory and the bus of %s belong to %q, want %s", want.User, got, uid)
		}
	}
	if got := m.Exec("id", "-nG", "alice"); got != "alice staff testers" {
		t.Errorf("alice is in %s", got)
	}
	alice.Logout()
	if !alice.Ended() || bob.Ended() {
		t.Errorf("alice's session ended: %t; bob's: %t", alice.Ended(), bob.Ended())
	}
	again := m.Login("alice")
	m.Exec("loginctl", "terminate-user", "alice")
	again.AwaitEnd()
	m.Reboot()
	if !bob.Ended() {
		t.Error("bob is logged on after a restart")
	}
	m.GraphicalLogin("bob")
}

func TestAKilledServiceIsAnotherProcess(t *testing.T) {
	m := NewLab(t).Start("alpha")
	m.WriteFile("/etc/systemd/system/idle.service", []byte("[Service]\nExecStart=/bin/sleep infinity\nRestart=always\nRestartSec=0\n"), 0o644)
	m.Exec("systemctl", "daemon-reload")
	m.Exec("systemctl", "start", "idle")
	killed := m.Kill9("idle")
	if got := m.Exec("pidof", "sleep"); got == strconv.Itoa(killed) {
		t.Errorf("process %s lives", got)
	}
}

func TestWritingIntoAMachineNeverLeavesIt(t *testing.T) {
	m := NewLab(t).Start("alpha")
	outside := t.TempDir()
	m.Exec("ln", "-s", outside, "/etc/outside")
	m.Exec("mkdir", "-p", outside)
	if err := m.write("/etc/outside/file", nil, 0o600); err == nil {
		t.Error("a file was written through an absolute link")
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) > 0 {
		t.Errorf("outside the machine: %v, %v", entries, err)
	}
}

func TestNothingIsLeftOfStoppedMachines(t *testing.T) {
	var dirs, processes []string
	t.Run("one stopped, one ended with the test", func(t *testing.T) {
		lab := NewLab(t)
		a, b := lab.Start("alpha"), lab.Start("beta")
		a.Exec("ip", "route", "get", b.Address)
		dirs = []string{a.dir, b.dir}
		processes = []string{lab.ns.pid(), a.ns.pid(), a.boots.leader(), b.ns.pid(), b.boots.leader()}
		if got := traces(t, dirs, processes); len(got) < len(processes)+2*len(dirs) {
			t.Errorf("of running machines only these traces are found: %q", got)
		}
		a.Stop()
		if got := traces(t, []string{a.dir}, []string{a.boots.leader()}); len(got) > 0 {
			t.Errorf("a stopped machine left behind %q", got)
		}
	})
	if got := traces(t, dirs, processes); len(got) > 0 {
		t.Errorf("the test left behind %q", got)
	}
}

func TestNothingIsLeftOfATestThatWasKilled(t *testing.T) {
	if why := missing(); why != "" {
		unavailable(t, why)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestDies$")
	cmd.Env = append(os.Environ(), dieVariable+"=1")
	out, err := cmd.Output()
	if cmd.ProcessState == nil || cmd.ProcessState.Exited() {
		t.Fatalf("the test was not killed: %v\n%s", err, out)
	}
	words := strings.Fields(string(out))
	if len(words) != 4 {
		t.Fatalf("the test told %q", out)
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(30 * time.Second); ; <-tick.C {
		left := traces(t, words[:1], words[1:])
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the killed test left behind %q", left)
		}
	}
}

// TestDies is the killed test of TestNothingIsLeftOfATestThatWasKilled. It tells the directory of a machine
// and the processes to look for.
func TestDies(t *testing.T) {
	if os.Getenv(dieVariable) == "" {
		t.Skip("only run by another test")
	}
	lab := NewLab(t)
	m := lab.Start("alpha")
	fmt.Println(m.dir, lab.ns.pid(), m.ns.pid(), m.boots.leader())
	self, err := os.FindProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if err := self.Kill(); err != nil {
		t.Fatal(err)
	}
	select {}
}

// traces lists what is left of machines' directories, mounts and control groups, and of processes. A control
// group that is gone had no process left.
func traces(t *testing.T, dirs, processes []string) []string {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, dir := range dirs {
		if strings.Contains(string(mounts), dir) {
			found = append(found, "a mount of "+dir)
		}
		for _, pattern := range []string{dir, "/sys/fs/cgroup/" + filepath.Base(dir), "/sys/fs/cgroup/*/" + filepath.Base(dir)} {
			paths, err := filepath.Glob(pattern)
			if err != nil {
				t.Fatal(err)
			}
			found = append(found, paths...)
		}
	}
	for _, pid := range processes {
		if _, err := os.Stat(filepath.Join("/proc", pid)); err == nil {
			found = append(found, "process "+pid)
		}
	}
	return found
}
