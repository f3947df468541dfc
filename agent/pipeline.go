package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"chandler/agent/execute"
	"chandler/agent/external"
	"chandler/agent/fetch"
	"chandler/events"
	"chandler/events/order"
	"chandler/events/sign"
	"chandler/events/timing"
)

// stage is one step of a job. nil lets the job pass to the next; an *ending ends the attempt; any other
// error is the agent's own fault, unless the agent is stopping.
type stage struct {
	name string
	do   func(*task, context.Context) error
	// reachable: a withdrawal does not interrupt the stage; run looks for itself what it may still stop.
	reachable bool
}

// stages in their order.
func stages() []stage {
	return []stage{
		{"verify", (*task).verify, false},
		{"decide", (*task).decide, false},
		{"prepare", (*task).prepare, false},
		{"prepare what runs first", (*task).prepareFirst, false},
		{"run first", (*task).runFirst, true},
		{"wait", (*task).wait, false},
		{"verify again", (*task).verifyAgain, false},
		{"run", (*task).run, true},
		{"detect", (*task).conclude, true},
	}
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
	elevatedTo                 string
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

// carryOut takes a job through its attempts. It returns when the job has ended or the agent stops; then
// the journal says where to go on.
func (t *task) carryOut(ctx context.Context) {
	defer t.leaveSlot()
	for {
		t.facts = t.a.Facts()
		t.setStarted(false)
		t.accesses.forget()
		err := t.attempt(ctx)
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, errNextAttempt) {
			t.leaveSlot()
			continue
		}
		e := asEnding(err)
		if e == succeeded {
			e = &ending{state: events.Succeeded, detail: t.result}
		}
		// A withdrawal interrupts the stages before the start; whatever they made of that, this is why.
		if c := t.withdrawn(); c != nil {
			e = withdrawnEnding(c)
		}
		if t.persists(ctx, e) {
			continue
		}
		again := t.finish(ctx, e)
		t.leaveSlot() // with the end in the history, by which another job of the same program decides
		if !again {
			return
		}
	}
}

// attempt takes the job through the stages once, or from where an earlier process of the agent left it.
func (t *task) attempt(ctx context.Context) error {
	before, stop := t.untilWithdrawn(ctx)
	defer stop()
	defer t.leaveOutside()
	t.step, t.have, t.fetched = nil, nil, false
	t.startable.Store(nil) // until there is somebody again who hears a local user
	switch {
	case t.job.Boot != "":
		return t.goOn(ctx, t.afterRestart(ctx))
	case t.job.Last.State == events.Retrying && t.job.Last.Attempt == t.job.Offer.Attempt:
		return t.awaitReoffer(before)
	case t.job.Started == t.job.Offer.Attempt:
		return t.goOn(ctx, t.attach(ctx))
	}
	if err := t.through(ctx, before, stages()); err != nil {
		return err
	}
	return succeeded
}

// through takes the job through stages; before ends when it is withdrawn.
func (t *task) through(ctx, before context.Context, all []stage) error {
	for _, s := range all {
		within := before
		if s.reachable {
			within = ctx
		}
		if err := s.do(t, within); err != nil {
			return err
		}
	}
	return nil
}

// succeeded ends a job whose program ran and whose stages had nothing to object.
var succeeded = &ending{state: events.Succeeded}

