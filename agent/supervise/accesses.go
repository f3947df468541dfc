package supervise

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"chandler/events"
)

const (
	accessesFile = "accesses.jsonl"
	maxAccesses  = 256      // lines
	maxAccess    = 16 << 10 // bytes of a line
)

// accessLog appends accesses, each a line, to a file of the run's directory.
type accessLog struct {
	dir   string
	lines int
	torn  bool // the last write may have left half a line
}

// add is called by one at a time. What does not fit is left out: the program's reading goes before.
func (l *accessLog) add(a events.Access) {
	line, err := json.Marshal(a)
	if err != nil || l.lines == maxAccesses || len(line) >= maxAccess {
		return
	}
	l.lines++
	if l.torn {
		line = append([]byte{'\n'}, line...)
	}
	file, err := os.OpenFile(filepath.Join(l.dir, accessesFile), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err == nil {
		_, err = file.Write(append(line, '\n'))
		err = errors.Join(err, file.Close())
	}
	if l.torn = err != nil; l.torn {
		fmt.Fprintf(os.Stderr, "record an access: %v\n", err)
	}
}

// Accesses are what came of reading the program's references, from the one numbered after on, and the number to go on
// from: 0 begins. There are as many as have been written yet, also while the program runs; all when there is an outcome.
func (r *Run) Accesses(after int) ([]events.Access, int, error) {
	file, err := os.Open(filepath.Join(r.dir, accessesFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, after, nil
	}
	if err != nil {
		return nil, after, err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, 2*maxAccesses*maxAccess))
	if err != nil {
		return nil, after, fmt.Errorf("read accesses: %w", err)
	}
	var found []events.Access
	next := 0
	for {
		line, rest, whole := bytes.Cut(data, []byte{'\n'})
		if !whole { // what is being written
			return found, max(next, after), nil
		}
		data = rest
		var a events.Access
		if len(line) >= maxAccess || json.Unmarshal(line, &a) != nil || a.Resource == "" { // torn by a full disk
			continue
		}
		if next++; next > after {
			found = append(found, a)
		}
	}
}
