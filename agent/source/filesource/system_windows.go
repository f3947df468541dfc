package filesource

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/windows"

	"chandler/agent/source"
)

func newSystem() system { return windowsItself{} }

type windowsItself struct{}

func (windowsItself) Local(path string) (string, error)       { return windowsLocal(path) }
func (windowsItself) Share(host, path string) (string, error) { return windowsShare(host, path) }

// Open lets others change the file meanwhile, and whoever serves it know who reads, but not pose as the reader.
func (windowsItself) Open(name string) (*os.File, error) {
	wide, err := windows.UTF16PtrFromString(name)
	if err != nil {
		return nil, err
	}
	handle, err := windows.CreateFile(wide, windows.GENERIC_READ, windows.FILE_SHARE_READ|windows.FILE_SHARE_WRITE|windows.FILE_SHARE_DELETE, nil,
		windows.OPEN_EXISTING, windows.FILE_FLAG_BACKUP_SEMANTICS|windows.SECURITY_SQOS_PRESENT|windows.SECURITY_IDENTIFICATION, 0)
	if err != nil {
		return nil, err
	}
	if kind, err := windows.GetFileType(handle); err != nil || kind != windows.FILE_TYPE_DISK {
		windows.CloseHandle(handle)
		return nil, errNeither
	}
	return os.NewFile(uintptr(handle), name), nil
}

func (windowsItself) Pose(token uint64) error {
	proc := windows.NewLazySystemDLL("advapi32.dll").NewProc("ImpersonateLoggedOnUser")
	if err := proc.Find(); err != nil {
		return err
	}
	if done, _, err := proc.Call(uintptr(token)); done == 0 {
		return err
	}
	return nil
}

func (windowsItself) Revert() error { return windows.RevertToSelf() }

func codeOf(err error) (source.Code, string) {
	number, ok := errors.AsType[syscall.Errno](err)
	if !ok {
		return source.BadNetworkPath, err.Error()
	}
	return source.Code(number), number.Error()
}
