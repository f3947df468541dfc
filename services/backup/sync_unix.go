//go:build unix

package backup

import (
	"errors"
	"os"
)

// SyncDir makes what was made in a directory outlast a power cut.
func SyncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
