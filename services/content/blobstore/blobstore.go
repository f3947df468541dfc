// Package blobstore keeps blobs, named by the SHA-256 of their bytes, in a directory.
//
// A blob is at DIR/ab/abcdef… or it is not there: it is written to DIR/tmp, hashed on the way, synced and
// renamed, so that neither a crash nor a full disk leaves a blob that is short or wrong. What a crash
// leaves in DIR/tmp is swept at a later Open. Bytes that decay on the disk are found by Verify, and by
// whoever reads them: every reader knows the digest. Several processes may share one directory.
package blobstore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"chandler/events"
)

// Errors that callers tell apart; a blob that is not there is fs.ErrNotExist.
var (
	ErrMismatch = errors.New("bytes do not match the digest")
	ErrDiskFull = errors.New("disk is full")
)

// staleAfter is older than any upload still under way: uploads that stand still are cut off long before.
const staleAfter = time.Hour

// Store is a directory of blobs. All methods may be called concurrently.
type Store struct {
	dir string

	mu    sync.Mutex // guards the totals, and that a blob and its share of them change together
	count int64
	bytes int64
}

// Open makes the directory (0700) where it is not there, sweeps what a crash left, and counts the blobs.
func Open(dir string) (*Store, error) {
	s := &Store{dir: dir}
	if err := os.MkdirAll(s.temp(), 0o700); err != nil {
		return nil, fmt.Errorf("make blob store %s: %w", dir, err)
	}
	if err := s.sweep(time.Now().Add(-staleAfter)); err != nil {
		return nil, fmt.Errorf("sweep blob store %s: %w", dir, err)
	}
	if err := s.tally(); err != nil {
		return nil, fmt.Errorf("count blob store %s: %w", dir, err)
	}
	return s, nil
}

func (s *Store) temp() string { return filepath.Join(s.dir, "tmp") }

// path of a blob; the digest is checked, so that nothing else is ever joined to the directory.
func (s *Store) path(digest string) (string, error) {
	if err := events.ValidDigest(digest); err != nil {
		return "", err
	}
	return filepath.Join(s.dir, digest[:2], digest), nil
}

