package main

import (
	"fmt"
	"os"
	"path/filepath"
)

// lockDirectory makes sure that one process alone uses a data directory: two brokers on the same files
// would destroy them. The lock ends with unlock, or with the process however it ends.
func lockDirectory(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock data directory: %w", err)
	}
	if err := lockFile(f); err != nil {
		f.Close()
		return nil, fmt.Errorf("another chandler uses %s: stop it, or say another --data", dir)
	}
	return func() { f.Close() }, nil
}
