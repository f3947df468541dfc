package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"chandler/events"
	"chandler/events/bus"
)

// client is a connection to a fleet, as one command uses it.
type client struct {
	connection
	bus     *bus.Bus
	timeout time.Duration // for each answer
}

// connected runs a command with a connection in the current context.
func (a *app) connected(do func(cmd *cobra.Command, c *client, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		where, err := a.current()
		if err != nil {
			return err
		}
		c, err := dial(where, a.timeout)
		if err != nil {
			return err
		}
		defer c.bus.Conn().Close()
		return do(cmd, c, args)
	}
}

func dial(where connection, timeout time.Duration) (*client, error) {
	nc, err := nats.Connect(where.Server, nats.Name("chandler "+where.Caller), nats.Timeout(timeout), nats.MaxReconnects(-1))
	if err != nil {
		return nil, fmt.Errorf("connect to the broker at %s (context %s): %w; is it running? `chandler up` starts one, `chandler context ls` shows others",
			where.Server, where.Name, err)
	}
	b, err := bus.New(bus.Options{Conn: nc})
	if err != nil {
		nc.Close()
		return nil, err
	}
	return &client{where, b, timeout}, nil
}

// ask makes one request. The error says which service did not answer, or what it answered.
func ask[Req, Resp any](ctx context.Context, c *client, call events.Call[Req, Resp], req Req) (Resp, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	resp, err := bus.Request(ctx, c.bus, c.Caller, call, req)
	if refused, ok := errors.AsType[*bus.RequestError](err); ok {
		return resp, refused // the service's own words
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrTimeout) {
		err = fmt.Errorf("the %s service did not answer within %s: it may have done what was asked; look with `chandler doctor`, or wait longer with --timeout", call.Service, c.timeout)
	}
	return resp, err
}

// reading is what to read of a stream.
type reading struct {
	stream  string
	filters []string
	since   time.Time // zero: from the first
	onlyNew bool      // instead: only what is stored from now on, by the broker's clock
	follow  bool      // go on with what is stored later, until ctx is done
}

// read gives each message that matches, oldest first. It leaves nothing behind on the broker.
func (c *client) read(ctx context.Context, r reading, each func(jetstream.Msg) error) error {
	config := jetstream.OrderedConsumerConfig{FilterSubjects: r.filters}
	if r.onlyNew {
		config.DeliverPolicy = jetstream.DeliverNewPolicy
	} else if !r.since.IsZero() {
		config.DeliverPolicy, config.OptStartTime = jetstream.DeliverByStartTimePolicy, &r.since
	}
	consumer, err := c.bus.JetStream().OrderedConsumer(ctx, r.stream, config)
	if err != nil {
		return fmt.Errorf("read stream %s: %w", r.stream, err)
	}
	if !r.follow && consumer.CachedInfo().NumPending == 0 {
		return nil
	}
	messages, err := consumer.Messages()
	if err != nil {
		return fmt.Errorf("read stream %s: %w", r.stream, err)
	}
	defer messages.Stop()
	for {
		m, err := c.next(ctx, r, messages)
		if err != nil || m == nil {
			return err
		}
		if err := each(m); err != nil {
			return err
		}
		if meta, err := m.Metadata(); err == nil && meta.NumPending == 0 && !r.follow {
			return nil
		}
	}
}

// next waits for one message; nil without an error ends the reading.
func (c *client) next(ctx context.Context, r reading, messages jetstream.MessagesContext) (jetstream.Msg, error) {
	waiting := ctx
	if !r.follow {
		var cancel context.CancelFunc
		waiting, cancel = context.WithTimeout(ctx, c.timeout)
		defer cancel()
	}
	m, err := messages.Next(jetstream.NextContext(waiting))
	switch {
	case err == nil:
		return m, nil
	case r.follow && ctx.Err() != nil:
		return nil, nil
	}
	return nil, fmt.Errorf("read stream %s: %w", r.stream, err)
}

// eventOf reads a stored message as an event of type T.
func eventOf[T any](m jetstream.Msg) (events.Event[T], error) {
	e, err := bus.Decode(&nats.Msg{Subject: m.Subject(), Header: m.Headers(), Data: m.Data()})
	if err != nil {
		return events.Event[T]{}, err
	}
	return bus.Typed[T](e)
}
