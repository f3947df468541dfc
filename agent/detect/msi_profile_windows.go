package detect

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/registry"
)

// accountSIDs are those of this process's account, of LocalSystem, and of the named accounts.
func accountSIDs(accounts []string) ([]string, error) {
	user, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		return nil, err
	}
	sids := []string{user.User.Sid.String(), systemSID}
	for _, account := range accounts {
		sid, _, _, err := windows.LookupSID("", account)
		if err != nil {
			return nil, fmt.Errorf("account %s: %w", account, err)
		}
		sids = append(sids, sid.String())
	}
	slices.Sort(sids)
	return slices.Compact(sids), nil
}

// registryKeyExists looks in the 64-bit view; the key begins with the name of its root.
func registryKeyExists(key string) (bool, error) {
	name, path, _ := strings.Cut(key, `\`)
	root := registry.LOCAL_MACHINE
	if name == "HKEY_USERS" {
		root = registry.USERS
	}
	opened, err := registry.OpenKey(root, path, registry.QUERY_VALUE|registry.WOW64_64KEY)
	if errors.Is(err, registry.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("open %s: %w", key, err)
	}
	return true, opened.Close()
}
