package account

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/windows"
)

// lookup cannot be interrupted: the system's own limits of time hold.
func lookup(_ context.Context, name string, _ []string) (Account, error) {
	sid, domain, kind, err := windows.LookupSID("", name)
	if errors.Is(err, windows.ERROR_NONE_MAPPED) {
		return Account{}, ErrNotFound
	}
	if err != nil {
		return Account{}, err
	}
	if kind != windows.SidTypeUser {
		return Account{}, fmt.Errorf("%w: the name is that of something else", ErrNotFound)
	}
	user, domain, _, err := sid.LookupAccount("")
	if err != nil {
		return Account{}, err
	}
	if !strings.EqualFold(user, userPart(name)) && !strings.Contains(name, "@") {
		return Account{}, fmt.Errorf("the system answers with %q, which is not the same user", domain+`\`+user)
	}
	computer, err := windows.ComputerName()
	if err != nil {
		return Account{}, err
	}
	found := Account{Name: domain + `\` + user, SID: sid.String(), Local: strings.EqualFold(domain, computer)}
	groups, err := localGroups(found.Name)
	if err != nil {
		return Account{}, err
	}
	administrators, err := groupName(windows.WinBuiltinAdministratorsSid)
	if err != nil {
		return Account{}, err
	}
	found.Administrator = slices.ContainsFunc(groups, func(group string) bool { return strings.EqualFold(group, administrators) })
	if !found.Local {
		return found, nil // its controller says at the logon whether it may be used
	}
	info, err := userInfo(user)
	if err != nil {
		return Account{}, err
	}
	if why := info.ended(time.Now()); why != "" {
		return found, &Unusable{Name: found.Name, Why: why}
	}
	return found, nil
}

func lookupUID(context.Context, uint32, []string) (Account, error) {
	return Account{}, errors.New("users have no numbers on Windows")
}
