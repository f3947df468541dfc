package bus

import (
	"cmp"
	"context"
	"math/rand/v2"
	"reflect"
	"time"

	"chandler/events"
)

// linger is how long a batch that is not full waits for more.
const linger = 5 * time.Millisecond

// Received is one event of a batch.
type Received[T any] struct {
	events.Event[T]
	Meta
}

// HandleBatch reads a durable consumer in batches of up to c.Batch events, in the order of the stream. It
// takes every declared type of c.Stream whose data is a T; others are acknowledged unseen. What may not be
// handled is put on the dead-letter stream, as [Bus.Handle] does; if nothing else came, the handler is not
// called. The batch is acknowledged after the handler returned nil. When it returns an error, or panics:
//
//   - with c.AckAll the same batch is tried again in place, with pauses up to 30 s, until it is taken or ctx
//     is done: nothing overtakes it;
//   - otherwise each of its events comes again with growing pauses (MaxDeliver and Drop apply to each).
//
// With c.AckAll an event that needs a newer reader cannot wait without stopping all behind it: it is put on
// the dead-letter stream as newer_version.
func HandleBatch[T any](ctx context.Context, b *Bus, c Consumer, handle func(ctx context.Context, batch []Received[T]) error) error {
	var types []events.Declaration
	for _, d := range events.Types() {
		if d.Stream == c.Stream && d.Data == reflect.TypeFor[T]() {
			types = append(types, d)
		}
	}
	c, err := c.complete(types)
	if err != nil {
		return err
	}
	r := batchReader[T]{bus: b, consumer: c, handle: handle}
	return b.consume(ctx, c, func(ctx context.Context, in <-chan *delivery, open *tracker) {
		r.open = open
		for {
			batch, more := gather(in, c.Batch)
			if len(batch) > 0 && ctx.Err() == nil {
				r.batch(ctx, batch)
			}
			if !more {
				return
			}
		}
	})
}

// gather waits for a first message and takes what comes with it.
func gather(in <-chan *delivery, limit int) (batch []*delivery, more bool) {
	first, more := <-in
	if !more {
		return nil, false
	}
	batch = append(make([]*delivery, 0, limit), first)
	timer := time.NewTimer(linger)
	defer timer.Stop()
	for len(batch) < limit {
		select {
		case d, more := <-in:
			if !more {
				return batch, false
			}
			batch = append(batch, d)
		case <-timer.C:
			return batch, true
		}
	}
	return batch, true
}

// batchReader hands batches to one handler.
type batchReader[T any] struct {
	bus      *Bus
	consumer Consumer
	handle   func(context.Context, []Received[T]) error
	open     *tracker
}

func (r *batchReader[T]) batch(ctx context.Context, batch []*delivery) {
	good, kept := make([]Received[T], 0, len(batch)), make([]*delivery, 0, len(batch))
	for _, d := range batch {
		e, name, err := r.read(d)
		switch {
		case err != nil && r.consumer.AckAll:
			if !r.putAside(ctx, d, name, err) {
				return
			}
		case err != nil:
			r.bus.settle(ctx, r.consumer, d, r.open, name, err)
		case name == "": // not ours
			if !r.consumer.AckAll {
				r.open.settled(d)
				r.bus.acked(ctx, r.consumer, d.Ack())
			}
		default:
			good, kept = append(good, Received[T]{e, d.describe(name)}), append(kept, d)
		}
	}
	if r.consumer.AckAll {
		r.insist(ctx, batch, good)
		return
	}
	if len(good) == 0 {
		return
	}
	err := r.call(ctx, good)
	if err == nil {
		r.open.settled(kept...)
		for _, d := range kept {
			r.bus.acked(ctx, r.consumer, d.Ack())
		}
		r.count(good, "ok")
		return
	}
	for i, d := range kept {
		r.bus.settle(ctx, r.consumer, d, r.open, good[i].Type, err)
	}
}

// read gives a delivery its data; the name is empty for a type that has other data.
func (r *batchReader[T]) read(d *delivery) (e events.Event[T], name string, err error) {
	e, known, ours, refusal := open[T](d.msg, "")
	switch {
	case refusal != nil:
		return e, cmp.Or(known.Name, unknownType), refusal
	case !ours:
		r.bus.metrics.handled.WithLabelValues(r.consumer.Name, known.Name, "skipped").Inc()
		return e, "", nil
	}
	return e, known.Name, nil
}

func (r *batchReader[T]) call(ctx context.Context, good []Received[T]) error {
	defer r.bus.metrics.observeHandling(r.consumer.Name, time.Now())
	return guard(r.bus.log, func() error { return r.handle(ctx, good) })
}

// insist calls the handler until it takes the batch, and acknowledges all of it at once.
func (r *batchReader[T]) insist(ctx context.Context, batch []*delivery, good []Received[T]) {
	for failures := uint64(1); len(good) > 0; failures++ {
		err := r.call(ctx, good)
		if err == nil {
			break
		}
		r.count(good, "retried")
		r.bus.log.ErrorContext(ctx, "batch could not be handled and is held back", "consumer", r.consumer.Name, "events", len(good), "failures", failures, "error", err)
		if !wait(ctx, growing(failures, time.Second, 30*time.Second, rand.Float64())) {
			return
		}
	}
	r.open.settled(batch...)
	r.bus.acked(ctx, r.consumer, batch[len(batch)-1].Ack())
	r.count(good, "ok")
}

// putAside stores a dead letter of an event among others that are acknowledged together. It repeats until
// the letter is stored; false when ctx was done before.
func (r *batchReader[T]) putAside(ctx context.Context, d *delivery, name string, cause error) bool {
	reason, result := verdict(cause, r.consumer, d)
	if reason == reasonNewer {
		r.bus.noteNewer(ctx, r.consumer, d, cause)
	}
	for failures := uint64(1); ; failures++ {
		err := r.bus.deadLetter(ctx, r.consumer, d, reason, cause)
		if err == nil {
			r.bus.metrics.handled.WithLabelValues(r.consumer.Name, name, result).Inc()
			return true
		}
		r.bus.log.ErrorContext(ctx, "dead letter could not be stored, the batch is held back", "consumer", r.consumer.Name, "sequence", d.meta.Sequence.Stream, "error", err)
		if !wait(ctx, reconnectPause(failures)) {
			return false
		}
	}
}

func (r *batchReader[T]) count(good []Received[T], result string) {
	types := map[string]int{}
	for i := range good {
		types[good[i].Type]++
	}
	for name, n := range types {
		r.bus.metrics.handled.WithLabelValues(r.consumer.Name, name, result).Add(float64(n))
	}
}
