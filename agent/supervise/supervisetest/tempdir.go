package supervisetest

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TempDir is t.TempDir that is also removed under Wine, which runs the tests of the Windows code and knows no RemoveAll.
func TempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "chandler-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		var paths []string
		err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			paths = append(paths, path)
			return err
		})
		for _, path := range slices.Backward(paths) {
			err = errors.Join(err, os.Remove(path))
		}
		if err != nil {
			t.Errorf("remove %s: %v", dir, err)
		}
	})
	return dir
}
