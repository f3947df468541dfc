package agent

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"chandler/agent/external"
	"chandler/agent/identity"
	"chandler/agent/journal"
	"chandler/agent/local"
	"chandler/agent/logon"
	"chandler/agent/report"
	"chandler/events"
	"chandler/events/order"
)

// task is one job under way. Its own goroutine (carryOut) changes everything but what mu guards.
type task struct {
	a     *Agent
	job   journal.Job
	facts events.Facts // of the moment the attempt began

	who       identity.Answer // as whom content is read and the program runs
	session   *logon.Session  // of the user that the program runs as, or is shown to; nil: nobody's
	slots     []string        // groups of the slot held while the program runs
	holdsSlot bool
	holder    string // of an installer's lock, in the words last said
	content   string // the fresh copy of the package's files
	result    status // of the program that ran, for the end of the job

	deployment string // never changes, unlike job.Offer
	revision   uint64
	opened     int64 // the occurrence

	order    order.Order
	step     *order.Step     // under way; nil: the order's own program is
	manifest events.Manifest // of what is under way, as all that follows from it
	program  events.Program
	have     map[string]string // manifests whose content is in the cache, with who read it as fetchedBy says
	bytes    int64
	accesses accesses // to external sources, of this attempt

	fetched   bool   // the content is in the cache
	fetchedBy string // the user who read it; "": it was no user

	mu       sync.Mutex
	started  bool                  // the program is about to run, or did: only a kill reaches it now
	cancel   *events.CancelRequest // asked for
	stopped  chan struct{}         // closed when cancel is set
	kill     chan struct{}         // closed when a running program is to be ended
	reoffers chan offered          // the next attempt
	asks     chan ask              // of local users to start the program now

	startable  atomic.Pointer[local.Item] // what local users are shown; nil: nothing that they could start
	fetchAgain time.Time                  // when an umbrella tries once more to fetch the content

	reach     *external.Reader // of external sources; nil: none was needed yet
	reachOf   reacher          // as whom it reads
	checked   time.Time        // when it had last found all references
	reachDone func()           // gives up its drivers
}

// offered is an offer with the trace it carried.
type offered struct {
	events.JobOffer
	trace string
}

func (a *Agent) newTask(job journal.Job) *task {
	return &task{a: a, job: job, deployment: job.Offer.Deployment, revision: job.Offer.Revision, opened: job.Offer.Occurrence, stopped: make(chan struct{}), kill: make(chan struct{}),
		reoffers: make(chan offered, 1), asks: make(chan ask)}
}

func (t *task) ref() report.JobRef {
	return report.JobRef{Job: t.job.Offer.Job, Deployment: t.job.Offer.Deployment, Attempt: t.job.Offer.Attempt, Trace: t.job.Trace}
}

// resume goes on with the jobs that had not ended when the agent last stopped.
func (a *Agent) resume(ctx context.Context) error {
	tasks, err := a.recall()
	if err != nil {
		return fmt.Errorf("read journal: %w", err)
	}
	for _, t := range tasks {
		a.begin(ctx, t)
	}
	return nil
}

// recall gives the jobs that had not ended. Before the first of them begins, programs that run already have their slots,
// and a restart that is under way lets nothing start.
func (a *Agent) recall() (tasks []*task, err error) {
	err = a.journal.Jobs(func(j journal.Job) error {
		if j.Ended() {
			return nil
		}
		t := a.newTask(j)
		tasks = append(tasks, t)
		switch {
		case j.Work == nil || j.Started != j.Offer.Attempt:
		case j.Boot != "" && !a.restartedSince(j.Boot):
			a.restartPending(j.Offer, j.Work.Part().Package)
			if j.Hard {
				a.slots.block(j.Offer.Job)
			}
		case j.Boot == "" && j.Last.State == events.Running:
			t.slots, t.holdsSlot = j.Work.Slots, true
			a.slots.occupy(t.slots...)
		}
		return nil
	})
	return tasks, err
}

// begin runs a task; the caller has made sure that there is none for the job.
func (a *Agent) begin(ctx context.Context, t *task) {
	id := t.job.Offer.Job
	a.mu.Lock()
	a.tasks[id] = t
	a.mu.Unlock()
	a.metrics.jobs.Inc()
	a.running.Go(func() {
		t.carryOut(ctx)
		a.mu.Lock()
		delete(a.tasks, id)
		a.mu.Unlock()
		a.metrics.jobs.Dec()
		// An offer that came while the job was ending found the task still there.
		select {
		case o := <-t.reoffers:
			if err := a.Offer(ctx, o.JobOffer, o.trace, nil); err != nil {
				a.inbox.Look("offer_kept_back")
			}
		default:
		}
	})
}

// withdraw stops a task that has not started its program; a started one only by a kill.
func (t *task) withdraw(c events.CancelRequest) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.cancel == nil {
		close(t.stopped)
	} else if t.cancel.Kill {
		return
	}
	t.cancel = &c
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

// toBeKilled says that somebody asked for the end of a running program.
func (t *task) toBeKilled() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.cancel != nil && t.cancel.Kill
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
