package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"chandler/agent/detect"
	"chandler/agent/journal"
	"chandler/events"
	"chandler/events/order"
)

// part is what is under way: a step, or the order's own program in the same words.
func (t *task) part() order.Step { return journal.Work{Order: t.order, Step: t.step}.Part() }

// stepName is the step's for people and for statuses; "": the order's own program is under way.
func (t *task) stepName() string {
	if t.step == nil {
		return ""
	}
	return stepName(*t.step)
}

func stepName(s order.Step) string { return s.Package + "@" + s.Version + "/" + s.Program }

// turnTo puts a step under way, or with nil the order's own program: with its manifest and its identity. What only the one
// before it needed is left behind.
func (t *task) turnTo(ctx context.Context, step *order.Step) error {
	t.leaveOutside()
	if t.have == nil {
		t.have = map[string]string{}
	}
	if t.fetched {
		t.have[t.part().Manifest] = t.fetchedBy
	}
	t.step, t.session, t.content, t.holder, t.result = step, nil, "", "", status{}
	t.fetchedBy, t.fetched = t.have[t.part().Manifest]
	if err := t.readManifest(ctx); err != nil {
		return err
	}
	return t.asWhom()
}

// agrees holds what is under way against its manifest.
func (t *task) agrees() error {
	if t.step != nil {
		return t.step.Agrees(t.manifest)
	}
	return t.order.Agrees(t.manifest)
}

// left are the steps that the job has still before it.
func (t *task) left() []order.Step { return t.order.First[min(t.job.Passed, len(t.order.First)):] }

// prepareFirst fetches the content of the steps, as soon as that of the program: nothing is fetched only when it is to
// start.
func (t *task) prepareFirst(ctx context.Context) error {
	if len(t.left()) == 0 || t.umbrella() || t.forUsers() {
		return nil
	}
	if err := t.eachLeft(ctx, func() error { return t.prepare(ctx) }); err != nil {
		return err
	}
	return t.turnTo(ctx, nil)
}

// eachLeft turns to the steps before the job, and does something about those that are not needless.
func (t *task) eachLeft(ctx context.Context, do func() error) error {
	for _, step := range t.left() {
		err := t.turnTo(ctx, &step)
		if err == nil {
			err = t.stepToRun(ctx)
		}
		if err == nil {
			err = do()
		}
		if _, is := errors.AsType[*needless](err); err != nil && !is {
			return err
		}
	}
	return nil
}

// runFirst carries out the steps that the job has still before it, one after the other. Each that is over is behind the
// job for good, whatever is killed.
func (t *task) runFirst(ctx context.Context) error {
	if len(t.left()) == 0 || t.umbrella() || t.forUsers() {
		return nil
	}
	before, stop := t.untilWithdrawn(ctx)
	defer stop()
	for len(t.left()) > 0 {
		step := t.left()[0]
		if err := t.turnTo(before, &step); err != nil {
			return err
		}
		if err := t.passStep(ctx, t.through(ctx, before, stepStages())); err != nil {
			return err
		}
	}
	return t.turnTo(before, nil)
}

// stepStages are those of a step, after its job was verified.
func stepStages() []stage {
	return []stage{
		{"decide", (*task).decideStep, false},
		{"prepare", (*task).prepare, false},
		{"wait", (*task).wait, false},
		{"verify again", (*task).verifyAgain, false},
		{"run", (*task).run, true},
		{"detect", (*task).conclude, true},
	}
}

// needless is why a step has nothing to do.
type needless struct{ why string }

func (n *needless) Error() string { return n.why }

// decideStep finds out whether a step is to run here at all.
func (t *task) decideStep(ctx context.Context) error {
	if err := t.stepToRun(ctx); err != nil {
		return err
	}
	if err := t.applies(); err != nil {
		return err
	}
	return t.repairable(ctx)
}

// stepToRun is [needless] where the step under way has nothing to do.
func (t *task) stepToRun(ctx context.Context) error {
	if t.step.Why == order.StepUninstall {
		return t.stillThere(ctx)
	}
	if by, err := t.replaced(); err != nil || by != "" {
		return orNeedless(err, "the machine has %s, which supersedes it", by)
	}
	if t.step.Always {
		return nil
	}
	done, found, err := t.foundDone(ctx)
	if err != nil || done {
		return orNeedless(err, "%s", found.Explanation)
	}
	if found.State != detect.Unknown {
		return nil // what an earlier run did is not there any more
	}
	last, err := t.a.journal.LastRun(t.programName())
	if err != nil || last == events.Succeeded {
		return orNeedless(err, "it succeeded here before")
	}
	return nil
}

