package vault

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"
)

// readOwn reads a private file that somebody else could have put there before: it must be root's or this user's.
func readOwn(path string, limit int) ([]byte, error) { return readFile(path, limit, checkOwned) }

// readPrivate reads a file that only its owner may read, of at most limit bytes.
func readPrivate(path string, limit int) ([]byte, error) {
	return readFile(path, limit, func(string, fs.FileInfo) error { return nil })
}

func readFile(path string, limit int, check func(string, fs.FileInfo) error) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("it is no regular file")
	}
	if err := errors.Join(check(path, info), checkPrivate(info)); err != nil {
		return nil, err
	}
	data := make([]byte, limit+1)
	n, err := io.ReadFull(f, data)
	switch {
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return data[:n], nil
	case err == nil:
		clear(data)
		err = fmt.Errorf("it is larger than %d bytes", limit)
	}
	return nil, err
}

// writeNew makes a file, whole or not at all, and its directory. One that is there stays.
func writeNew(path string, data []byte) error {
	return write(path, data, func(made string) error {
		if err := os.Link(made, path); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		return nil
	})
}

// replace puts a complete new file in a file's place.
func replace(path string, data []byte) error {
	return write(path, data, func(made string) error { return os.Rename(made, path) })
}

func write(path string, data []byte, place func(made string) error) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, filepath.Base(path)+".*") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := place(f.Name()); err != nil {
		return err
	}
	return syncDir(dir)
}

// shred overwrites a file, as far as the disk does that in place, and removes it.
func shred(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		// What fails here leaves no more behind than removing alone would.
		if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
			_, _ = f.Write(make([]byte, min(info.Size(), maxEnvelope)))
			_ = f.Sync()
		}
		_ = f.Close()
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// lockWait is between two tries to get a lock.
const lockWait = 20 * time.Millisecond

// lock waits for the lock in a file, which goes with the process. It is not for readers: they find whole files.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("another process holds the lock %s: %w", path, context.Cause(ctx)), f.Close())
		case <-timer.C:
		}
		taken, err := tryLock(f)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
		}
		if taken {
			return func() { _ = f.Close() }, nil
		}
		timer.Reset(lockWait + rand.N(lockWait))
	}
}
