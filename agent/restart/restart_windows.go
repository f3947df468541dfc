package restart

import (
	"context"
	"fmt"

	"golang.org/x/sys/windows"
)

const (
	privilege = "SeShutdownPrivilege"
	countdown = 60 // seconds that users have to save their work
	// An installation by an application, planned.
	reason = windows.SHTDN_REASON_MAJOR_APPLICATION | windows.SHTDN_REASON_MINOR_INSTALLATION | windows.SHTDN_REASON_FLAG_PLANNED
)

func restart(_ context.Context, why string) error {
	if err := enable(privilege); err != nil {
		return fmt.Errorf("take %s: %w", privilege, err)
	}
	message, err := windows.UTF16PtrFromString(why)
	if err != nil {
		return err
	}
	err = windows.InitiateSystemShutdownEx(nil, message, countdown, true, true, reason)
	if err == windows.ERROR_SHUTDOWN_IN_PROGRESS || err == windows.ERROR_SHUTDOWN_IS_SCHEDULED {
		return nil // somebody was first
	}
	return err
}

// enable switches on a privilege that this process has.
func enable(name string) error {
	var token windows.Token
	if err := windows.OpenProcessToken(windows.CurrentProcess(), windows.TOKEN_ADJUST_PRIVILEGES|windows.TOKEN_QUERY, &token); err != nil {
		return err
	}
	defer token.Close()
	text, err := windows.UTF16PtrFromString(name)
	if err != nil {
		return err
	}
	state := windows.Tokenprivileges{PrivilegeCount: 1}
	state.Privileges[0].Attributes = windows.SE_PRIVILEGE_ENABLED
	if err := windows.LookupPrivilegeValue(nil, text, &state.Privileges[0].Luid); err != nil {
		return err
	}
	return windows.AdjustTokenPrivileges(token, false, &state, 0, nil, nil)
}
