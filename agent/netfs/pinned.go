package netfs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"sync"
	"syscall"

	"chandler/agent/source"
	"chandler/events"
	"chandler/events/resource"
)

const (
	maxPinned  = 64 << 30 // bytes
	spoolChunk = 1 << 20
)

// spool is a pinned file that was read and checked, or is about to be.
type spool struct {
	digest string
	turn   sync.Mutex // of who reads it
	file   *os.File   // without a name; nil: not read yet
	info   source.Info
	grant  *grant        // by which whoever opens it may read it
	wrong  *source.Error // it was not what was pinned
}

// pin is the spool of an address, whatever its letter case where that does not matter; nil: it is not pinned.
func (r *reader) pin(at resource.Resource) *spool {
	for address, digest := range r.Pins {
		p, err := resource.Parse(address)
		if err != nil || !p.Within(at) || !at.Within(p) {
			continue
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		s := r.pins[address]
		if s == nil {
			s = &spool{digest: digest}
			r.pins[address] = s
		}
		return s
	}
	return nil
}

// opened is the copy, for whoever may read by the grant.
func (s *spool) opened() opened { return opened{info: s.info, grant: s.grant, kept: s.file} }

// fill gives the whole, checked file. It is read once; what was wrong stays so until the program has ended.
func (r *reader) fill(s *spool, at resource.Resource) (opened, error) {
	s.turn.Lock()
	defer s.turn.Unlock()
	switch {
	case r.ctx.Err() != nil:
		return opened{}, errClosed
	case s.file != nil && !s.grant.isOver():
		return s.opened(), nil
	case s.wrong != nil:
		return opened{}, s.wrong
	}
	f, err := r.acquire(at)
	if err != nil {
		return opened{}, err
	}
	defer r.release(f)
	if s.file != nil { // which cannot be another; that it may be read still was asked
		s.grant = f.grant
		return s.opened(), nil
	}
	kept, err := nameless(r.Dir)
	if err != nil {
		return opened{}, r.failed(f, &source.Error{Reason: events.OtherReason, Answer: fmt.Sprintf("no room for a copy: %v", err), Err: err})
	}
	size, err := r.copyChecked(kept, f, s.digest)
	if err != nil {
		kept.Close()
		if f.grant.isOver() {
			return opened{}, errWithdrawn
		}
		failed := failure(err)
		if failed.Reason == events.ContentChanged {
			s.wrong = failed
		}
		return opened{}, r.failed(f, failed)
	}
	s.file, s.info, s.grant = kept, f.info, f.grant
	s.info.Size = size
	return s.opened(), nil
}

func (r *reader) copyChecked(to *os.File, from *file, digest string) (int64, error) {
	if from.info.Folder || from.info.Size > maxPinned {
		return 0, &source.Error{Reason: events.ContentChanged, Answer: "it is a folder, or larger than can be checked"}
	}
	sum := sha256.New()
	var size int64
	for p := make([]byte, spoolChunk); ; {
		n, err := r.chunk(from, p, size)
		if werr := keep(to, sum, p[:n]); werr != nil {
			return 0, werr
		}
		size += int64(n)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, err
		}
		if size > maxPinned || from.info.Size >= 0 && size > from.info.Size {
			return 0, &source.Error{Reason: events.ContentChanged, Answer: "it has become longer while it was read"}
		}
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != digest {
		return 0, &source.Error{Reason: events.ContentChanged, Answer: "its sha256 is " + got + ", " + digest + " is pinned"}
	}
	return size, nil
}

// chunk reads on, with patience for each chunk.
func (r *reader) chunk(from *file, p []byte, offset int64) (int, error) {
	ctx, cancel := context.WithTimeout(r.ctx, r.Patience)
	defer cancel()
	n, err := from.object.ReadAt(ctx, p, offset)
	if n == 0 && err == nil {
		err = io.ErrNoProgress
	}
	return n, err
}

func keep(to *os.File, sum hash.Hash, p []byte) error {
	sum.Write(p)
	_, err := to.Write(p)
	if errors.Is(err, syscall.ENOSPC) {
		return &source.Error{Reason: events.DiskFull, Answer: "no room for a copy, by which it could be checked", Err: err}
	}
	return err
}

// nameless makes a file that goes with its descriptor.
func nameless(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, ".pinned-")
	if err != nil {
		return nil, err
	}
	return f, os.Remove(f.Name())
}

func (r *reader) closePins() {
	r.mu.Lock()
	all := make([]*spool, 0, len(r.pins))
	for _, s := range r.pins {
		all = append(all, s)
	}
	r.mu.Unlock()
	for _, s := range all {
		s.turn.Lock()
		if s.file != nil {
			s.file.Close()
			s.file = nil
		}
		s.turn.Unlock()
	}
}
