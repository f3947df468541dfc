package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// A Syncer makes what others write below a directory outlive a power cut: an embedded broker hands what it stores to the
// system before it acknowledges, and syncs it seconds later.
type Syncer struct {
	dir string

	mu   sync.Mutex
	next *syncRound // that later callers join; nil: none has been asked for

	turn sync.Mutex // one walk after the other
	last time.Time  // what was written before is synced; guarded by turn
}

// syncRound is one walk for all who asked before it began.
type syncRound struct {
	done chan struct{}
	err  error
}

// clockGrain is more than file systems are wrong by when they say when a file was written.
const clockGrain = 5 * time.Second

// NewSyncer of a directory, which may not be there yet.
func NewSyncer(dir string) *Syncer { return &Syncer{dir: dir} }

// Sync returns when all that was written before the call is on the disk. Callers at one time share the work. An error says
// that it may not be.
func (s *Syncer) Sync(ctx context.Context) error {
	s.mu.Lock()
	r := s.next
	if r == nil {
		r = &syncRound{done: make(chan struct{})}
		s.next = r
		go s.lead(r)
	}
	s.mu.Unlock()
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *Syncer) lead(r *syncRound) {
	defer close(r.done)
	s.turn.Lock()
	defer s.turn.Unlock()
	s.mu.Lock()
	s.next = nil // who comes now has written something that this walk may have passed
	s.mu.Unlock()
	began := time.Now()
	since := writtenSince(s.last, began.Sub(s.last), began.Round(0).Sub(s.last.Round(0)))
	if r.err = s.walk(func(path string, entry fs.DirEntry) error { return syncEntry(path, entry, since) }); r.err == nil {
		s.last = began
	}
}

// writtenSince is a time before those of all files that were written after last; zero where the clock, by which files
// have their times, was set back meanwhile: then less time has passed by it than truly did.
func writtenSince(last time.Time, passed, byClock time.Duration) time.Time {
	if passed-byClock > clockGrain/2 {
		return time.Time{}
	}
	return last.Add(-clockGrain)
}

// walk goes through the directory's files and directories, itself among them.
func (s *Syncer) walk(each func(path string, entry fs.DirEntry) error) error {
	var failures []error
	// The directory may be a link, to another disk: a walk follows it if it ends so.
	err := filepath.WalkDir(s.dir+string(filepath.Separator), func(path string, entry fs.DirEntry, err error) error {
		if err == nil {
			err = each(path, entry)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // what is gone needs no sync but its directory's
			failures = append(failures, err)
		}
		return nil
	})
	if err := errors.Join(append(failures, err)...); err != nil {
		return fmt.Errorf("write %s to the disk: %w", s.dir, err)
	}
	return nil
}

// syncEntry syncs what was written since.
func syncEntry(path string, entry fs.DirEntry, since time.Time) error {
	if !entry.IsDir() && !entry.Type().IsRegular() || entry.IsDir() && !dirsSync {
		return nil
	}
	info, err := entry.Info()
	if err != nil || info.ModTime().Before(since) {
		return err
	}
	f, err := os.OpenFile(path, syncFlag(), 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
