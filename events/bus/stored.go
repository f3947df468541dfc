package bus

import (
	"context"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
)

// Stored gives every event of a type that its stream holds, oldest first, within patience as a whole. What
// cannot be read as one is passed over: it was refused when it came.
func Stored[T any](ctx context.Context, b *Bus, t events.Type[T], patience time.Duration, each func(events.Event[T])) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return b.Browse(ctx, BrowseOptions{Stream: t.Stream, Filters: []string{t.Filter()}, Patience: patience}, func(m jetstream.Msg) error {
		if e, err := Open(t, &nats.Msg{Subject: m.Subject(), Header: m.Headers(), Data: m.Data()}); err == nil {
			each(e)
		}
		return nil
	})
}
