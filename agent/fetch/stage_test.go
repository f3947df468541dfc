package fetch

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"chandler/events"
)

func TestEachRunGetsAFreshCopy(t *testing.T) {
	b := newBench(t, nil)
	tool := b.file("bin/sub/tool", 2*events.BlockSize)
	tool.Mode = 0o755
	files := []events.File{tool, b.file("data.txt", 100), b.file("empty", 0)}
	b.must(t, "job", files...)
	for _, name := range []string{"run1", "run2"} {
		dest := filepath.Join(t.TempDir(), name)
		if err := b.Stage(t.Context(), files, dest, nil); err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			path := filepath.Join(dest, filepath.FromSlash(f.Path))
			got, err := os.ReadFile(path)
			if err != nil || !bytes.Equal(got, random(f.Path, int(f.Size))) {
				t.Errorf("%s: %d bytes, %v", f.Path, len(got), err)
			}
			// What a run does to its copy, the next does not see.
			if err := os.WriteFile(path, []byte("changed"), 0o600); err != nil {
				t.Error(err)
			}
		}
		if runtime.GOOS == "windows" {
			continue
		}
		for path, want := range map[string]fs.FileMode{".": 0o700, "bin": 0o700, "bin/sub": 0o700, "bin/sub/tool": 0o700, "data.txt": 0o600} {
			if info, err := os.Stat(filepath.Join(dest, path)); err != nil || info.Mode().Perm() != want {
				t.Errorf("%s: %v, want %v", path, info.Mode(), want)
			}
		}
	}
	b.cached(t)
}

func TestADecayedBlobIsThrownOutAndFetchedAgain(t *testing.T) {
	for name, harm := range map[string]func(path string) error{
		"altered": func(p string) error { return os.WriteFile(p, random("other", 100), 0o600) },
		"longer":  func(p string) error { return os.WriteFile(p, append(random("a", 100), 'x'), 0o600) },
		"shorter": func(p string) error { return os.Truncate(p, 99) },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, nil)
			first, f := b.file("0", 10), b.file("a", 100)
			b.must(t, "job", first, f)
			if err := harm(b.cache.blobPath(f.SHA256)); err != nil {
				t.Fatal(err)
			}
			dest := filepath.Join(t.TempDir(), "run")
			err := b.Stage(t.Context(), []events.File{first, f}, dest, nil)
			if e, ok := errors.AsType[*Error](err); !ok || e.Reason != events.ContentMismatch || !strings.Contains(e.Answer, "file a decayed") {
				t.Fatalf("error %v", err)
			}
			if _, err := os.Stat(dest); !errors.Is(err, fs.ErrNotExist) {
				t.Error("half a copy is left")
			}
			if got := b.must(t, "job", f); got.Bytes != 100 {
				t.Errorf("fetched %+v", got)
			}
			if err := b.Stage(t.Context(), []events.File{f}, dest, nil); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestWhatIsNotCachedCannotBeStaged(t *testing.T) {
	b := newBench(t, nil)
	if err := b.Stage(t.Context(), []events.File{b.file("a", 1)}, filepath.Join(t.TempDir(), "run"), nil); reason(err) != events.ContentUnavailable {
		t.Errorf("error %v", err)
	}
}

func TestNothingIsStagedOutsideOfItsDirectory(t *testing.T) {
	b := newBench(t, nil)
	f := b.file("a", 1)
	b.must(t, "job", f)
	for _, path := range []string{"../x", "/x", "a/../../x", "", ".", `..\x`, "c:x", "a//b", "a\x00b"} {
		parent := t.TempDir()
		evil := f
		evil.Path = path
		if err := b.Stage(t.Context(), []events.File{evil}, filepath.Join(parent, "run"), nil); reason(err) != events.ContentMismatch {
			t.Errorf("path %q: %v", path, err)
		}
		if left, err := os.ReadDir(parent); err != nil || len(left) > 0 {
			t.Errorf("path %q left %v", path, left)
		}
	}
	t.Run("nor a file twice", func(t *testing.T) {
		if err := b.Stage(t.Context(), []events.File{f, f}, filepath.Join(t.TempDir(), "run"), nil); reason(err) != events.AgentFault {
			t.Errorf("error %v", err)
		}
	})
	t.Run("nor where something is already", func(t *testing.T) {
		if err := b.Stage(t.Context(), []events.File{f}, t.TempDir(), nil); reason(err) != events.AgentFault {
			t.Errorf("error %v", err)
		}
	})
}

func TestStagingEndsWithItsContext(t *testing.T) {
	b := newBench(t, nil)
	f := b.file("a", 1)
	b.must(t, "job", f)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.Stage(ctx, []events.File{f}, filepath.Join(t.TempDir(), "run"), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}
