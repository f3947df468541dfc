package smbsource

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/jcmturner/gokrb5/v8/credentials"
)

// parseCache reads a file of tickets, in the version that MIT's and Heimdal's programs write. The library believes every
// count that such a file holds, so its shape is looked at first.
func parseCache(data []byte) (*credentials.CCache, error) {
	if len(data) > maxCache || !wellFormed(data) {
		return nil, errors.New("read tickets: not a file of tickets")
	}
	var cache credentials.CCache
	if err := guarded(func() error { return cache.Unmarshal(data) }); err != nil {
		return nil, fmt.Errorf("read tickets: %w", err)
	}
	return &cache, nil
}

// walker goes over the fields of a file of tickets; short says that there was less than a field.
type walker struct {
	rest  []byte
	short bool
}

func (w *walker) skip(n uint32) {
	if uint64(n) > uint64(len(w.rest)) {
		w.rest, w.short = nil, true
		return
	}
	w.rest = w.rest[n:]
}

// number reads one of four bytes.
func (w *walker) number() uint32 {
	field := w.rest
	if w.skip(4); w.short {
		return 0
	}
	return binary.BigEndian.Uint32(field)
}

func (w *walker) data() { w.skip(w.number()) }

// list passes as many elements as a number says.
func (w *walker) list(element func()) {
	for n := w.number(); n > 0 && !w.short; n-- {
		element()
	}
}

// principal is a type, and a list of parts with the realm before them.
func (w *walker) principal() {
	w.skip(4)
	n := w.number()
	for w.data(); n > 0 && !w.short; n-- {
		w.data()
	}
}

func (w *walker) typed() { w.skip(2); w.data() }

// wellFormed says whether data is of version 5.4, and holds what it says that it holds.
func wellFormed(data []byte) bool {
	if len(data) < 4 || data[0] != 5 || data[1] != 4 {
		return false
	}
	w := &walker{rest: data[4:]}
	header := &walker{rest: w.rest[:min(len(w.rest), int(binary.BigEndian.Uint16(data[2:])))]}
	w.skip(uint32(binary.BigEndian.Uint16(data[2:])))
	for len(header.rest) > 0 && !header.short { // fields of a tag and a length
		field := header.rest
		if header.skip(4); !header.short {
			header.skip(uint32(binary.BigEndian.Uint16(field[2:])))
		}
	}
	w.principal()
	for len(w.rest) > 0 && !w.short {
		w.principal()       // the client
		w.principal()       // the server
		w.typed()           // the key
		w.skip(4*4 + 1 + 4) // times, whether it is a session's, flags
		w.list(w.typed)     // addresses
		w.list(w.typed)     // authorization
		w.data()            // the ticket
		w.data()            // the second ticket
	}
	return !w.short && !header.short
}
