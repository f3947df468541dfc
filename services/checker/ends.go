package checker

import (
	"cmp"
	"slices"
)

// endKey is what tells one end from another; execution derives the id of an end from the same.
type endKey struct {
	attempt    int
	transition uint32
	state      string
	silent     bool
}

func (e *End) key() endKey { return endKey{e.Attempt, e.Transition, string(e.State), e.Silent} }

// distinctEnds sorts ends and leaves out copies.
func distinctEnds(all []*End) []*End {
	slices.SortFunc(all, func(a, b *End) int {
		silent := 0
		if a.Silent != b.Silent {
			if silent = -1; a.Silent {
				silent = 1
			}
		}
		return cmp.Or(cmp.Compare(a.Attempt, b.Attempt), cmp.Compare(a.Transition, b.Transition), cmp.Compare(a.State, b.State), silent, cmp.Compare(a.Sequence, b.Sequence), cmp.Compare(a.Reason, b.Reason), a.At.Compare(b.At), a.Name.compare(b.Name))
	})
	return slices.CompactFunc(all, func(a, b *End) bool { return a.key() == b.key() })
}

// ends checks that each end is told once, in EVENTS and in HISTORY, and that it was one. Execution leaves out what it knows no
// order of.
func (c *checks) ends(d *dossier) {
	if c.gone(d.Deployment, d.Revision) || c.Orders != nil && c.orders[revision{d.Deployment, d.Revision}] == nil {
		return
	}
	if c.Finished != nil {
		c.finishes(d)
	}
	if c.Finished == nil || c.History == nil {
		return
	}
	for _, f := range d.finished {
		if !slices.ContainsFunc(d.history, func(h *End) bool { return h.key() == f.key() }) && c.covers(InHistory, f.At) {
			c.report(d, NotInHistory, "HISTORY does not hold an end that EVENTS holds", f.line(InEvents))
		}
	}
	for _, h := range d.history {
		if !slices.ContainsFunc(d.finished, func(f *End) bool { return h.key() == f.key() }) && c.covers(InEvents, h.At) {
			c.report(d, NotInHistory, "EVENTS does not hold an end that HISTORY holds", h.line(InHistory))
		}
	}
}

func (c *checks) finishes(d *dossier) {
	var told []*End // by the agent's word
	for _, f := range d.finished {
		if !f.Silent {
			told = append(told, f)
		}
	}
	for i, f := range told {
		if i > 0 && told[i-1].Attempt == f.Attempt {
			c.report(d, NotFinished, "one attempt ended in two ways", told[i-1].line(InEvents), f.line(InEvents))
		}
		c.wasEnd(d, f)
	}
	if c.Stored == nil {
		return
	}
	for _, s := range d.statuses {
		ended := func(f *End) bool { return f.Attempt == s.Attempt && f.Transition == s.Transition && f.State == s.State }
		if s.State.Terminal() && !slices.ContainsFunc(told, ended) && c.covers(InEvents, s.At) {
			c.report(d, NotFinished, "EVENTS does not tell that the job ended", s.line())
		}
	}
}

// wasEnd checks that the agent said what is told of it. What is missing in STATUS is another rule's.
func (c *checks) wasEnd(d *dossier, f *End) {
	if c.Stored == nil || !c.covers(InStatus, f.At) {
		return
	}
	last := uint32(0)
	for _, s := range d.statuses {
		last = s.Transition
		if s.Transition != f.Transition {
			continue
		}
		if s.State != f.State || s.Attempt != f.Attempt {
			c.report(d, NotFinished, "an end is told that is not what the agent said", s.line(), f.line(InEvents))
		}
		return
	}
	if n := len(d.journals); f.Transition > last && (n == 0 || d.journals[n-1].Transition < f.Transition) {
		c.report(d, NotFinished, "an end is told that no agent said", f.line(InEvents))
	}
}
