package bus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
)

// Consumer is a durable reader of a stream. Replicas of a service share it by its name: each event goes to
// one of them.
type Consumer struct {
	Stream string
	Name   string // durable name, also the label of its metrics: a valid token
	// Filters are the stored subjects to read; none: those of the handlers' types.
	Filters []string
	// Batch is the number of messages asked for at once, and the most that a batch handler gets; 0: 256. Up to
	// twice as many wait in this process.
	Batch int
	// Workers handle events at the same time; 0: 1, which keeps the stream's order (but for events that are
	// tried again). Batches are always handled one after the other.
	Workers int
	// MaxDeliver is the number of deliveries after which an event whose handler keeps failing goes to the
	// dead-letter stream; 0: it is tried for ever.
	MaxDeliver int
	// AckWait is the time after which the broker gives the events of a dead process to another; 0: 30 s. Slow
	// handlers need not fear it: what waits in a living process is kept from the broker's clock.
	AckWait time.Duration
	// MaxAckPending bounds the events delivered to all replicas and not settled; 0: the larger of 1024 and
	// four batches.
	MaxAckPending int
	// AckAll acknowledges everything up to the last event of a batch; only for HandleBatch. A batch that fails
	// is then tried again in place, so that the order is kept.
	AckAll bool
	// Pinned gives the whole consumer to one replica at a time; another takes over when that one has not asked
	// for PinnedTTL. A pin fences nothing: a replica that was paused may go on (see Meta.Pin).
	Pinned bool
}

const (
	// pinGroup is the only priority group of a pinned consumer.
	pinGroup = "owner"
	// PinnedTTL is how long a pinned replica may be silent.
	PinnedTTL = 10 * time.Second
)

// complete checks a consumer and fills in what it leaves open.
func (c Consumer) complete(types []events.Declaration) (Consumer, error) {
	stream := slices.IndexFunc(events.Streams(), func(s events.Stream) bool { return s.Name == c.Stream })
	switch {
	case stream < 0:
		return c, fmt.Errorf("consumer %q: stream %q is not declared", c.Name, c.Stream)
	case events.ValidToken(c.Name) != nil:
		return c, fmt.Errorf("consumer of %s: %w", c.Stream, events.ValidToken(c.Name))
	case len(types) == 0:
		return c, fmt.Errorf("consumer %s: it has no handlers", c.Name)
	case c.Batch < 0 || c.Workers < 0 || c.MaxDeliver < 0 || c.AckWait < 0 || c.MaxAckPending < 0:
		return c, fmt.Errorf("consumer %s: a limit is negative", c.Name)
	case c.AckWait > 0 && c.AckWait < time.Second:
		return c, fmt.Errorf("consumer %s: ack wait %s is shorter than a second", c.Name, c.AckWait)
	}
	seen := map[string]bool{}
	for _, d := range types {
		if d.Stream != c.Stream {
			return c, fmt.Errorf("consumer %s: type %s is not stored in %s", c.Name, d.Name, c.Stream)
		}
		if seen[d.Name] {
			return c, fmt.Errorf("consumer %s: type %s has two handlers", c.Name, d.Name)
		}
		seen[d.Name] = true
	}
	if len(c.Filters) == 0 {
		for _, d := range types {
			c.Filters = append(c.Filters, d.Filter())
		}
	}
	c.Filters = slices.Compact(slices.Sorted(slices.Values(c.Filters)))
	c.Batch = orDefault(c.Batch, 256)
	c.Workers = orDefault(c.Workers, 1)
	c.AckWait = orDefault(c.AckWait, 30*time.Second)
	c.MaxAckPending = orDefault(c.MaxAckPending, max(1024, 4*c.Batch))
	return c, nil
}

func orDefault[N int | time.Duration](n, otherwise N) N {
	if n == 0 {
		return otherwise
	}
	return n
}

func (c Consumer) config() jetstream.ConsumerConfig {
	config := jetstream.ConsumerConfig{
		Durable: c.Name, Name: c.Name, FilterSubjects: c.Filters, AckPolicy: jetstream.AckExplicitPolicy, AckWait: c.AckWait,
		MaxDeliver: -1, MaxAckPending: c.MaxAckPending,
	}
	if c.AckAll {
		config.AckPolicy = jetstream.AckAllPolicy
	}
	if c.Pinned {
		config.PriorityPolicy, config.PriorityGroups, config.PinnedTTL = jetstream.PriorityPolicyPinned, []string{pinGroup}, PinnedTTL
	}
	return config
}

// attach finds or makes the consumer, and the stream if this bus provisioned it and it is gone. final
// means that trying again would not help.
func (b *Bus) attach(ctx context.Context, c Consumer) (final bool, err error) {
	ctx, cancel := b.asking(ctx)
	defer cancel()
	want := c.config()
	consumer, err := b.js.Consumer(ctx, c.Stream, c.Name)
	if err == nil && sameConsumer(consumer.CachedInfo().Config, want) {
		return false, nil
	}
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		if err := b.remake(ctx, c.Stream); err != nil {
			return false, err
		}
	}
	if _, err = b.js.CreateOrUpdateConsumer(ctx, c.Stream, want); err == nil {
		return false, nil
	}
	api, ok := errors.AsType[*jetstream.APIError](err)
	return ok && api.Code == 400, fmt.Errorf("make consumer %s of %s: %w", c.Name, c.Stream, err)
}

// sameConsumer compares what config sets.
func sameConsumer(have, want jetstream.ConsumerConfig) bool {
	filters := have.FilterSubjects
	if have.FilterSubject != "" {
		filters = []string{have.FilterSubject}
	}
	return slices.Equal(slices.Sorted(slices.Values(filters)), want.FilterSubjects) && have.AckPolicy == want.AckPolicy && have.AckWait == want.AckWait &&
		have.MaxDeliver == want.MaxDeliver && have.MaxAckPending == want.MaxAckPending && have.PriorityPolicy == want.PriorityPolicy && have.PinnedTTL == want.PinnedTTL
}

// remake provisions a stream that is gone, as this bus provisioned it before. Its readers begin at its
// beginning; what it held comes back in the way that its declaration says.
func (b *Bus) remake(ctx context.Context, name string) error {
	b.mu.Lock()
	topology := b.topology
	b.mu.Unlock()
	if topology == nil {
		return fmt.Errorf("stream %s does not exist, and this process did not provision it", name)
	}
	for _, s := range events.Streams() {
		if s.Name == name {
			b.log.ErrorContext(ctx, "a stream is gone and is made anew", "stream", name, "lost", s.Lost)
			return b.provisionStream(ctx, s, *topology)
		}
	}
	return fmt.Errorf("stream %s is not declared", name)
}
