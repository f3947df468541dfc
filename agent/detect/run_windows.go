package detect

import (
	"fmt"
	"os/exec"

	"golang.org/x/sys/windows"
)

// group is a job object of a program and its children. A child made before
// started returns may escape it.
type group struct {
	cmd *exec.Cmd
	job windows.Handle
	err error
}

func groupOf(cmd *exec.Cmd) *group {
	job, err := windows.CreateJobObject(nil, nil)
	if err != nil {
		err = fmt.Errorf("create job object: %w", err)
	}
	return &group{cmd: cmd, job: job, err: err}
}

func (g *group) started() error {
	if g.err != nil {
		return g.err
	}
	process, err := windows.OpenProcess(windows.PROCESS_SET_QUOTA|windows.PROCESS_TERMINATE, false, uint32(g.cmd.Process.Pid))
	if err != nil {
		return fmt.Errorf("open process: %w", err)
	}
	defer windows.CloseHandle(process)
	if err := windows.AssignProcessToJobObject(g.job, process); err != nil {
		return fmt.Errorf("assign to job object: %w", err)
	}
	return nil
}

func (g *group) kill() error {
	if err := windows.TerminateJobObject(g.job, 1); err != nil {
		return g.cmd.Process.Kill()
	}
	return nil
}

func (g *group) close() {
	if g.job != 0 {
		windows.CloseHandle(g.job)
	}
}
