//go:build unix

package fetch

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"chandler/events"
)

func TestACopyForAnAccountIsReadableByThatAccountOnly(t *testing.T) {
	if os.Getuid() != 0 {
		if os.Getenv("CHANDLER_TEST_REQUIRE") == "1" {
			t.Fatal("run this test as root")
		}
		t.Skip("giving files away needs root: run this test as root")
	}
	b := newBench(t, nil)
	tool := b.file("bin/tool", 10)
	tool.Mode = 0o755
	files := []events.File{tool, b.file("data", 10)}
	b.must(t, "job", files...)
	dest := filepath.Join(t.TempDir(), "run")
	if err := b.Stage(t.Context(), files, dest, &Owner{UID: 65534, GID: 65534}); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]fs.FileMode{".": 0o500, "bin": 0o500, "bin/tool": 0o500, "data": 0o400} {
		info, err := os.Stat(filepath.Join(dest, path))
		if err != nil {
			t.Fatal(err)
		}
		if s := info.Sys().(*syscall.Stat_t); info.Mode().Perm() != want || s.Uid != 65534 || s.Gid != 65534 {
			t.Errorf("%s: %v of %d:%d, want %v", path, info.Mode(), s.Uid, s.Gid, want)
		}
	}
}
