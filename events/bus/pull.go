package bus

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// pullExpiry ends a pull request that is not filled; it must be shorter than PinnedTTL, which counts from
	// the last request. pullHeartbeat tells a request that the broker forgot from one without messages.
	pullExpiry    = 6 * time.Second
	pullHeartbeat = time.Second
)

// delivery is one message that the broker gave to this process and that is not settled yet.
type delivery struct {
	jetstream.Msg
	meta jetstream.MsgMetadata
}

func (d *delivery) plain() *nats.Msg {
	return &nats.Msg{Subject: d.Subject(), Header: d.Headers(), Data: d.Data()}
}

func (d *delivery) describe(typeName string) Meta {
	return Meta{Type: typeName, StreamSequence: d.meta.Sequence.Stream, Delivered: d.meta.NumDelivered, Subject: d.Subject(), Stored: d.meta.Timestamp,
		Pending: d.meta.NumPending, Pin: d.pin()}
}

func (d *delivery) pin() string { return d.Headers().Get("Nats-Pin-Id") }

// tracker knows every delivery that is not settled. While the process lives it keeps the broker from
// giving them to somebody else, however long their handlers take.
type tracker struct {
	mu   sync.Mutex
	open map[*delivery]struct{}
	pin  string // of the last delivery
}

func (t *tracker) add(d *delivery) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.open[d] = struct{}{}
	t.pin = d.pin()
}

// settled takes a delivery off. It comes before the acknowledgement: a sign of life after it would be an
// error at the broker.
func (t *tracker) settled(d *delivery) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.open, d)
}

// keep tells the broker three times per AckWait that the open deliveries are being worked on.
func (t *tracker) keep(ctx context.Context, ackWait time.Duration) {
	tick := time.NewTicker(ackWait / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		t.mu.Lock()
		for d := range t.open {
			_ = d.InProgress() // a broken connection shows in the pull
		}
		t.mu.Unlock()
	}
}

// release gives the open deliveries back at once, so that another replica has them without waiting.
func (t *tracker) release() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for d := range t.open {
		_ = d.Nak() // the broker finds out by itself after AckWait
	}
	clear(t.open)
}

// consume pulls messages into the channel that work reads, until ctx is done; then it waits for work, and
// gives back what is not settled. It survives everything that happens to broker, stream and consumer, and
// returns an error only when the consumer can never be made.
func (b *Bus) consume(ctx context.Context, c Consumer, work func(ctx context.Context, in <-chan *delivery, open *tracker)) error {
	open := &tracker{open: map[*delivery]struct{}{}}
	in := make(chan *delivery, c.Batch)
	living, stop := context.WithCancel(context.WithoutCancel(ctx))
	var keeper, workers sync.WaitGroup
	keeper.Go(func() { open.keep(living, c.AckWait) })
	workers.Go(func() { work(ctx, in, open) })

	err := b.pull(ctx, c, in, open)
	close(in)
	workers.Wait()
	stop()
	keeper.Wait()
	// The broker must have learnt that the last pull request is over, or it would send to it what we give back.
	_ = b.conn.FlushTimeout(graceTime) // a broker that is away finds out by itself
	open.release()
	if c.Pinned && open.pin != "" {
		b.unpin(c, open.pin)
	}
	return err
}

// unpin lets another replica have the consumer at once, if it is still pinned to this one.
func (b *Bus) unpin(c Consumer, pin string) {
	ctx, cancel := context.WithTimeout(context.Background(), graceTime)
	defer cancel()
	stream, err := b.js.Stream(ctx, c.Stream)
	if err != nil {
		return // the pin lapses by itself
	}
	consumer, err := stream.Consumer(ctx, c.Name)
	if err != nil {
		return
	}
	for _, group := range consumer.CachedInfo().PriorityGroups {
		if group.PinnedClientID == pin {
			if err := stream.UnpinConsumer(ctx, c.Name, group.Group); err != nil {
				b.log.Warn("consumer could not be handed over, its pin will lapse", "consumer", c.Name, "error", err)
			}
		}
	}
}

