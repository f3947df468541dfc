package fleet

import (
	"context"
	"errors"
	"fmt"
	"time"

	"chandler/agent/journal"
	"chandler/events"
	"chandler/events/bus"
	"chandler/events/order"
	"chandler/events/sign"
	"chandler/events/timing"
)

// verify fetches the signed order and makes sure that it is one this agent obeys.
func (t *task) verify(ctx context.Context) error {
	o, j := t.job.Offer, t.l.journal
	serial, err := j.Serial(o.Deployment)
	if err != nil {
		return err
	}
	if serial.Stopped >= o.Revision {
		return end(events.Cancelled, events.DeploymentStopped, "the deployment was stopped")
	}
	answer, err := t.fetchOrder(ctx)
	if err != nil {
		return err
	}
	verified, err := t.verifyOrder(ctx, answer)
	if err != nil {
		return err
	}
	// A newer revision counts also where it is not meant for this machine: that may be why there is one.
	if err := j.RaiseSerial(o.Deployment, t.order.Revision, 0); err != nil {
		return err
	}
	if err := t.meantForHere(verified, answer); err != nil {
		return err
	}
	if _, kept, err := j.Order(o.Order); err != nil {
		return err
	} else if !kept {
		if err := j.KeepOrder(o.Order, answer); err != nil {
			return err
		}
	}
	t.pass(ctx, events.Accepted, status{})
	return nil
}

// verifyOrder checks signatures and agreement with the offer. An order issued ahead of this machine's clock is waited for.
func (t *task) verifyOrder(ctx context.Context, answer events.OrderAnswer) (*verifiedOrder, error) {
	for {
		if why, err := t.clockBehind(); err != nil {
			return nil, err
		} else if why != "" {
			if err := t.awaitClock(ctx, why); err != nil {
				return nil, err
			}
			continue
		}
		verified, err := t.l.f.verifier.verify(answer.Envelope, t.l.f.Trust(), t.l.f.Clock())
		if r, ok := errors.AsType[*sign.Refusal](err); ok && r.Reason == events.OrderNotYetValid {
			if err := t.awaitClock(ctx, r.Text); err != nil {
				return nil, err
			}
			continue
		}
		if err != nil {
			return nil, err
		}
		o, signed := t.job.Offer, verified.order
		switch {
		case verified.digest != o.Order:
			return nil, end(events.Rejected, events.OrderAltered, "the offer names order %.12s, what came is %.12s", o.Order, verified.digest)
		case signed.Deployment != o.Deployment || signed.Revision != o.Revision || o.Occurrence != signed.Occurrence():
			return nil, end(events.Rejected, events.OrderAltered, "the offer is of deployment %s revision %d, the order of %s revision %d", o.Deployment, o.Revision, signed.Deployment, signed.Revision)
		}
		t.order = signed
		return verified, t.l.journal.RaiseClock(signed.Issued)
	}
}

// meantForHere makes sure that no newer revision was seen, and that the agent's facts satisfy the target.
func (t *task) meantForHere(verified *verifiedOrder, answer events.OrderAnswer) error {
	serial, err := t.l.journal.Serial(t.deployment)
	if err != nil {
		return err
	}
	if serial.Revision > t.order.Revision {
		return end(events.Rejected, events.OrderSerialOld, "the order is revision %d, revision %d was seen before", t.order.Revision, serial.Revision)
	}
	target, err := verified.target(answer)
	if err != nil {
		return err
	}
	switch meant, err := target.Matches(t.facts); {
	case err != nil:
		return end(events.Rejected, events.NotTargeted, "the target cannot be evaluated on this machine: %v", err)
	case !meant:
		return end(events.Rejected, events.NotTargeted, "%s", target.Explain(t.facts))
	}
	return nil
}

// clockBehind says in words that the clock is behind what was signed already; "": it is not.
func (t *task) clockBehind() (why string, err error) {
	newest, err := t.l.journal.Clock()
	if err != nil {
		return "", err
	}
	if issued := t.l.f.Trust().Issued; issued.After(newest) {
		newest = issued
	}
	if now := t.l.f.Clock(); now.Before(newest.Add(-order.ClockTolerance)) {
		return fmt.Sprintf("the clock here says %s, but what was signed at %s is here already: set the clock", now.UTC().Format(time.RFC3339), newest.UTC().Format(time.RFC3339)), nil
	}
	return "", nil
}

// awaitClock waits a minute: the clock may be set meanwhile.
func (t *task) awaitClock(ctx context.Context, why string) error {
	// The time in the explanation must not make a transition of every minute.
	if last := t.job.Last; last.State != events.Waiting || last.WaitingFor != events.WaitClock || last.Attempt != t.job.Offer.Attempt {
		t.pass(ctx, events.Waiting, status{waitingFor: events.WaitClock, explanation: why})
	}
	if !sleep(ctx, time.Minute) {
		return ctx.Err()
	}
	return nil
}

