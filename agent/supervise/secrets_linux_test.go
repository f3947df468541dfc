package supervise

import (
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

func TestASupervisorWithSecretsIsNotDumped(t *testing.T) {
	before, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Prctl(unix.PR_SET_DUMPABLE, uintptr(before), 0, 0, 0)
	if err := forbidDumps(); err != nil {
		t.Fatal(err)
	}
	if now, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err != nil || now != 0 {
		t.Errorf("dumpable: %d, %v", now, err)
	}
}

func TestOnlyTheProgramsProcessesAreOfTheProgram(t *testing.T) {
	child := exec.Command("cat")
	hold, err := child.StdinPipe()
	if err == nil {
		err = child.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer child.Wait()
	defer hold.Close()
	for pid, want := range map[int]bool{child.Process.Pid: true, os.Getpid(): false, os.Getppid(): false, 1: false, 1 << 30: false} {
		for _, group := range []string{"", "/sys/fs/cgroup/chandler/" + groupPrefix + "x/" + programChild} {
			if got := ofProgram(group, pid); got != want {
				t.Errorf("process %d is of the program in group %q: %v", pid, group, got)
			}
		}
	}
}
