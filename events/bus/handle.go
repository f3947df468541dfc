package bus

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/nats-io/nats.go"

	"chandler/events"
)

// Handle reads a durable consumer and gives each event to the handler of its type. It blocks until ctx is
// done, waits for the handlers that run, and then returns nil. It survives restarts of the broker and the
// loss of consumer and stream; it returns an error only for a consumer that can never work.
//
// What becomes of an event:
//
//   - the handler returns nil: acknowledged;
//   - it returns [Drop]: put on the dead-letter stream with the reason, and terminated;
//   - any other error, or a panic: it comes again, with growing pauses (to the dead-letter stream after
//     MaxDeliver deliveries, if that is set);
//   - it is not an event that may be handled (no CloudEvent, no JSON, an unknown type, against its schema,
//     subject, source and data disagree, sent on by the broker): as for Drop, without the handler;
//   - its type is known in another version only: it comes again with pauses up to ten minutes, is counted,
//     and is never given up: upgrade this reader;
//   - its type has no handler here: acknowledged.
//
// An event is terminated only after the dead-letter stream has stored it.
func (b *Bus) Handle(ctx context.Context, c Consumer, handlers ...Handler) error {
	types := make([]events.Declaration, len(handlers))
	byType := make(map[string]Handler, len(handlers))
	for i, h := range handlers {
		types[i], byType[h.declaration.Name] = h.declaration, h
	}
	c, err := c.complete(types)
	if err != nil {
		return err
	}
	if c.AckAll {
		return errors.New("consumer " + c.Name + ": AckAll is for batches only")
	}
	return b.consume(ctx, c, func(ctx context.Context, in <-chan *delivery, open *tracker) {
		var workers sync.WaitGroup
		for range c.Workers {
			workers.Go(func() {
				for d := range in {
					if ctx.Err() != nil {
						continue // it is given back
					}
					b.handleOne(ctx, c, byType, d, open)
				}
			})
		}
		workers.Wait()
	})
}

func (b *Bus) handleOne(ctx context.Context, c Consumer, handlers map[string]Handler, d *delivery, open *tracker) {
	if h, ok := handlers[claimedType(d.msg)]; ok && b.call(ctx, c, h, d, open) {
		return
	}
	// It says in another way what it is, or is none of ours, or no event at all.
	e, known, refusal := admit(d.msg)
	if refusal != nil {
		b.settle(ctx, c, d, open, typeLabel(e.Type()), refusal)
		return
	}
	if h, ok := handlers[known.Name]; ok && b.call(ctx, c, h, d, open) {
		return
	}
	open.settled(d)
	b.acked(ctx, c, d.Ack())
	b.metrics.handled.WithLabelValues(c.Name, known.Name, "skipped").Inc()
}

// claimedType is the type that a header names; whether it is the event's type, [open] finds out.
func claimedType(m *nats.Msg) string {
	if values := m.Header[typeHeader]; len(values) == 1 {
		return values[0]
	}
	return ""
}

// call lets a handler have an event, and settles it; false if it is none for that handler.
func (b *Bus) call(ctx context.Context, c Consumer, h Handler, d *delivery, open *tracker) (ours bool) {
	started := time.Now()
	name := h.declaration.Name
	err := guard(b.log, func() (err error) {
		ours, err = h.call(ctx, d.msg, d.describe(name))
		return err
	})
	if err == nil && !ours {
		return false
	}
	b.metrics.observeHandling(c.Name, started)
	b.settle(ctx, c, d, open, name, err)
	return true
}

// settle is the one place that decides what becomes of a single event.
func (b *Bus) settle(ctx context.Context, c Consumer, d *delivery, open *tracker, typeName string, err error) {
	count := func(result string) { b.metrics.handled.WithLabelValues(c.Name, typeName, result).Inc() }
	if err == nil {
		open.settled(d)
		b.acked(ctx, c, d.Ack())
		count("ok")
		return
	}
	if refusal, ok := errors.AsType[*Refusal](err); ok && refusal.Reason == reasonNewer {
		open.settled(d)
		b.noteNewer(ctx, c, d, refusal)
		b.acked(ctx, c, d.NakWithDelay(newerPause(d.meta.NumDelivered)))
		count("newer")
		return
	}
	reason, result := verdict(err, c, d)
	if reason == "" {
		b.log.WarnContext(ctx, "event could not be handled and will come again", "consumer", c.Name, "type", typeName, "sequence", d.meta.Sequence.Stream,
			"delivered", d.meta.NumDelivered, "error", err)
		count("retried")
		if ctx.Err() == nil { // or this process ends, and gives it back without a pause
			open.settled(d)
			b.acked(ctx, c, d.NakWithDelay(redeliveryPause(d.meta.NumDelivered)))
		}
		return
	}
	if storeErr := b.deadLetter(ctx, c, d, reason, err); storeErr != nil {
		open.settled(d)
		b.log.ErrorContext(ctx, "dead letter could not be stored, the event will come again", "consumer", c.Name, "sequence", d.meta.Sequence.Stream, "error", storeErr)
		b.acked(ctx, c, d.NakWithDelay(redeliveryPause(d.meta.NumDelivered)))
		count("retried")
		return
	}
	open.settled(d)
	b.acked(ctx, c, d.TermWithReason(reason))
	count(result)
}

// verdict is the reason for which an event goes to the dead-letter stream, or "" if it is to come again.
func verdict(err error, c Consumer, d *delivery) (reason, result string) {
	if drop, ok := errors.AsType[*dropped](err); ok {
		return reasonLabel(drop.reason), "dropped"
	}
	if refusal, ok := errors.AsType[*Refusal](err); ok {
		return refusal.Reason, "refused"
	}
	if c.MaxDeliver > 0 && d.meta.NumDelivered >= uint64(c.MaxDeliver) {
		return reasonGaveUp, "dropped"
	}
	return "", ""
}

func (b *Bus) noteNewer(ctx context.Context, c Consumer, d *delivery, cause error) {
	name := newerLabel(d)
	b.metrics.newer.WithLabelValues(name).Inc()
	b.log.ErrorContext(ctx, "event is newer than its reader: upgrade this program", "consumer", c.Name, "type", name, "sequence", d.meta.Sequence.Stream, "error", cause)
}

// newerLabel names the version that is known of a type that is not: the number in a strange name is its
// writer's, and must not become a label.
func newerLabel(d *delivery) string {
	var e event.Event
	e, err := Decode(d.msg)
	if err != nil {
		return "unknown"
	}
	for _, t := range events.Types() {
		if stem(t.Name) == stem(e.Type()) {
			return t.Name
		}
	}
	return "unknown"
}

// acked notes a reply to the broker that did not get out. The event then comes again.
func (b *Bus) acked(ctx context.Context, c Consumer, err error) {
	if err != nil {
		b.log.WarnContext(ctx, "acknowledgement could not be sent, the event will come again", "consumer", c.Name, "error", err)
	}
}
