//go:build unix

package supervise

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// openLock creates and takes the lock without waiting; errLocked when somebody has it. The lock belongs to the open file,
// which a child inherits, and goes when its last descriptor is closed.
func openLock(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := flock(file, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// holdsLock confirms that file, inherited, is the open file that holds the lock.
func holdsLock(file *os.File) error { return flock(file, unix.LOCK_EX|unix.LOCK_NB) }

// testLock returns errLocked while somebody holds the lock; nil also when there is no lock file.
func testLock(path string) error { return shareLock(path, unix.LOCK_NB) }

// waitUnlocked blocks until nobody holds the lock.
func waitUnlocked(path string) error { return shareLock(path, 0) }

// Those who only look share the lock, so that they do not take each other for its holder.
func shareLock(path string, flags int) error {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close()
	return flock(file, unix.LOCK_SH|flags)
}

func flock(file *os.File, how int) error {
	for {
		err := unix.Flock(int(file.Fd()), how)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EWOULDBLOCK):
			return errLocked
		case err != nil:
			return &fs.PathError{Op: "flock", Path: file.Name(), Err: err}
		default:
			return nil
		}
	}
}
