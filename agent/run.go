package agent

import (
	"context"
	"errors"
	"fmt"

	"chandler/agent/detect"
	"chandler/agent/execute"
	"chandler/agent/journal"
	"chandler/agent/supervise"
	"chandler/events"
)

// run starts the program in the copy that wait laid out. That it is about to be started is journalled and
// synced first, with all that is needed to follow it to its end: from then on this attempt never starts
// again, and nothing but what the program did decides it.
func (t *task) run(ctx context.Context) error {
	if c := t.setStarted(true); c != nil {
		return withdrawnEnding(c)
	}
	rules, wanted := t.detection()
	t.job.Work = &journal.Work{Order: t.order, Program: t.program, Rules: rules, Gone: wanted == detect.NotInstalled}
	t.job.Started, t.job.Run, t.job.Ran = t.job.Offer.Attempt, t.a.runDir(t.job.Offer), true
	t.say(info, "Executing program %s of %s %s: %s", t.order.Program, t.order.Package, t.order.Version, t.program.Command)
	t.enter(ctx, events.Running, events.NoReason, status{})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	x, err := t.a.executor.Start(ctx, t.request(t.job.Run, t.content))
	if err != nil {
		return &ending{events.Failed, events.CouldNotStart, status{explanation: err.Error(), resource: t.program.Command.String()}}
	}
	return t.watch(ctx, x)
}

func (t *task) request(dir, content string) execute.Request {
	codes := map[int]execute.Meaning{}
	for code, meaning := range t.program.ReturnCodes {
		codes[code] = execute.Meaning(meaning)
	}
	onTimeout := supervise.StopMonitoring
	if t.program.KillOnTimeout() {
		onTimeout = supervise.KillOnTimeout
	}
	return execute.Request{
		Job: t.job.Offer.Job, Attempt: t.job.Offer.Attempt, As: runAsSystem, Dir: dir,
		Command:    execute.Command{Argv: t.program.Command.Argv, Line: t.program.Command.Line, Shell: t.program.Shell},
		ContentDir: content, WorkDir: t.program.WorkingDirectory, Env: append(append([]string(nil), t.a.Environment...), t.program.Environment...),
		MaxRunTime: t.program.RunTime(), OnTimeout: onTimeout, ReturnCodes: codes,
	}
}

// runAsSystem is the executor's name for the runner of administrative programs of advanced clients.
const runAsSystem = "system"

// attach goes on with an attempt whose program an earlier process of the agent had started, or was about
// to start. It asks nobody: whatever is away now, the program must not be left out of sight.
func (t *task) attach(ctx context.Context) error {
	if t.job.Work == nil {
		return t.lost(ctx, "the journal does not say what was started")
	}
	t.order, t.program = t.job.Work.Order, t.job.Work.Program
	t.setStarted(true)
	x, err := t.a.executor.Resume(t.job.Run)
	if errors.Is(err, supervise.ErrNotStarted) {
		return t.beginAgain()
	}
	if err != nil {
		return t.lost(ctx, fmt.Sprintf("the run cannot be found again: %v", err))
	}
	t.say(info, "The agent restarted while the program ran; its supervisor is asked what came of it")
	t.slot, t.holdsSlot = t.slotName(), true
	t.a.slots.occupy(t.slot)
	if err := t.watch(ctx, x); err != nil {
		return err
	}
	if err := t.confirm(ctx); err != nil {
		return err
	}
	return succeeded
}

// beginAgain takes back the start of a program that was certainly never executed.
func (t *task) beginAgain() error {
	t.job.Started, t.job.Ran, t.job.Work = 0, false, nil
	if err := t.a.journal.Keep(t.job); err != nil {
		return err
	}
	return errNextAttempt
}

// watch waits for the program's end and says what it means. A kill that was asked for is passed on.
func (t *task) watch(ctx context.Context, x *execute.Execution) error {
	over := make(chan struct{})
	defer close(over)
	go func() {
		select {
		case <-t.kill:
			if err := x.Kill(); err != nil {
				t.a.log.WarnContext(ctx, "program not killed", "job", t.job.Offer.Job, "error", err)
			}
		case <-over:
		}
	}()
	if note := x.Note(); note != "" {
		t.say(info, "%s", note)
	}
	r, err := x.Wait(ctx)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, supervise.ErrNotStarted):
		return &ending{events.Failed, events.CouldNotStart, status{explanation: err.Error()}}
	case err != nil:
		return t.lost(ctx, fmt.Sprintf("its outcome cannot be read: %v", err))
	}
	t.sayOutput(r.OutputPath)
	return t.judge(ctx, r)
}

