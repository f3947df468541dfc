package fleet

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"chandler/agent/journal"
	"chandler/agent/report"
	"chandler/events"
	"chandler/events/order"
	"chandler/events/sign"
	"chandler/events/timing"
)

// task is one job under way. Its own goroutine (carryOut) changes everything but what mu guards.
type task struct {
	l     *life
	job   journal.Job
	order order.Order
	facts events.Facts // of the moment the attempt began

	deployment string // never changes, unlike job.Offer
	revision   uint64
	place      *programPlace // held while the program runs
	reoffers   chan offered  // the next attempt
	kill       chan struct{} // closed when a running program is to be ended

	mu        sync.Mutex
	started   bool                  // the program is about to run, or did: only a kill reaches it now
	cancel    *events.CancelRequest // asked for
	interrupt context.CancelFunc    // ends before; nil: no attempt is under way
}

// offered is an offer with the trace it carried.
type offered struct {
	events.JobOffer
	trace string
}

func (l *life) newTask(job journal.Job) *task {
	return &task{l: l, job: job, deployment: job.Offer.Deployment, revision: job.Offer.Revision, reoffers: make(chan offered, 1), kill: make(chan struct{})}
}

func (t *task) ref() report.JobRef {
	return report.JobRef{Job: t.job.Offer.Job, Deployment: t.job.Offer.Deployment, Attempt: t.job.Offer.Attempt, Trace: t.job.Trace}
}

// resume goes on with the jobs that had not ended when the agent last stopped. Programs that run have their places before
// the first of them begins.
func (l *life) resume() error {
	var tasks []*task
	err := l.journal.Jobs(func(j journal.Job) error {
		if j.Ended() {
			return nil
		}
		t := l.newTask(j)
		if j.Work != nil && j.Started == j.Offer.Attempt && j.Last.State == events.Running {
			if p := l.placeOf(j.Work.Order); p.take() {
				t.place = p
			}
		}
		tasks = append(tasks, t)
		return nil
	})
	for _, t := range tasks {
		l.beginTask(t)
	}
	return err
}

// beginTask runs a task; the caller has made sure that there is none for the job.
func (l *life) beginTask(t *task) {
	id := t.job.Offer.Job
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.leaving {
		return // the journal has the job
	}
	l.tasks[id] = t
	l.running.Go(func() {
		t.carryOut(l.ctx)
		l.mu.Lock()
		delete(l.tasks, id)
		l.mu.Unlock()
		// An offer that came while the job was ending found the task still there.
		select {
		case o := <-t.reoffers:
			if err := l.Offer(l.ctx, o.JobOffer, o.trace, nil); err != nil {
				l.inbox.Look("offer_kept_back")
			}
		default:
		}
	})
}

// carryOut takes a job through its attempts. It returns when the job has ended or the agent stops; then
// the journal says where to go on.
func (t *task) carryOut(ctx context.Context) {
	defer func() { t.leavePlace() }()
	for {
		t.facts = t.l.facts()
		t.setStarted(false)
		err := t.attempt(ctx)
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, errNextAttempt) {
			t.leavePlace()
			continue
		}
		e := asEnding(err)
		if c := t.withdrawn(); c != nil {
			e = withdrawnEnding(c)
		}
		again := t.finish(ctx, e)
		t.leavePlace()
		if !again {
			return
		}
	}
}

// attempt takes the job through the stages once, or from where an earlier life of the agent left it.
func (t *task) attempt(ctx context.Context) error {
	before, stop := t.untilWithdrawn(ctx)
	defer stop()
	switch {
	case t.job.Last.State == events.Retrying && t.job.Last.Attempt == t.job.Offer.Attempt:
		return t.awaitReoffer(before)
	case t.job.Started == t.job.Offer.Attempt:
		return t.attach(ctx)
	}
	for _, stage := range []func(context.Context) error{t.verify, t.decide, t.prepare, t.wait, t.verifyAgain} {
		if err := stage(before); err != nil {
			return err
		}
	}
	return t.run(ctx)
}

// untilWithdrawn ends when the agent stops or the job is withdrawn, for the stages before the run.
func (t *task) untilWithdrawn(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.interrupt = cancel
	if t.cancel != nil {
		cancel()
	}
	return ctx, cancel
}

// withdraw stops a task that has not started its program; a started one only by a kill.
func (t *task) withdraw(c events.CancelRequest) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.cancel != nil && t.cancel.Kill {
		return
	}
	t.cancel = &c
	if t.interrupt != nil {
		t.interrupt()
	}
	if c.Kill {
		close(t.kill)
	}
}

// withdrawn is the cancellation, if there was one and the program is not started.
func (t *task) withdrawn() *events.CancelRequest {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.started {
		return nil
	}
	return t.cancel
}

// setStarted marks the program as started, unless the job was withdrawn before; then it returns the
// cancellation. From the mark on only a kill reaches the job.
func (t *task) setStarted(started bool) *events.CancelRequest {
	t.mu.Lock()
	defer t.mu.Unlock()
	if started && !t.started && t.cancel != nil {
		return t.cancel
	}
	t.started = started
	return nil
}

// ending is how an attempt ends.
type ending struct {
	state  events.State
	reason events.Reason
	detail status
}

// status is what a transition says beside its state.
type status struct {
	explanation                string
	identity, resource, answer string
	reader, executor           string
	waitingFor                 events.WaitingFor
	exitCode                   *int
	seconds                    float64
	retryAt                    *time.Time
}

