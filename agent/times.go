package agent

import (
	"context"
	"sync"
	"time"

	"chandler/events/order"
	"chandler/events/timing"
)

// machine is what decisions about time need to know of this one.
func (t *task) machine() timing.Machine { return timing.Machine{ID: t.a.id, Zone: t.a.Zone()} }

// assignment is the one that the job is of; the zero one where it is of none: a local user asked for it, or it is the job
// of a standing order, which opens others.
func (t *task) assignment() order.Assignment {
	i := 0
	switch {
	case t.job.Occurrence != nil:
		i = t.job.Occurrence.Assignment
	case t.order.Standing():
		return order.Assignment{}
	}
	if i < 0 || i >= len(t.order.Assignments) {
		return order.Assignment{}
	}
	return t.order.Assignments[i]
}

// timing says whether the job's time has come. A local user who asked for it has chosen the moment.
func (t *task) timing() timing.Decision {
	now := t.a.Clock()
	if t.umbrella() || t.job.AskedBy != "" {
		return timing.Standing(t.order, t.machine(), now)
	}
	return timing.Decide(t.order, t.assignment(), t.job.Offer.Occurrence, t.machine(), t.heard(now), now)
}

// heard is when the agent was first there at or after the job's time, or was told of the job later than that. It is
// journalled once it is known, so that a restart of the agent long after does not look like an absence.
func (t *task) heard(now time.Time) time.Time {
	heard := t.job.Heard
	if heard.IsZero() {
		heard = t.job.Opened
	}
	is, there := heard, t.a.presence.since(now)
	if at, timed := timing.TimeOf(t.order, t.assignment(), t.job.Offer.Occurrence, t.machine()); timed && heard.Before(at) && !now.Before(at) {
		is = at
		if there.After(at) {
			is = there
		}
	}
	if is.After(now) {
		is = now // the clock was set back since
	}
	if !is.Equal(heard) {
		t.job.Heard = is
		if err := t.a.journal.Keep(t.job); err != nil {
			t.a.log.Warn("when the job's time came is not journalled", "job", t.job.Offer.Job, "error", err)
		}
	}
	return is
}

// absence is the longest time without a look that is not yet one in which the machine was away, asleep or off.
const absence = 3 * time.Minute

// presence knows since when the machine is there without a break, by its own clock.
type presence struct {
	mu          sync.Mutex
	began, last time.Time
}

// since is told the time by whoever looks at it, once a minute at least while the agent runs.
func (p *presence) since(now time.Time) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.last.IsZero() || now.Before(p.last) || now.Sub(p.last) > absence {
		p.began = now
	}
	p.last = now
	return p.began
}

// at is closed at a time of the machine's clock, or when ctx ends; whoever waits for it looks every minute anyway, so
// that a clock that is set meanwhile does no harm.
func (t *task) at(ctx context.Context, when time.Time) <-chan struct{} {
	return after(ctx, when.Sub(t.a.Clock()))
}

// bePresent looks at the time once a minute, so that a gap shows that the machine was away.
func (a *Agent) bePresent(ctx context.Context) error {
	for a.presence.since(a.Clock()); sleep(ctx, time.Minute); {
		a.presence.since(a.Clock())
	}
	return nil
}
