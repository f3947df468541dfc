package detect

import (
	"errors"
	"fmt"

	"chandler/events/msi"
)

// Where Windows Installer registers a product; a packed product code follows.
const (
	// for the machine
	machineProducts = `HKEY_LOCAL_MACHINE\SOFTWARE\Classes\Installer\Products\`
	// for one user, whose SID stands between these two
	usersProducts, userProducts = `HKEY_USERS\`, `\Software\Microsoft\Installer\Products\`
	// for one user, by an administrator's doing, and
	managedProducts, managedUserProducts = `HKEY_LOCAL_MACHINE\SOFTWARE\Microsoft\Windows\CurrentVersion\Installer\Managed\`, `\Installer\Products\`
	// for one user whose part of the registry may not be loaded. That of the system account has what is for the machine.
	dataProducts, userDataProducts = `HKEY_LOCAL_MACHINE\` + productsPath + `\`, `\Products\`
)

// OwnProfile says whether a product, by its code, is registered in the profile of the account that ran its installer and not
// for the machine. The accounts are the agent's own, LocalSystem, and those named, as Result.Executor names them. A product
// that is for the machine, for others or for nobody is not; off Windows nothing is.
//
// Detection by product code cannot tell: what is installed for LocalSystem alone has its record among those of the machine.
func OwnProfile(product string, accounts ...string) (bool, error) {
	packed, err := msi.PackCode(product)
	if err != nil {
		return false, err
	}
	owners, err := accountSIDs(accounts)
	if errors.Is(err, errNoMSI) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("find the account that ran the installer: %w", err)
	}
	return inProfile(packed, owners, registryKeyExists)
}

// inProfile judges by what exists says of registry keys.
func inProfile(packed string, owners []string, exists func(key string) (bool, error)) (bool, error) {
	if machine, err := exists(machineProducts + packed); machine || err != nil {
		return false, err
	}
	for _, sid := range owners {
		keys := []string{usersProducts + sid + userProducts + packed, managedProducts + sid + managedUserProducts + packed}
		if sid != systemSID {
			keys = append(keys, dataProducts+sid+userDataProducts+packed)
		}
		for _, key := range keys {
			if there, err := exists(key); there || err != nil {
				return there, err
			}
		}
	}
	return false, nil
}