// judge turns what happened into the job's end, or nil where the program succeeded.
func (t *task) judge(ctx context.Context, r execute.Result) error {
	o := r.Outcome
	t.result = status{executor: r.Executor, resource: fmt.Sprintf("%q", r.Argv), seconds: o.EndedAt.Sub(o.StartedAt).Seconds()}
	failed := func(reason events.Reason, format string, args ...any) error {
		d := t.result
		d.explanation = fmt.Sprintf(format, args...)
		d.identity, d.answer = r.Executor, orDefault(o.Error, d.explanation)
		return &ending{events.Failed, reason, d}
	}
	switch {
	case r.OutcomeUnknown:
		return t.lost(ctx, r.Explanation)
	case o.Killed && !o.TimedOut:
		d := t.result
		d.explanation = "the program was ended: the deployment was stopped"
		return &ending{events.Cancelled, events.DeploymentStopped, d}
	case !o.Started:
		return failed(startReason(o.ErrorKind), "%s could not start %q: %s", r.Executor, r.Argv, o.Error)
	case o.TimedOut && o.StillRunning:
		return failed(events.RunTimeExceeded, "%s ran %q: still running after %s, watched no longer", r.Executor, r.Argv, t.program.RunTime())
	case o.TimedOut:
		return failed(events.RunTimeExceeded, "%s ran %q: ended with all its children after %s", r.Executor, r.Argv, t.program.RunTime())
	case o.Signal != "":
		return failed(events.KilledBySignal, "%s ran %q: ended by %s", r.Executor, r.Argv, o.Signal)
	}
	t.result.exitCode = &o.ExitCode
	t.result.explanation = fmt.Sprintf("%s ran %q: exit code %d (%s)", r.Executor, r.Argv, o.ExitCode, r.Meaning)
	t.say(info, "Program %s ended with exit code %d: %s", t.order.Program, o.ExitCode, r.Meaning)
	switch r.Meaning {
	case execute.Success:
		return nil
	case execute.SoftReboot, execute.HardReboot:
		return t.awaitRestart(ctx, r.Meaning == execute.HardReboot)
	case execute.Retry:
		return failed(events.InstallerBusy, "%s", t.result.explanation)
	}
	return failed(events.ExitCode, "%s", t.result.explanation)
}

func startReason(kind string) events.Reason {
	switch kind {
	case supervise.NotFound:
		return events.CommandNotFound
	case supervise.NotExecutable:
		return events.CommandNotExecutable
	case supervise.BadDirectory:
		return events.BadWorkingDirectory
	}
	return events.CouldNotStart
}

// lost ends an attempt whose program ran out of everybody's sight. Detection may know that it did its
// work; else it failed, and it is never run again by itself.
func (t *task) lost(ctx context.Context, why string) error {
	t.say(warning, "Nobody saw the program end: %s", why)
	d := status{explanation: "the program was started and nobody saw it end: " + why}
	if t.job.Work == nil || len(t.job.Work.Rules) == 0 {
		return &ending{events.Failed, events.OutcomeUnknown, d}
	}
	found := t.a.detector.Detect(ctx, t.job.Work.Rules)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	d.explanation += "; " + found.Explanation
	if found.State == wanted(t.job.Work) {
		return &ending{events.Succeeded, events.NoReason, d}
	}
	return &ending{events.Failed, events.OutcomeUnknown, d}
}

// awaitRestart parks a job whose program asked for a restart. After it a new process of the agent goes on
// in afterRestart. Where the installer restarts the machine itself nothing else may start before.
func (t *task) awaitRestart(ctx context.Context, hard bool) error {
	t.job.Boot, t.job.Hard = t.facts.BootID, hard
	t.enter(ctx, events.RebootPending, events.RebootRequired, t.result)
	return t.afterRestart(ctx)
}

// afterRestart goes on with a program that asked for a restart, once there was one.
func (t *task) afterRestart(ctx context.Context) error {
	t.setStarted(true)
	if t.job.Boot == t.a.Facts().BootID {
		if t.job.Hard {
			t.a.slots.block()
		}
		t.leaveSlot()
		<-ctx.Done()
		return ctx.Err()
	}
	if t.job.Work == nil {
		return t.lost(ctx, "the journal does not say what was started")
	}
	t.order, t.program = t.job.Work.Order, t.job.Work.Program
	t.result = status{executor: t.job.Last.Executor, exitCode: t.job.Last.ExitCode, seconds: t.job.Last.Seconds}
	t.job.Boot, t.job.Hard = "", false
	if err := t.confirm(ctx); err != nil {
		return err
	}
	return succeeded
}
