package installers

import (
	"errors"
	"runtime"

	"golang.org/x/sys/windows"
)

// executing is the mutex that Windows Installer holds while it changes the machine (domain-facts §3.2).
const executing = `Global\_MSIExecute`

func lockHolder(installer string) (string, error) {
	if installer != Msiexec {
		return "", nil
	}
	runtime.LockOSThread() // a mutex belongs to a thread
	defer runtime.UnlockOSThread()
	name, err := windows.UTF16PtrFromString(executing)
	if err != nil {
		return "", err
	}
	mutex, err := windows.OpenMutex(windows.SYNCHRONIZE, false, name)
	if errors.Is(err, windows.ERROR_FILE_NOT_FOUND) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer windows.CloseHandle(mutex)
	event, err := windows.WaitForSingleObject(mutex, 0)
	switch {
	case event == uint32(windows.WAIT_TIMEOUT):
		return "Windows Installer carries out another installation", nil
	case err != nil:
		return "", err
	}
	return "", windows.ReleaseMutex(mutex) // it was free, and for a moment ours
}
