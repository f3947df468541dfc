package vault

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// readClear reads a keyset that an earlier version stored.
func (v *Vault) readClear() (*keys, error) {
	data, err := readOwn(v.clearPath(), maxEnvelope)
	if err != nil {
		return nil, err
	}
	defer clear(data)
	return parseClear(data)
}

// finishMigration destroys a keyset in the clear whose keys are all in the wrapped one. Another is of an earlier
// version that ran in the meantime, and may be all that opens what was set then.
func (v *Vault) finishMigration() error {
	old, err := v.readClear()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open keyset %s: %w", v.clearPath(), err)
	}
	for id := range old.ids {
		if !v.held.Load().ids[id] {
			return fmt.Errorf("%s has keys that %s has not: an earlier version ran here in the meantime; move the one away that is not to be used, and set the secrets again that the other cannot open",
				v.clearPath(), v.path())
		}
	}
	if err := shred(v.clearPath()); err != nil {
		return fmt.Errorf("remove the keyset in the clear: %w", err)
	}
	v.log.Info("the keyset in the clear was overwritten and removed", "file", v.clearPath())
	return nil
}

// removeRemains removes what a crash left half written, which may be in the clear.
func (v *Vault) removeRemains() error {
	entries, err := os.ReadDir(v.dir)
	failures := []error{err}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), File+".") || strings.HasPrefix(e.Name(), clearOld+".") {
			failures = append(failures, shred(filepath.Join(v.dir, e.Name())))
		}
	}
	return errors.Join(failures...)
}