// stillThere is [needless] where there is nothing to remove: detection does not find it or, where that cannot tell, it
// never ran here.
func (t *task) stillThere(ctx context.Context) error {
	done, found, err := t.foundDone(ctx)
	if err != nil || done {
		return orNeedless(err, "%s", found.Explanation)
	}
	if found.State != detect.Unknown || t.program.Undoes == "" {
		return nil
	}
	removed := t.programName()
	removed.Program = t.program.Undoes
	last, err := t.a.journal.LastRun(removed)
	if err != nil || last == "" {
		return orNeedless(err, "%s of %s %s never ran here", removed.Program, removed.Package, removed.Version)
	}
	return nil
}

// orNeedless gives an error, or where there is none a needless step's.
func orNeedless(err error, format string, args ...any) error {
	if err != nil {
		return err
	}
	return &needless{fmt.Sprintf(format, args...)}
}

// passStep puts a step behind the job that has succeeded or is needless; any other end of it is the job's.
func (t *task) passStep(ctx context.Context, err error) error {
	n, skipped := errors.AsType[*needless](err)
	e, ended := errors.AsType[*ending](err)
	switch {
	case skipped:
		t.say(info, "%s, which comes first, is skipped: %s", t.stepName(), n.why)
	case err == nil || ended && e.state == events.Succeeded:
		t.say(info, "%s, which comes first, has succeeded", t.stepName())
	default:
		return err
	}
	t.leaveOutside()
	if err := t.keepPassed(ctx); err != nil {
		return err
	}
	t.leaveSlot() // with what came of the step in the history, by which another job decides
	t.setStarted(false)
	t.a.cleanUp(t.job.Offer.Job)
	return nil
}

// keepPassed journals that a step is over. A disk that is full now is waited for: the step must not run again.
func (t *task) keepPassed(ctx context.Context) error {
	return t.journalled(ctx, func() error {
		next, err := t.a.journal.Pass(t.job)
		if err == nil {
			t.job = next
		}
		return err
	})
}

// goOn goes on with what an earlier process of the agent had started, once that is over: after a step from the first stage.
func (t *task) goOn(ctx context.Context, err error) error {
	if t.step == nil {
		return err
	}
	if err := t.passStep(ctx, err); err != nil {
		return err
	}
	return errNextAttempt
}

// awaitsRestart is what a job says whose step is complete only after a restart of the machine.
func (t *task) awaitsRestart() status {
	d := t.result
	d.waitingFor = events.WaitReboot
	d.explanation = stepName(*t.step) + ", which comes first, is complete only after a restart of the machine; then the job goes on: " + d.explanation
	return d
}

// parked waits for the machine's restart, which ends this process. A job whose own program has not started yet can be
// withdrawn meanwhile, unless the restart comes anyway.
func (t *task) parked(ctx context.Context) error {
	if t.step == nil || t.job.Hard {
		<-ctx.Done()
		return ctx.Err()
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.stopped:
		if err := t.passStep(ctx, nil); err != nil {
			return err
		}
		return withdrawnEnding(t.withdrawn())
	}
}

// ofStep makes the job's end of a step's. What ends the job whatever is under way stays as it is.
func (t *task) ofStep(e *ending) *ending {
	if t.step == nil || e.state != events.Failed && e.state != events.Rejected || ofJob(e.reason) {
		return e
	}
	what := "runs first"
	if t.step.Why == order.StepUninstall {
		what = "removes what is superseded"
	}
	d := e.detail
	d.explanation = fmt.Sprintf("%s, which %s, failed (%s): %s", t.stepName(), what, e.reason, d.explanation)
	return &ending{events.Failed, events.DependencyFailed, d}
}

// ofJob says that a reason is of the order, the machine or the agent, not of one program.
func ofJob(r events.Reason) bool {
	switch r {
	case events.NotTargeted, events.UnsupportedFormat, events.WindowNeverFits, events.AgentFault, events.OccurrenceUnknown:
		return true
	}
	return strings.HasPrefix(string(r), "order_")
}
