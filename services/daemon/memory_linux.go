package daemon

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// keepMemoryPrivate does without cores twice: where they are piped to a program, the limit does not count.
func keepMemoryPrivate() error {
	err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	if err != nil {
		err = fmt.Errorf("make the process not dumpable: %w", err)
	}
	return errors.Join(err, noCores())
}