func (e *ending) Error() string {
	return fmt.Sprintf("%s (%s): %s", e.state, e.reason, e.detail.explanation)
}

func end(state events.State, reason events.Reason, format string, args ...any) error {
	return &ending{state, reason, status{explanation: fmt.Sprintf(format, args...)}}
}

// errNextAttempt is not an ending: the attempt loop begins anew.
var errNextAttempt = errors.New("next attempt")

// asEnding makes an ending of any error.
func asEnding(err error) *ending {
	if e, ok := errors.AsType[*ending](err); ok {
		return e
	}
	if r, ok := errors.AsType[*sign.Refusal](err); ok {
		state := events.Rejected
		if r.Reason.Info().Class == events.Transient {
			state = events.Failed
		}
		return &ending{state, r.Reason, status{explanation: r.Text}}
	}
	return &ending{events.Failed, events.AgentFault, status{explanation: err.Error()}}
}

func withdrawnEnding(c *events.CancelRequest) *ending {
	by := c.By
	if by == "" {
		by = "an administrator"
	}
	return &ending{events.Cancelled, events.DeploymentStopped, status{explanation: "the deployment was stopped by " + by}}
}

// finish records the end of an attempt. A failure that its class says to try again becomes retrying as long as attempts
// are left; then again is true. After the program was started, only its own word that another installer is busy counts
// as such: nothing else may make it run twice.
func (t *task) finish(ctx context.Context, e *ending) (again bool) {
	started := t.job.Started == t.job.Offer.Attempt
	t.job.Acted = t.job.Acted || started
	if e.state == events.Failed && (!started || e.reason == events.InstallerBusy) {
		if pause, ok := e.reason.Info().Class.Retry().PauseFor(t.job.Offer.Attempt, t.job.Offer.Job); ok {
			if t.l.f.RetryAfter > 0 {
				pause = t.l.f.RetryAfter
			}
			at := t.l.f.Clock().Add(pause).UTC()
			e = &ending{events.Retrying, e.reason, e.detail}
			e.detail.retryAt = &at
		}
	}
	t.enter(ctx, e.state, e.reason, e.detail)
	if ctx.Err() != nil {
		return false // it may not be recorded: the next life finds out again
	}
	t.l.reporter.EndLog(t.ref())
	return !e.state.Terminal()
}

// awaitReoffer parks a retrying job until execution offers the next attempt, or its time is over.
func (t *task) awaitReoffer(ctx context.Context) error {
	if serial, err := t.l.journal.Serial(t.deployment); err == nil && serial.Stopped >= t.revision {
		return end(events.Cancelled, events.DeploymentStopped, "the deployment was stopped")
	}
	if err := t.recallOrder(); err != nil {
		// The order could not be fetched in the first place: wait for the next attempt all the same.
		t.order = order.Order{NotAfter: t.l.f.Clock().Add(order.DefaultValidity)}
	}
	last := t.job.Last
	timer := time.NewTimer(max(0, timing.Ends(t.order, t.machine()).Sub(t.l.f.Clock())))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case o := <-t.reoffers:
		t.job.Offer = o.JobOffer
		t.l.taken(o.JobOffer)
		return errNextAttempt
	case <-timer.C:
		return &ending{events.Expired, last.Reason, status{explanation: "the deployment's time ended before the next attempt: " + last.Explanation}}
	}
}

// enter records a transition and wakes the reporter. While the journal cannot be written (a full disk) the job stands
// still: a transition that is not recorded has not happened.
func (t *task) enter(ctx context.Context, state events.State, reason events.Reason, d status) {
	o := t.job.Offer
	t.job.Last = events.JobStatus{
		Job: o.Job, Deployment: o.Deployment, Revision: o.Revision, Order: o.Order, Agent: t.l.m.ID, Host: t.facts.Hostname, Site: t.facts.Site,
		Package: t.order.Package, Version: t.order.Version, Program: t.order.Program, Occurrence: o.Occurrence, User: o.User, Attempt: o.Attempt,
		Transition: t.job.Last.Transition + 1, State: state, Reason: reason, WaitingFor: d.waitingFor, Explanation: brief(d.explanation),
		Identity: d.identity, Resource: d.resource, Answer: brief(d.answer), Reader: d.reader, Executor: d.executor, ExitCode: d.exitCode,
		Seconds: d.seconds, RetryAt: d.retryAt, At: t.l.f.Clock().UTC(),
	}
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 10*time.Second) {
		err := t.l.journal.Advance(t.job)
		if err == nil {
			t.l.reporter.Wake()
			return
		}
		t.l.f.log.ErrorContext(ctx, "journal not written, job stands still", "agent", t.l.m.ID, "job", o.Job, "error", err)
		if !sleep(ctx, pause) {
			return
		}
	}
}

// pass enters a state on the way, unless the job is in it already (after a restart of the agent).
func (t *task) pass(ctx context.Context, state events.State, d status) {
	last := t.job.Last
	if last.State == state && last.Attempt == t.job.Offer.Attempt && last.WaitingFor == d.waitingFor && last.Explanation == d.explanation {
		return
	}
	if state == events.Accepted && last.Attempt == t.job.Offer.Attempt && last.Transition > 0 {
		return
	}
	t.enter(ctx, state, events.NoReason, d)
}

// brief bounds what a status says: the words of others have any length.
func brief(s string) string {
	const most = 4 << 10
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
