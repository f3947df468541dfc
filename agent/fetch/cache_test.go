package fetch

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"chandler/events"
)

func (b *bench) holds(t *testing.T, f events.File) bool {
	t.Helper()
	return slices.Contains(b.cached(t), f.SHA256)
}

func TestTheLeastRecentlyUsedBlobsMakeRoom(t *testing.T) {
	b := newBench(t, func(o *Options) { o.MaxBytes = 300 })
	first, second, third := b.file("1", 100), b.file("2", 100), b.file("3", 100)
	for _, f := range []events.File{first, second, third} {
		b.must(t, "job", f)
	}
	b.must(t, "job", first) // used again
	b.Release("job")
	b.must(t, "next job", b.file("4", 150))
	if !b.holds(t, first) || b.holds(t, second) || b.holds(t, third) {
		t.Errorf("left: %v", b.cached(t))
	}
	t.Run("also after a restart", func(t *testing.T) {
		old := time.Now().Add(-time.Hour)
		if err := os.Chtimes(b.cache.blobPath(first.SHA256), old, old); err != nil {
			t.Fatal(err)
		}
		again := onDisk(t, b.dir, b.memory, func(o *Options) { o.MaxBytes = 300 })
		again.must(t, "job", again.file("5", 100))
		if again.holds(t, first) || again.cache.total != 250 {
			t.Errorf("left: %v, counted %d", again.cached(t), again.cache.total)
		}
	})
	t.Run("at once when the limit was lowered", func(t *testing.T) {
		again := onDisk(t, b.dir, b.memory, func(o *Options) { o.MaxBytes = 120 })
		if again.cache.total > 120 {
			t.Errorf("counted %d", again.cache.total)
		}
	})
}

func TestWhatJobsHoldIsNotRemoved(t *testing.T) {
	b := newBench(t, func(o *Options) { o.MaxBytes = 300 })
	held := b.file("1", 200)
	b.must(t, "one", held)
	b.must(t, "two", held)
	more := b.file("2", 101)
	for _, owner := range []string{"one", "two"} {
		if _, err := b.Fetch(t.Context(), "three", []events.File{more}, Outside{}, nil); reason(err) != events.DiskFull || !strings.Contains(err.Error(), "other jobs hold") {
			t.Fatalf("error %v", err)
		}
		b.Release(owner)
		b.Release(owner) // harmless
	}
	b.must(t, "three", more)
	if b.holds(t, held) || b.cache.total != 101 {
		t.Errorf("left: %v, counted %d", b.cached(t), b.cache.total)
	}
}

func TestAPackageThatCanNeverFitIsRefusedBeforeItIsFetched(t *testing.T) {
	b := newBench(t, func(o *Options) { o.MaxBytes = 300 })
	_, err := b.Fetch(t.Context(), "job", []events.File{b.file("1", 200), b.file("2", 101)}, Outside{}, nil)
	if reason(err) != events.CacheTooSmall || len(b.opened) != 0 {
		t.Errorf("error %v after %d transfers", err, len(b.opened))
	}
}

func TestPartialFilesCountAndGoWithTheRest(t *testing.T) {
	b := newBench(t, func(o *Options) { o.MaxBytes = 300 })
	left := b.file("1", 250)
	if err := os.WriteFile(b.cache.partialPath(left.SHA256), make([]byte, 200), 0o600); err != nil {
		t.Fatal(err)
	}
	again := onDisk(t, b.dir, b.memory, func(o *Options) { o.MaxBytes = 300 })
	if again.cache.total != 200 {
		t.Fatalf("counted %d", again.cache.total)
	}
	again.must(t, "job", again.file("2", 150))
	if _, err := os.Stat(again.cache.partialPath(left.SHA256)); !errors.Is(err, fs.ErrNotExist) || again.cache.total != 150 {
		t.Errorf("counted %d, %v", again.cache.total, err)
	}
}

func TestABlobThatSomebodyRemovedIsFetchedAgain(t *testing.T) {
	b := newBench(t, nil)
	f := b.file("1", 100)
	for _, harm := range []func(string) error{os.Remove, func(p string) error { return os.Truncate(p, 50) }} {
		b.must(t, "job", f)
		if err := harm(b.cache.blobPath(f.SHA256)); err != nil {
			t.Fatal(err)
		}
		if got := b.must(t, "job", f); got.Bytes != 100 || b.cache.total != 100 {
			t.Errorf("fetched %+v, counted %d", got, b.cache.total)
		}
	}
}

func TestTheCacheIsForTheAgentOnly(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no permission bits")
	}
	dir := filepath.Join(t.TempDir(), "cache")
	if err := os.Mkdir(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	b := onDisk(t, dir, &memory{blobs: map[string][]byte{}}, nil)
	f := b.file("1", 10)
	b.must(t, "job", f)
	for path, want := range map[string]fs.FileMode{dir: 0o700, filepath.Dir(b.cache.blobPath(f.SHA256)): 0o700, b.cache.blobPath(f.SHA256): 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, want %v", path, info.Mode(), want)
		}
	}
}

func TestAFullDiskIsSaidAndKeepsNothingPartial(t *testing.T) {
	dir := smallDisk(t)
	b := onDisk(t, dir, &memory{blobs: map[string][]byte{}}, nil)
	_, err := b.Fetch(t.Context(), "job", []events.File{b.file("1", 3<<20)}, Outside{}, nil)
	if reason(err) != events.DiskFull || len(b.opened) != 1 {
		t.Fatalf("error %v after %d transfers", err, len(b.opened))
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "partial", "*")); len(left) > 0 || b.cache.total != 0 {
		t.Errorf("left: %v, counted %d", left, b.cache.total)
	}
	small := b.file("2", 600<<10)
	b.must(t, "job", small)
	t.Run("staging too", func(t *testing.T) {
		dest := filepath.Join(dir, "run")
		if err := b.Stage(t.Context(), []events.File{small}, dest, nil); reason(err) != events.DiskFull {
			t.Errorf("error %v", err)
		}
		if _, err := os.Stat(dest); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("half a copy is left: %v", err)
		}
	})
}

// smallDisk mounts a file system of one MiB for the time of a test.
func smallDisk(t *testing.T) string {
	t.Helper()
	need := t.Skip
	if os.Getenv("CHANDLER_TEST_REQUIRE") == "1" {
		need = t.Fatal
	}
	if runtime.GOOS != "linux" || os.Getuid() != 0 {
		need("a small disk needs Linux and root: run this test as root")
	}
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", dir).CombinedOutput(); err != nil {
		need(fmt.Sprintf("mount tmpfs: %v %s", err, out))
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v %s", err, out)
		}
	})
	return dir
}
