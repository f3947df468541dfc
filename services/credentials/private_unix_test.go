//go:build unix

package credentials

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAKeysetThatOthersMayReadIsRefused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "credentials")
	if _, err := openKeyset(dir); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, keysetFile)
	for name, mode := range map[string]os.FileMode{dir: 0o700, path: 0o600} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s has mode %v, want %v (%v)", name, info.Mode().Perm(), mode, err)
		}
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := openKeyset(dir); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a keyset of mode 0640: %v", err)
	}
}
