package bus

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// storeAttempts is how often a pipeline sends a message whose fate it does not learn.
const storeAttempts = 3

// Pipeline stores many messages without waiting for each. It is for one goroutine. Messages are stored in
// their order, except one that had to be sent again because a leader died.
type Pipeline struct {
	bus    *Bus
	flight []inFlight // oldest first, at most the bus's window
	failed error      // why the pipeline takes no more
}

type inFlight struct {
	jetstream.PubAckFuture
	attempt int
}

// NewPipeline starts an empty pipeline.
func (b *Bus) NewPipeline() *Pipeline { return &Pipeline{bus: b} }

// Add sends a message made by [Message], and waits for the oldest when the window is full. It returns an
// error once any message could not be stored: what follows would not be stored either. [Pipeline.Flush]
// tells of the rest.
func (p *Pipeline) Add(ctx context.Context, m *nats.Msg) error {
	if p.failed != nil {
		return p.failed
	}
	if err := p.bus.check(m); err != nil {
		return err
	}
	for len(p.flight) >= p.bus.window {
		if err := p.settleOldest(ctx); err != nil {
			return err
		}
	}
	return p.send(m, 1)
}

// Flush waits until everything that was added is stored or has failed, and returns the errors joined. It
// ends at the latest a few ack time-outs after the last message, whatever becomes of the broker. After it
// the pipeline is empty and may be used again.
func (p *Pipeline) Flush(ctx context.Context) error {
	var failures []error
	if p.failed != nil {
		failures = append(failures, p.failed)
	}
	for len(p.flight) > 0 {
		if err := p.settleOldest(ctx); err != nil {
			failures = append(failures, err)
		}
		if err := ctx.Err(); err != nil {
			failures = append(failures, fmt.Errorf("%d messages are not confirmed: %w", len(p.flight), err))
			p.flight = nil
		}
	}
	p.failed = nil
	return errors.Join(failures...)
}

func (p *Pipeline) send(m *nats.Msg, attempt int) error {
	future, err := p.bus.js.PublishMsgAsync(m, jetstream.WithStallWait(ackTimeout))
	if err != nil {
		return p.fail(m, err)
	}
	p.flight = append(p.flight, inFlight{future, attempt})
	return nil
}

// settleOldest waits for the oldest message; one whose fate is unknown is sent again, its id tells the
// store if it has it.
func (p *Pipeline) settleOldest(ctx context.Context) error {
	oldest := p.flight[0]
	select {
	case <-ctx.Done():
		return ctx.Err()
	case ack := <-oldest.Ok():
		p.flight = p.flight[1:]
		p.bus.countStored(typeOf(oldest.Msg()), ack)
		return nil
	case err := <-oldest.Err():
		p.flight = p.flight[1:]
		if oldest.attempt < storeAttempts && unready(err) {
			return p.send(oldest.Msg(), oldest.attempt+1)
		}
		return p.fail(oldest.Msg(), err)
	}
}

func (p *Pipeline) fail(m *nats.Msg, err error) error {
	p.bus.metrics.published.WithLabelValues(typeOf(m), "error").Inc()
	err = fmt.Errorf("publish %s: %w", m.Subject, err)
	if p.failed == nil {
		p.failed = err
	}
	return err
}