func (b *Bus) pull(ctx context.Context, c Consumer, in chan<- *delivery, open *tracker) error {
	for failures := uint64(0); ctx.Err() == nil; {
		consumer, final, err := b.attach(ctx, c)
		if ctx.Err() != nil {
			return nil
		}
		if final {
			return err
		}
		if err == nil {
			b.metrics.attached.WithLabelValues(c.Name, "ok").Inc()
			var progress bool
			if progress, err = b.pullFrom(ctx, c, consumer, in, open); progress {
				failures = 0
			}
			if ctx.Err() != nil {
				return nil
			}
		} else {
			b.metrics.attached.WithLabelValues(c.Name, "error").Inc()
		}
		failures++
		b.log.WarnContext(ctx, "consumer is interrupted and will be attached again", "consumer", c.Name, "stream", c.Stream, "error", err)
		wait(ctx, reconnectPause(failures))
	}
	return nil
}

// pullFrom fetches batch after batch until something goes wrong. progress says that at least one request
// was answered.
func (b *Bus) pullFrom(ctx context.Context, c Consumer, consumer jetstream.Consumer, in chan<- *delivery, open *tracker) (progress bool, err error) {
	pending := b.metrics.pending.WithLabelValues(c.Name)
	for ctx.Err() == nil {
		n, err := b.fetch(ctx, c, consumer, in, open, pending.Set)
		if err != nil && !errors.Is(err, jetstream.ErrPinIDMismatch) {
			return progress || n > 0, err
		}
		progress = true
	}
	return progress, nil
}

// fetch makes one pull request and passes on what comes, until the request ends.
func (b *Bus) fetch(ctx context.Context, c Consumer, consumer jetstream.Consumer, in chan<- *delivery, open *tracker, pending func(float64)) (n int, err error) {
	request, cancel := context.WithTimeout(ctx, pullExpiry)
	defer cancel()
	opts := []jetstream.FetchOpt{jetstream.FetchContext(request), jetstream.FetchHeartbeat(pullHeartbeat)}
	if c.Pinned {
		opts = append(opts, jetstream.FetchPriorityGroup(pinGroup))
	}
	batch, err := consumer.Fetch(c.Batch, opts...)
	if err != nil {
		return 0, err
	}
	for m := range batch.Messages() {
		meta, err := m.Metadata()
		if err != nil {
			return n, err
		}
		n++
		pending(float64(meta.NumPending))
		d := &delivery{m, *meta}
		open.add(d)
		select {
		case in <- d:
		case <-ctx.Done(): // it is given back
		}
	}
	if n == 0 && batch.Error() == nil {
		pending(0)
	}
	if errors.Is(batch.Error(), context.DeadlineExceeded) {
		return n, nil
	}
	return n, batch.Error()
}

// wait pauses; false when ctx is done.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// reconnectPause before the next attempt to reach the broker: 100 ms, doubled up to 5 s.
func reconnectPause(failures uint64) time.Duration {
	return growing(failures, 100*time.Millisecond, 5*time.Second, rand.Float64())
}

// redeliveryPause before a failed event comes again: 1 s, doubled up to 5 minutes.
func redeliveryPause(delivered uint64) time.Duration {
	return growing(delivered, time.Second, 5*time.Minute, rand.Float64())
}

// newerPause before an event that needs a newer reader comes again: 30 s, doubled up to 10 minutes.
func newerPause(delivered uint64) time.Duration {
	return growing(delivered, 30*time.Second, 10*time.Minute, rand.Float64())
}

// growing is first doubled for each time after the first, at most most; r in [0,1) spreads it by a
// quarter up or down, so that what failed together does not come back together.
func growing(times uint64, first, most time.Duration, r float64) time.Duration {
	d := most
	if times = max(times, 1); times < 32 {
		d = min(most, first<<(times-1))
	}
	return time.Duration(float64(d) * (0.75 + r/2))
}
