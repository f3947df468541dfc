package machinetest

import (
	_ "embed"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

//go:embed base.sh
var baseScript string

// baseRoot is the directory of the file system that machines start from. The first call on a machine
// makes it from Debian's packages, which takes about a minute; processes that call at once wait.
func baseRoot(t testing.TB) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, "chandler-test")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	// The number counts changes of base.sh that old copies lack.
	root := filepath.Join(dir, "debian-12-2")
	out, err := exec.CommandContext(t.Context(), "flock", root+".lock", "sh", "-euc", baseScript, "sh", root).CombinedOutput()
	if err != nil {
		unavailable(t, "make the base file system "+root+" from Debian's packages: "+err.Error()+"\n"+string(out))
	}
	return root
}
