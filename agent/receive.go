package agent

import (
	"context"
	"fmt"
	"slices"

	"chandler/agent/inbox"
	"chandler/agent/journal"
	"chandler/events"
)

// maxTasks bounds the jobs under way; offers beyond it are taken in by a later sync.
const maxTasks = 2000

var errBusy = fmt.Errorf("%d jobs are under way", maxTasks)

// Offer takes an offer in; see inbox.Receiver. known is what execution knows of the job, where it said.
func (a *Agent) Offer(_ context.Context, o events.JobOffer, trace string, known *events.Outstanding) error {
	if err := inbox.CheckOffer(o, a.id); err != nil {
		return &inbox.Refused{Err: err}
	}
	// Offers come from the inbox, and from jobs that open others: two of one job must not begin it twice.
	a.offering.Lock()
	defer a.offering.Unlock()
	a.mu.Lock()
	live := a.tasks[o.Job]
	a.mu.Unlock()
	job, there, err := a.journal.Job(o.Job)
	switch {
	case err != nil:
		return err
	case live != nil:
		return a.offerAgain(live, offered{o, trace}, job, known)
	case there && !(job.Ended() && o.Attempt > job.Offer.Attempt):
		if known != nil && known.Transition > job.Last.Transition {
			return nil // it is listed for agents whose journal was lost
		}
		// It ended here; execution would not offer it had it heard so.
		return a.retell(o.Job)
	}
	if there {
		// An administrator's retry of a job that had ended: it is under way again.
		job.Offer, job.Last.State = o, events.Retrying
	} else {
		job = journal.Job{Offer: o, Trace: trace, Opened: a.Clock()}
	}
	return a.beginIfRoom(job)
}

// take takes in a job that this agent opens by itself, and journals with it what the one that opens it is from then on. It
// fails with errBusy where there is no room.
func (a *Agent) take(job, by journal.Job) error {
	a.offering.Lock()
	defer a.offering.Unlock()
	return a.beginIfRoom(job, by)
}

// beginIfRoom journals a job, and others with it, and begins it. The caller holds offering and knows that the job is not
// under way.
func (a *Agent) beginIfRoom(job journal.Job, others ...journal.Job) error {
	a.mu.Lock()
	busy := len(a.tasks) >= maxTasks
	a.mu.Unlock()
	if busy {
		return &inbox.Refused{Err: errBusy}
	}
	if err := a.journal.Keep(append(others, job)...); err != nil {
		return err
	}
	a.begin(a.ctx, a.newTask(job))
	return nil
}

// offerAgain handles an offer of a job under way: the next attempt, or a sign that execution knows less.
func (a *Agent) offerAgain(t *task, o offered, job journal.Job, known *events.Outstanding) error {
	if o.Attempt > job.Offer.Attempt {
		select {
		case t.reoffers <- o:
		default: // one is waiting already
		}
		return nil
	}
	if known == nil || known.Transition < job.Last.Transition {
		return a.retell(o.Job)
	}
	return nil
}

func (a *Agent) retell(job string) error {
	if err := a.journal.RetellJob(job); err != nil {
		return err
	}
	a.reporter.Wake()
	return nil
}

// Cancel withdraws every job of a deployment up to a revision. It is remembered for good, so that no
// replayed offer brings the jobs back.
func (a *Agent) Cancel(_ context.Context, c events.CancelRequest) error {
	if err := events.ValidToken(c.Deployment); err != nil {
		return &inbox.Refused{Err: err}
	}
	if err := a.journal.RaiseSerial(c.Deployment, 0, c.Revision); err != nil {
		return err
	}
	a.mu.Lock()
	var hit []*task
	for _, t := range a.tasks {
		if t.deployment == c.Deployment && t.revision <= c.Revision {
			hit = append(hit, t)
		}
	}
	a.mu.Unlock()
	for _, t := range hit {
		t.withdraw(c)
	}
	return nil
}

// Freeze takes over what is frozen now.
func (a *Agent) Freeze(_ context.Context, f []events.Freeze) error {
	a.mu.Lock()
	same := slices.EqualFunc(a.freezes, f, func(x, y events.Freeze) bool { return x.ID == y.ID && x.Revision == y.Revision && x.At.Equal(y.At) })
	a.mu.Unlock()
	if same {
		return nil
	}
	if err := a.journal.SetFreezes(f); err != nil {
		return err
	}
	a.mu.Lock()
	a.freezes = f
	close(a.thawed)
	a.thawed = make(chan struct{})
	a.mu.Unlock()
	a.changed.Store(true)
	return nil
}

// Retell tells everything again that is kept, and the facts: a stream began anew.
func (a *Agent) Retell(ctx context.Context) error {
	a.log.InfoContext(ctx, "a stream began anew, telling everything again")
	if err := a.journal.Retell(true); err != nil {
		return err
	}
	a.reporter.Wake()
	select {
	case a.factsWanted <- struct{}{}:
	default:
	}
	return nil
}

// statusLost is called by the reporter: STATUS went back, so execution must be told and asked.
func (a *Agent) statusLost() { a.inbox.Look("status_lost") }
