// Package report brings what an agent has to say to the broker: statuses and notices about accounts from the
// journal, log lines in chunks, facts and heartbeats.
//
// Under failure: a status stays in the journal until the broker has said that it is stored, and a while
// longer in which that broker is there; it is published again after a restart, to another process of the broker, after beacons were missed, or when
// STATUS lost it. Log lines are kept
// in memory only: their queue is bounded, what does not fit is dropped and counted.
package report

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"chandler/agent/journal"
	"chandler/events"
	"chandler/events/bus"
)

// KeepAcknowledged is how long a status is kept after its acknowledgement: twice the broker's default
// sync interval of two minutes, so that a power cut there loses none, and a little.
const KeepAcknowledged = 5 * time.Minute

// window is the number of statuses under way at once.
const window = 64

// Options of a Reporter. All are required but Clock and Stored.
type Options struct {
	Agent   string
	Bus     *bus.Bus
	Journal *journal.Journal
	Metrics *Metrics
	Log     *slog.Logger
	Clock   func() time.Time
	// StatusLost is told when an acknowledgement shows that STATUS went back.
	StatusLost func()
	// Stored is told of every acknowledgement: which status, and its sequence in STATUS. It must be quick; nil: nobody is.
	Stored func(status events.JobStatus, sequence uint64)
}

// Reporter is the sending side of one agent.
type Reporter struct {
	Options
	wake     chan struct{}
	doubted  atomic.Bool            // see Doubt
	server   atomic.Pointer[string] // id of the broker's process that the kept statuses were last told to; nil: none yet
	logs     *logSpool
	instance string // tells this run of the agent from every other, also of a copy
}

// New makes a reporter; nothing is started.
func New(o Options) *Reporter {
	if o.Clock == nil {
		o.Clock = time.Now
	}
	return &Reporter{Options: o, wake: make(chan struct{}, 1), logs: newLogSpool(o), instance: strings.ToLower(rand.Text()[:16])}
}

// Wake makes the reporter look into the outbox: after a transition was journalled, and on reconnect.
func (r *Reporter) Wake() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Doubt makes the reporter tell again what it keeps: the broker may have lost what it acknowledged.
func (r *Reporter) Doubt() {
	r.doubted.Store(true)
	r.Wake()
}

// tellAnother makes everything that is kept unsent again where it was told to another process of the broker than the one that
// is there now: after a power cut it lacks what it had acknowledged last. What it has it takes for the duplicate that it is, or,
// after its duplicate window, stores once more under the same id, which readers know.
func (r *Reporter) tellAnother() error {
	conn := r.Bus.Conn()
	if !conn.IsConnected() {
		return nil
	}
	server, doubted := conn.ConnectedServerId(), r.doubted.Swap(false)
	if told := r.server.Load(); told != nil && server == *told && !doubted {
		return nil
	}
	if err := r.Journal.Resend(); err != nil {
		r.doubted.Store(true)
		return err
	}
	r.server.Store(&server)
	return nil
}

// ForgetBefore is the time before which statuses may be forgotten that were acknowledged: [KeepAcknowledged] ago. It is zero,
// none may be, while the broker that acknowledged them is away, however long: the one that comes back may have lost them.
func (r *Reporter) ForgetBefore() time.Time {
	conn, told := r.Bus.Conn(), r.server.Load()
	if told == nil || r.doubted.Load() || !conn.IsConnected() || conn.ConnectedServerId() != *told {
		return time.Time{}
	}
	return r.Clock().Add(-KeepAcknowledged)
}

// Run publishes until ctx is done; then it tries once more for what is left, within two seconds.
func (r *Reporter) Run(ctx context.Context) error {
	logs := make(chan struct{})
	go func() { defer close(logs); r.logs.run(ctx) }()
	defer func() { <-logs }()

	const least, most = 500 * time.Millisecond, 30 * time.Second
	pause, retry := least, time.NewTimer(0)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			defer cancel()
			if err := errors.Join(r.drain(last), r.tellNotices(last)); err != nil {
				r.Log.InfoContext(last, "statuses are left for the next start", "error", err)
			}
			return nil
		case <-r.wake:
		case <-retry.C:
		}
		if err := errors.Join(r.tellAnother(), r.drain(ctx), r.tellNotices(ctx)); err != nil {
			r.Metrics.failures.Inc()
			r.Log.DebugContext(ctx, "statuses not stored yet", "error", err)
			retry.Reset(pause)
			pause = min(2*pause, most)
			continue
		}
		pause = least
	}
}

