package agent

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"chandler/agent/journal"
	"chandler/agent/report"
	"chandler/events"
	"chandler/events/order"
)

// maxTasks bounds the jobs under way; offers beyond it are taken in by a later sync.
const maxTasks = 2000

// task is one job under way. Its own goroutine (carryOut) changes everything but what mu guards.
type task struct {
	a     *Agent
	job   journal.Job
	facts events.Facts // of the moment the attempt began

	slot      string // group of the slot held while the program runs
	holdsSlot bool
	result    status // of the program that ran, for the end of the job

	deployment string // never changes, unlike job.Offer
	revision   uint64

	order    order.Order
	manifest events.Manifest
	program  events.Program
	bytes    int64

	mu       sync.Mutex
	started  bool                  // the program is about to run: only a kill reaches it now
	cancel   *events.CancelRequest // asked for
	stopped  chan struct{}         // closed when cancel is set
	kill     chan struct{}         // closed when a running program is to be ended
	reoffers chan events.JobOffer  // the next attempt
}

func (a *Agent) newTask(job journal.Job) *task {
	return &task{a: a, job: job, deployment: job.Offer.Deployment, revision: job.Offer.Revision, stopped: make(chan struct{}), kill: make(chan struct{}), reoffers: make(chan events.JobOffer, 1)}
}

func (t *task) ref() report.JobRef {
	return report.JobRef{Job: t.job.Offer.Job, Deployment: t.job.Offer.Deployment, Attempt: t.job.Offer.Attempt}
}

// resume starts the jobs that had not ended when the agent last stopped.
func (a *Agent) resume(ctx context.Context) error {
	var jobs []journal.Job
	err := a.journal.Jobs(func(j journal.Job) error {
		if !j.Ended() {
			jobs = append(jobs, j)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read journal: %w", err)
	}
	for _, j := range jobs {
		a.begin(ctx, a.newTask(j))
	}
	return nil
}

// begin runs a task; the caller has made sure that there is none for the job.
func (a *Agent) begin(ctx context.Context, t *task) {
	a.mu.Lock()
	a.tasks[t.job.Offer.Job] = t
	a.mu.Unlock()
	a.metrics.jobs.Inc()
	a.running.Go(func() {
		t.carryOut(ctx)
		a.mu.Lock()
		delete(a.tasks, t.job.Offer.Job)
		a.mu.Unlock()
		a.metrics.jobs.Dec()
	})
}

// Offer takes an offer in; see inbox.Receiver. known is what execution knows of the job, where it said.
func (a *Agent) Offer(ctx context.Context, o events.JobOffer, known *events.Outstanding) error {
	if err := checkOffer(o, a.id); err != nil {
		return err
	}
	job, there, err := a.journal.Job(o.Job)
	if err != nil {
		return err
	}
	a.mu.Lock()
	live, busy := a.tasks[o.Job], len(a.tasks) >= maxTasks
	a.mu.Unlock()
	switch {
	case live != nil:
		return a.offerAgain(live, o, job, known)
	case there && !(job.Ended() && o.Attempt > job.Offer.Attempt):
		// It ended here; execution would not offer it had it heard so.
		return a.retell(o.Job)
	case busy:
		return fmt.Errorf("%d jobs are under way", maxTasks)
	}
	if there {
		// An administrator's retry of a job that had ended: it is under way again.
		job.Offer, job.Last.State = o, events.Retrying
	} else {
		job = journal.Job{Offer: o, Opened: a.Clock()}
	}
	if err := a.journal.Keep(job); err != nil {
		return err
	}
	t := a.newTask(job)
	a.begin(a.ctx, t)
	return nil
}

// offerAgain handles an offer of a job under way: the next attempt, or a sign that execution knows less.
func (a *Agent) offerAgain(t *task, o events.JobOffer, job journal.Job, known *events.Outstanding) error {
	if o.Attempt > job.Offer.Attempt {
		select {
		case t.reoffers <- o:
		default:
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

func checkOffer(o events.JobOffer, agent string) error {
	if o.Format > events.OfferFormat {
		return fmt.Errorf("offer has format %d, this agent reads up to %d", o.Format, events.OfferFormat)
	}
	if o.Attempt < 1 {
		return fmt.Errorf("offer of attempt %d: they count from 1", o.Attempt)
	}
	if err := events.ValidDigest(o.Order); err != nil {
		return fmt.Errorf("offer names order: %w", err)
	}
	if want := events.JobID(o.Deployment, o.Revision, agent, o.Occurrence, o.User); o.Job != want {
		return fmt.Errorf("offer names job %q, which is not of this agent and deployment", o.Job)
	}
	return nil
}

// Cancel withdraws every job of a deployment up to a revision. It is remembered for good, so that no
// replayed offer brings the jobs back.
func (a *Agent) Cancel(ctx context.Context, c events.CancelRequest) error {
	if err := events.ValidToken(c.Deployment); err != nil {
		return err
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

// withdrawn is the cancellation, if there was one before the program started.
func (t *task) withdrawn() *events.CancelRequest {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.started {
		return nil
	}
	return t.cancel
}

// Freeze takes over what is frozen now.
func (a *Agent) Freeze(ctx context.Context, f []events.Freeze) error {
	a.mu.Lock()
	same := slices.EqualFunc(a.freezes, f, func(x, y events.Freeze) bool { return x.ID == y.ID && x.At.Equal(y.At) })
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

// sweep forgets what is old, and removes what ended runs left on the disk.
func (a *Agent) sweep(ctx context.Context) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		now := a.Clock()
		if err := a.journal.Forget(now.Add(-report.KeepAcknowledged), now.Add(-a.KeepJobs)); err != nil {
			a.log.WarnContext(ctx, "journal not swept", "error", err)
		}
		a.sweepRuns(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// runDir is where an attempt's supervisor and content are.
func (a *Agent) runDir(o events.JobOffer) string {
	return filepath.Join(a.StateDir, "runs", fmt.Sprintf("%s-%d", o.Job, o.Attempt))
}
