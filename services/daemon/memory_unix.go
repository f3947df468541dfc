//go:build unix

package daemon

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// noCores lowers the limit that counts; the one up to which it may be raised stays, for programs that are started.
func noCores() error {
	var limit unix.Rlimit
	err := unix.Getrlimit(unix.RLIMIT_CORE, &limit)
	if err == nil && limit.Cur != 0 {
		limit.Cur = 0
		err = unix.Setrlimit(unix.RLIMIT_CORE, &limit)
	}
	if err != nil {
		return fmt.Errorf("switch core dumps off: %w", err)
	}
	return nil
}
