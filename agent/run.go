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
	"chandler/agent/installers"
	"chandler/agent/journal"
	"chandler/agent/supervise"
	"chandler/events"
	"chandler/events/msi"
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
	t.job.Work = &journal.Work{Order: t.order, Program: t.program, Rules: rules, Gone: wanted == detect.NotInstalled, Reader: t.reader(), Slots: t.slots}
	if t.who.Executor == identity.User {
		t.job.Work.Session = t.session
	}
	t.job.Started, t.job.Run, t.job.Ran = t.job.Offer.Attempt, t.runDir(), true
	if t.who.Note != "" {
		t.say(info, "%s", t.who.Note)
	}
	t.say(info, "Executing program %s of %s %s as %s, content read by %s: %s", t.order.Program, t.order.Package, t.order.Version, t.who.Executor, t.who.Reader, t.program.Command)
	t.enter(ctx, events.Running, events.NoReason, status{reader: t.reader(), explanation: t.who.Note})
	if ctx.Err() != nil {
		return ctx.Err()
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
	codes := map[int]execute.Meaning{}
	for code, meaning := range t.program.ReturnCodes {
		codes[code] = execute.Meaning(meaning)
	}
	onTimeout := supervise.StopMonitoring
	if t.program.KillOnTimeout() {
		onTimeout = supervise.KillOnTimeout
	}
	return execute.Request{
		Job: t.job.Offer.Job, Attempt: t.job.Offer.Attempt, As: t.who.Executor.Runner(), Dir: dir,
		Deployment: t.deployment, Program: t.order.Package + " " + t.order.Version + " " + t.order.Program,
		Session: t.session, Interactive: t.program.Interactive, Account: t.program.InstallationAccount, Lease: t.lease,
		Domain:     t.who.Executor == identity.DomainToken,
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
	t.sayOutput(r.OutputPath)
	return t.judge(ctx, r)
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

// judge turns what happened into the job's end, or nil where the program succeeded.
func (t *task) judge(ctx context.Context, r execute.Result) error {
	o := r.Outcome
	t.result = status{reader: t.job.Work.Reader, executor: r.Executor, elevatedTo: r.ElevatedTo, resource: fmt.Sprintf("%q", r.Argv), seconds: o.EndedAt.Sub(o.StartedAt).Seconds()}
	failed := func(reason events.Reason, format string, args ...any) error {
		d := t.result
		d.explanation = fmt.Sprintf(format, args...)
		d.identity, d.answer = r.Executor, orDefault(o.Error, d.explanation)
		return &ending{events.Failed, reason, d}
	}
	switch {
	case r.OutcomeUnknown:
		return t.lost(ctx, r.Explanation)
	case r.Meaning == execute.Failure && !(o.Killed && t.toBeKilled()) && t.endedByLogoff(ctx, o):
		return failed(events.UserLoggedOff, "%s logged off while %q ran, which ended it", r.Executor, r.Argv)
	case ctx.Err() != nil:
		return ctx.Err()
	case o.Killed && !o.TimedOut:
		d := t.result
		d.explanation = "the program was ended: the deployment was stopped"
		return &ending{events.Cancelled, events.DeploymentStopped, d}
	case !o.Started && o.ErrorKind == supervise.Denied && t.job.Work.Program.Run == events.RunUser:
		return failed(events.UserLacksRights, "%s may not start %q: %s; deploy the program with run: administrative", r.Executor, r.Argv, o.Error)
	case !o.Started:
		return failed(startReason(o.ErrorKind), "%s could not start %q: %s", r.Executor, r.Argv, o.Error)
	case o.TimedOut && o.StillRunning:
		return failed(events.RunTimeExceeded, "%s ran %q: still running after %s, watched no longer", r.Executor, r.Argv, t.program.RunTime())
	case o.TimedOut:
		return failed(events.RunTimeExceeded, "%s ran %q: ended with all its children after %s", r.Executor, r.Argv, t.program.RunTime())
	case o.Signal != "" && t.job.Work.Program.After == events.AfterProgramRestarts:
		// The restart that it asked for ends every program, itself too.
		return t.lost(ctx, "it was ended by "+o.Signal+", as the machine's restart does that it makes itself")
	case o.Signal != "":
		return failed(events.KilledBySignal, "%s ran %q: ended by %s", r.Executor, r.Argv, o.Signal)
	}
	t.result.exitCode = &o.ExitCode
	t.result.explanation = fmt.Sprintf("%s ran %q: exit code %d (%s)", r.Executor, r.Argv, o.ExitCode, t.codeMeaning(o.ExitCode, r.Meaning))
	t.say(info, "Program %s ended with exit code %d: %s", t.order.Program, o.ExitCode, r.Meaning)
	switch r.Meaning {
	case execute.Success, execute.SoftReboot, execute.HardReboot:
		if err := t.rightProfile(failed); err != nil {
			return err
		}
		return t.afterwards(ctx, r.Meaning)
	case execute.Retry:
		return failed(events.InstallerBusy, "%s", t.result.explanation)
	}
	if t.job.Work.Program.Run == events.RunUser {
		if operation, lacks := execute.LacksRights(o.ExitCode, r.OutputPath); lacks {
			return failed(events.UserLacksRights, "user %s lacks the rights that %q needs: %s; deploy the program with run: administrative", r.Executor, r.Argv, operation)
		}
	}
	if found := t.sayInstallerLog(r.LogPath); found != "" {
		return failed(events.ExitCode, "%s; its log says: %s", t.result.explanation, found)
	}
	return failed(events.ExitCode, "%s", t.result.explanation)
}

// codeMeaning are the words for an exit code: those of Windows Installer where it was the one that ran.
func (t *task) codeMeaning(code int, meaning execute.Meaning) string {
	if words := msi.CodeText(code); words != "" && t.installer() == installers.Msiexec {
		return fmt.Sprintf("%s: %s", meaning, words)
	}
	return string(meaning)
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

// rightProfile makes sure that what an administrative program installed did not end in the profile of the account
// that ran it, where no user ever sees it.
func (t *task) rightProfile(failed func(events.Reason, string, ...any) error) error {
	w := t.job.Work
	if w.Program.Run != events.RunAdministrative || w.Program.Product == "" || w.Gone {
		return nil
	}
	own, err := detect.OwnProfile(w.Program.Product, t.result.executor)
	if err != nil {
		t.say(warning, "For whom %s was installed cannot be found out: %v", w.Program.Product, err)
		return nil
	}
	if own {
		return failed(events.InstalledForWrongUser, "product %s was installed for %s alone, where no user sees it", w.Program.Product, t.result.executor)
	}
	return nil
}
