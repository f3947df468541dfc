package daemon

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

func TestASyncerFindsWhatWasWrittenAndForgivesWhatIsGone(t *testing.T) {
	dir := t.TempDir()
	s := NewSyncer(filepath.Join(dir, "store"))
	if err := s.Sync(t.Context()); err != nil {
		t.Errorf("a directory that is not there yet: %v", err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "store", "streams"), 0o700); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "store", "streams", "1.blk")
	if err := os.WriteFile(file, []byte("stored"), 0o600); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			if err := s.Sync(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	s.turn.Lock()
	if err := s.Sync(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("who gives up is told %v", err)
	}
	s.turn.Unlock()
}

func TestTheDirectoryOfASyncerMayBeALink(t *testing.T) {
	dir, link := t.TempDir(), filepath.Join(t.TempDir(), "store")
	if err := os.WriteFile(filepath.Join(dir, "1.blk"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(dir, link); err != nil {
		if os.Getenv("CHANDLER_TEST_REQUIRE") == "1" {
			t.Fatal(err)
		}
		t.Skip("let this user make links:", err)
	}
	met := map[string]bool{}
	err := NewSyncer(link).walk(func(path string, entry fs.DirEntry) error {
		met[filepath.Base(path)] = entry.Type().IsRegular()
		return nil
	})
	if err != nil || !met["1.blk"] {
		t.Errorf("found are %v (%v)", met, err)
	}
}

func TestAClockThatIsSetBackHidesNothingFromASyncer(t *testing.T) {
	last := time.Date(2026, 12, 1, 8, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		byClock time.Duration
		want    time.Time
	}{
		"as it goes":  {time.Minute, last.Add(-clockGrain)},
		"set back":    {-time.Hour, time.Time{}},
		"set forward": {time.Hour, last.Add(-clockGrain)},
		"put right":   {time.Minute - time.Second, last.Add(-clockGrain)},
	} {
		if got := writtenSince(last, time.Minute, c.byClock); !got.Equal(c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	if got := writtenSince(time.Time{}, time.Minute, time.Minute); got.After(time.Time{}) {
		t.Errorf("the first time: %v", got)
	}
}

func TestOnlyWhatWasWrittenSinceIsSynced(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "1.blk")
	if err := os.WriteFile(file, nil, 0o000); err != nil { // whoever is not root cannot open it
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := syncEntry(filepath.Join(dir, "elsewhere"), entries[0], time.Now().Add(time.Hour)); err != nil {
		t.Errorf("an older file is opened: %v", err)
	}
	if err := syncEntry(filepath.Join(dir, "elsewhere"), entries[0], time.Now().Add(-time.Hour)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a newer file is not opened: %v", err)
	}
}