// patience is how often a question to a service is asked while the broker is there.
const patience = 6

// fetchOrder takes the order from the journal or asks execution for it. Time without a broker does not count: an attempt
// is not used up by being offline.
func (t *task) fetchOrder(ctx context.Context) (events.OrderAnswer, error) {
	digest := t.job.Offer.Order
	answer, ok, err := t.l.journal.Order(digest)
	if err != nil || ok {
		return answer, err
	}
	pause := 500 * time.Millisecond
	for tries := 0; ; {
		if t.l.conn.IsConnected() {
			limit, cancel := context.WithTimeout(ctx, 10*time.Second)
			answer, err = bus.Request(limit, t.l.bus, t.l.m.ID, events.ExecutionOrder, events.OrderRequest{Order: digest})
			cancel()
			if err == nil {
				return answer, nil
			}
			if tries++; tries == patience && ctx.Err() == nil {
				return answer, &ending{events.Failed, events.OrderUnavailable, status{identity: "agent", resource: "order " + digest, answer: err.Error(),
					explanation: fmt.Sprintf("execution did not give order %.12s: %v", digest, err)}}
			}
		}
		if !sleep(ctx, pause) {
			return answer, ctx.Err()
		}
		pause = min(2*pause, 10*time.Second)
	}
}

// recallOrder reads the order of a job that was verified before.
func (t *task) recallOrder() error {
	answer, ok, err := t.l.journal.Order(t.job.Offer.Order)
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("order %s is not in the journal", t.job.Offer.Order)
	}
	t.order, _, err = order.Open(answer.Envelope)
	return err
}

// decide finds out whether the program is to run here at all.
func (t *task) decide(context.Context) error {
	if what := beyond(t.order, t.job.Offer); what != "" {
		return end(events.Rejected, events.ContextUnsupported, "this is a light agent, which simulates: it has no %s", what)
	}
	if t.job.Offer.Attempt > 1 {
		return nil // an attempt that failed, or an administrator's retry
	}
	return t.stillToRun()
}

// beyond names what an order asks for that light agents do not have; "": nothing.
func beyond(o order.Order, offer events.JobOffer) string {
	switch {
	case o.Standing():
		return "standing orders"
	case offer.User != "" || o.Run != events.RunAdministrative:
		return "users"
	case o.Assignments[0].Logon || o.Assignments[0].Logoff:
		return "logons"
	case len(o.Windows) > 0 && !o.IgnoreWindows:
		return "maintenance windows"
	case len(o.First) > 0:
		return "programs that run first"
	case o.Rolls != nil:
		return "taking back of programs"
	case o.InstallationAccount != "" || len(o.Resources) > 0:
		return "accounts and external sources"
	}
	return ""
}

func programName(o order.Order) journal.ProgramName {
	return journal.ProgramName{Package: o.Package, Version: o.Version, Program: o.Program}
}

// stillToRun holds the rerun behaviour against how the program ended here before.
func (t *task) stillToRun() error {
	name := programName(t.order)
	state, err := t.l.journal.LastRun(name)
	if err != nil {
		return err
	}
	last := timing.LastOf(state)
	switch {
	case !timing.RunsAgain(t.order.Rerun, last):
		return end(events.WillNotRerun, events.AlreadyRan, "program %s of %s %s ended here as %s before, and rerun is %s; to run it all the same, deploy it with --rerun always",
			name.Program, name.Package, name.Version, state, t.order.Rerun)
	case last == timing.LastSucceeded:
		return t.ranBefore()
	}
	return nil
}

// ranBefore ends a job whose program an earlier revision of the deployment ran, which says the same of what runs and when.
func (t *task) ranBefore() error {
	o := t.job.Offer
	var earlier []journal.Job
	err := t.l.journal.Jobs(func(j journal.Job) error {
		if e := j.Offer; e.Deployment == o.Deployment && e.Revision < o.Revision && e.Occurrence == o.Occurrence && e.User == o.User && j.Acted && j.Last.State == events.Succeeded {
			earlier = append(earlier, j)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, j := range earlier {
		answer, ok, err := t.l.journal.Order(j.Offer.Order)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		if before, _, err := order.Open(answer.Envelope); err == nil && before.RunsAs(t.order) {
			return end(events.WillNotRerun, events.AlreadyRan, "revision %d of the deployment, which says the same of what runs and when, ran the program here already", j.Offer.Revision)
		}
	}
	return nil
}
