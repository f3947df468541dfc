package agent

import (
	"context"
	"fmt"

	"chandler/agent/detect"
	"chandler/agent/execute"
	"chandler/agent/external"
	"chandler/agent/installers"
	"chandler/agent/supervise"
	"chandler/events"
	"chandler/events/advice"
	"chandler/events/msi"
)

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
	if !o.Started && !r.OutcomeUnknown {
		t.result.executor, t.result.elevatedTo = "", "" // nobody ran it
	}
	if err := t.cutShort(ctx, r, failed); err != nil {
		return err
	}
	t.result.exitCode = &o.ExitCode
	t.result.explanation = fmt.Sprintf("%s ran %q: exit code %d (%s)", r.Executor, r.Argv, o.ExitCode, t.codeMeaning(o.ExitCode, r.Meaning))
	if r.Note != "" {
		t.result.explanation += "; " + r.Note
	}
	t.say(info, "Program %s ended with exit code %d: %s", t.part().Program, o.ExitCode, r.Meaning)
	switch r.Meaning {
	case execute.Success, execute.SoftReboot, execute.HardReboot:
		t.sayRefused()
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
	if a, refused := t.accesses.refused(); refused {
		e := accessEnding(&external.Error{Access: a})
		end := failed(a.Reason, "%s; the program ended for that or something else: %s", e.detail.explanation, t.result.explanation).(*ending)
		end.detail.identity, end.detail.resource, end.detail.answer = a.Identity, a.Resource, a.Answer
		return end
	}
	if found := t.sayInstallerLog(r.LogPath); found != "" {
		return failed(events.ExitCode, "%s; its log says: %s", t.result.explanation, found)
	}
	return failed(events.ExitCode, "%s", t.result.explanation)
}

// cutShort is the end of a program that did not come to its own; nil for one that did.
func (t *task) cutShort(ctx context.Context, r execute.Result, failed func(events.Reason, string, ...any) error) error {
	o := r.Outcome
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
	return nil
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
	case supervise.NoLogon:
		return events.UserLoggedOff
	case supervise.NoNetworkMount:
		return events.NetworkMountImpossible
	}
	return events.CouldNotStart
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

// lost ends an attempt whose program ran out of everybody's sight. Detection may know that it did its
// work; else it failed, and it is never run again by itself.
func (t *task) lost(ctx context.Context, why string) error {
	t.say(warning, "Nobody saw the program end: %s", why)
	d := t.result
	d.explanation = "the program was started and nobody saw it end: " + why
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

// sayRefused tells of what the program could not read, and did without.
func (t *task) sayRefused() {
	for _, a := range t.accesses.all() {
		if a.When == events.AccessRun && a.Reason != events.NoReason && a.Reason != events.SourceNotFound {
			t.say(failure, "Access while the program ran: %s", advice.Sentence(a))
		}
	}
}
