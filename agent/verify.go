package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/order"
	"chandler/events/sign"
	"chandler/events/trust"
)

// verify fetches the signed order and makes sure that it is one this machine obeys: signed, of this
// fleet, valid now, no older than what was seen of the deployment, and meant for this machine's facts.
func (t *task) verify(ctx context.Context) error {
	o := t.job.Offer
	serial, err := t.a.journal.Serial(o.Deployment)
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
	if err := t.verifyOrder(ctx, answer); err != nil {
		return err
	}
	// A newer revision counts also where it is not meant for this machine: that may be why there is one.
	if err := t.a.journal.RaiseSerial(o.Deployment, t.order.Revision, 0); err != nil {
		return err
	}
	if err := t.meantForHere(answer); err != nil {
		return err
	}
	if err := t.a.journal.KeepOrder(o.Order, answer); err != nil {
		return err
	}
	t.pass(ctx, events.Accepted, status{explanation: t.askedWords()})
	t.say(info, "Order of deployment %s revision %d verified: program %s of %s %s", o.Deployment, o.Revision, t.order.Program, t.order.Package, t.order.Version)
	return nil
}

// meantForHere makes sure that no newer revision was seen, and that the machine's facts satisfy the target.
func (t *task) meantForHere(answer events.OrderAnswer) error {
	if err := t.superseded(); err != nil {
		return err
	}
	target, err := t.order.Target(answer.Include, answer.Exclude)
	if err != nil {
		return err
	}
	meant, err := target.Matches(t.facts)
	switch {
	case meant, t.stood(): // the machine may come back into the target; each occurrence looks for itself
		return nil
	case err != nil:
		return end(events.Rejected, events.NotTargeted, "the target cannot be evaluated on this machine: %v", err)
	}
	return end(events.Rejected, events.NotTargeted, "%s", target.Explain(t.facts))
}

// superseded ends the job where a newer revision of the deployment was seen.
func (t *task) superseded() error {
	serial, err := t.a.journal.Serial(t.deployment)
	if err == nil && serial.Revision > t.order.Revision {
		err = end(events.Rejected, events.OrderSerialOld, "the order is revision %d, revision %d was seen before", t.order.Revision, serial.Revision)
	}
	return err
}

// verifyOrder checks signatures and agreement with the offer. An order issued ahead of this machine's
// clock is waited for: it is more likely the clock that is wrong.
func (t *task) verifyOrder(ctx context.Context, answer events.OrderAnswer) error {
	for {
		if why, err := t.clockBehind(); err != nil {
			return err
		} else if why != "" {
			if err := t.awaitClock(ctx, why); err != nil {
				return err
			}
			continue
		}
		var verified order.Order
		var digest string
		err := t.a.byTrust(ctx, func(b trust.Bundle) (err error) {
			verified, digest, err = order.Verify(answer.Envelope, b, t.a.Clock())
			return err
		})
		if e, ok := errors.AsType[*sign.Refusal](err); ok && e.Reason == events.OrderNotYetValid {
			if err := t.awaitClock(ctx, e.Text); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		o := t.job.Offer
		switch {
		case digest != o.Order:
			return end(events.Rejected, events.OrderAltered, "the offer names order %.12s, what came is %.12s", o.Order, digest)
		case verified.Deployment != o.Deployment || verified.Revision != o.Revision || !t.isOccurrence(verified):
			return end(events.Rejected, events.OrderAltered, "the offer is of deployment %s revision %d, the order of %s revision %d", o.Deployment, o.Revision, verified.Deployment, verified.Revision)
		}
		t.order = verified
		if err := t.openedHere(ctx); err != nil {
			return err
		}
		return t.a.journal.RaiseClock(verified.Issued)
	}
}

// clockBehind says in words that this machine's clock is behind what was signed already; "": it is not. By such
// a clock an order that has expired would look valid. What counts is when the newest verified order and the
// present trust bundle were issued. An order from the future is waited for and counts once the clock has come to it:
// the mistake of one signer must not stop the machine for as long as his clock was wrong.
func (t *task) clockBehind() (why string, err error) {
	newest, err := t.a.journal.Clock()
	if err != nil {
		return "", err
	}
	if issued := t.a.trust().Issued; issued.After(newest) {
		newest = issued
	}
	if now := t.a.Clock(); now.Before(newest.Add(-order.ClockTolerance)) {
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

// verifyAgain is the last look before the start, which may come weeks after the first: since then a key may have
// been revoked, the clock set back, a newer revision seen, or the machine become another one than was meant.
func (t *task) verifyAgain(ctx context.Context) error {
	why, err := t.clockBehind()
	if err != nil {
		return err
	}
	if why != "" {
		t.leaveSlot()
		if err := t.awaitClock(ctx, why); err != nil {
			return err
		}
		return errNextAttempt // from the first stage: much may have changed
	}
	answer, ok, err := t.a.journal.Order(t.job.Offer.Order)
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("order %s is not in the journal", t.job.Offer.Order)
	}
	if _, _, err := order.Verify(answer.Envelope, t.a.trust(), t.a.Clock()); err != nil {
		return err
	}
	t.facts = t.a.Facts()
	if err := t.meantForHere(answer); err != nil {
		return err
	}
	if err := t.readManifest(ctx); err != nil {
		return err
	}
	if err := t.asWhom(); err != nil {
		return err
	}
	return t.room(0) // the content is laid out already
}

// patience is how often a question to a service is asked while the broker is there.
const patience = 6

// fetchOrder takes the order from the journal or asks execution for it. Time without a broker does not
// count: an attempt is not used up by being offline.
func (t *task) fetchOrder(ctx context.Context) (events.OrderAnswer, error) {
	digest := t.job.Offer.Order
	if answer, ok, err := t.a.journal.Order(digest); err != nil || ok {
		return answer, err
	}
	var answer events.OrderAnswer
	err := t.a.ask(ctx, func(ctx context.Context) (err error) {
		answer, err = bus.Request(ctx, t.a.bus, t.a.id, events.ExecutionOrder, events.OrderRequest{Order: digest})
		return err
	})
	if err != nil && ctx.Err() == nil {
		return answer, &ending{events.Failed, events.OrderUnavailable, status{identity: "agent", resource: "order " + digest, answer: err.Error(),
			explanation: fmt.Sprintf("execution did not give order %.12s: %v", digest, err)}}
	}
	return answer, err
}

// ask repeats a request while there is a broker, up to patience times with growing pauses.
func (a *Agent) ask(ctx context.Context, request func(context.Context) error) error {
	pause := 500 * time.Millisecond
	for tries := 0; ; {
		if a.conn.IsConnected() {
			limit, cancel := context.WithTimeout(ctx, 10*time.Second)
			err := request(limit)
			cancel()
			if tries++; err == nil || tries == patience {
				return err
			}
		}
		if !sleep(ctx, pause) {
			return ctx.Err()
		}
		pause = min(2*pause, 10*time.Second)
	}
}

// recallOrder reads the order of a job that was verified before the agent restarted.
func (t *task) recallOrder() error {
	answer, ok, err := t.a.journal.Order(t.job.Offer.Order)
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("order %s is not in the journal", t.job.Offer.Order)
	}
	t.order, _, err = order.Open(answer.Envelope)
	return err
}
