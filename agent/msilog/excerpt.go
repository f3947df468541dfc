package msilog

import "fmt"

// How many lines are kept at most, whatever their size.
const (
	linesBefore = 15
	linesAfter  = 12
	linesEnd    = 40
	gapBytes    = 40 // of a line that says how many are left out
)

// excerpt keeps what is worth keeping of the lines that pass: those before and behind the first failure, and the last.
type excerpt struct {
	count  int
	before ring // the last ones, for when something fails
	around ring // those of the failure
	end    ring
	wanted int // how many of the next belong to around
}

type keptLine struct {
	number int
	text   string
}

// ring holds the last lines within two limits.
type ring struct {
	lines          []keptLine
	bytes          int
	limit, maximum int // of bytes and of lines
}

func newExcerpt(maxBytes int) *excerpt {
	quarter := max(0, maxBytes-2*gapBytes) / 4
	return &excerpt{
		before: ring{limit: quarter, maximum: linesBefore},
		around: ring{limit: 2 * quarter, maximum: linesBefore + 2*linesAfter},
		end:    ring{limit: 2 * quarter, maximum: linesEnd},
	}
}

func (r *ring) push(l keptLine) {
	r.lines, r.bytes = append(r.lines, l), r.bytes+len(l.text)+1
	for len(r.lines) > 0 && (r.bytes > r.limit || len(r.lines) > r.maximum) {
		r.bytes -= len(r.lines[0].text) + 1
		r.lines = r.lines[1:]
	}
}

// fits says whether a line can be added without losing another.
func (r *ring) fits(l keptLine) bool {
	return r.bytes+len(l.text)+1 <= r.limit && len(r.lines) < r.maximum
}

func (e *excerpt) add(text string, m mark) {
	e.count++
	line := keptLine{e.count, text}
	switch {
	case m == ignored:
		e.around.lines, e.around.bytes, e.wanted = nil, 0, 0
	case m == begins, m == settled && len(e.around.lines) == 0:
		for _, l := range e.before.lines {
			e.around.push(l)
		}
		e.wanted = linesAfter
	case m == settled:
		e.wanted = max(e.wanted, linesAfter/2)
	}
	if e.wanted > 0 && e.around.fits(line) {
		e.around.push(line)
	}
	e.wanted--
	e.before.push(line)
	e.end.push(line)
}

// lines are the kept ones in order, with a line for every gap.
func (e *excerpt) lines() []string {
	var text []string
	last := 0
	for _, part := range []ring{e.around, e.end} {
		for _, l := range part.lines {
			if l.number <= last {
				continue
			}
			if gap := l.number - last - 1; gap > 0 {
				text = append(text, fmt.Sprintf("… %d lines left out …", gap))
			}
			text, last = append(text, l.text), l.number
		}
	}
	return text
}
