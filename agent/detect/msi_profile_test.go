package detect

import (
	"errors"
	"runtime"
	"slices"
	"testing"
)

func TestAProductInTheInstallersOwnProfileIsFound(t *testing.T) {
	const (
		packed  = "87654321CBA90FED21436587A9CBED0F"
		account = "S-1-5-21-1-2-3-1001"
		other   = "S-1-5-21-1-2-3-1002"
		machine = `HKEY_LOCAL_MACHINE\SOFTWARE\Classes\Installer\Products\` + packed
		data    = `HKEY_LOCAL_MACHINE\SOFTWARE\Microsoft\Windows\CurrentVersion\Installer\UserData\`
		managed = `HKEY_LOCAL_MACHINE\SOFTWARE\Microsoft\Windows\CurrentVersion\Installer\Managed\` + account + `\Installer\Products\` + packed
	)
	hive := func(sid string) string {
		return `HKEY_USERS\` + sid + `\Software\Microsoft\Installer\Products\` + packed
	}
	tests := []struct {
		name string
		keys []string
		want bool
	}{
		{"a product nobody has is in no profile", nil, false},
		{"a product of the machine is in no profile", []string{machine, data + systemSID + `\Products\` + packed}, false},
		{"a product of LocalSystem is in its profile, though its record is where those of the machine are", []string{hive(systemSID), data + systemSID + `\Products\` + packed}, true},
		{"a product of the account is in its profile", []string{hive(account), data + account + `\Products\` + packed}, true},
		{"also when the account's registry is not loaded", []string{data + account + `\Products\` + packed}, true},
		{"also when it was assigned to the account", []string{managed}, true},
		{"a product of the account and of the machine is for the machine", []string{machine, hive(account)}, false},
		{"a product of somebody else is in no profile of these", []string{hive(other), data + other + `\Products\` + packed}, false},
		{"another product does not count", []string{hive(account) + "X"}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			exists := func(key string) (bool, error) { return slices.Contains(tt.keys, key), nil }
			if got, err := inProfile(packed, []string{systemSID, account}, exists); got != tt.want || err != nil {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
	denied := errors.New("denied")
	for _, closed := range []string{machine, hive(systemSID), hive(account)} {
		exists := func(key string) (bool, error) {
			if key == closed {
				return false, denied
			}
			return false, nil
		}
		if got, err := inProfile(packed, []string{systemSID, account}, exists); got || !errors.Is(err, denied) {
			t.Errorf("%s cannot be read: got %v, %v", closed, got, err)
		}
	}
}

func TestOwnProfileOfAProductThatIsNotInstalled(t *testing.T) {
	if own, err := OwnProfile(someCode); own || err != nil {
		t.Errorf("got %v, %v", own, err)
	}
	if own, err := OwnProfile(`..\x`); own || err == nil {
		t.Errorf("of no product code: got %v, %v", own, err)
	}
	if runtime.GOOS != "windows" {
		return
	}
	if own, err := OwnProfile(someCode, "nobody of this name"); own || err == nil {
		t.Errorf("of an account that is not there: got %v, %v", own, err)
	}
}
