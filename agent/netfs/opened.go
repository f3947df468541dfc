package netfs

import (
	"errors"
	"io"
	"os"

	"chandler/agent/source"
	"chandler/events/resource"
)

// opened is a file that a program opened: one of a source, or the checked copy of a pinned one.
type opened struct {
	info  source.Info
	grant *grant // by which it may be read
	file  *file  // to be released; nil of a copy
	kept  *os.File
}

// openFile opens an address for a program.
func (r *reader) openFile(at resource.Resource) (opened, error) {
	return anew(func() (opened, error) {
		if s := r.pin(at); s != nil {
			return r.fill(s, at)
		}
		f, err := r.acquire(at)
		if err != nil {
			return opened{}, err
		}
		return opened{info: f.info, grant: f.grant, file: f}, nil
	})
}

// readOpened reads what a program opened.
func (r *reader) readOpened(o opened, p []byte, offset int64) (int, error) {
	if o.kept == nil {
		return r.readAt(o.file, p, offset)
	}
	n, err := o.kept.ReadAt(p, offset)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}
