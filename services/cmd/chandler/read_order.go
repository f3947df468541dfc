package main

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// stored is a message with the time at which the broker stored it.
type stored struct {
	message *nats.Msg
	at      time.Time
}

// readInOrder gives what several streams hold, in the order in which it was stored: the broker's clock is
// the one that all share. No more than a message of each stream is held back for it.
func (c *client) readInOrder(ctx context.Context, subjects map[string][]string, since time.Time, show func(*nats.Msg) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var sources []<-chan stored
	ends := make(chan error, len(subjects))
	for stream, filters := range subjects {
		source := make(chan stored)
		sources = append(sources, source)
		go func() {
			defer close(source)
			err := c.read(ctx, reading{stream: stream, filters: filters, since: since}, func(m jetstream.Msg) error { return pass(ctx, source, m) })
			if err != nil {
				cancel(err)
			}
			ends <- err
		}()
	}
	err := merge(sources, func(m stored) error { return show(m.message) })
	cancel(err)
	for range subjects {
		if end := <-ends; end != nil && err == nil && !errors.Is(end, context.Canceled) {
			err = end
		}
	}
	return err
}

// pass hands a message on, unless nobody wants it any more.
func pass(ctx context.Context, to chan<- stored, m jetstream.Msg) error {
	meta, err := m.Metadata()
	if err != nil {
		return err
	}
	select {
	case to <- stored{plainMessage(m), meta.Timestamp}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// merge gives the messages of all sources, each of which is in order, the oldest first.
func merge(sources []<-chan stored, each func(stored) error) error {
	heads := make([]*stored, len(sources))
	take := func(i int) {
		heads[i] = nil
		if m, ok := <-sources[i]; ok {
			heads[i] = &m
		}
	}
	for i := range sources {
		take(i)
	}
	for {
		oldest := -1
		for i, h := range heads {
			if h != nil && (oldest < 0 || h.at.Before(heads[oldest].at)) {
				oldest = i
			}
		}
		if oldest < 0 {
			return nil
		}
		if err := each(*heads[oldest]); err != nil {
			return err
		}
		take(oldest)
	}
}
