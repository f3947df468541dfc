package cmlog

import (
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Type is the severity of an entry, numbered as in the original's files.
type Type int

// The severities a viewer colours: plain, yellow, red.
const (
	Info    Type = 1
	Warning Type = 2
	Error   Type = 3
)

// Limits of what is written. A reader of these files accepts entries of up to
// MaxEntry bytes, whoever wrote them.
const (
	MaxText  = 64 << 10 // bytes of text in one entry; the rest is cut, and the entry says so
	MaxEntry = 1 << 20  // bytes of one entry as the reader takes it
	maxName  = 256      // bytes of component, context and file
)

const cutNote = " … (cut)"

// Entry is one line of a log, whose text may itself have several lines.
type Entry struct {
	Time      time.Time // kept to the millisecond; out of the years 2 to 9998 it becomes the time of writing
	Component string    // part of the agent that speaks, such as execmgr
	Type      Type      // Info unless 1, 2 or 3
	Thread    int       // thread or process number, not negative
	File      string    // "name.go:123"
	Context   string    // usually empty
	Text      string
}

// Clean returns the entry as it will be read back from a file in CCM format:
// times in whole milliseconds, no control characters but newline and tab, valid
// UTF-8, names without quotes and angle brackets, nothing over its limit. A clean
// entry is its own Clean.
func (e Entry) Clean() Entry {
	if y := e.Time.UTC().Year(); y < 2 || y > 9998 {
		e.Time = time.Now()
	}
	e.Time = e.Time.Truncate(time.Millisecond)
	if e.Type < Info || e.Type > Error {
		e.Type = Info
	}
	e.Thread = max(e.Thread, 0)
	e.Component = cleanName(e.Component)
	e.Context = cleanName(e.Context)
	e.File = cleanName(e.File)
	e.Text = cleanText(e.Text)
	return e
}

// cleanText makes text safe to show on a terminal and to keep in a file of
// lines: carriage returns become newlines, other control characters U+FFFD.
func cleanText(s string) string {
	// Cut first, so that huge text costs nothing; cleaning can lengthen what is
	// left (one bad byte becomes three), hence the second cut.
	cut := len(s) > 4*MaxText
	if cut {
		s = s[:4*MaxText]
	}
	s = strings.ToValidUTF8(s, "\uFFFD")
	s = strings.ReplaceAll(s, "\r\n", "\n")
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\r':
			return '\n'
		case r != '\n' && r != '\t' && unicode.IsControl(r):
			return unicode.ReplacementChar
		}
		return r
	}, s)
	if cut || len(s) > MaxText {
		s = cutAt(s, MaxText-len(cutNote)) + cutNote
	}
	return s
}

// cleanName makes a name safe inside a quoted attribute and inside <…>.
func cleanName(s string) string {
	s = strings.ToValidUTF8(cutAt(s, maxName), "\uFFFD")
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '"':
			return '\''
		case r == '<':
			return '('
		case r == '>':
			return ')'
		case unicode.IsControl(r):
			return ' '
		}
		return r
	}, s)
	return cutAt(s, maxName)
}

// cutAt returns at most n bytes of s and never ends inside a character.
func cutAt(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
