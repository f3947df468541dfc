//go:build unix

package detect

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
)

// group is the process group of a program and the children that stay in it.
type group struct{ cmd *exec.Cmd }

func groupOf(cmd *exec.Cmd) *group {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return &group{cmd}
}

func (g *group) started() error { return nil }

func (g *group) kill() error {
	err := syscall.Kill(-g.cmd.Process.Pid, syscall.SIGKILL)
	if errors.Is(err, syscall.ESRCH) {
		return os.ErrProcessDone
	}
	return err
}

func (g *group) close() {}
