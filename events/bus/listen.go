package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"chandler/events"
)

// Listen hears the events of a type that core NATS carries, on every subject of the type, until ctx is
// done. With a queue name each event goes to one of the listeners of that name. What [Open] refuses is
// counted and not handed on. Events are lost while the broker is away or the listener is slow: that is
// their nature. The handler runs in the subscription's order.
func Listen[T any](ctx context.Context, b *Bus, t events.Type[T], queue string, handle func(events.Event[T])) error {
	return ListenFor(ctx, b, t, "*", queue, handle)
}

// ListenFor is [Listen] for what is about one token: an agent that may hear only what is said to itself.
func ListenFor[T any](ctx context.Context, b *Bus, t events.Type[T], token, queue string, handle func(events.Event[T])) error {
	ch := make(chan *nats.Msg, 4096)
	subject := t.Subject(token)
	var sub *nats.Subscription
	var err error
	if queue == "" {
		sub, err = b.conn.ChanSubscribe(subject, ch)
	} else {
		sub, err = b.conn.ChanQueueSubscribe(subject, queue, ch)
	}
	if err != nil {
		return fmt.Errorf("listen to %s: %w", subject, err)
	}
	defer func() { _ = sub.Unsubscribe() }() // fails only if the connection is closed
	for {
		select {
		case <-ctx.Done():
			return nil
		case m := <-ch:
			e, err := Open(t, m)
			if err == nil {
				started := time.Now()
				err = guard(b.log, func() error { handle(e); return nil })
				b.metrics.observeHandling("listen", started)
			}
			if err != nil {
				b.refuse(ctx, m.Subject, err)
			}
		}
	}
}

// refuse counts and notes a message of core NATS that was not taken.
func (b *Bus) refuse(ctx context.Context, subject string, err error) {
	reason := "handler"
	if refusal, ok := errors.AsType[*Refusal](err); ok {
		reason = refusal.Reason
	}
	b.metrics.refused.WithLabelValues(reason).Inc()
	b.log.WarnContext(ctx, "message is refused", "subject", subject, "reason", reason, "error", err)
}
