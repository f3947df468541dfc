package fleet

import (
	"context"
	"fmt"
	"strings"
	"time"

	"chandler/agent/journal"
	"chandler/events"
	"chandler/events/order"
	"chandler/events/timing"
)

// What statuses say of programs that are a play.
const (
	readerName   = "agent"
	executorName = "root"
	commandLine  = `["/bin/true"]`
)

// contactPatience is how long a start waits for execution's first word after a restart or reconnect: it
// may say that the deployment was stopped meanwhile.
const contactPatience = 30 * time.Second

// machine is what decisions about time need to know of this one.
func (t *task) machine() timing.Machine { return timing.Machine{ID: t.l.m.ID, Zone: t.l.m.zone} }

// timing says whether the job's time has come.
func (t *task) timing() timing.Decision {
	now := t.l.f.Clock()
	return timing.Decide(t.order, t.order.Assignments[0], t.job.Offer.Occurrence, t.machine(), t.heard(now), now)
}

// heard is when the agent was first there at or after the job's time, or was told of the job later than that. It is
// journalled once it is known, so that a restart of the agent long after does not look like an absence.
func (t *task) heard(now time.Time) time.Time {
	heard := t.job.Heard
	if heard.IsZero() {
		heard = t.job.Opened
	}
	is := heard
	if at, timed := timing.TimeOf(t.order, t.order.Assignments[0], t.job.Offer.Occurrence, t.machine()); timed && heard.Before(at) && !now.Before(at) {
		is = at
		if t.l.began.After(at) {
			is = t.l.began
		}
	}
	if is.After(now) {
		is = now // the clock was set back since
	}
	if !is.Equal(heard) {
		t.job.Heard = is
		if err := t.l.journal.Keep(t.job); err != nil {
			t.l.f.log.Warn("when the job's time came is not journalled", "agent", t.l.m.ID, "job", t.job.Offer.Job, "error", err)
		}
	}
	return is
}

func tooLate() error {
	return end(events.Expired, events.DeploymentExpired, "the deployment's time was over before the program started")
}

// prepare waits until the deployment is available, and tells of the content that a real agent would fetch then.
func (t *task) prepare(ctx context.Context) error {
	for {
		d := t.timing()
		switch d.Verdict {
		case timing.TooLate:
			return tooLate()
		case timing.NotYet:
			if err := t.waitUntil(ctx, d.Until, "available from "+d.Until.Format(time.RFC3339)); err != nil {
				return err
			}
			continue
		}
		break
	}
	if t.l.f.Script.Content {
		t.pass(ctx, events.Downloading, status{})
		t.pass(ctx, events.Downloaded, status{reader: readerName})
	}
	return ctx.Err()
}

// wait lets the job pass when its time has come, nothing is frozen, and there is a place for the program, which it takes.
func (t *task) wait(ctx context.Context) error {
	for {
		t.l.inbox.WaitCurrent(ctx, contactPatience)
		if hindered, err := t.hindered(ctx, true); err != nil {
			return err
		} else if hindered {
			continue
		}
		if took, err := t.takePlace(ctx); err != nil {
			return err
		} else if !took {
			continue
		}
		// With the place, no other job runs the program any more; one may have done so since this one decided to.
		if t.job.Offer.Attempt == 1 {
			if err := t.stillToRun(); err != nil {
				return err
			}
		}
		if hindered, err := t.hindered(ctx, false); err != nil || !hindered {
			return err
		}
		t.leavePlace()
	}
}

// hindered says whether anything forbids the start; it waits until that may have changed, if told to. The error ends the
// attempt.
func (t *task) hindered(ctx context.Context, wait bool) (bool, error) {
	d := t.timing()
	freeze, changed := t.l.frozen(t.facts, t.deployment, t.revision)
	switch {
	case ctx.Err() != nil:
		return true, ctx.Err()
	case d.Verdict == timing.TooLate:
		return true, tooLate()
	case d.Verdict == timing.Start && freeze == nil:
		return false, nil
	case !wait:
		return true, nil
	case d.Verdict != timing.Start:
		return true, t.waitUntil(ctx, d.Until, "starts at "+d.Until.Format(time.RFC3339))
	}
	why := freeze.Why
	if why == "" {
		why = "no reason given"
	}
	t.pass(ctx, events.Waiting, status{waitingFor: events.WaitFreeze, explanation: fmt.Sprintf("frozen (%s) by %s: %s", freeze.ID, freeze.By, why)})
	return true, t.waitChange(ctx, changed, time.Minute)
}

// waitUntil waits for a time, in steps, so that a clock that was set meanwhile is noticed.
func (t *task) waitUntil(ctx context.Context, until time.Time, why string) error {
	t.pass(ctx, events.Waiting, status{waitingFor: events.WaitAssignment, explanation: why})
	return t.waitChange(ctx, nil, until.Sub(t.l.f.Clock()))
}

// waitChange waits until changed is closed, or the time is over, a minute has passed or the deployment expires.
func (t *task) waitChange(ctx context.Context, changed <-chan struct{}, most time.Duration) error {
	ends := max(time.Second, timing.Ends(t.order, t.machine()).Sub(t.l.f.Clock()))
	timer := time.NewTimer(max(0, min(most, time.Minute, ends)))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-changed:
	case <-timer.C:
	}
	return nil
}

// programPlace lets a program run: once at a time, and few beside each other.
type programPlace struct {
	name, places chan struct{}
}

func (l *life) placeOf(o order.Order) *programPlace {
	l.mu.Lock()
	defer l.mu.Unlock()
	name := programName(o)
	if l.names[name] == nil {
		l.names[name] = make(chan struct{}, 1)
	}
	return &programPlace{l.names[name], l.places}
}

