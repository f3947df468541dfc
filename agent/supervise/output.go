package supervise

import (
	"fmt"
	"os"
	"sync"
)

// recorder keeps the first and the last part of what is written to it in one file that never grows beyond the limit (and
// one line that says what was left out). It never fails and never blocks on more than the disk: what cannot be kept is
// counted as dropped.
type recorder struct {
	mu         sync.Mutex
	file       *os.File // nil when finished
	head, tail int64    // capacities; the tail is a ring behind the head
	total      int64    // bytes offered
	kept       int64    // bytes offered until the file refused one
	broken     bool
}

func newRecorder(file *os.File, limit int64) *recorder {
	return &recorder{file: file, head: limit - limit/2, tail: limit / 2}
}

func (r *recorder) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file == nil {
		return len(p), nil
	}
	offset := r.total
	r.total += int64(len(p))
	if !r.broken {
		if err := r.place(p, offset); err != nil {
			r.broken = true // a full disk: a later byte after a gap would mislead
		} else {
			r.kept = r.total
		}
	}
	return len(p), nil
}

// place writes p, which begins at offset of the stream, to where it belongs in the file.
func (r *recorder) place(p []byte, offset int64) error {
	if offset < r.head {
		n := min(int64(len(p)), r.head-offset)
		if _, err := r.file.WriteAt(p[:n], offset); err != nil {
			return err
		}
		p, offset = p[n:], offset+n
	}
	if r.tail == 0 {
		return nil
	}
	if skip := int64(len(p)) - r.tail; skip > 0 {
		p, offset = p[skip:], offset+skip
	}
	for len(p) > 0 {
		at := (offset - r.head) % r.tail
		n := min(int64(len(p)), r.tail-at)
		if _, err := r.file.WriteAt(p[:n], r.head+at); err != nil {
			return err
		}
		p, offset = p[n:], offset+n
	}
	return nil
}

// finish puts the ring in order and closes the file; what is written afterwards is neither kept nor counted.
func (r *recorder) finish() (total, dropped int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	file := r.file
	r.file = nil
	defer file.Close()
	dropped = r.total - min(r.kept, r.head+r.tail)
	over := r.kept - r.head - r.tail
	if over <= 0 {
		return r.total, dropped
	}
	ring := make([]byte, r.tail)
	if _, err := file.ReadAt(ring, r.head); err != nil {
		return r.total, dropped
	}
	cut := int64(0)
	if r.tail > 0 {
		cut = over % r.tail
	}
	text := fmt.Appendf(nil, "\n[%d bytes left out here]\n", dropped)
	text = append(append(text, ring[cut:]...), ring[:cut]...)
	if _, err := file.WriteAt(text, r.head); err != nil {
		return r.total, dropped
	}
	file.Sync()
	return r.total, dropped
}
