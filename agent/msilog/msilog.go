// Package msilog reads the verbose logs that Windows Installer writes and finds what an administrator would look for in
// them: the first action that failed ("Return value 3"), the error message before it, and what a custom action returned.
//
// Logs are in the language of the machine, so they are recognised by their form and by numbers, not by words. The file is
// what a program wrote, in a directory that the program's user may write to: links out of that directory, pipes and devices
// are refused, lines and the whole are read up to limits and never kept, and what is returned has no control characters.
// Lines that list the values of properties are left out, since passwords are among them.
//
// A log of another kind has no explanation, and its end is what is worth keeping.
package msilog

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"unicode"
	"unicode/utf8"

	encoding "golang.org/x/text/encoding/unicode"
	"golang.org/x/text/transform"
)

// Bounds of reading.
const (
	maxHead = 128 << 20 // bytes read from the beginning of a log, and
	maxTail = 1 << 20   // from the end of a longer one; both even, for UTF-16
	maxLine = 4 << 10   // bytes of UTF-8 kept of a line
)

// Report is what a log tells.
type Report struct {
	// Explanation says in one sentence what failed first; "" if nothing that is recognised did.
	Explanation string
	// Lines are those around the first error and the last ones, with lines in between that say how many are left out.
	// Together, with a byte for each line's end, they have at most the bytes asked for.
	Lines []string
}

// Read reads the log at path and keeps maxBytes of its lines.
func Read(path string, maxBytes int) (Report, error) {
	f, err := open(path)
	if err != nil {
		return Report{}, fmt.Errorf("open log of the installation: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return Report{}, fmt.Errorf("open log of the installation: %w", err)
	}
	if !info.Mode().IsRegular() || names(info) > 1 {
		return Report{}, fmt.Errorf("open log of the installation %s: it is not a file of its own", path)
	}
	report, err := parse(whole(f, info.Size()), maxBytes)
	if err != nil {
		return Report{}, fmt.Errorf("read log of the installation %s: %w", path, err)
	}
	return report, nil
}

// open follows no link out of the log's directory, and does not wait for the other end of a pipe.
func open(path string) (*os.File, error) {
	root, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return root.OpenFile(filepath.Base(path), os.O_RDONLY|syscall.O_NONBLOCK, 0)
}

// whole is the file, or of a huge one its beginning and its end. What is written meanwhile is not read.
func whole(f io.ReaderAt, size int64) io.Reader {
	if size <= maxHead+maxTail {
		return io.NewSectionReader(f, 0, size)
	}
	end := (size - maxTail) &^ 1
	return io.MultiReader(io.NewSectionReader(f, 0, maxHead), io.NewSectionReader(f, end, size-end))
}

func parse(r io.Reader, maxBytes int) (Report, error) {
	lines, err := newLines(r)
	if err != nil {
		return Report{}, err
	}
	finding := finding{}
	kept := newExcerpt(maxBytes)
	for {
		line, err := lines.next()
		if errors.Is(err, io.EOF) {
			return Report{Explanation: finding.sentence(), Lines: kept.lines()}, nil
		}
		if err != nil {
			return Report{}, err
		}
		if strings.HasPrefix(line, "Property(") {
			continue // lists of all properties, in which nothing failed
		}
		kept.add(line, finding.look(line))
	}
}

// lines gives a log's lines as UTF-8 whatever it is written in.
type lines struct {
	r    *bufio.Reader
	wide bool // UTF-16, which has no bytes to guess about
}

func newLines(r io.Reader) (*lines, error) {
	raw := bufio.NewReaderSize(r, maxLine)
	head, err := raw.Peek(3)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(head, []byte{0xFF, 0xFE}), len(head) > 1 && head[0] != 0 && head[1] == 0: // the latter without its mark
		decoded := transform.NewReader(raw, encoding.UTF16(encoding.LittleEndian, encoding.UseBOM).NewDecoder())
		return &lines{r: bufio.NewReaderSize(decoded, maxLine), wide: true}, nil
	case bytes.Equal(head, []byte{0xEF, 0xBB, 0xBF}):
		_, err = raw.Discard(len(head))
		return &lines{r: raw}, err
	}
	return &lines{r: raw}, nil
}

// next is the next line without its end, cut at maxLine.
func (l *lines) next() (string, error) {
	line, err := l.r.ReadSlice('\n')
	read, long := len(line), errors.Is(err, bufio.ErrBufferFull)
	if long {
		line = line[:len(line)-partial(line)]
	}
	text := l.clean(line)
	for errors.Is(err, bufio.ErrBufferFull) {
		_, err = l.r.ReadSlice('\n')
	}
	if errors.Is(err, io.EOF) && read > 0 {
		return text, nil // what follows is the end once more
	}
	return text, err
}

// partial is the number of bytes at the end of text that only begin a rune.
func partial(text []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(text); n++ {
		if end := text[len(text)-n:]; utf8.RuneStart(end[0]) {
			if utf8.FullRune(end) {
				return 0
			}
			return n
		}
	}
	return 0
}

// clean makes text of a line's bytes. What is not UTF-8 is of the machine's code page, of which the first half of Latin-1 is
// the best guess: only names and messages in other languages suffer.
func (l *lines) clean(line []byte) string {
	line = bytes.TrimRight(line, "\r\n")
	if !l.wide && !utf8.Valid(line) {
		var b []byte
		for _, c := range line {
			b = utf8.AppendRune(b, rune(c))
		}
		line = b
	}
	return cut(strings.Map(func(r rune) rune {
		if r == '\t' || unicode.IsGraphic(r) {
			return r
		}
		return '?'
	}, string(line)), maxLine)
}

// cut shortens text to at most so many bytes, at a rune.
func cut(text string, size int) string {
	if len(text) <= size {
		return text
	}
	for size > 0 && !utf8.RuneStart(text[size]) {
		size--
	}
	return text[:size]
}
