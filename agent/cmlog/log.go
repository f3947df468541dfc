// Package cmlog writes and reads log files in the format that CMTrace shows,
// with the rotation that administrators of the field expect: X.log grows to its
// limit, becomes X.lo_, and starts anew.
//
// An entry is one append. After a crash or a full disk the file may end in a torn
// entry: the next one starts on a line of its own, and the reader skips the torn
// one. Entries are not synced to disk one by one, so a power cut can lose the last
// few. Text cannot forge an entry, whatever it holds (see Entry.Clean and Format).
// A log that an administrator deletes or moves away is created again at the next
// entry. The size limit outweighs the history: if the old file cannot be kept, it
// is given up rather than letting the log fill the disk.
package cmlog

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Options of a log. The zero value is that of the original's clients.
type Options struct {
	Format   Format         // CCM by default
	MaxSize  int64          // bytes at which a file is rotated; 0 means 250,000, less than 10,000 is an error
	History  int            // old files kept: 0 means 1, a negative number none; the newest is X.lo_, older ones X-<UTC time>.log
	Location *time.Location // of the times in the file; nil means time.Local
	// Tee, if set, gets every entry exactly once, clean, in the order of the file,
	// also those that could not be written. It must not block and not call Write.
	Tee func(Entry)
}

const (
	defaultMaxSize = 250_000
	minMaxSize     = 10_000
	stampLayout    = "20060102-150405.000"
)

// Log is an open log file. Its methods may be called concurrently. One Log at a
// time may write a file.
type Log struct {
	path string
	opt  Options

	mu     sync.Mutex
	file   *os.File // nil after Close, or when the last attempt to open it failed
	size   int64
	torn   bool // the file ends inside an entry
	closed bool
}

// Open opens the log at path, which must end in ".log", and creates it (0600)
// and its directory (0700) if need be. A path that is anything but a regular
// file, also a symbolic link, is an error.
func Open(path string, opt Options) (*Log, error) {
	if filepath.Ext(path) != ".log" {
		return nil, fmt.Errorf("open log %s: its name must end in .log", path)
	}
	if opt.MaxSize == 0 {
		opt.MaxSize = defaultMaxSize
	}
	if opt.MaxSize < minMaxSize {
		return nil, fmt.Errorf("open log %s: size limit %d is less than %d bytes", path, opt.MaxSize, minMaxSize)
	}
	if opt.History == 0 {
		opt.History = 1
	}
	if opt.Location == nil {
		opt.Location = time.Local
	}
	l := &Log{path: path, opt: opt}
	if err := l.open(); err != nil {
		return nil, err
	}
	return l, nil
}

// Write appends one entry, cleaned. On an error the entry may be missing from
// the file; the log stays usable, and the next Write tries afresh.
func (l *Log) Write(e Entry) error {
	e = e.Clean()
	line := l.opt.Format.encode(e, l.opt.Location)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return fmt.Errorf("write log %s: %w", l.path, os.ErrClosed)
	}
	if l.opt.Tee != nil {
		l.opt.Tee(e)
	}
	if l.file == nil || l.replaced() {
		if err := l.open(); err != nil {
			return err
		}
	}
	var rotateErr error
	if l.size > 0 && l.size+int64(len(line)) > l.opt.MaxSize {
		if rotateErr = l.rotate(); l.file == nil {
			return rotateErr
		}
	}
	return errors.Join(rotateErr, l.append(line))
}

// Close closes the file. Writing afterwards is an error that wraps os.ErrClosed.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	return l.closeFile()
}

// append adds line in one write, so that a crash tears at most this entry.
func (l *Log) append(line []byte) error {
	if l.torn {
		line = append([]byte("\n"), line...)
	}
	n, err := l.file.Write(line)
	if err == nil {
		l.size += int64(n)
		l.torn = false
		return nil
	}
	// Take a part of an entry away again; if that fails too, the next entry
	// starts on a line of its own. By path: on Windows a file opened for appending
	// cannot be shortened by its handle.
	if n > 0 && os.Truncate(l.path, l.size) != nil {
		l.size += int64(n)
		l.torn = true
	}
	return fmt.Errorf("write log %s: %w", l.path, err)
}

