package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"chandler/agent/detect"
	"chandler/agent/execute"
	"chandler/agent/identity"
	"chandler/agent/journal"
	"chandler/agent/supervise"
	"chandler/events"
)

// run starts the program in the copy that wait laid out. That it is about to be started is journalled and
// synced first, with all that is needed to follow it to its end: from then on this attempt never starts
// again, and nothing but what the program did decides it.
func (t *task) run(ctx context.Context) error {
	if t.who.Executor == identity.User && t.loggedOff(t.session) {
		return errNextAttempt // from the first stage: its user left a moment ago
	}
	if c := t.setStarted(true); c != nil {
		return withdrawnEnding(c)
	}
	rules, wanted := t.detection()
	t.job.Work = &journal.Work{Order: t.order, Step: t.step, Supersedes: t.manifest.Supersedes, Program: t.program, Rules: rules, Gone: wanted == detect.NotInstalled, Reader: t.reader(), Network: string(t.who.Network), Slots: t.slots, Accesses: t.accesses.all()}
	if t.who.Executor == identity.User {
		t.job.Work.Session = t.session
	}
	t.job.Started, t.job.Run, t.job.Ran = t.job.Offer.Attempt, t.runDir(), true
	if t.who.Note != "" {
		t.say(warning, "%s", t.who.Note)
	}
	part := t.part()
	t.say(info, "Executing program %s of %s %s as %s, content read by %s: %s", part.Program, part.Package, part.Version, t.who.Executor, t.who.Reader, t.program.Command)
	t.enter(ctx, events.Running, events.NoReason, status{reader: t.reader(), explanation: t.startWords()})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	t.accesses.begin()
	if err := t.offerReferences(); err != nil {
		return err
	}
	x, err := t.a.executor.Start(ctx, t.request(t.job.Run, t.content))
	if errors.Is(err, execute.ErrNotTakenBack) {
		if err := t.takeBack(ctx); err != nil {
			return err
		}
	}
	if impossible, ok := errors.AsType[*execute.Impossible](err); ok {
		return impossibleEnding(impossible)
	}
	if err != nil {
		return &ending{events.Failed, events.CouldNotStart, status{explanation: err.Error(), resource: t.program.Command.String()}}
	}
	return t.watch(ctx, x)
}

// reader is who read the content, "" where the package has none.
func (t *task) reader() string {
	if len(t.manifest.Files) == 0 {
		return ""
	}
	return string(t.who.Reader)
}

func impossibleEnding(i *execute.Impossible) *ending {
	return &ending{events.Failed, i.Reason, status{explanation: i.Error(), identity: i.Identity, resource: i.Resource, answer: i.Answer}}
}

func (t *task) request(dir, content string) execute.Request {
	part, codes := t.part(), map[int]execute.Meaning{}
	for code, meaning := range t.program.ReturnCodes {
		codes[code] = execute.Meaning(meaning)
	}
	onTimeout := supervise.StopMonitoring
	if t.program.KillOnTimeout() {
		onTimeout = supervise.KillOnTimeout
	}
	return execute.Request{
		Job: t.job.Offer.Job, Attempt: t.job.Offer.Attempt, As: t.who.Executor.Runner(), Dir: dir,
		Deployment: t.deployment, Program: part.Package + " " + part.Version + " " + part.Program,
		Session: t.session, Interactive: t.program.Interactive, Window: t.program.Window, Account: t.program.InstallationAccount, Lease: t.lease,
		Domain: t.who.Executor == identity.DomainToken,
		Net:    t.net(), NetLogin: t.netLogin(),
		Created:    func(n events.AccountNote) error { return t.a.noteAccount(events.AgentAccountCreated, n) },
		Command:    execute.Command{Argv: t.program.Command.Argv, Line: t.program.Command.Line, Shell: t.program.Shell},
		ContentDir: content, Writable: t.program.Writable, WorkDir: t.program.WorkingDirectory, Env: append(append([]string(nil), t.a.Environment...), t.program.Environment...),
		MaxRunTime: t.program.RunTime(), OnTimeout: onTimeout, ReturnCodes: codes,
	}
}

