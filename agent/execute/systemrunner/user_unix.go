//go:build unix

package systemrunner

import (
	"context"
	"fmt"
	"os"
	"os/user"
	"strconv"

	"chandler/agent/account"
	"chandler/agent/logon"
)

const systemName = "root"

// whoAmI asks the user database, not the environment, which the agent's starter may have set to anything.
func whoAmI() (name string, isSystem bool, err error) {
	uid := os.Getuid()
	if uid == 0 {
		return systemName, true, nil
	}
	found, err := user.LookupId(strconv.Itoa(uid))
	if err != nil { // a user without an entry is still a user
		return "uid " + strconv.Itoa(uid), false, nil
	}
	return found.Username, false, nil
}

func environment(name string) ([]string, error) {
	home := "/"
	if found, err := user.LookupId(strconv.Itoa(os.Getuid())); err == nil && found.HomeDir != "" {
		home = found.HomeDir
	}
	return []string{
		"PATH=" + standardPath,
		"HOME=" + home,
		"USER=" + name,
		"LOGNAME=" + name,
		"SHELL=/bin/sh",
		"LANG=" + standardLanguage,
	}, nil
}

func showIn(ctx context.Context, session logon.Session) ([]string, string) {
	owner, err := account.Lookup(ctx, session.User)
	if err != nil {
		return nil, fmt.Sprintf("the home of the session's user is not known: %v", err)
	}
	if owner.UID != session.UID {
		return nil, fmt.Sprintf("the session is uid %d's, and the user database says that %s is %d", session.UID, session.User, owner.UID)
	}
	return session.Desktop(owner.Home)
}
