package bus

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

// consume pulls messages into the channel that work reads, until ctx is done; then it waits for work, and
// gives back what is not settled. It survives everything that happens to broker, stream and consumer, and
// returns an error only when the consumer can never be made.
func (b *Bus) consume(ctx context.Context, c Consumer, work func(ctx context.Context, in <-chan *delivery, open *tracker)) error {
	r := reader{bus: b, consumer: c, in: make(chan *delivery, c.Batch), open: newTracker()}
	living, stop := context.WithCancel(context.WithoutCancel(ctx))
	var keeper, workers sync.WaitGroup
	keeper.Go(func() { r.open.keep(living, c.AckWait) })
	workers.Go(func() { work(ctx, r.in, r.open) })

	err := r.run(ctx)
	close(r.in)
	workers.Wait()
	stop()
	keeper.Wait()
	r.open.release()
	if r.pin != "" {
		b.unpin(c, r.pin)
	}
	return err
}

// reader brings the messages of one consumer in.
type reader struct {
	bus      *Bus
	consumer Consumer
	in       chan *delivery
	open     *tracker
	pin      string // under which the last messages came
}

func (r *reader) run(ctx context.Context) error {
	b, c := r.bus, r.consumer
	for failures := uint64(0); ctx.Err() == nil; {
		final, err := b.attach(ctx, c)
		if ctx.Err() != nil {
			return nil
		}
		if final {
			return err
		}
		result := "error"
		if err == nil {
			result = "ok"
		}
		b.metrics.attached.WithLabelValues(c.Name, result).Inc()
		if err == nil {
			var progress bool
			if progress, err = r.pull(ctx); progress {
				failures = 0
			}
			if ctx.Err() != nil {
				return nil
			}
		}
		failures++
		b.log.WarnContext(ctx, "consumer is interrupted and will be attached again", "consumer", c.Name, "stream", c.Stream, "error", err)
		wait(ctx, reconnectPause(failures))
	}
	return nil
}

// pull makes request after request until one fails. progress says that at least one was answered.
func (r *reader) pull(ctx context.Context) (progress bool, err error) {
	group := ""
	if r.consumer.Pinned {
		group = pinGroup
	}
	p, err := r.bus.newPuller(r.consumer.Stream, r.consumer.Name, r.consumer.Batch, group)
	if err != nil {
		return false, err
	}
	take := func(d *delivery) {
		r.open.add(d)
		select {
		case r.in <- d:
		case <-ctx.Done(): // it is given back
		}
	}
	defer func() {
		p.close(take) // what arrived is ours, also when the request failed: kept open and not worked on, nobody would ever get it
		r.pin = p.pin
	}()
	pending := r.bus.metrics.pending.WithLabelValues(r.consumer.Name)
	for ctx.Err() == nil {
		n := 0
		err := p.fetch(ctx, func(d *delivery) error {
			n++
			pending.Set(float64(d.meta.NumPending))
			take(d)
			return nil
		})
		if err != nil {
			return progress || n > 0, err
		}
		progress = true
		if n == 0 {
			pending.Set(0)
		}
	}
	return progress, nil
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
		if group.PinnedClientID != pin {
			continue
		}
		if err := stream.UnpinConsumer(ctx, c.Name, group.Group); err != nil {
			b.log.Warn("consumer could not be handed over, its pin will lapse", "consumer", c.Name, "error", err)
		}
	}
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
