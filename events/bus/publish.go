package bus

import (
	"context"
	"fmt"
	"reflect"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
)

// Publish stores one event and waits for the store's answer. Source and time are filled in where they are
// missing. After an error the event may be stored or not: publishing it again is harmless, since its id
// is derived from what it states.
func Publish[T any](ctx context.Context, b *Bus, t events.Type[T], e events.Event[T]) (*jetstream.PubAck, error) {
	m, err := message(b, t, e)
	if err != nil {
		return nil, err
	}
	ack, err := b.js.PublishMsg(ctx, m)
	if err != nil {
		b.metrics.published.WithLabelValues(t.Name, "error").Inc()
		return nil, fmt.Errorf("publish %s: %w", m.Subject, err)
	}
	b.countStored(t.Name, ack)
	return ack, nil
}

// Send says an event on core NATS, for types that no stream stores. Nobody confirms it: an error means
// only that it certainly was not sent.
func Send[T any](ctx context.Context, b *Bus, t events.Type[T], e events.Event[T]) error {
	if t.Stream != "" {
		return fmt.Errorf("send %s: the type is stored in %s, publish it", t.Name, t.Stream)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	m, err := message(b, t, e)
	if err != nil {
		return err
	}
	delete(m.Header, jetstream.MsgIDHeader)
	if err := b.conn.PublishMsg(m); err != nil {
		b.metrics.published.WithLabelValues(t.Name, "error").Inc()
		return fmt.Errorf("send %s: %w", m.Subject, err)
	}
	b.metrics.published.WithLabelValues(t.Name, "sent").Inc()
	return nil
}

// message fills in the bus's source and, where the bus is strict, holds the outcome against its schema.
func message[T any](b *Bus, t events.Type[T], e events.Event[T]) (*nats.Msg, error) {
	if e.Source == "" {
		e.Source = b.source
	}
	m, err := Message(t, e)
	if err != nil {
		return nil, err
	}
	return m, b.check(m)
}

// check refuses to send what a reader would refuse to take, if the bus was told to.
func (b *Bus) check(m *nats.Msg) error {
	if !b.strict {
		return nil
	}
	e, known, refusal := admit(m)
	if refusal == nil {
		refusal = decode(e, known, reflect.New(known.Data).Interface())
	}
	if refusal != nil {
		return fmt.Errorf("publish %s: %w", m.Subject, refusal)
	}
	return nil
}

func (b *Bus) countStored(name string, ack *jetstream.PubAck) {
	result := "stored"
	if ack.Duplicate {
		result = "duplicate"
	}
	b.metrics.published.WithLabelValues(name, result).Inc()
}

// typeOf is the type of an encoded message, as a label.
func typeOf(m *nats.Msg) string {
	return typeLabel(claimedType(m))
}
