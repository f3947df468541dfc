package checker

import (
	"fmt"
	"slices"
	"time"

	"chandler/events"
)

// statuses checks what STATUS holds of a job by itself.
func (c *checks) statuses(d *dossier) {
	if c.Stored == nil {
		return
	}
	c.ids(d)
	c.holes(d)
	c.sequence(d)
	c.stops(d)
}

// ids checks that each id names one statement, and the one that is stored.
func (c *checks) ids(d *dossier) {
	for i, s := range d.copies {
		want := events.JobStatus{Job: s.Job, Attempt: s.Attempt, Transition: s.Transition}.StatusID()
		if s.ID != "" && s.ID != want {
			c.report(d, StatusID, fmt.Sprintf("a status is stored under the id %s, which is not that of its job, attempt and transition", s.ID), s.line())
		}
		if i > 0 && s.Attempt == d.copies[i-1].Attempt && s.Transition == d.copies[i-1].Transition && s.stated() != d.copies[i-1].stated() {
			c.report(d, StatusID, "one transition is stored twice and says two things", d.copies[i-1].line(), s.line())
		}
	}
}

// stated is what a status says, and not where it is stored.
func (s *Status) stated() Status {
	said := *s
	said.ID, said.Sequence, said.At = "", 0, time.Unix(0, s.At.UnixNano())
	return said
}

// holes checks that transitions are numbered from 1 without holes. An agent that is away may have sent a later one before an
// earlier one.
func (c *checks) holes(d *dossier) {
	if c.Away[d.Agent] {
		return
	}
	var before *Status
	for _, s := range d.statuses {
		last, at := uint32(0), c.begin(d)
		if before != nil {
			last, at = before.Transition, before.At
		}
		if s.Transition > last+1 && c.covers(InStatus, at) {
			what := fmt.Sprintf("transition %d", last+1)
			if s.Transition > last+2 {
				what = fmt.Sprintf("transitions %d to %d", last+1, s.Transition-1)
			}
			history := []line{s.line()}
			if before != nil {
				history = append(history, before.line())
			}
			c.report(d, Hole, what+" of the job missing in STATUS", history...)
		}
		before = s
	}
}

// whole says that STATUS holds all statuses of a job that there are.
func (c *checks) whole(d *dossier) bool {
	last := uint32(0)
	if s := d.last(); s != nil {
		last = s.Transition
	}
	if n := len(d.journals); n > 0 && d.journals[n-1].Transition > last {
		return false
	}
	return c.Stored != nil && !c.Away[d.Agent] && (len(d.statuses) > 0 || c.covers(InStatus, c.begin(d))) && last == uint32(len(d.statuses))
}

// sequence checks that what a job says goes on from what it said before.
func (c *checks) sequence(d *dossier) {
	for i, s := range d.statuses[min(1, len(d.statuses)):] {
		p := d.statuses[i]
		switch {
		case p.Transition == s.Transition:
			c.report(d, Sequence, "one number stands for transitions of two attempts", p.line(), s.line())
		case s.Attempt < p.Attempt:
			c.report(d, Sequence, "the attempt falls", p.line(), s.line())
		case s.Attempt > p.Attempt:
			if p.State.Terminal() && !c.mayComeAgain(d, p) {
				c.report(d, AfterEnd, "a further attempt begins after an end that is not tried again", p.line(), s.line())
			}
		case p.State.Terminal():
			c.report(d, AfterEnd, "something follows the end of its attempt", p.line(), s.line())
		case p.State == events.Retrying && !s.State.Terminal():
			c.report(d, Sequence, "an attempt goes on that is to be tried again", p.line(), s.line())
		case s.State == events.Accepted:
			c.report(d, Sequence, "an attempt is accepted that is under way", p.line(), s.line())
		}
	}
	for _, attempt := range byAttempt(d.statuses) {
		c.withinAttempt(d, attempt)
	}
}

// mayComeAgain says whether a further attempt may follow this end: an administrator tries failures again, and the next attempt
// may have been offered before execution heard that its job was withdrawn or expired.
func (c *checks) mayComeAgain(d *dossier, end *Status) bool {
	switch end.State {
	case events.Failed, events.Rejected:
		return true
	case events.Cancelled, events.Expired:
		return !c.whole(d) || slices.ContainsFunc(d.statuses, func(s *Status) bool { return s.Attempt == end.Attempt && s.State == events.Retrying })
	}
	return false
}

// byAttempt cuts statuses into those of one attempt each.
func byAttempt(all []*Status) (attempts [][]*Status) {
	for len(all) > 0 {
		n := slices.IndexFunc(all, func(s *Status) bool { return s.Attempt != all[0].Attempt })
		if n < 0 {
			n = len(all)
		}
		attempts, all = append(attempts, all[:n]), all[n:]
	}
	return attempts
}

// withinAttempt checks that content is fetched before it is there, and is there before the program runs that then ends.
func (c *checks) withinAttempt(d *dossier, statuses []*Status) {
	if !c.whole(d) {
		return
	}
	fetching := map[string]bool{}
	var running *Status
	var late *Status // the first after it that comes before a run
	for _, s := range statuses {
		switch s.State {
		case events.Downloading:
			fetching[s.Step] = true
		case events.Downloaded:
			if !fetching[s.Step] {
				c.report(d, Sequence, "content is there that was not being fetched", s.line())
			}
		case events.Running:
			running, late = s, nil
			continue
		}
		if running != nil && s.Step == running.Step && late == nil && (s.State == events.Downloading || s.State == events.Downloaded) {
			late = s
		}
	}
	if end := statuses[len(statuses)-1]; late != nil && claimsRun(end, true) {
		c.report(d, Sequence, "content is fetched for a program that was running", running.line(), late.line(), end.line())
	}
}

// stops checks that somebody stopped what was cancelled.
func (c *checks) stops(d *dossier) {
	if c.Stops == nil || c.Orders == nil || !c.holdsOrder(d) || c.withdrawn(d.Deployment, d.Revision) {
		return
	}
	for _, s := range d.statuses {
		if s.State == events.Cancelled {
			c.report(d, NotStopped, "the job is cancelled, and nobody stopped or replaced its deployment", s.line())
		}
	}
}

// acknowledging is the longest that an agent waits for an acknowledgement: so much earlier its status may have been stored.
const acknowledging = 10 * time.Second

// acks checks that what was acknowledged is stored.
func (c *checks) acks(d *dossier) {
	if c.Stored == nil {
		return
	}
	for i, a := range d.acks {
		if i > 0 && a.Transition == d.acks[i-1].Transition && a.Attempt == d.acks[i-1].Attempt {
			continue // told again
		}
		stored := slices.ContainsFunc(d.copies, func(s *Status) bool {
			return s.Transition == a.Transition && s.Attempt == a.Attempt && s.State == a.State
		})
		if !stored && c.covers(InStatus, a.At.Add(-acknowledging)) {
			c.report(d, AckLost, fmt.Sprintf("transition %d was acknowledged, and STATUS does not hold it", a.Transition), a.line())
		}
	}
}
