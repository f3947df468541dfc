package asuser

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"golang.org/x/sys/windows"

	"chandler/agent/execute"
)

func rootDirectory() string { return os.Getenv("SystemRoot") }

// launch gives the process the token of the session's user. It shows nothing and needs no desktop.
func launch(cmd *exec.Cmd, prepared execute.Prepared) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{HideWindow: true, CreationFlags: windows.CREATE_NO_WINDOW | windows.CREATE_NEW_PROCESS_GROUP}
	if prepared.Logon == nil {
		return cmd.Start()
	}
	var token windows.Token
	if err := windows.WTSQueryUserToken(prepared.Logon.Session, &token); err != nil {
		return fmt.Errorf("session %d has no user's token: %w", prepared.Logon.Session, err)
	}
	defer token.Close()
	// The number of a session may have become another user's since it was prepared.
	who, err := token.GetTokenUser()
	if err != nil {
		return err
	}
	account, domain, _, err := who.User.Sid.LookupAccount("")
	if name := domain + `\` + account; err != nil || !strings.EqualFold(name, prepared.Executor) {
		return fmt.Errorf("session %d is of %q (%v)", prepared.Logon.Session, name, err)
	}
	cmd.SysProcAttr.Token = syscall.Token(token)
	return cmd.Start()
}

// confineSelf: errors of programs are reported by the system, which asks nobody in a process without a desktop.
func confineSelf() error { return nil }
