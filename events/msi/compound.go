package msi

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/richardlehane/mscfb"
)

const (
	summaryStream = "\x05SummaryInformation"
	maxDirectory  = 512 << 10 // bytes of directory, 4,096 streams: mscfb keeps the whole path of each, so nesting costs the square
	maxChain      = 1 << 20   // links followed while opening: the small streams together then hold at most 512 MiB
	readStep      = 64 << 10  // bytes; mscfb's work for one read grows with the square of its sectors
)

var errHuge = errors.New("directory is larger than any installation package's")

// compound is the compound file (OLE structured storage) that an installer database is kept in: the streams of its root by
// name. Substorages, which hold embedded transforms with streams of the same names, are left out.
type compound struct {
	streams map[string]*mscfb.File
}

func openCompound(r io.ReaderAt, size int64) (*compound, error) {
	if size < 0 || size > maxFile {
		return nil, fmt.Errorf("size is %d bytes, allowed are %d", size, int64(maxFile))
	}
	guarded := &guardedReader{
		r: io.NewSectionReader(r, 0, size),
		// On top of the directory the header and the index of the allocation table are read whole.
		bytes: maxDirectory + 4096 + size/(512*128/4),
		links: maxChain,
	}
	doc, err := mscfb.New(guarded)
	if err != nil {
		return nil, err
	}
	guarded.opened = true
	file := &compound{streams: make(map[string]*mscfb.File)}
	for _, entry := range doc.File {
		if len(entry.Path) > 0 || entry.FileInfo().IsDir() {
			continue
		}
		name := entry.Name
		if entry.Initial < ' ' { // mscfb keeps an unprintable first character apart
			name = string(rune(entry.Initial)) + name
		}
		if _, twice := file.streams[name]; twice {
			return nil, fmt.Errorf("two streams are called %q", name)
		}
		file.streams[name] = entry
	}
	return file, nil
}

// table returns the whole stream of a table, which may hold at most limit bytes.
func (c *compound) table(name string, limit int64) ([]byte, error) {
	data, err := c.read(tableStream(name), limit)
	if err != nil {
		return nil, fmt.Errorf("table %s: %w", name, err)
	}
	return data, nil
}

// read returns the whole of a stream, which may hold at most limit bytes.
func (c *compound) read(name string, limit int64) ([]byte, error) {
	entry, ok := c.streams[name]
	if !ok {
		return nil, errors.New("is missing, as from no installation package")
	}
	if entry.Size > limit {
		return nil, fmt.Errorf("has %d bytes, allowed are %d", entry.Size, limit)
	}
	// The stated size bounds the reading but not the allocation: a short file fails before much is held.
	var data []byte
	for step := make([]byte, readStep); int64(len(data)) < entry.Size; {
		n, err := entry.Read(step)
		data = append(data, step[:n]...)
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		if n == 0 {
			return nil, fmt.Errorf("ends after %d of %d bytes: %w", len(data), entry.Size, io.ErrUnexpectedEOF)
		}
	}
	return data, nil
}

// guardedReader bounds what mscfb reads, and so what it keeps, while it opens a file: sectors of the directory and the
// allocation index, and single links of chains.
type guardedReader struct {
	r      io.ReaderAt
	bytes  int64
	links  int64
	opened bool
}

func (g *guardedReader) ReadAt(p []byte, off int64) (int, error) {
	if !g.opened {
		if len(p) > 4 {
			g.bytes -= int64(len(p))
		} else {
			g.links--
		}
		if g.bytes < 0 || g.links < 0 {
			return 0, errHuge
		}
	}
	n, err := g.r.ReadAt(p, off)
	if n == len(p) {
		err = nil // a reader may report the end together with the last bytes, which mscfb takes for a failure
	}
	return n, err
}

// tableStream is the name of the stream that holds a table. Stream names have at most 31 characters, so the installer puts two
// characters of the table's name into one of the range U+3800–U+47FF, a last odd one into U+4800–U+483F, and U+4840 before it.
func tableStream(table string) string {
	const alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz._"
	name := []rune{0x4840}
	for ; len(table) > 1; table = table[2:] {
		low, high := strings.IndexByte(alphabet, table[0]), strings.IndexByte(alphabet, table[1])
		name = append(name, rune(0x3800+low+high<<6))
	}
	if len(table) == 1 {
		name = append(name, rune(0x4800+strings.IndexByte(alphabet, table[0])))
	}
	return string(name)
}