// attach goes on with an attempt whose program an earlier process of the agent had started, or was about
// to start. It asks nobody: whatever is away now, the program must not be left out of sight.
func (t *task) attach(ctx context.Context) error {
	if t.job.Work == nil {
		return t.lost(ctx, "the journal does not say what was started")
	}
	t.recallWork()
	t.setStarted(true)
	if err := t.offerReferences(); err != nil {
		return err
	}
	x, err := t.a.executor.Resume(t.job.Run)
	if errors.Is(err, supervise.ErrNotStarted) {
		return t.beginAgain()
	}
	if err != nil {
		return t.lost(ctx, fmt.Sprintf("the run cannot be found again: %v", err))
	}
	t.say(info, "The agent restarted while the program ran; its supervisor is asked what came of it")
	if err := t.watch(ctx, x); err != nil {
		return err
	}
	if err := t.conclude(ctx); err != nil {
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

// watch waits for the program's end and says what it means.
func (t *task) watch(ctx context.Context, x *execute.Execution) error {
	t.sayWho(x)
	r, err := t.await(ctx, x)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, supervise.ErrNotStarted):
		return &ending{events.Failed, events.CouldNotStart, status{explanation: err.Error()}}
	case err != nil:
		return t.lost(ctx, fmt.Sprintf("its outcome cannot be read: %v", err))
	}
	if r.OutcomeUnknown {
		if err := t.awaitSurvivor(ctx, x); err != nil {
			return err
		}
	}
	t.sayOutput(r.OutputPath)
	return t.judge(ctx, r)
}

// awaitSurvivor waits for a program whose supervisor is gone: it is not over, nothing else may start beside it, and
// its time limit still holds. How it ends nobody will know.
func (t *task) awaitSurvivor(ctx context.Context, x *execute.Execution) error {
	limit := t.job.Last.At.Add(t.program.RunTime())
	for told := false; x.InUse(); {
		if !told {
			t.say(warning, "The program still runs as %s, but its supervisor is gone; its end is awaited", x.Executor())
			told = true
		}
		if t.a.Clock().After(limit) {
			if !t.program.KillOnTimeout() {
				return nil
			}
			if err := x.Kill(); err != nil {
				t.a.log.WarnContext(ctx, "program not ended", "job", t.job.Offer.Job, "error", err)
			}
		}
		if !sleep(ctx, soonAfter) {
			return ctx.Err()
		}
	}
	return nil
}

// await waits for the program's end. A kill that was asked for meanwhile is passed on.
func (t *task) await(ctx context.Context, x *execute.Execution) (r execute.Result, err error) {
	over := make(chan struct{})
	var beside sync.WaitGroup
	defer beside.Wait() // what they say belongs to this attempt
	defer close(over)
	beside.Go(func() {
		select {
		case <-t.kill:
			if err := x.Kill(); err != nil {
				t.a.log.WarnContext(ctx, "program not killed", "job", t.job.Offer.Job, "error", err)
			}
		case <-over:
		}
	})
	beside.Go(func() { t.followAccesses(ctx, x, over) })
	if session := t.job.Work.Session; session != nil {
		beside.Go(func() { t.endWithSession(ctx, session, x, over) })
	}
	err = t.untilTakenBack(ctx, func() error {
		r, err = x.Wait(ctx)
		return err
	})
	return r, err
}

// takeBack takes back what was given for a program that could not be started then.
func (t *task) takeBack(ctx context.Context) error {
	return t.untilTakenBack(ctx, func() error {
		if err := t.a.Rights.Return(ctx, t.job.Run); err != nil {
			return fmt.Errorf("%w: %w", execute.ErrNotTakenBack, err)
		}
		return nil
	})
}

// untilTakenBack tries again for as long as an account cannot be made ordinary again. Until then the job has not ended:
// it stands still, and says so.
func (t *task) untilTakenBack(ctx context.Context, try func() error) error {
	said := ""
	for pause := time.Second; ; pause = min(2*pause, time.Minute) {
		err := try()
		if !errors.Is(err, execute.ErrNotTakenBack) {
			return err
		}
		if words := err.Error(); words != said {
			t.say(failure, "%v; it is tried again", err)
			said = words
		}
		t.a.log.ErrorContext(ctx, "rights of an account not taken back", "job", t.job.Offer.Job, "error", err)
		if !sleep(ctx, pause) {
			return ctx.Err()
		}
	}
}
