//go:build unix

package asuser

import (
	"errors"
	"os/exec"
	"syscall"

	"chandler/agent/execute"
)

func rootDirectory() string { return "/" }

func launch(cmd *exec.Cmd, prepared execute.Prepared) error {
	if prepared.Logon != nil {
		return errors.New("a logon is for Windows only")
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if c := prepared.Credential; c != nil {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: c.UID, Gid: c.GID, Groups: c.Groups}
	}
	return startConfined(cmd)
}
