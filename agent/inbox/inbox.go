// Package inbox brings an agent its offers, cancellations and freezes, without a consumer of its own at
// the broker: it listens to what JOBS republishes after the store, notices gaps by the sequences that the
// broker adds, and asks execution for what is outstanding (sync) when something may be missing.
//
// Under failure: an offer may come late or more than once, never not at all. The inbox asks on every
// connect, after a gap, a missed beacon or a new generation of a stream, and every 10 to 15 minutes.
// Sequences only hint at gaps; what a message means is decided by the ids in it. Messages that do not
// name this agent are refused and counted.
package inbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"chandler/agent/journal"
	"chandler/events"
	"chandler/events/bus"
)

// Receiver takes what arrives. Its methods return after the effect is journalled; an error means that
// the agent could not keep it, and the inbox asks again.
type Receiver interface {
	// Offer gets the trace that the offer carries (as events.Event.Trace), and what execution knows of the
	// job where the inbox asked.
	Offer(ctx context.Context, o events.JobOffer, trace string, known *events.Outstanding) error
	Cancel(ctx context.Context, c events.CancelRequest) error
	Freeze(ctx context.Context, f []events.Freeze) error
	// Retell is called when STATUS began anew or went back: everything kept is told again.
	Retell(ctx context.Context) error
}

// Refused is the error of a Receiver for what it will never take: it is counted and passed over, while any
// other error makes the inbox ask again.
type Refused struct{ Err error }

func (r *Refused) Error() string { return r.Err.Error() }
func (r *Refused) Unwrap() error { return r.Err }

// Options of an Inbox. All are required but OpenBeacon, BeaconMissed and the intervals.
type Options struct {
	Agent    string
	Bus      *bus.Bus
	Journal  *journal.Journal
	Receiver Receiver
	Metrics  *Metrics
	Log      *slog.Logger

	// OpenBeacon reads a beacon; nil: bus.Open. Who holds many inboxes may read each beacon once for all.
	OpenBeacon func(*nats.Msg) (events.Event[events.BeaconNote], error)

	// BeaconMissed is told when no beacon came for too long: behind a leaf node that is all that tells of the broker; nil: nobody.
	BeaconMissed func()

	// CheckEvery is the least time between looks without a cause (default 10 minutes; half as much again
	// is added at random). BeaconEvery is how often beacons come (default events.BeaconInterval).
	CheckEvery, BeaconEvery time.Duration
}

// Inbox is the receiving side of one agent.
type Inbox struct {
	Options
	wake chan string // why to look; holds one
	// owing: a sync must succeed before equal sequences will do again. failed counts those without an answer since the
	// last one. Both are of the loop's goroutine.
	owing  bool
	failed int

	mu      sync.Mutex
	current chan struct{} // closed while nothing is known to be missing
}

// New checks the options; nothing is started.
func New(o Options) (*Inbox, error) {
	if err := events.ValidAgent(o.Agent); err != nil {
		return nil, err
	}
	if o.CheckEvery == 0 {
		o.CheckEvery = 10 * time.Minute
	}
	if o.BeaconEvery == 0 {
		o.BeaconEvery = events.BeaconInterval
	}
	if o.OpenBeacon == nil {
		o.OpenBeacon = openBeacon
	}
	return &Inbox{Options: o, current: make(chan struct{}), wake: make(chan string, 1)}, nil
}

// Reconnected tells the inbox that the connection is back: it looks at once, and until it has been
// answered it is not current.
func (in *Inbox) Reconnected() {
	in.mu.Lock()
	select {
	case <-in.current:
		in.current = make(chan struct{})
	default:
	}
	in.mu.Unlock()
	in.Look("connect")
}

// Look makes the inbox ask soon; why appears in its metrics.
func (in *Inbox) Look(why string) {
	select {
	case in.wake <- why:
	default: // it will look anyway
	}
}

// WaitCurrent waits until execution has answered since the last connect: only then is it known that
// nothing was stopped or frozen meanwhile. Without a broker, or after the limit, it returns all the same.
func (in *Inbox) WaitCurrent(ctx context.Context, limit time.Duration) {
	in.mu.Lock()
	current := in.current
	in.mu.Unlock()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-current:
			return
		case <-ctx.Done():
			return
		case <-timer.C:
			return
		case <-tick.C:
			if !in.Bus.Conn().IsConnected() {
				return
			}
		}
	}
}

// Current says whether execution has answered since the last connect.
func (in *Inbox) Current() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	select {
	case <-in.current:
		return true
	default:
		return false
	}
}

// awaited is the channel that a sync answered now may close; a reconnect meanwhile makes another.
func (in *Inbox) awaited() chan struct{} {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.current
}

// setCurrent notes the answer to a sync that was asked when awaited was the current channel.
func (in *Inbox) setCurrent(awaited chan struct{}) {
	in.mu.Lock()
	defer in.mu.Unlock()
	select {
	case <-in.current:
	default:
		if in.current == awaited {
			close(in.current)
		}
	}
}

// queueLength bounds what waits for the journal; beyond it messages are dropped and fetched by a sync.
const queueLength = 256

// Run listens until ctx is done.
func (in *Inbox) Run(ctx context.Context) error {
	messages := make(chan *nats.Msg, queueLength)
	receive := func(m *nats.Msg) {
		select {
		case messages <- m:
		default:
			in.Metrics.dropped.Inc()
			in.Look("overflow")
		}
	}
	conn := in.Bus.Conn()
	for _, subject := range []string{events.AgentInbox(in.Agent), events.Beacon.Subject("")} {
		sub, err := conn.Subscribe(subject, receive)
		if err != nil {
			return fmt.Errorf("listen on %s: %w", subject, err)
		}
		defer sub.Unsubscribe()
	}
	in.Look("start")
	in.loop(ctx, messages)
	return nil
}

