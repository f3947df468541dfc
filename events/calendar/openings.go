package calendar

import (
	"slices"
	"time"
)

// Span is open from From (inclusive) to To (exclusive).
type Span struct{ From, To time.Time }

// Length is the elapsed time of s.
func (s Span) Length() time.Duration { return s.To.Sub(s.From) }

const (
	// lookBack is how far back spans are traced that are open already.
	lookBack = 8 * 24 * time.Hour
	// longestSpan is where spans are cut that windows keep open for ever.
	longestSpan = 31 * 24 * time.Hour
	near        = 2 * 366 * 24 * time.Hour
)

// Openings lists the next n spans that end after an instant, in order, on a machine whose own zone is own (nil: UTC).
// Windows that overlap or touch are one span. A span that began more than eight days before the instant has its From
// at a later opening within those days, and one that is open for more than 31 days is cut there; the next one goes on.
// Openings lie within 12 years.
func Openings(ws []Window, own *time.Location, after time.Time, n int) []Span {
	rules := rulesOf(ws, own)
	m := merge(rules, after.Add(-lookBack))
	limit := after.AddDate(horizonYears, 0, 0)
	var spans []Span
	for len(spans) < n {
		s, ok := m.next()
		if !ok || s.From.After(limit) {
			break
		}
		if s.To.After(after) {
			spans = append(spans, s)
		}
	}
	return spans
}

// Fit says whether something that takes a time may start now.
type Fit struct {
	Open    bool          // now lies in a span with at least that time left
	Until   time.Time     // when the span ends in which now lies, if any, be there time enough or not
	Next    time.Time     // if not Open: the first instant after now at which it may start; zero if there is none
	Never   bool          // not now, and no span to come is long enough
	Longest time.Duration // of the spans looked at
}

// Fits decides whether something that takes need may start at now, on a machine whose own zone is own (nil: UTC).
// Without windows it always may. Spans are those of [Openings].
//
// Never is decided at once, by looking at all spans of the next two years (and of two years from the From of each window
// that begins later), and beyond, for 12 years, at those around each opening of windows that open less often than every
// four weeks. So it misses only what needs three or more frequent windows, of which no two would do, to meet later than in
// two years.
func Fits(ws []Window, own *time.Location, now time.Time, need time.Duration) Fit {
	if len(ws) == 0 {
		return Fit{Open: true}
	}
	var f Fit
	rules := rulesOf(ws, own)
	if f.look(rules, Span{now, now.Add(near)}, now, need) {
		return f
	}
	for _, far := range farLooks(rules, now) {
		if f.look(rules, far, now, need) {
			return f
		}
	}
	f.Never = true
	return f
}

// look goes through the spans that begin in one stretch of time or are open at its start, until one is long enough.
func (f *Fit) look(rules []*rule, at Span, now time.Time, need time.Duration) bool {
	m := merge(rules, at.From.Add(-lookBack))
	for {
		s, ok := m.next()
		if !ok || s.From.After(at.To) {
			return false
		}
		if !s.To.After(at.From) {
			continue
		}
		f.Longest = max(f.Longest, s.Length())
		if !s.From.After(now) {
			f.Until = s.To
			if f.Open = s.To.Sub(now) >= need; f.Open {
				return true
			}
		} else if s.Length() >= need {
			f.Next = s.From
			return true
		}
	}
}

// farLooks are the stretches beyond the near ones that may hold a span like none before, in order and disjoint.
func farLooks(rules []*rule, now time.Time) []Span {
	var looks []Span
	end, limit := now.Add(near), now.AddDate(horizonYears, 0, 0)
	for _, r := range rules {
		// A date begins up to a day earlier or later than in UTC.
		if begin := time.Unix(int64(r.from)*dayLength, 0); begin.After(now) && begin.Before(limit) {
			looks = append(looks, Span{latest(end, begin.Add(-2*windowLimit)), begin.Add(near)})
		}
		if !r.sparse() {
			continue
		}
		for c := r.opening(shown(end, r.loc)); c.ok && c.at.Before(limit); c = r.opening(c.wall) {
			looks = append(looks, Span{latest(end, c.at.Add(-windowLimit)), c.at.Add(windowLimit)})
		}
	}
	for i := range looks {
		if looks[i].To.After(limit) {
			looks[i].To = limit
		}
	}
	slices.SortFunc(looks, func(a, b Span) int { return a.From.Compare(b.From) })
	return coalesce(looks)
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// sparse says that r opens less often than every four weeks.
func (r *rule) sparse() bool {
	switch r.kind {
	case daily:
		return r.every >= 28
	case weekly:
		return r.every >= 4
	}
	return true
}

func coalesce(sorted []Span) []Span {
	var out []Span
	for _, s := range sorted {
		if last := len(out) - 1; last >= 0 && !s.From.After(out[last].To) {
			if s.To.After(out[last].To) {
				out[last].To = s.To
			}
			continue
		}
		out = append(out, s)
	}
	return out
}

// opening is one opening of a window: the wall time and its instant; ok is false if there is none.
type opening struct {
	rule *rule
	wall wall
	at   time.Time
	ok   bool
}

// opening is the first whose wall time is after w and not on a date that the zone skips.
func (r *rule) opening(w wall) opening {
	for {
		next, ok := r.next(w)
		if !ok {
			return opening{}
		}
		if at, exists := next.in(r.loc); exists {
			return opening{r, next, at, true}
		}
		w = next
	}
}

// rulesOf leaves out windows that Validate refuses: they never open.
func rulesOf(ws []Window, own *time.Location) []*rule {
	rules := make([]*rule, 0, len(ws))
	for _, w := range ws {
		if r, err := w.rule(own); err == nil {
			rules = append(rules, r)
		}
	}
	return rules
}

// merger goes through the openings of several windows in order and gives their merged spans.
type merger struct {
	heads []opening // the next of each window
	last  time.Time // end of the span before, cut or not
}

// merge starts at the first openings after an instant.
func merge(rules []*rule, after time.Time) *merger {
	m := &merger{}
	for _, r := range rules {
		if o := r.opening(shown(after, r.loc)); o.ok {
			m.heads = append(m.heads, o)
		}
	}
	return m
}

func (m *merger) next() (Span, bool) {
	s, ok := m.window()
	// Only after a cut can a window reach back behind it.
	for ; ok && !s.To.After(m.last); s, ok = m.window() {
	}
	if !ok {
		return Span{}, false
	}
	if s.From.Before(m.last) {
		s.From = m.last
	}
	for s.Length() < longestSpan {
		i := m.first()
		if i < 0 || m.heads[i].at.After(s.To) {
			break
		}
		if w, _ := m.window(); w.To.After(s.To) {
			s.To = w.To
		}
	}
	m.last = s.To
	return s, true
}

// window takes the first of all openings.
func (m *merger) window() (Span, bool) {
	i := m.first()
	if i < 0 {
		return Span{}, false
	}
	o := m.heads[i]
	if m.heads[i] = o.rule.opening(o.wall); !m.heads[i].ok {
		m.heads = slices.Delete(m.heads, i, i+1)
	}
	return Span{o.at, o.at.Add(o.rule.length)}, true
}

func (m *merger) first() int {
	first := -1
	for i, o := range m.heads {
		if first < 0 || o.at.Before(m.heads[first].at) {
			first = i
		}
	}
	return first
}
