package fleet

import (
	"context"
	"fmt"
	"slices"

	"chandler/agent/inbox"
	"chandler/agent/journal"
	"chandler/events"
	"chandler/events/target"
)

// maxTasks bounds the jobs under way of one agent; offers beyond it are taken in by a later sync.
const maxTasks = 2000

// Offer takes an offer in, as the real agent does; see inbox.Receiver.
func (l *life) Offer(_ context.Context, o events.JobOffer, trace string, known *events.Outstanding) error {
	if err := inbox.CheckOffer(o, l.m.ID); err != nil {
		return &inbox.Refused{Err: err}
	}
	// Offers come from the inbox, and from jobs that end while the next attempt is offered.
	l.offering.Lock()
	defer l.offering.Unlock()
	l.mu.Lock()
	live, busy := l.tasks[o.Job], len(l.tasks) >= maxTasks
	l.mu.Unlock()
	job, there, err := l.journal.Job(o.Job)
	switch {
	case err != nil:
		return err
	case live != nil:
		return l.offerAgain(live, offered{o, trace}, job, known)
	case there && !(job.Ended() && o.Attempt > job.Offer.Attempt):
		if known != nil && known.Transition > job.Last.Transition {
			return nil // it is listed for agents whose journal was lost
		}
		return l.retell(o.Job) // it ended here; execution would not offer it had it heard so
	case busy:
		return &inbox.Refused{Err: fmt.Errorf("%d jobs are under way", maxTasks)}
	}
	if there {
		// An administrator's retry of a job that had ended: it is under way again.
		job.Offer, job.Last.State = o, events.Retrying
	} else {
		job = journal.Job{Offer: o, Trace: trace, Opened: l.f.Clock()}
	}
	if err := l.journal.Keep(job); err != nil {
		return err
	}
	l.taken(o)
	l.beginTask(l.newTask(job))
	return nil
}

// taken tells of an offer that was taken in.
func (l *life) taken(o events.JobOffer) {
	l.f.counts.offers.Add(1)
	l.f.Observe(Observation{What: OfferTaken, Agent: o.Agent, Job: o.Job, Deployment: o.Deployment, Attempt: o.Attempt, At: l.f.Clock()})
}

// offerAgain handles an offer of a job under way: the next attempt, or a sign that execution knows less.
func (l *life) offerAgain(t *task, o offered, job journal.Job, known *events.Outstanding) error {
	if o.Attempt > job.Offer.Attempt {
		select {
		case t.reoffers <- o:
		default: // one is waiting already
		}
		return nil
	}
	if known == nil || known.Transition < job.Last.Transition {
		return l.retell(o.Job)
	}
	return nil
}

func (l *life) retell(job string) error {
	if err := l.journal.RetellJob(job); err != nil {
		return err
	}
	l.reporter.Wake()
	return nil
}

// Cancel withdraws every job of a deployment up to a revision, and remembers that for good.
func (l *life) Cancel(_ context.Context, c events.CancelRequest) error {
	if err := events.ValidToken(c.Deployment); err != nil {
		return &inbox.Refused{Err: err}
	}
	if err := l.journal.RaiseSerial(c.Deployment, 0, c.Revision); err != nil {
		return err
	}
	l.mu.Lock()
	var hit []*task
	for _, t := range l.tasks {
		if t.deployment == c.Deployment && t.revision <= c.Revision {
			hit = append(hit, t)
		}
	}
	l.mu.Unlock()
	for _, t := range hit {
		t.withdraw(c)
	}
	return nil
}

// Freeze takes over what is frozen now.
func (l *life) Freeze(_ context.Context, f []events.Freeze) error {
	l.mu.Lock()
	same := slices.EqualFunc(l.freezes, f, func(x, y events.Freeze) bool { return x.ID == y.ID && x.Revision == y.Revision && x.At.Equal(y.At) })
	l.mu.Unlock()
	if same {
		return nil
	}
	if err := l.journal.SetFreezes(f); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.freezes = f
	close(l.thawed)
	l.thawed = make(chan struct{})
	return nil
}

// frozen is a freeze that holds an agent with these facts, or this deployment up to a revision, and a channel closed when freezes change.
func (l *life) frozen(facts events.Facts, deployment string, revision uint64) (*events.Freeze, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.freezes {
		if target.Holds(f, facts) || f.Scope == "deployment" && f.Name == deployment && revision <= f.Revision {
			return &f, l.thawed
		}
	}
	return nil, l.thawed
}

// Retell tells everything again that is kept, and the facts: a stream began anew.
func (l *life) Retell(context.Context) error {
	if err := l.journal.Retell(true); err != nil {
		return err
	}
	l.reporter.Wake()
	l.tellFacts()
	return nil
}
