package systemrunner

import (
	"context"

	"golang.org/x/sys/windows"

	"chandler/agent/logon"
)

const systemName = "SYSTEM"

func whoAmI() (name string, isSystem bool, err error) {
	user, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		return "", false, err
	}
	if user.User.Sid.IsWellKnown(windows.WinLocalSystemSid) {
		return systemName, true, nil
	}
	account, domain, _, err := user.User.Sid.LookupAccount("")
	if err != nil {
		return "", false, err
	}
	return domain + `\` + account, false, nil
}

// environment is what the system and the user's profile define, as for a new logon.
func environment(string) ([]string, error) {
	return windows.GetCurrentProcessToken().Environ(false)
}

func showIn(context.Context, logon.Session) ([]string, string) {
	return nil, "on Windows programs of the system have a session of their own, which no user sees"
}