func (s *Store) sweep(before time.Time) error {
	entries, err := os.ReadDir(s.temp())
	if err != nil {
		return err
	}
	for _, e := range entries {
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) || err == nil && !info.ModTime().Before(before) {
			continue
		}
		if err != nil {
			return err
		}
		if err := os.Remove(filepath.Join(s.temp(), e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func (s *Store) tally() error {
	return s.Each(func(_ string, size int64) error {
		s.count++
		s.bytes += size
		return nil
	})
}

// Each calls do with the digest and size of every blob, until that fails.
func (s *Store) Each(do func(digest string, size int64) error) error {
	shards, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, shard := range shards {
		if !shard.IsDir() || len(shard.Name()) != 2 {
			continue
		}
		blobs, err := os.ReadDir(filepath.Join(s.dir, shard.Name()))
		if err != nil {
			return err
		}
		for _, b := range blobs {
			info, err := b.Info()
			if err != nil || events.ValidDigest(b.Name()) != nil || !strings.HasPrefix(b.Name(), shard.Name()) {
				continue
			}
			if err := do(b.Name(), info.Size()); err != nil {
				return err
			}
		}
	}
	return nil
}

// Totals are the blobs stored and their bytes.
func (s *Store) Totals() (blobs, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count, s.bytes
}

// Put stores exactly size bytes of r under their digest and returns when they are on the disk. Other bytes,
// fewer or more are ErrMismatch; a full disk is ErrDiskFull. Storing a blob that is there already is no error.
func (s *Store) Put(ctx context.Context, digest string, size int64, r io.Reader) error {
	path, err := s.path(digest)
	if err != nil {
		return err
	}
	if size < 0 {
		return fmt.Errorf("store blob %s: size %d is negative", digest, size)
	}
	f, err := os.CreateTemp(s.temp(), digest[:16]+"-*")
	if err != nil {
		return fmt.Errorf("store blob %s: %w", digest, full(err))
	}
	defer os.Remove(f.Name()) // after the rename there is nothing of that name
	err = errors.Join(write(ctx, f, digest, size, r), f.Close())
	if err == nil {
		err = s.admit(f.Name(), path, size)
	}
	if err != nil {
		return fmt.Errorf("store blob %s: %w", digest, full(err))
	}
	return nil
}

func write(ctx context.Context, f *os.File, digest string, size int64, r io.Reader) error {
	hash := sha256.New()
	// One byte more than wanted tells a body that is too long.
	n, err := io.Copy(io.MultiWriter(f, hash), io.LimitReader(interruptible{ctx, r}, size+1))
	switch {
	case err != nil:
		return err
	case n > size:
		return fmt.Errorf("%w: more than the %d bytes announced", ErrMismatch, size)
	case n < size:
		return fmt.Errorf("%w: %d bytes of the %d announced", ErrMismatch, n, size)
	}
	if got := hex.EncodeToString(hash.Sum(nil)); got != digest {
		return fmt.Errorf("%w: the bytes hash to %s", ErrMismatch, got)
	}
	return f.Sync()
}

// admit renames a finished file to its place and syncs the directories whose entries changed.
func (s *Store) admit(temp, path string, size int64) error {
	shard := filepath.Dir(path)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := os.Mkdir(shard, 0o700); err == nil {
		if err := syncDir(s.dir); err != nil {
			return err
		}
	} else if !errors.Is(err, fs.ErrExist) {
		return err
	}
	old, statErr := os.Stat(path)
	if err := os.Rename(temp, path); err != nil {
		return err
	}
	if statErr == nil {
		s.bytes -= old.Size()
	} else {
		s.count++
	}
	s.bytes += size
	return syncDir(shard)
}

// Open opens a blob for reading; fs.ErrNotExist where there is none. The bytes are not verified.
func (s *Store) Open(digest string) (*os.File, error) {
	path, err := s.path(digest)
	if err != nil {
		return nil, err
	}
	return os.Open(path)
}

// Size of a blob in bytes; fs.ErrNotExist where there is none.
func (s *Store) Size(digest string) (int64, error) {
	path, err := s.path(digest)
	if err != nil {
		return 0, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// Has says whether the blob is stored. What cannot be told counts as not stored.
func (s *Store) Has(digest string) bool {
	_, err := s.Size(digest)
	return err == nil
}

// Remove deletes a blob; one that is not there is no error. Readers that have it open read on.
func (s *Store) Remove(digest string) error {
	path, err := s.path(digest)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	s.count--
	s.bytes -= info.Size()
	return syncDir(filepath.Dir(path))
}

// Verify reads a whole blob and returns ErrMismatch where its bytes are no longer those of its digest.
func (s *Store) Verify(ctx context.Context, digest string) error {
	f, err := s.Open(digest)
	if err != nil {
		return err
	}
	defer f.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, interruptible{ctx, f}); err != nil {
		return fmt.Errorf("verify blob %s: %w", digest, err)
	}
	if got := hex.EncodeToString(hash.Sum(nil)); got != digest {
		return fmt.Errorf("verify blob %s: %w: the bytes hash to %s", digest, ErrMismatch, got)
	}
	return nil
}

// full marks the operating system's ways to say that a disk is full.
func full(err error) error {
	if diskFull(err) {
		return fmt.Errorf("%w: %w", ErrDiskFull, err)
	}
	return err
}

// interruptible ends reading when the context does.
type interruptible struct {
	ctx context.Context
	r   io.Reader
}

func (i interruptible) Read(p []byte) (int, error) {
	if err := context.Cause(i.ctx); err != nil {
		return 0, err
	}
	return i.r.Read(p)
}
