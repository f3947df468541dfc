package fetch

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"chandler/events"
)

func TestCopiesShareTheirBytesWhereTheFileSystemCan(t *testing.T) {
	disk := sharingDisk(t)
	b := onDisk(t, filepath.Join(disk, "cache"), &memory{blobs: map[string][]byte{}}, nil)
	f := b.file("a", 3*events.BlockSize+5)
	b.must(t, "job", f)
	src, err := b.cache.open(f.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	dst, err := os.Create(filepath.Join(disk, "clone"))
	if err != nil {
		t.Fatal(err)
	}
	defer dst.Close()
	if err := clone(dst, src); err != nil {
		t.Fatalf("clone: %v", err)
	}
	staged := filepath.Join(disk, "run")
	if err := b.Stage(t.Context(), []events.File{f}, staged, nil); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(staged, "a")
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, random("a", int(f.Size))) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	// What a run writes stays its own.
	if err := os.WriteFile(path, []byte("changed"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.cached(t)
	t.Run("and are hashed all the same", func(t *testing.T) {
		if err := os.WriteFile(b.cache.blobPath(f.SHA256), random("other", int(f.Size)), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := b.Stage(t.Context(), []events.File{f}, filepath.Join(disk, "again"), nil); reason(err) != events.ContentMismatch {
			t.Errorf("error %v", err)
		}
	})
}

// sharingDisk mounts a file system with reflinks for the time of a test.
func sharingDisk(t *testing.T) string {
	t.Helper()
	need := t.Skip
	if os.Getenv("CHANDLER_TEST_REQUIRE") == "1" {
		need = t.Fatal
	}
	if _, err := exec.LookPath("mkfs.xfs"); err != nil || os.Getuid() != 0 {
		need("a file system with reflinks is needed: install xfsprogs and run this test as root")
	}
	image, dir := filepath.Join(t.TempDir(), "image"), t.TempDir()
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 400<<20); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.xfs", "-q", "-m", "reflink=1", image).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.xfs: %v %s", err, out)
	}
	if out, err := exec.Command("mount", "-o", "loop", image, dir).CombinedOutput(); err != nil {
		t.Skipf("this kernel mounts no such image: %v %s", err, out) // nothing that could be installed
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v %s", err, out)
		}
	})
	return dir
}
