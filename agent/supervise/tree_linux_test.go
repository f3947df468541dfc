package supervise

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

func TestAProgramCannotFakeItsStatusByItsName(t *testing.T) {
	for _, name := range []string{"sh", "a b", ") Z 1 (", "x) R 9 9", ""} {
		stat := "42 (" + name + ") S 7 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 10 11"
		fields, err := statFields(stat)
		if err != nil || fields[0] != "S" || fields[1] != "7" || fields[19] != "987654" {
			t.Errorf("%q: %v, %v", name, fields, err)
		}
	}
	for _, bad := range []string{"", "42", "42 (x", "42 (x) S 7"} {
		if _, err := statFields(bad); err == nil {
			t.Errorf("accepted %q", bad)
		}
	}
}

func TestProcessesOfOneIDDifferInTheirStart(t *testing.T) {
	own, err := processStart(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	again, err := processStart(os.Getpid())
	if err != nil || own != again || !strings.Contains(own, "/") {
		t.Errorf("%q, then %q, %v", own, again, err)
	}
	child := exec.Command(os.Args[0], "-test.run=^$")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer child.Wait()
	table, err := processTable()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range table {
		if e.pid == child.Process.Pid && e.parent == os.Getpid() {
			return
		}
	}
	t.Error("the child is not in the table below this process")
}

func TestAnEndedRunLeavesNoGroup(t *testing.T) {
	run := makeGroup()
	if run == "" {
		if os.Getenv("CHANDLER_TEST_REQUIRE") == "1" {
			t.Fatal("no cgroup v2 can be made here")
		}
		t.Skip("no cgroup v2 can be made here: run as root on a system with cgroup v2")
	}
	group := programGroup(run)
	if group == "" {
		t.Fatal("no group for the program")
	}
	child := exec.Command("cat")
	stdin, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	child.SysProcAttr = &syscall.SysProcAttr{}
	leave, err := enterGroup(child.SysProcAttr, group)
	if err != nil {
		t.Fatal(err)
	}
	err = child.Start()
	leave()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	if members, err := groupMembers(run); err != nil || len(members) != 1 || members[0] != child.Process.Pid {
		t.Errorf("members %v, %v", members, err)
	}
	if err := killUntilNone(func() ([]int, error) { return groupMembers(group) }); err != nil {
		t.Error(err)
	}
	child.Wait()
	closeGroup(run)
	if _, err := os.Stat(run); !os.IsNotExist(err) {
		t.Errorf("group is still there: %v", err)
	}
	if err := killGroup(group); err != nil {
		t.Errorf("kill of a group that has gone: %v", err)
	}
}
