package filesource

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"chandler/agent/source"
	"chandler/events"
	"chandler/events/resource"
)

const (
	piece = 128 << 10 // read by one call, for which the patience counts
	batch = 256       // entries of a folder that are looked at by one call
)

// object is an open file or folder.
type object struct {
	file  *os.File
	info  source.Info
	calls *calls
	links bool // those in a folder are looked at
	most  int  // entries of a folder

	listing sync.Mutex // one at a time, since they move the folder's position
}

func newObject(file *os.File, where resource.Resource, calls *calls) (*object, error) {
	stat, err := file.Stat()
	if err == nil && !stat.Mode().IsRegular() && !stat.IsDir() {
		err = errNeither
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return &object{file: file, info: infoOf(path.Base(where.Path), stat), calls: calls, links: where.Host == "", most: source.MaxEntries}, nil
}

func infoOf(name string, stat fs.FileInfo) source.Info {
	info := source.Info{Name: name, Folder: stat.IsDir(), Modified: stat.ModTime(), Mode: stat.Mode().Perm()}
	if !info.Folder {
		info.Size = stat.Size()
	}
	return info
}

func (o *object) Info() source.Info { return o.info }

// Close ends the object. A read that was left behind keeps the file open for as long as it takes.
func (o *object) Close() error { return o.file.Close() }

func (o *object) ReadAt(ctx context.Context, p []byte, offset int64) (n int, err error) {
	switch {
	case o.info.Folder:
		return 0, unsupported("is a folder")
	case offset < 0:
		return 0, unsupported("read before the beginning of the file")
	}
	for n < len(p) {
		got, err := inTime(ctx, o.calls, func() ([]byte, error) { return o.read(min(len(p)-n, piece), offset+int64(n)) })
		n += copy(p[n:], got)
		if errors.Is(err, io.EOF) {
			return n, io.EOF
		}
		if err != nil {
			return n, explain(err)
		}
	}
	return n, nil
}

// read gives bytes of its own, since whoever asked for them may have left. They count only if the file is the one that
// was opened still.
func (o *object) read(length int, offset int64) ([]byte, error) {
	p := make([]byte, length)
	n, readErr := o.file.ReadAt(p, offset)
	stat, err := o.file.Stat()
	switch {
	case err != nil:
		return nil, err
	case stat.Size() != o.info.Size || !stat.ModTime().Equal(o.info.Modified):
		return nil, &source.Error{Reason: events.ContentChanged, Answer: "the file was changed while it was read"}
	}
	return p[:n], readErr
}

// List looks at the folder as it is now.
func (o *object) List(ctx context.Context) ([]source.Info, error) {
	if !o.info.Folder {
		return nil, unsupported("is no folder")
	}
	o.listing.Lock()
	defer o.listing.Unlock()
	var all []source.Info
	for first, seen := true, 0; ; first = false {
		some, err := inTime(ctx, o.calls, func() ([]fs.DirEntry, error) { return o.next(first) })
		if seen += len(some); seen > o.most {
			return nil, unsupported(fmt.Sprintf("the folder has more than %d entries", o.most))
		}
		infos, lookErr := inTime(ctx, o.calls, func() ([]source.Info, error) { return o.look(some) })
		all = append(all, infos...)
		if errors.Is(err, io.EOF) && lookErr == nil {
			slices.SortFunc(all, func(a, b source.Info) int { return strings.Compare(a.Name, b.Name) })
			return all, nil
		}
		if err := errors.Join(err, lookErr); err != nil {
			return nil, explain(err)
		}
	}
}

func (o *object) next(first bool) ([]fs.DirEntry, error) {
	if first {
		if _, err := o.file.Seek(0, io.SeekStart); err != nil {
			return nil, err
		}
	}
	return o.file.ReadDir(batch)
}

// look leaves out what is gone again, and what a list does not have.
func (o *object) look(entries []fs.DirEntry) (infos []source.Info, err error) {
	for _, entry := range entries {
		name := entry.Name()
		if _, err := resource.Parse((resource.Resource{Scheme: resource.File, Path: "/" + name}).String()); err != nil {
			continue
		}
		stat, err := entry.Info()
		link := err == nil && stat.Mode()&fs.ModeSymlink != 0
		if link && o.links {
			stat, err = os.Stat(filepath.Join(o.file.Name(), name))
		}
		switch {
		case errors.Is(err, fs.ErrNotExist) || link && err != nil:
			continue
		case err != nil:
			return nil, err
		case stat.Mode().IsRegular() || stat.IsDir() && !link:
			infos = append(infos, infoOf(name, stat))
		}
	}
	return infos, nil
}
