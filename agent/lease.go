package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"chandler/agent/lease"
	"chandler/events"
	"chandler/events/bus"
)

// lease asks the credential service for an account to run the program by, with the signed order that names it. It
// asks once: an account that is not to be had now is a failure with its reason, not a queue.
func (t *task) lease(ctx context.Context, wanted lease.Wanted) (*lease.Lease, error) {
	return t.borrow(ctx, wanted, events.LeaseToExecute, "")
}

func (t *task) borrow(ctx context.Context, wanted lease.Wanted, purpose, resource string) (*lease.Lease, error) {
	o := t.job.Offer
	kept, ok, err := t.a.journal.Order(o.Order)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, fmt.Errorf("order %s is not in the journal", o.Order)
	}
	return t.a.borrow(ctx, lease.Query{Job: o.Job, Occurrence: o.Occurrence, User: o.User, Attempt: o.Attempt, Order: kept.Envelope, Wanted: wanted, Purpose: purpose, Resource: resource})
}

// borrow asks the credential service once.
func (a *Agent) borrow(ctx context.Context, q lease.Query) (*lease.Lease, error) {
	if a.askLease == nil {
		return nil, errors.New("this agent has no identity by which it could ask for an account")
	}
	return a.askLease(ctx, q)
}

// leaseAsker asks in the name of the enrolled agent.
func (a *Agent) leaseAsker() func(context.Context, lease.Query) (*lease.Lease, error) {
	asker := lease.Asker{Agent: a.id, Sign: a.Enrolment.Sign, Clock: a.Clock, Request: func(ctx context.Context, r events.LeaseRequest) (events.LeaseAnswer, error) {
		return bus.Request(ctx, a.bus, a.id, events.CredentialLease, r)
	}}
	return func(ctx context.Context, q lease.Query) (*lease.Lease, error) {
		a.awaitBroker(ctx)
		return lease.Ask(ctx, asker, q)
	}
}

// awaitBroker gives a broker that restarts a moment to be back: a program that reads its references does not ask twice.
func (a *Agent) awaitBroker(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, brokerPatience)
	defer cancel()
	for !a.conn.IsConnected() && sleep(ctx, 200*time.Millisecond) {
	}
}

// brokerPatience is how long a request for an account waits for the broker.
const brokerPatience = 20 * time.Second
