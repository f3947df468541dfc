package smbsource

import (
	"errors"
	"fmt"
	"io"
)

// A file is fetched by pieces, several at a time, so that a distant server is not waited for once per read: those that a
// read needs, and, while reads follow upon each other, up to maxAhead more. A piece that was read to its end is dropped.
const (
	pieceSize = 256 << 10
	maxAhead  = 8
	maxPieces = 2 * maxAhead // that are kept; 4 MiB for an open file
)

// piece is a part of a file. data and err are set when done is closed.
type piece struct {
	offset int64
	used   int64 // when it was last wanted
	done   chan struct{}
	data   []byte
	err    error
}

// reading is what is there of a file and on its way. object.mu protects it.
type reading struct {
	pieces map[int64]*piece // by their number
	next   int64            // where a read would follow upon the last
	ahead  int64            // pieces that are fetched before they are wanted
	clock  int64
}

// piece is the one that holds the byte at an offset. It and those that the read wants up to end are on their way after.
func (o *object) piece(at, end int64) *piece {
	o.mu.Lock()
	defer o.mu.Unlock()
	r := &o.reading
	first := at / pieceSize
	last := min(max((end-1)/pieceSize, first+r.ahead), first+maxAhead, (o.info.Size-1)/pieceSize)
	wanted := r.pieces[first]
	for i := first; i <= last; i++ {
		if r.pieces[i] == nil {
			o.fetch(i)
		}
	}
	if wanted == nil {
		wanted = r.pieces[first]
	}
	r.clock++
	wanted.used = r.clock
	r.trim()
	return wanted
}

// trim drops the pieces that were not wanted for longest.
func (r *reading) trim() {
	for len(r.pieces) > maxPieces {
		oldest := int64(-1)
		for i, p := range r.pieces {
			if oldest < 0 || p.used < r.pieces[oldest].used {
				oldest = i
			}
		}
		delete(r.pieces, oldest)
	}
}

// fetch starts to fetch a piece. The caller holds mu and has entered.
func (o *object) fetch(i int64) {
	p := &piece{offset: i * pieceSize, used: o.reading.clock, done: make(chan struct{})}
	if o.reading.pieces == nil {
		o.reading.pieces = map[int64]*piece{}
	}
	o.reading.pieces[i] = p
	o.requests.Add(1)
	go func() {
		defer o.leave()
		data := make([]byte, min(pieceSize, o.info.Size-p.offset))
		p.data, p.err = data, o.session.do(func() error { return o.fill(data, p.offset) })
		if p.err != nil { // whoever wants it later asks again
			o.mu.Lock()
			if o.reading.pieces[i] == p {
				delete(o.reading.pieces, i)
			}
			o.mu.Unlock()
		}
		close(p.done)
	}()
}

// fill reads a part of the file that was there when it was opened.
func (o *object) fill(data []byte, offset int64) error {
	o.handle.RLock()
	defer o.handle.RUnlock()
	for got := 0; got < len(data); {
		n, err := o.file.ReadAt(data[got:], offset+int64(got))
		got += n
		switch {
		case err != nil && !errors.Is(err, io.EOF):
			return err
		case n == 0:
			return o.other(fmt.Sprintf("it had %d bytes, and ends at %d", o.info.Size, offset+int64(got)))
		}
	}
	return nil
}

// read notes that the bytes from offset to end were read.
func (o *object) read(offset, end int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	r := &o.reading
	if offset == r.next {
		r.ahead = min(max(1, 2*r.ahead), maxAhead)
	} else {
		r.ahead = 0
	}
	r.next = end
	for i := offset / pieceSize; i <= (end-1)/pieceSize; i++ {
		if (i+1)*pieceSize <= end || end == o.info.Size {
			delete(r.pieces, i)
		}
	}
}