// take takes the place if it is free.
func (p *programPlace) take() bool {
	select {
	case p.name <- struct{}{}:
	default:
		return false
	}
	select {
	case p.places <- struct{}{}:
		return true
	default:
		<-p.name
		return false
	}
}

// takePlace takes the program's place, or waits for it a while, in which other things may change.
func (t *task) takePlace(ctx context.Context) (took bool, err error) {
	p := t.l.placeOf(t.order)
	if !p.take() {
		t.pass(ctx, events.Waiting, status{waitingFor: events.WaitSlot, explanation: fmt.Sprintf("other programs run here, %d at once are the most, each of them once", maxRuns)})
		timer := time.NewTimer(time.Minute)
		defer timer.Stop()
		select {
		case p.name <- struct{}{}:
		case <-ctx.Done():
			return false, ctx.Err()
		case <-timer.C:
			return false, nil
		}
		select {
		case p.places <- struct{}{}:
		case <-ctx.Done():
			<-p.name
			return false, ctx.Err()
		case <-timer.C:
			<-p.name
			return false, nil
		}
	}
	t.place = p
	return true, nil
}

func (t *task) leavePlace() {
	if t.place != nil {
		<-t.place.places
		<-t.place.name
		t.place = nil
	}
}

// verifyAgain is the last look before the start, which may come weeks after the first.
func (t *task) verifyAgain(ctx context.Context) error {
	why, err := t.clockBehind()
	if err != nil {
		return err
	}
	if why != "" {
		t.leavePlace()
		if err := t.awaitClock(ctx, why); err != nil {
			return err
		}
		return errNextAttempt // from the first stage: much may have changed
	}
	answer, ok, err := t.l.journal.Order(t.job.Offer.Order)
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("order %s is not in the journal", t.job.Offer.Order)
	}
	verified, err := t.l.f.verifier.verify(answer.Envelope, t.l.f.Trust(), t.l.f.Clock())
	if err != nil {
		return err
	}
	return t.meantForHere(verified, answer)
}

// run starts the program. That it is about to be started is journalled and synced first: from then on this attempt never
// starts again, and nothing but what the program did decides it.
func (t *task) run(ctx context.Context) error {
	if c := t.setStarted(true); c != nil {
		return withdrawnEnding(c)
	}
	o := t.job.Offer
	t.job.Work = &journal.Work{Order: t.order, Program: events.Program{Command: events.Command{Argv: []string{"/bin/true"}}, Run: t.order.Run}, Reader: readerName}
	t.job.Started, t.job.Run, t.job.Ran = o.Attempt, fmt.Sprintf("%s/%s-%d", t.l.f.process, o.Job, o.Attempt), true
	t.enter(ctx, events.Running, events.NoReason, status{reader: readerName, explanation: "started " + commandLine + " as " + executorName})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	p := t.l.f.programs.start(Run{Agent: t.l.m.ID, Job: o.Job, Deployment: o.Deployment, Revision: o.Revision, Attempt: o.Attempt})
	return t.watch(ctx, p)
}

// attach goes on with an attempt whose program an earlier life of the agent had started, or was about to start.
func (t *task) attach(ctx context.Context) error {
	if t.job.Work == nil {
		return lost("the journal does not say what was started")
	}
	t.order = t.job.Work.Order
	t.setStarted(true)
	if process, _, _ := strings.Cut(t.job.Run, "/"); process != t.l.f.process {
		return lost("the process that played it is gone")
	}
	p := t.l.f.programs.find(t.job.Offer.Job, t.job.Offer.Attempt)
	if p == nil { // it was certainly never started
		t.job.Started, t.job.Ran, t.job.Work = 0, false, nil
		if err := t.l.journal.Keep(t.job); err != nil {
			return err
		}
		return errNextAttempt
	}
	return t.watch(ctx, p)
}

// lost ends an attempt whose program ran out of everybody's sight; it is never run again by itself.
func lost(why string) error {
	return end(events.Failed, events.OutcomeUnknown, "the program was started and nobody saw it end: %s", why)
}

// watch waits for the program's end and says what it means. A kill that was asked for meanwhile is passed on.
func (t *task) watch(ctx context.Context, p *program) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.kill:
		p.end(true)
	case <-p.ended:
	}
	r := p.record()
	t.sayOutput(r)
	e := &ending{state: events.Succeeded, detail: status{reader: readerName, executor: executorName, resource: commandLine, seconds: r.Ended.Sub(r.At).Seconds()}}
	if r.Killed {
		e.state, e.reason, e.detail.explanation = events.Cancelled, events.DeploymentStopped, "the program was ended: the deployment was stopped"
		return e
	}
	e.detail.exitCode = &r.Act.Exit
	e.detail.explanation = fmt.Sprintf("%s ran %s: exit code %d", executorName, commandLine, r.Act.Exit)
	if r.Act.Reason != events.NoReason {
		e.state, e.reason, e.detail.identity, e.detail.answer = events.Failed, r.Act.Reason, executorName, fmt.Sprintf("exit code %d", r.Act.Exit)
	}
	return e
}

// outputLine is the length of the lines of output.
const outputLine = 100

// sayOutput puts the program's output into the job's log.
func (t *task) sayOutput(r Run) {
	for left := r.Act.Output; left > 0; left -= outputLine {
		line := strings.Repeat("output of a simulated program; ", 4)[:min(left, outputLine)]
		t.l.reporter.Line(t.ref(), events.LogLine{At: r.Ended.UTC(), Level: "info", Component: "output", Text: line})
	}
}
