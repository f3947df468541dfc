package agent

import (
	"context"
	"maps"

	"chandler/agent/external"
	"chandler/agent/supervise"
	"chandler/events"
	"chandler/events/bus"
	"chandler/events/resource"
)

// lender is the reader of a job, and the directory of its run, by which the run's supervisor asks for logins.
type lender struct {
	dir    string
	reader *external.Reader
}

// lends notes who reads for a job; nil: nobody any more.
func (a *Agent) lends(job, dir string, reader *external.Reader) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if reader == nil {
		delete(a.readers, job)
		return
	}
	a.readers[job] = lender{dir, reader}
}

// lenderOf is the reader for a run, by its directory; nil: the run is over, or needs none.
func (a *Agent) lenderOf(dir string) *external.Reader {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, l := range a.readers {
		if l.dir == dir {
			return l.reader
		}
	}
	return nil
}

// withdrawLease is told by the credential service that a lease is over.
func (a *Agent) withdrawLease(e events.Event[events.LeaseWithdrawal]) {
	if e.Data.Agent != a.id {
		return
	}
	a.log.Info("lease withdrawn", "lease", e.Data.Lease, "why", brief(e.Data.Why))
	a.mu.Lock()
	all, tasks := maps.Clone(a.readers), maps.Clone(a.tasks)
	a.mu.Unlock()
	for job, l := range all {
		// First here: a supervisor that hears of it asks for another one. It may have it from an earlier process of the agent,
		// so that all are told.
		covering := l.reader.Withdraw(e.Data.Lease)
		if err := withdrawFrom(l.dir, e.Data.Lease); err != nil {
			a.log.Error("a supervisor was not told that a lease is withdrawn", "job", job, "lease", e.Data.Lease, "error", err)
		}
		if t := tasks[job]; t != nil && covering != "" {
			t.say(warning, "Lease of %s withdrawn: %s", brief(resource.Shown(covering)), brief(e.Data.Why))
		}
	}
}

// withdrawFrom tells the supervisor of a run, if there is one.
func withdrawFrom(dir, lease string) error {
	run, err := supervise.Attach(dir)
	if err != nil {
		return err
	}
	return run.Withdraw(lease)
}

// hearWithdrawals listens to what the credential service says to this agent alone, until ctx is done.
func (a *Agent) hearWithdrawals(ctx context.Context) error {
	return bus.ListenFor(ctx, a.bus, events.LeaseWithdrawn, a.id, "", a.withdrawLease)
}

// hearTests is the same of accounts that are to be tried, one after the other.
func (a *Agent) hearTests(ctx context.Context) error {
	return bus.ListenFor(ctx, a.bus, events.AccountTestAsked, a.id, "", func(e events.Event[events.AccountTestNote]) { a.try(ctx, e.Data) })
}