// open opens the file at l.path and finds out whether its end is torn.
func (l *Log) open() error {
	if err := l.closeFile(); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(l.path), 0o700); err != nil {
		return fmt.Errorf("open log %s: %w", l.path, err)
	}
	// A pipe would block the agent, a link would lead the agent's rights elsewhere.
	if info, err := os.Lstat(l.path); err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("open log %s: not a regular file", l.path)
	}
	f, err := os.OpenFile(l.path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return fmt.Errorf("open log: %w", err)
	}
	l.file, l.size, l.torn = f, info.Size(), false
	if l.size > 0 {
		var last [1]byte
		_, err := f.ReadAt(last[:], l.size-1)
		l.torn = err != nil || last[0] != '\n'
	}
	return nil
}

// replaced reports whether the open file is no longer the one at l.path.
func (l *Log) replaced() bool {
	there, err := os.Lstat(l.path)
	if err != nil {
		return true
	}
	ours, err := l.file.Stat()
	return err != nil || !os.SameFile(there, ours)
}

func (l *Log) closeFile() error {
	if l.file == nil {
		return nil
	}
	err := l.file.Close()
	l.file = nil
	if err != nil {
		return fmt.Errorf("close log: %w", err)
	}
	return nil
}

// rotate makes the file empty and keeps the old one as the history wants.
// The file is open and empty afterwards even if the old one could not be kept,
// unless it can be neither renamed nor emptied.
func (l *Log) rotate() error {
	keepErr := l.closeFile()
	if l.opt.History > 0 {
		keepErr = errors.Join(keepErr, l.keep())
	}
	if err := l.open(); err != nil {
		return errors.Join(keepErr, err)
	}
	if l.size > 0 {
		if err := os.Truncate(l.path, 0); err != nil {
			return errors.Join(keepErr, fmt.Errorf("rotate log %s: %w", l.path, err))
		}
		l.size, l.torn = 0, false
	}
	return keepErr
}

// keep moves the full file to X.lo_, after the one before it went to the older ones.
func (l *Log) keep() error {
	old := strings.TrimSuffix(l.path, ".log") + ".lo_"
	var ageErr error
	if l.opt.History > 1 {
		ageErr = l.age(old)
	}
	if err := os.Rename(l.path, old); err != nil {
		// On Windows a viewer that has the file open forbids renaming, not reading.
		if copyErr := copyFile(l.path, old); copyErr != nil {
			return errors.Join(ageErr, fmt.Errorf("rotate log: %w", errors.Join(err, copyErr)))
		}
	}
	return ageErr
}

// age gives X.lo_ a name with the time of its last entry and removes the oldest
// of these files beyond the history.
func (l *Log) age(old string) error {
	info, err := os.Lstat(old)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("rotate log: %w", err)
	}
	base := strings.TrimSuffix(l.path, ".log")
	if err := os.Rename(old, stamped(base, info.ModTime())); err != nil {
		return fmt.Errorf("rotate log: %w", err)
	}
	kept, err := agedFiles(base)
	if err != nil {
		return err
	}
	for len(kept) > l.opt.History-1 {
		if err := os.Remove(kept[0]); err != nil {
			return fmt.Errorf("rotate log: %w", err)
		}
		kept = kept[1:]
	}
	return nil
}

// stamped returns a free name for a file last written at t: two rotations may
// fall into one millisecond.
func stamped(base string, t time.Time) string {
	for {
		name := base + "-" + t.UTC().Format(stampLayout) + ".log"
		if _, err := os.Lstat(name); err != nil {
			return name
		}
		t = t.Add(time.Millisecond)
	}
}

// agedFiles lists the files that age made of base, oldest first, and no others:
// a log "x" must not remove what belongs to a log "x-y".
func agedFiles(base string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Dir(base))
	if err != nil {
		return nil, fmt.Errorf("rotate log: %w", err)
	}
	var files []string
	for _, entry := range entries {
		stamp, ok := strings.CutPrefix(entry.Name(), filepath.Base(base)+"-")
		stamp, isLog := strings.CutSuffix(stamp, ".log")
		if _, err := time.Parse(stampLayout, stamp); ok && isLog && err == nil {
			files = append(files, filepath.Join(filepath.Dir(base), entry.Name()))
		}
	}
	slices.Sort(files) // the stamp sorts by time
	return files, nil
}

func copyFile(from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	return errors.Join(err, dst.Close())
}
