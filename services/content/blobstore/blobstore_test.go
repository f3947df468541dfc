package blobstore

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"chandler/events"
)

func open(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func randomBytes(seed uint64, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(seed)}).Read(b)
	return b
}

func tempFiles(t *testing.T, s *Store) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(s.temp(), "*"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestABlobIsReadBackAsItWasPut(t *testing.T) {
	for _, size := range []int{0, 1, 100_000} {
		s := open(t, t.TempDir())
		data := randomBytes(1, size)
		digest := events.DigestOf(data)
		for range 2 { // the second time it is there already
			if err := s.Put(t.Context(), digest, int64(size), bytes.NewReader(data)); err != nil {
				t.Fatal(err)
			}
		}
		f, err := s.Open(digest)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(f)
		f.Close()
		if err != nil || !bytes.Equal(got, data) {
			t.Fatalf("read %d bytes, %v", len(got), err)
		}
		if blobs, n := s.Totals(); blobs != 1 || n != int64(size) {
			t.Errorf("totals %d blobs, %d bytes", blobs, n)
		}
		if blobs, n := open(t, s.dir).Totals(); blobs != 1 || n != int64(size) {
			t.Errorf("totals after opening again: %d blobs, %d bytes", blobs, n)
		}
		if err := s.Verify(t.Context(), digest); err != nil {
			t.Error(err)
		}
		if len(tempFiles(t, s)) != 0 {
			t.Error("temporary files are left")
		}
	}
}

func TestWrongBytesAreRefusedAndLeaveNothing(t *testing.T) {
	data := []byte("the bytes announced")
	digest := events.DigestOf(data)
	broken := errors.New("connection broke")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for name, c := range map[string]struct {
		ctx  context.Context
		body io.Reader
		want error
	}{
		"other bytes":             {t.Context(), strings.NewReader("the bytes altered!!"), ErrMismatch},
		"too few":                 {t.Context(), bytes.NewReader(data[1:]), ErrMismatch},
		"too many":                {t.Context(), strings.NewReader(string(data) + "!"), ErrMismatch},
		"a reader that fails":     {t.Context(), iotest.ErrReader(broken), broken},
		"a context that is ended": {ended, bytes.NewReader(data), context.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, t.TempDir())
			if err := s.Put(c.ctx, digest, int64(len(data)), c.body); !errors.Is(err, c.want) {
				t.Fatalf("put: %v, want %v", err, c.want)
			}
			if s.Has(digest) || len(tempFiles(t, s)) != 0 {
				t.Error("something is left")
			}
		})
	}
}

func TestADigestIsNeverAPath(t *testing.T) {
	s := open(t, t.TempDir())
	for _, bad := range []string{"", "..", "../../etc/passwd", strings.Repeat("A", 64), strings.Repeat("a", 63) + "/"} {
		if _, err := s.Open(bad); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("open %q: %v", bad, err)
		}
		if err := s.Put(t.Context(), bad, 0, strings.NewReader("")); err == nil {
			t.Errorf("put %q succeeded", bad)
		}
		if err := s.Remove(bad); err == nil {
			t.Errorf("remove %q succeeded", bad)
		}
	}
}

func TestARemovedBlobIsGoneAndMayBeRemovedAgain(t *testing.T) {
	s := open(t, t.TempDir())
	digest := events.DigestOf([]byte("x"))
	if err := s.Put(t.Context(), digest, 1, strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Remove(digest); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Size(digest); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("size: %v", err)
	}
	if blobs, n := s.Totals(); blobs != 0 || n != 0 {
		t.Errorf("totals %d blobs, %d bytes", blobs, n)
	}
}

func TestVerifyFindsBytesThatDecayed(t *testing.T) {
	s := open(t, t.TempDir())
	digest := events.DigestOf([]byte("sound"))
	if err := s.Put(t.Context(), digest, 5, strings.NewReader("sound")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.dir, digest[:2], digest), []byte("soumd"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(t.Context(), digest); !errors.Is(err, ErrMismatch) {
		t.Errorf("verify: %v", err)
	}
	if err := s.Put(t.Context(), digest, 5, strings.NewReader("sound")); err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(t.Context(), digest); err != nil {
		t.Errorf("after another put: %v", err)
	}
}

func TestOpenSweepsOldTemporaryFilesOnly(t *testing.T) {
	s := open(t, t.TempDir())
	stale, fresh := filepath.Join(s.temp(), "stale"), filepath.Join(s.temp(), "fresh")
	for _, name := range []string{stale, fresh} {
		if err := os.WriteFile(name, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	old := time.Now().Add(-2 * staleAfter)
	if err := os.Chtimes(stale, old, old); err != nil {
		t.Fatal(err)
	}
	open(t, s.dir)
	if left := tempFiles(t, s); len(left) != 1 || left[0] != fresh {
		t.Errorf("left: %v", left)
	}
}

func TestBlobsAreForTheirOwnerOnly(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no permission bits")
	}
	s := open(t, filepath.Join(t.TempDir(), "new"))
	digest := events.DigestOf(nil)
	if err := s.Put(t.Context(), digest, 0, strings.NewReader("")); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]fs.FileMode{s.dir: 0o700, filepath.Join(s.dir, digest[:2]): 0o700, filepath.Join(s.dir, digest[:2], digest): 0o600} {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v %v, want %v", path, info.Mode(), err, want)
		}
	}
}

func TestConcurrentPutsOfOneBlobCountOnce(t *testing.T) {
	s := open(t, t.TempDir())
	data := randomBytes(2, 1<<16)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if err := s.Put(t.Context(), events.DigestOf(data), int64(len(data)), bytes.NewReader(data)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if blobs, n := s.Totals(); blobs != 1 || n != 1<<16 {
		t.Errorf("totals %d blobs, %d bytes", blobs, n)
	}
}

func TestAFullDiskIsSaidAndLeavesNothing(t *testing.T) {
	dir := smallDisk(t)
	s := open(t, dir)
	data := randomBytes(3, 4<<20)
	if err := s.Put(t.Context(), events.DigestOf(data), int64(len(data)), bytes.NewReader(data)); !errors.Is(err, ErrDiskFull) {
		t.Fatalf("put: %v", err)
	}
	if len(tempFiles(t, s)) != 0 {
		t.Error("the temporary file is left")
	}
	if err := s.Put(t.Context(), events.DigestOf([]byte("x")), 1, strings.NewReader("x")); err != nil {
		t.Errorf("a small blob no longer fits: %v", err)
	}
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
		need("mount tmpfs: ", err, " ", string(out))
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v %s", err, out)
		}
	})
	return dir
}