// untilWithdrawn ends when the agent stops or the job is withdrawn, for the stages before the run.
func (t *task) untilWithdrawn(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		select {
		case <-t.stopped:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// asEnding makes an ending of any error: those of the other packages carry their reason.
func asEnding(err error) *ending {
	var e *ending
	var f *fetch.Error
	var o *sign.Refusal
	var i *execute.Impossible
	var x *external.Error
	switch {
	case errors.As(err, &e):
		return e
	case errors.As(err, &x):
		return accessEnding(x)
	case errors.As(err, &i):
		return impossibleEnding(i)
	case errors.As(err, &o):
		state := events.Rejected
		if o.Reason.Info().Class == events.Transient {
			state = events.Failed
		}
		return &ending{state, o.Reason, status{explanation: o.Text}}
	case errors.As(err, &f):
		return &ending{events.Failed, f.Reason, status{explanation: f.Error(), identity: f.Identity, resource: f.Resource, answer: f.Answer}}
	default:
		return &ending{events.Failed, events.AgentFault, status{explanation: err.Error()}}
	}
}

func withdrawnEnding(c *events.CancelRequest) *ending {
	return &ending{events.Cancelled, events.DeploymentStopped, status{explanation: "the deployment was stopped by " + orDefault(c.By, "an administrator")}}
}

// finish records the end of an attempt. A failure that its class says to try again becomes retrying as
// long as attempts are left; then again is true. After the program was started, only its own word that
// another installer is busy counts as such: nothing else may make it run twice.
func (t *task) finish(ctx context.Context, e *ending) (again bool) {
	started := t.job.Started == t.job.Offer.Attempt
	t.job.Acted = t.job.Acted || started && t.step == nil
	if e.state == events.Failed && (!started || e.reason == events.InstallerBusy) {
		retry := e.reason.Info().Class.Retry()
		if pause, ok := retry.PauseFor(t.job.Offer.Attempt, t.job.Offer.Job); ok {
			at := t.a.Clock().Add(orDefault(t.a.RetryAfter, pause)).UTC()
			e = &ending{events.Retrying, e.reason, e.detail}
			e.detail.retryAt = &at
		}
	}
	e = t.ofStep(e)
	if e.state.Terminal() {
		t.job.Passed = 0
	}
	t.enter(ctx, e.state, e.reason, e.detail)
	if ctx.Err() != nil {
		return false // it may not be recorded: the next start of the agent finds out again
	}
	t.tell(e)
	t.a.reporter.EndLog(t.ref())
	t.a.cleanUp(t.job.Offer.Job)
	if e.state.Terminal() {
		t.a.fetcher.Release(t.job.Offer.Job)
		t.a.metrics.ended.WithLabelValues(string(e.state), string(e.reason)).Inc()
		return false
	}
	return true
}

// awaitReoffer parks a retrying job until execution offers the next attempt, or its time is over.
func (t *task) awaitReoffer(ctx context.Context) error {
	if serial, err := t.a.journal.Serial(t.deployment); err == nil && serial.Stopped >= t.revision {
		return end(events.Cancelled, events.DeploymentStopped, "the deployment was stopped")
	}
	if err := t.recallOrder(); err != nil {
		// The order could not be fetched in the first place: wait for the next attempt all the same.
		t.order = order.Order{NotAfter: t.a.Clock().Add(order.DefaultValidity)}
	}
	last := t.job.Last
	timer := time.NewTimer(max(0, timing.Ends(t.order, t.machine()).Sub(t.a.Clock())))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case o := <-t.reoffers:
		t.job.Offer = o.JobOffer
		return errNextAttempt
	case <-timer.C:
		return &ending{events.Expired, last.Reason, status{explanation: "the deployment's time ended before the next attempt: " + last.Explanation}}
	}
}

// errNextAttempt is not an ending: the attempt loop begins anew.
var errNextAttempt = errors.New("next attempt")

// enter records a transition and wakes the reporter. While the journal cannot be written (a full disk)
// the job stands still: a transition that is not recorded has not happened.
func (t *task) enter(ctx context.Context, state events.State, reason events.Reason, d status) {
	o := t.job.Offer
	t.job.Last = events.JobStatus{
		Job: o.Job, Deployment: o.Deployment, Revision: o.Revision, Order: o.Order, Agent: t.a.id, Host: t.facts.Hostname, Site: t.facts.Site,
		Package: t.order.Package, Version: t.order.Version, Program: t.order.Program, Step: t.stepName(), Occurrence: o.Occurrence, User: o.User, Attempt: o.Attempt,
		Transition: t.job.Last.Transition + 1, State: state, Reason: reason, WaitingFor: d.waitingFor, Explanation: brief(d.explanation),
		Identity: d.identity, Resource: brief(d.resource), Answer: brief(d.answer), Reader: d.reader, Executor: d.executor, ElevatedTo: d.elevatedTo, ExitCode: d.exitCode,
		Bytes: t.bytes, Seconds: d.seconds, RetryAt: d.retryAt, At: t.a.Clock().UTC(),
	}
	if state.Terminal() || state == events.Retrying || state == events.RebootPending {
		t.job.Last.Accesses = t.accesses.all()
	}
	if t.journalled(ctx, func() error { return t.a.journal.Advance(t.job) }) != nil {
		return
	}
	t.a.changed.Store(true)
	t.a.reporter.Wake()
}

// journalled writes into the journal, however long it takes; the error is ctx's.
func (t *task) journalled(ctx context.Context, write func() error) error {
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 10*time.Second) {
		err := write()
		if err == nil {
			return nil
		}
		t.a.metrics.journalFailures.Inc()
		t.a.log.ErrorContext(ctx, "journal not written, job stands still", "job", t.job.Offer.Job, "error", err)
		if !sleep(ctx, pause) {
			return ctx.Err()
		}
	}
}

// brief bounds what a status says: command lines and the words of others have any length.
func brief(s string) string {
	const most = 4 << 10
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

// sleep waits and says whether ctx is still alive.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
