package daemon

import (
	"context"
	"errors"
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
