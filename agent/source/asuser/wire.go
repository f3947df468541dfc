package asuser

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"
	"unicode"

	"chandler/agent/source"
	"chandler/events"
	"chandler/events/resource"
)

// Requests are lines of JSON, answers are frames: the lengths of a head and of the data, each in four bytes, highest
// first; the head in JSON; the data. Answers come in any order, one for each request that is no end.

const (
	maxRequest = 8 << 10
	maxHead    = 8 << 10
	maxPiece   = 256 << 10 // bytes of a file in one answer
	maxList    = 16 << 20  // bytes of a folder's list in one answer
	maxCalls   = 16        // at once
	maxObjects = 1024      // open at once
	maxWords   = 500       // bytes of an answer's words
)

// What is asked for.
const (
	opOpen = "open"
	opRead = "read"
	opList = "list"
	opEnd  = "end" // of the object or of the request with that number, and is not answered
)

type request struct {
	ID      uint64 `json:"id"` // never used twice
	Op      string `json:"op"`
	Address string `json:"address,omitempty"` // to be opened
	Object  uint64 `json:"object,omitempty"`  // the ID by which it was opened, or that is to end
	Offset  int64  `json:"offset,omitempty"`
	Length  int    `json:"length,omitempty"`
}

func (r request) check() error {
	known := slices.Contains([]string{opOpen, opRead, opList, opEnd}, r.Op)
	if !known || r.ID == 0 || r.Offset < 0 || r.Length < 0 || r.Length > maxPiece {
		return fmt.Errorf("request %d: cannot be", r.ID)
	}
	return nil
}

type head struct {
	ID     uint64        `json:"id"`
	Reason events.Reason `json:"reason,omitempty"` // of a failure
	Answer string        `json:"answer,omitempty"`
	Info   *entry        `json:"info,omitempty"` // of what was opened
	End    bool          `json:"end,omitempty"`  // of the file, after the data
}

// entry is a source.Info.
type entry struct {
	Name     string    `json:"name"`
	Folder   bool      `json:"folder,omitempty"`
	Size     int64     `json:"size"`
	Modified time.Time `json:"modified,omitzero"`
	Mode     uint32    `json:"mode,omitempty"`
}

func entryOf(i source.Info) *entry {
	e := &entry{Name: i.Name, Folder: i.Folder, Size: i.Size, Mode: uint32(i.Mode.Perm())}
	if y := i.Modified.Year(); y >= 0 && y <= 9999 { // others are no JSON
		e.Modified = i.Modified
	}
	return e
}

// info checks an entry that a process of the user gave.
func (e entry) info() (source.Info, error) {
	one, err := resource.Parse((resource.Resource{Scheme: resource.File, Path: "/" + e.Name}).String())
	if err != nil || one.Path != "/"+e.Name || strings.Contains(e.Name, "/") || e.Size < -1 {
		return source.Info{}, errors.New("an entry that no source has")
	}
	return source.Info{Name: e.Name, Folder: e.Folder, Size: e.Size, Modified: e.Modified, Mode: fs.FileMode(e.Mode).Perm()}, nil
}

// parseList checks a list that a process of the user gave, and sorts it.
func parseList(data []byte) ([]source.Info, error) {
	var entries []entry
	if err := json.Unmarshal(data, &entries); err != nil || len(entries) > source.MaxEntries {
		return nil, errors.New("a list that no source gives")
	}
	list := make([]source.Info, 0, len(entries))
	for _, e := range entries {
		info, err := e.info()
		if err != nil {
			return nil, err
		}
		list = append(list, info)
	}
	slices.SortFunc(list, func(a, b source.Info) int { return strings.Compare(a.Name, b.Name) })
	for i := range list[min(1, len(list)):] {
		if list[i].Name == list[i+1].Name {
			return nil, errors.New("a list with one name twice")
		}
	}
	return list, nil
}

// failureOf cleans what a process of the user says is wrong; nil if it says nothing.
func (h head) failure() error {
	if h.Reason == events.NoReason && h.Answer == "" {
		return nil
	}
	e := &source.Error{Reason: h.Reason, Answer: brief(h.Answer)}
	if e.Reason == events.NoReason || !e.Reason.Known() {
		e.Reason = events.OtherReason
	}
	if e.Answer == "" {
		e.Answer = "the reader said no more"
	}
	return e
}

func brief(text string) string {
	text = strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) {
			return '?'
		}
		return c
	}, strings.ToValidUTF8(text, "?"))
	if len(text) > maxWords {
		text = strings.ToValidUTF8(text[:maxWords], "") + "…"
	}
	return text
}

func writeFrame(w io.Writer, h head, data []byte) error {
	text, err := json.Marshal(h)
	if err != nil {
		return err
	}
	if len(text) > maxHead || len(data) > maxList {
		return fmt.Errorf("answer %d: too long", h.ID)
	}
	frame := make([]byte, 8, 8+len(text)+len(data))
	binary.BigEndian.PutUint32(frame, uint32(len(text)))
	binary.BigEndian.PutUint32(frame[4:], uint32(len(data)))
	_, err = w.Write(append(append(frame, text...), data...))
	return err
}

// readFrame reads an answer; limit says how many bytes of data may come with a head. No more memory is taken than bytes
// have come, give or take a factor of two.
func readFrame(r io.Reader, limit func(head) (int, error)) (h head, data []byte, err error) {
	var lengths [8]byte
	if _, err := io.ReadFull(r, lengths[:]); err != nil {
		return head{}, nil, err
	}
	size := binary.BigEndian.Uint32(lengths[:4])
	if size > maxHead {
		return head{}, nil, errors.New("it sends an answer whose head is too long")
	}
	text, err := readN(r, int(size))
	if err != nil {
		return head{}, nil, err
	}
	if err := json.Unmarshal(text, &h); err != nil {
		return head{}, nil, errors.New("it sends an answer that is no JSON")
	}
	most, err := limit(h)
	if err != nil {
		return head{}, nil, err
	}
	size = binary.BigEndian.Uint32(lengths[4:])
	if uint64(size) > uint64(most) {
		return head{}, nil, errors.New("it sends more bytes than were asked for")
	}
	data, err = readN(r, int(size))
	return h, data, err
}

// readN reads n bytes, which may be a lie.
func readN(r io.Reader, n int) ([]byte, error) {
	if n <= maxPiece {
		data := make([]byte, n)
		_, err := io.ReadFull(r, data)
		return data, err
	}
	data, err := io.ReadAll(io.LimitReader(r, int64(n)))
	if err == nil && len(data) < n {
		err = io.ErrUnexpectedEOF
	}
	return data, err
}
