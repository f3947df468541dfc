package agent

import (
	"context"
	"fmt"
	"time"

	"chandler/agent/execute"
	"chandler/agent/identity"
	"chandler/events"
)

// Attempts to restart the machine, and the pause between them.
const (
	restartTries = 5
	restartPause = time.Minute
)

// afterwards does what is to be done once the program has succeeded: a restart, which then ends the job in a later
// process of the agent, or nothing. How it ended decides together with what it asks for (domain-facts §1.2, §3.2).
func (t *task) afterwards(ctx context.Context, meaning execute.Meaning) error {
	switch after := t.job.Work.Program.After; {
	case after == events.AfterRestart:
		return t.restart(ctx)
	case meaning == execute.HardReboot || after == events.AfterProgramRestarts:
		return t.awaitRestart(ctx, true)
	case meaning == execute.SoftReboot:
		return t.awaitRestart(ctx, false)
	}
	return nil
}

// conclude is the last stage: detection has the last word, and users are logged off only after a success.
func (t *task) conclude(ctx context.Context) error {
	if err := t.confirm(ctx); err != nil {
		return err
	}
	if t.job.Work.Program.After == events.AfterLogoff {
		if failed := t.logOffUsers(ctx); failed != "" {
			t.result.explanation += "; " + failed
		}
	}
	return nil
}

// restart restarts the machine as soon as the programs that run have ended; no other starts before. That it is
// about to is journalled first. A machine whose restarts cannot be told apart would restart again and again.
func (t *task) restart(ctx context.Context) error {
	if t.facts.BootID == "" {
		return t.restartImpossible("the agent could not notice that it has restarted: this boot has no id")
	}
	_, outside := t.restartOutside()
	t.job.Boot, t.job.Hard = t.facts.BootID, outside == ""
	t.result.explanation += "; " + orDefault(outside, "the machine is restarted")
	t.pendRestart(ctx)
	return t.restartMachine(ctx)
}

// restartMachine is also where a restarted agent goes on, if the machine has not restarted meanwhile.
func (t *task) restartMachine(ctx context.Context) error {
	t.leaveSlot()
	if err := t.awaitRestartTime(ctx); err != nil {
		return err
	}
	part := t.part()
	why := fmt.Sprintf("program %s of %s %s asks for a restart", part.Program, part.Package, part.Version)
	var failed error
	for range restartTries {
		t.say(info, "Restarting the machine: %s", why)
		if failed = t.a.Restart(ctx, why); failed != nil {
			t.say(warning, "The machine was not restarted: %v", failed)
		}
		if !sleep(ctx, restartPause) {
			return ctx.Err()
		}
	}
	t.a.slots.unblock(t.job.Offer.Job)
	t.a.restartOver(t.job.Offer.Job)
	t.job.Boot, t.job.Hard = "", false
	if failed != nil {
		return t.restartImpossible(failed.Error())
	}
	return t.restartImpossible("it did not restart")
}

func (t *task) restartImpossible(answer string) error {
	d := t.result
	d.identity, d.resource, d.answer = "agent", "restart of the machine", answer
	d.explanation = "the program succeeded, but the machine did not restart: " + answer
	return &ending{events.Failed, events.RestartImpossible, d}
}

// awaitRestart parks a job whose program asked for a restart. After it a new process of the agent goes on
// in afterRestart. Where the installer restarts the machine itself nothing else may start before. A restart that could
// not be noticed is not waited for.
func (t *task) awaitRestart(ctx context.Context, hard bool) error {
	if t.facts.BootID == "" {
		t.say(warning, "The machine must restart to finish; this boot has no id, so that the agent would not notice, and does not wait for it")
		return nil
	}
	t.job.Boot, t.job.Hard = t.facts.BootID, hard
	t.pendRestart(ctx)
	return t.afterRestart(ctx)
}

func (t *task) pendRestart(ctx context.Context) {
	t.a.restartPending(t.job.Offer, t.part().Package)
	if t.step != nil { // a stop still reaches the job
		t.enter(ctx, events.Waiting, events.NoReason, t.awaitsRestart())
		return
	}
	t.enter(ctx, events.RebootPending, events.RebootRequired, t.result)
}

// afterRestart goes on with a program that asked for a restart, once there was one.
func (t *task) afterRestart(ctx context.Context) error {
	t.setStarted(true)
	if t.job.Work == nil {
		return t.lost(ctx, "the journal does not say what was started")
	}
	t.recallWork()
	if !t.a.restartedSince(t.job.Boot) {
		t.a.restartPending(t.job.Offer, t.part().Package)
		if t.job.Work.Program.After == events.AfterRestart && t.a.Facts().BootID != "" {
			return t.restartMachine(ctx)
		}
		if t.job.Hard {
			t.a.slots.block(t.job.Offer.Job)
		}
		t.leaveSlot()
		return t.parked(ctx)
	}
	t.job.Boot, t.job.Hard = "", false
	t.a.restartOver(t.job.Offer.Job)
	if err := t.confirm(ctx); err != nil { // nobody is to be logged off: the restart did
		return err
	}
	return succeeded
}

// recallWork takes what an earlier process of the agent knew of a started attempt from the journal.
func (t *task) recallWork() {
	w, last := t.job.Work, t.job.Last
	t.order, t.step, t.program, t.session = w.Order, w.Step, w.Program, w.Session
	t.who.Network = identity.Who(w.Network)
	t.accesses.restore(w.Accesses)
	t.result = status{reader: w.Reader, executor: last.Executor, elevatedTo: last.ElevatedTo, exitCode: last.ExitCode, seconds: last.Seconds}
}

// awaited is a restart that a job waits for.
type awaited struct{ deployment, pkg string }

// restartedSince says whether the machine has certainly restarted since it had that boot id.
func (a *Agent) restartedSince(boot string) bool {
	now := a.Facts().BootID
	return now != "" && now != boot
}

// restartPending notes that a package's program needs a restart to be complete: other programs of the package wait
// for it, since they may build on what it did.
func (a *Agent) restartPending(o events.JobOffer, pkg string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.restarts[o.Job] = awaited{o.Deployment, pkg}
}

func (a *Agent) restartOver(job string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.restarts, job)
	close(a.thawed) // whoever waits looks again
	a.thawed = make(chan struct{})
}

// awaitedRestart says whether a program of the package waits for a restart in another job, and gives a channel that
// is closed when that may have changed. What one program did for one user holds up no other user's run of it.
func (a *Agent) awaitedRestart(o events.JobOffer, pkg string) (bool, <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for job, other := range a.restarts {
		if job != o.Job && other.pkg == pkg && (o.User == "" || other.deployment != o.Deployment) {
			return true, a.thawed
		}
	}
	return false, a.thawed
}
