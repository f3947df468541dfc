package cmlog

import (
	"bufio"
	"errors"
	"io"
	"iter"
	"regexp"
	"strconv"
	"strings"
	"time"
)

var (
	ccmTail = regexp.MustCompile(`^<time="(\d\d:\d\d:\d\d\.\d{3})\d*([+-]\d{1,4})?" date="(\d{1,2}-\d{1,2}-\d{4})"` +
		` component="([^"]*)" context="([^"]*)" type="(\d*)" thread="(\d*)" file="([^"]*)">\s*$`)
	legacyTail = regexp.MustCompile(`^\$\$<([^<>]*)><([^<>]*)><thread=(\d+)[^<>]*>\s*$`)
	// Later servers wrote the zone too.
	biasedTime = regexp.MustCompile(`^(\d{1,2}-\d{1,2}-\d{4}) (\d\d:\d\d:\d\d\.\d{3})([+-]\d{1,4})$`)
)

// Parse yields the entries of a log in either format, also mixed, in the order
// of the file. Whatever is not an entry is skipped: torn entries, other programs'
// lines, entries over MaxEntry bytes. Entries are clean; their times carry the bias
// they were written with, or are local where the format has none. If reading r
// fails, the error is yielded last, with a zero Entry. Memory is bounded by MaxEntry.
func Parse(r io.Reader) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		lines := bufio.NewReaderSize(r, 32<<10)
		var p parser
		for {
			line, fits, err := readLine(lines, MaxEntry)
			if !fits {
				p = parser{}
			} else if e, ok := p.line(line); ok && !yield(e, nil) {
				return
			}
			if err != nil {
				if !errors.Is(err, io.EOF) {
					yield(Entry{}, err)
				}
				return
			}
		}
	}
}

// readLine returns the next line without its ending. A line over limit is read
// to its end but not kept, and fits is false. The last line comes with the error.
func readLine(r *bufio.Reader, limit int) (line string, fits bool, err error) {
	var kept []byte
	fits = true
	for {
		piece, err := r.ReadSlice('\n')
		if fits = fits && len(kept)+len(piece) <= limit; fits {
			kept = append(kept, piece...)
		} else {
			kept = nil
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		return strings.TrimRight(string(kept), "\r\n"), fits, err
	}
}

// parser joins the lines of an entry. It is open between the mark that begins
// an entry and the mark that ends it.
type parser struct {
	open bool
	text strings.Builder
}

// line takes one line and returns the entry that it completes, if any.
func (p *parser) line(line string) (Entry, bool) {
	// Writers escape this mark, so one that is met inside an entry means that the
	// entry before it was torn: start over from the last one.
	if end := strings.Index(line, textEnd); end >= 0 || strings.Contains(line, textStart) {
		head, tail := line, ""
		if end >= 0 {
			head, tail = line[:end], line[end+len(textEnd):]
		}
		if start := strings.LastIndex(head, textStart); start >= 0 {
			p.begin(head[start+len(textStart):])
		} else if p.open {
			p.add(head)
		}
		if end < 0 {
			return Entry{}, false
		}
		return p.end(tail)
	}
	if p.open {
		p.add(line)
		return Entry{}, false
	}
	return parseLegacy(line)
}

func (p *parser) begin(text string) {
	p.open = true
	p.text.Reset()
	p.text.WriteString(text)
}

func (p *parser) add(text string) {
	if p.text.Len()+1+len(text) > MaxEntry {
		p.open = false
		p.text.Reset()
		return
	}
	p.text.WriteByte('\n')
	p.text.WriteString(text)
}

func (p *parser) end(tail string) (Entry, bool) {
	open, text := p.open, p.text.String()
	p.open = false
	p.text.Reset()
	m := ccmTail.FindStringSubmatch(tail)
	if !open || m == nil {
		return Entry{}, false
	}
	at, ok := parseTime(m[3], m[1], m[2])
	if !ok {
		return Entry{}, false
	}
	kind, _ := strconv.Atoi(m[6]) // absent or out of range: Clean makes it Info
	return Entry{
		Time: at, Component: m[4], Context: m[5], Type: Type(kind), Thread: parseThread(m[7]), File: m[8],
		Text: unescape(text),
	}.Clean(), true
}

func parseLegacy(line string) (Entry, bool) {
	// The last mark counts: text may hold others, component and time may not.
	at := strings.LastIndex(line, legacyMark)
	if at < 0 {
		return Entry{}, false
	}
	m := legacyTail.FindStringSubmatch(line[at:])
	if m == nil {
		return Entry{}, false
	}
	when, ok := parseLegacyTime(m[2])
	if !ok {
		return Entry{}, false
	}
	text := line[:at]
	if cut, ok := strings.CutSuffix(text, legacySpaces); ok {
		text = cut
	} else {
		text = strings.TrimSuffix(text, " ")
	}
	text = unescape(text)
	return Entry{
		Time: when, Component: m[1], Type: typeByWords(text), Thread: parseThread(m[3]), Text: text,
	}.Clean(), true
}

// parseThread reads digits. A number too large for an int is no thread of this
// machine and reads as 0.
func parseThread(digits string) int {
	n, err := strconv.Atoi(digits)
	if err != nil {
		return 0
	}
	return n
}

func parseLegacyTime(s string) (time.Time, bool) {
	if m := biasedTime.FindStringSubmatch(s); m != nil {
		return parseTime(m[1], m[2], m[3])
	}
	t, err := time.ParseInLocation(legacyTime, s, time.Local)
	return t, err == nil && sane(t)
}

// parseTime reads a local date and time and the minutes to add to get UTC.
// Without a bias the time is this machine's.
func parseTime(date, clock, bias string) (time.Time, bool) {
	zone := time.Local
	if bias != "" {
		minutes, err := strconv.Atoi(bias)
		if err != nil || minutes < -24*60 || minutes > 24*60 {
			return time.Time{}, false
		}
		zone = time.FixedZone("", -minutes*60)
	}
	t, err := time.ParseInLocation("1-2-2006 "+ccmTime, date+" "+clock, zone)
	return t, err == nil && sane(t)
}

// sane keeps out the years that Clean would replace.
func sane(t time.Time) bool {
	y := t.UTC().Year()
	return y >= 2 && y <= 9998
}
