package supervise

import (
	"errors"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/windows"
)

// On Windows a byte-range lock belongs to one process and cannot be inherited; a share mode belongs to the open file, as
// flock does, and goes with its last handle.

const unlockedPoll = 200 * time.Millisecond

func openLock(path string) (*os.File, error) {
	return openShared(path, windows.GENERIC_READ|windows.GENERIC_WRITE, 0, windows.OPEN_ALWAYS)
}

// holdsLock has nothing to add: that the inherited file is open at all is the lock.
func holdsLock(*os.File) error { return nil }

func testLock(path string) error {
	file, err := openShared(path, windows.GENERIC_READ, windows.FILE_SHARE_READ, windows.OPEN_EXISTING)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return file.Close()
}

func waitUnlocked(path string) error {
	for {
		if err := testLock(path); !errors.Is(err, errLocked) {
			return err
		}
		time.Sleep(unlockedPoll)
	}
}

func openShared(path string, access, share, creation uint32) (*os.File, error) {
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return nil, err
	}
	handle, err := windows.CreateFile(name, access, share, nil, creation, windows.FILE_ATTRIBUTE_NORMAL, 0)
	if errors.Is(err, windows.ERROR_SHARING_VIOLATION) {
		return nil, errLocked
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(handle), path), nil
}