func (in *Inbox) loop(ctx context.Context, messages <-chan *nats.Msg) {
	look := time.NewTimer(in.interval())
	beacon := time.NewTimer(2 * in.BeaconEvery)
	defer look.Stop()
	defer beacon.Stop()
	var settle <-chan time.Time
	settles := false // after the next answer
	for {
		why := ""
		select {
		case <-ctx.Done():
			return
		case m := <-messages:
			if m.Subject == events.Beacon.Subject("") {
				beacon.Reset(2 * in.BeaconEvery)
				why = in.beacon(ctx, m)
			} else {
				why = in.message(ctx, m)
			}
		case why = <-in.wake:
		case <-settle:
			why, settle = "settle", nil
		case <-look.C:
			why = "interval"
			look.Reset(in.interval())
		case <-beacon.C:
			why = "beacon_missed"
			beacon.Reset(2 * in.BeaconEvery)
			if in.BeaconMissed != nil {
				in.BeaconMissed()
			}
		}
		if why == "" {
			continue
		}
		settles = settles || why == "connect" || why == "start" || why == "gap"
		if again := in.check(ctx, why); again > 0 {
			look.Reset(again)
		} else if settles {
			// Execution stores an offer before it records it: one that was under way between the two when it
			// answered is in its answer a little later.
			settle, settles = time.After(in.settlePause()), false
		}
	}
}

// settlePause is spread out: after a broker's restart the whole fleet settles.
func (in *Inbox) settlePause() time.Duration {
	least := min(30*time.Second, in.CheckEvery)
	return least + rand.N(least+1)
}

func (in *Inbox) interval() time.Duration {
	return in.CheckEvery + rand.N(in.CheckEvery/2+1)
}

// message takes one message of the agent's own subjects and says whether to look, and why.
func (in *Inbox) message(ctx context.Context, m *nats.Msg) (why string) {
	// Others can make the broker send things here, but not with its own headers about this agent's subject: what
	// has others says nothing, also not about the position.
	if err := bus.Republished(m, events.StreamJobs, events.OfferStored(in.Agent)); err != nil {
		_ = in.passOver(ctx, &Refused{err}) // which is nil: it is counted
		return ""
	}
	seq, last := sequences(m)
	err := in.take(ctx, m)
	if err = in.passOver(ctx, err); err != nil {
		in.Log.ErrorContext(ctx, "message could not be kept and is asked for again", "error", err)
		return "not_kept"
	}
	if m.Subject != events.OfferRepublished(in.Agent) {
		return ""
	}
	gap := false
	moveErr := in.Journal.MovePosition(func(p *journal.Position) {
		gap = p.JobsSequence < last
		if !gap {
			p.JobsSequence = max(p.JobsSequence, seq)
		}
	})
	switch {
	case moveErr != nil:
		return "journal"
	case gap:
		return "gap"
	}
	return ""
}

// passOver counts what was refused; other errors remain.
func (in *Inbox) passOver(ctx context.Context, err error) error {
	if refused, ok := errors.AsType[*Refused](err); ok {
		in.Metrics.refused.Inc()
		in.Log.WarnContext(ctx, "message refused", "error", refused.Err)
		return nil
	}
	return err
}

// take hands the event to the receiver.
func (in *Inbox) take(ctx context.Context, m *nats.Msg) error {
	ce, err := bus.Decode(m)
	if err != nil {
		return &Refused{err}
	}
	switch ce.Type() {
	case events.JobOffered.Name:
		e, err := bus.Typed[events.JobOffer](ce)
		if err != nil {
			return &Refused{err}
		}
		if err := in.mine(e.Source, e.Data.Agent); err != nil {
			return &Refused{err}
		}
		return in.Receiver.Offer(ctx, e.Data, e.Trace, nil)
	case events.JobCancelRequested.Name:
		e, err := bus.Typed[events.CancelRequest](ce)
		if err != nil {
			return &Refused{err}
		}
		if err := in.mine(e.Source, e.Data.Agent); err != nil {
			return &Refused{err}
		}
		return in.Receiver.Cancel(ctx, e.Data)
	}
	return &Refused{fmt.Errorf("an event of type %q does not belong here", ce.Type())}
}

func (in *Inbox) mine(source, agent string) error {
	if agent != in.Agent {
		return fmt.Errorf("it names agent %q", agent)
	}
	if source != events.ServiceSource("execution") {
		return fmt.Errorf("it comes from %q", source)
	}
	return nil
}

func openBeacon(m *nats.Msg) (events.Event[events.BeaconNote], error) {
	return bus.Open(events.Beacon, m)
}

// beacon compares the generations; a new one means that sequences say nothing any more.
func (in *Inbox) beacon(ctx context.Context, m *nats.Msg) (why string) {
	e, err := in.OpenBeacon(m)
	if err != nil {
		in.Metrics.refused.Inc()
		return ""
	}
	if err := in.Receiver.Freeze(ctx, e.Data.Freezes); err != nil {
		in.Log.ErrorContext(ctx, "freezes not kept", "error", err)
		return "journal"
	}
	p, err := in.Journal.Position()
	if err != nil || p.JobsGeneration != e.Data.Jobs || p.StatusGeneration != e.Data.Status {
		return "generation"
	}
	return ""
}
