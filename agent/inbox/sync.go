package inbox

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"chandler/agent/journal"
	"chandler/events"
	"chandler/events/bus"
)

// requestTimeout bounds one question; a broker or service that does not answer is asked again later.
const requestTimeout = 10 * time.Second

var errAway = errors.New("the broker is away")

// check looks whether offers were missed and, if so or if the cause alone demands it, syncs. It returns
// after which time to look again sooner than usual; 0: no sooner.
func (in *Inbox) check(ctx context.Context, why string) time.Duration {
	in.Metrics.looks.WithLabelValues(why).Inc()
	// After a connect only a sync tells what was stopped or frozen meanwhile; otherwise equal sequences will do.
	if (why == "interval" || why == "beacon_missed") && in.Current() && !in.owing {
		same, err := in.upToDate(ctx)
		if err == nil && same {
			return 0
		}
	}
	if why == "connect" || why == "start" {
		in.failed = 0 // it may be another broker
	}
	in.owing = true
	later, err := in.sync(ctx)
	in.failed++
	switch {
	case ctx.Err() != nil:
		return 0
	case errors.Is(err, errAway):
		in.Metrics.syncs.WithLabelValues("away").Inc()
		return in.retryPause() // whoever keeps the connection says so
	case err != nil:
		in.Metrics.syncs.WithLabelValues("failed").Inc()
		in.Log.WarnContext(ctx, "sync not answered", "cause", why, "error", err)
		return in.retryPause()
	case later > 0:
		in.failed = 0
		in.Metrics.syncs.WithLabelValues("later").Inc()
		return later + rand.N(later)
	}
	in.owing, in.failed = false, 0
	in.Metrics.syncs.WithLabelValues("done").Inc()
	return 0
}

// retryPause after unanswered questions. It grows, so that a fleet does not storm a service that starts; the first is
// short, because after a broker's restart agents are often back a moment before the services, and nothing starts until
// execution has answered.
func (in *Inbox) retryPause() time.Duration {
	pause := min(retryLeast<<min(in.failed-1, 10), retryMost, in.CheckEvery)
	return pause/2 + rand.N(pause)
}

// Pauses vary by half to both sides.
const (
	retryLeast = 2 * time.Second
	retryMost  = 30 * time.Second
)

// upToDate compares the sequence of the newest stored offer with the journal's: lower and none count as
// different too, for the stream may have been lost or restored.
func (in *Inbox) upToDate(ctx context.Context) (bool, error) {
	newest, err := in.newest(ctx)
	if err != nil {
		return false, err
	}
	p, err := in.Journal.Position()
	if err != nil {
		return false, err
	}
	return newest == p.JobsSequence, nil
}

// api is the prefix of JetStream's requests, which names the hub's domain behind a leaf node.
func (in *Inbox) api() string {
	if domain := in.Bus.JetStream().Options().Domain; domain != "" {
		return "$JS." + domain + ".API."
	}
	return "$JS.API."
}

// sync asks execution what is outstanding and takes the answer in.
func (in *Inbox) sync(ctx context.Context) (later time.Duration, err error) {
	p, err := in.Journal.Position()
	if err != nil {
		return 0, err
	}
	if !in.Bus.Conn().IsConnected() {
		return 0, errAway
	}
	awaited := in.awaited()
	// Looked up before asking: what is stored later is in the answer too, or arrives as a message.
	newest, err := in.newest(ctx)
	if err != nil {
		return 0, err
	}
	ask, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	answer, err := bus.Request(ask, in.Bus, in.Agent, events.ExecutionSync, events.SyncRequest{
		JobsSequence: p.JobsSequence, StatusSequence: p.StatusSequence, JobsGeneration: p.JobsGeneration,
		StatusGeneration: p.StatusGeneration, OfferFormat: events.OfferFormat, StatusLost: p.StatusLost,
	})
	if err != nil {
		return 0, err
	}
	if answer.Later > 0 {
		return time.Duration(answer.Later), nil
	}
	if err := in.apply(ctx, answer, p); err != nil {
		return 0, err
	}
	err = in.Journal.MovePosition(func(p *journal.Position) {
		// Lower than before where the stream was lost or restored: sequences only hint.
		p.JobsSequence = newest
		if p.StatusGeneration != answer.StatusGeneration || p.StatusLost {
			p.StatusSequence, p.StatusLost = 0, false
		}
		p.JobsGeneration, p.StatusGeneration = answer.JobsGeneration, answer.StatusGeneration
	})
	if err != nil {
		return 0, err
	}
	in.setCurrent(awaited)
	return 0, nil
}

// newest is the sequence of the newest stored offer, 0 where there is none. This direct get is the only
// JetStream request an agent makes; its subject names the agent and its body is empty, so that the
// broker's permissions can pin it.
func (in *Inbox) newest(ctx context.Context) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	m, err := in.Bus.Conn().RequestWithContext(ctx, in.api()+"DIRECT.GET."+events.StreamJobs+"."+events.OfferStored(in.Agent), nil)
	if err != nil {
		return 0, fmt.Errorf("ask for newest offer: %w", err)
	}
	if m.Header.Get("Status") == "404" {
		return 0, nil
	}
	seq, _ := sequences(m)
	if seq == 0 {
		return 0, errors.New("the answer about the newest offer names no sequence")
	}
	return seq, nil
}

// apply hands everything outstanding to the receiver: stops and freezes first, so that nothing starts
// which they forbid. What the receiver refuses holds nothing else up.
func (in *Inbox) apply(ctx context.Context, answer events.SyncAnswer, p journal.Position) error {
	if err := in.Receiver.Freeze(ctx, answer.Freezes); err != nil {
		return err
	}
	for _, c := range answer.Cancels {
		if c.Agent == in.Agent {
			if err := in.passOver(ctx, in.Receiver.Cancel(ctx, c)); err != nil {
				return err
			}
		}
	}
	for _, o := range answer.Offers {
		if o.Agent != in.Agent {
			continue
		}
		if err := in.passOver(ctx, in.Receiver.Offer(ctx, o.JobOffer, o.Trace, &o)); err != nil {
			return err
		}
	}
	known := p.StatusGeneration != events.Generation{}
	if known && p.StatusGeneration != answer.StatusGeneration || p.StatusLost {
		return in.Receiver.Retell(ctx)
	}
	return nil
}

// sequences of a stored message, from the headers that the broker adds.
func sequences(m *nats.Msg) (seq, last uint64) {
	seq, _ = strconv.ParseUint(m.Header.Get("Nats-Sequence"), 10, 64)
	last, _ = strconv.ParseUint(m.Header.Get("Nats-Last-Sequence"), 10, 64)
	return seq, last
}
