package supervise

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

var errLocked = errors.New("locked by another process")

// The longest that a look at the lock by somebody else may be in the way of takeLock.
const lockPatience = 500 * time.Millisecond

// takeLock takes the lock of a run's directory; errLocked when a live process has it.
func takeLock(dir string) (*os.File, error) {
	for deadline := time.Now().Add(lockPatience); ; time.Sleep(lockPatience / 25) {
		file, err := openLock(filepath.Join(dir, lockFile))
		if !errors.Is(err, errLocked) || time.Now().After(deadline) {
			return file, err
		}
	}
}

// inheritedLock returns the lock that Start passed to this process as its standard input. It is there, not among further
// descriptors, because that is the one descriptor that no child of the supervisor inherits by mistake on any system.
func inheritedLock(dir string) (*os.File, error) {
	path := filepath.Join(dir, lockFile)
	want, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	got, err := os.Stdin.Stat()
	if err != nil || !os.SameFile(want, got) {
		return nil, fmt.Errorf("standard input is not %s: a supervisor is started by an agent, not by hand", path)
	}
	if err := holdsLock(os.Stdin); err != nil {
		return nil, fmt.Errorf("inherit %s: %w", path, err)
	}
	return os.Stdin, nil
}