// drain publishes everything unsent.
func (r *Reporter) drain(ctx context.Context) error {
	for after := uint64(0); ; {
		entries, err := r.Journal.Unsent(after, window)
		if err != nil || len(entries) == 0 {
			return err
		}
		if !r.Bus.Conn().IsConnected() {
			return errAway
		}
		if err := r.publish(ctx, entries); err != nil {
			return err
		}
		after = entries[len(entries)-1].Sequence
	}
}

// publish sends a window of statuses and notes those that were stored. What can never be stored is noted
// too, and counted: it must not hold up what is behind it.
func (r *Reporter) publish(ctx context.Context, entries []journal.Entry) error {
	p, err := r.Journal.Position()
	if err != nil {
		return err
	}
	futures := make([]jetstream.PubAckFuture, len(entries))
	errs := make([]error, len(entries))
	for i, e := range entries {
		futures[i], errs[i] = r.send(e)
	}
	var done []uint64
	var failed error
	highest, lost := uint64(0), false
	for i, e := range entries {
		var ack *jetstream.PubAck
		if err := errs[i]; err == nil {
			ack, errs[i] = r.await(ctx, futures[i])
		}
		switch err := errs[i]; {
		case err == nil:
			done = append(done, e.Sequence)
			r.Metrics.statuses.Inc()
			if r.Stored != nil {
				r.Stored(e.Status, ack.Sequence)
			}
			// A later publication has a higher sequence, unless the stream lost what it had.
			if !ack.Duplicate {
				lost = lost || ack.Sequence <= p.StatusSequence
				highest = max(highest, ack.Sequence)
			}
		case hopeless(err):
			done = append(done, e.Sequence)
			r.Metrics.unpublishable.Inc()
			r.Log.ErrorContext(ctx, "status can never be published and is given up", "job", e.Status.Job, "state", e.Status.State, "error", err)
		default:
			failed = errors.Join(failed, err)
		}
	}
	err = r.Journal.Acknowledge(done, r.Clock(), func(p *journal.Position) {
		if lost {
			p.StatusLost, p.StatusSequence = true, highest
		}
		p.StatusSequence = max(p.StatusSequence, highest)
	})
	if lost && err == nil {
		r.StatusLost()
	}
	return errors.Join(failed, err)
}

// hopeless says that publishing again would fail again: the status is no event, or too large.
func hopeless(err error) bool {
	var api *jetstream.APIError
	return errors.Is(err, errNoEvent) || errors.Is(err, nats.ErrMaxPayload) || errors.As(err, &api) && api.Code == 400
}

var errNoEvent = errors.New("the status cannot be said as an event")

func (r *Reporter) send(e journal.Entry) (jetstream.PubAckFuture, error) {
	s := e.Status
	t, ok := events.StatusType(s.State)
	if !ok {
		return nil, fmt.Errorf("%w: state %q has none", errNoEvent, s.State)
	}
	m, err := bus.Message(t, events.Event[events.JobStatus]{ID: s.StatusID(), Source: r.Bus.Source(), Subject: r.Agent, Time: s.At, Trace: e.Trace, Data: s})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoEvent, err)
	}
	if e.Retold {
		// Within its window the broker would drop it as a duplicate of what its readers may have passed over.
		m.Header.Del(jetstream.MsgIDHeader)
	}
	return r.Bus.JetStream().PublishMsgAsync(m)
}

func (r *Reporter) await(ctx context.Context, f jetstream.PubAckFuture) (*jetstream.PubAck, error) {
	select {
	case ack := <-f.Ok():
		return ack, nil
	case err := <-f.Err():
		return nil, err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Facts publishes the machine's facts and waits until they are stored.
func (r *Reporter) Facts(ctx context.Context, f events.Facts) error {
	now := r.Clock()
	id := events.DeriveID("facts", r.Agent, fmt.Sprint(now.UnixNano()))
	_, err := bus.Publish(ctx, r.Bus, events.AgentReported, events.Event[events.AgentReport]{ID: id, Subject: r.Agent, Time: now, Data: events.AgentReport{Facts: f, At: now}})
	return err
}

// Heartbeat says that the agent is there; nobody confirms it.
func (r *Reporter) Heartbeat(ctx context.Context, version string, jobs int) error {
	now := r.Clock()
	return bus.Send(ctx, r.Bus, events.Heartbeat, events.Event[events.HeartbeatNote]{
		ID: events.DeriveID("heartbeat", r.Agent, fmt.Sprint(now.UnixNano())), Subject: r.Agent, Time: now,
		Data: events.HeartbeatNote{Agent: r.Agent, Version: version, Jobs: jobs, At: now, Instance: r.instance},
	})
}
