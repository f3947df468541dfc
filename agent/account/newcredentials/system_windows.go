package newcredentials

import (
	"unsafe"

	"golang.org/x/sys/windows"
)

// As winbase.h has them. No other provider knows this type of logon.
const (
	logonNewCredentials = 9
	providerWinNT50     = 3
)

func newSystem() system { return windowsItself{} }

type windowsItself struct{}

func (windowsItself) LogOn(user, domain string, secret []uint16) (uint64, error) {
	wideUser, err := windows.UTF16PtrFromString(user)
	if err != nil {
		return 0, err
	}
	var wideDomain *uint16 // none for a user with an @
	if domain != "" {
		if wideDomain, err = windows.UTF16PtrFromString(domain); err != nil {
			return 0, err
		}
	}
	var token windows.Token
	proc := windows.NewLazySystemDLL("advapi32.dll").NewProc("LogonUserW")
	if err := proc.Find(); err != nil {
		return 0, err
	}
	done, _, err := proc.Call(uintptr(unsafe.Pointer(wideUser)), uintptr(unsafe.Pointer(wideDomain)), uintptr(unsafe.Pointer(&secret[0])),
		logonNewCredentials, providerWinNT50, uintptr(unsafe.Pointer(&token)))
	if done == 0 {
		return 0, err
	}
	return uint64(token), nil
}

func (windowsItself) Close(token uint64) { windows.CloseHandle(windows.Handle(token)) }
