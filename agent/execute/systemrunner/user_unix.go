//go:build unix

package systemrunner

import (
	"os"
	"os/user"
	"strconv"
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
