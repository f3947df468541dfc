package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/nats-io/nats.go"

	"chandler/events"
)

// Meta is what the broker says about a delivered event.
type Meta struct {
	Type           string // full name of the event type
	StreamSequence uint64
	Delivered      uint64 // 1 for the first delivery
	Subject        string // as the stream stores it
	Stored         time.Time
	Pending        uint64 // messages behind this one that were not delivered yet
	// Pin changes whenever a pinned consumer passes to another replica, or back; empty where it is not pinned.
	Pin string
}

// Handler handles the events of one type. It is made by [On].
type Handler struct {
	declaration events.Declaration
	// call opens a message and handles it; ours is false if it is of another type.
	call func(context.Context, *nats.Msg, Meta) (ours bool, err error)
}

// On makes the handler of a type. The function must be idempotent: an event comes at least once, and again
// after a crash. Its error decides what becomes of the event, see [Bus.Handle].
func On[T any](t events.Type[T], h func(ctx context.Context, e events.Event[T], m Meta) error) Handler {
	return Handler{declaration: t.Declaration, call: func(ctx context.Context, m *nats.Msg, meta Meta) (bool, error) {
		e, _, ours, refusal := open[T](m, t.Name)
		switch {
		case refusal != nil:
			return true, refusal
		case !ours:
			return false, nil
		}
		return true, h(ctx, e, meta)
	}}
}

// dropped is an error that says: this event will never be handled.
type dropped struct {
	reason string
	err    error
}

func (d *dropped) Error() string { return "drop event (" + d.reason + "): " + d.err.Error() }
func (d *dropped) Unwrap() error { return d.err }

// Drop is what a handler returns for an event that it will never be able to take: the event goes to the
// dead-letter stream with the reason (one short word) and the error, and does not come again.
func Drop(reason string, err error) error {
	if err == nil {
		err = errors.New("no further explanation")
	}
	return &dropped{reason, err}
}

// guard turns a panic into an error, so that one event cannot end a service. The stack is for the log
// alone: the error may travel to a caller or into a dead letter.
func guard(log *slog.Logger, call func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("handler panicked: %v", p)
			log.Error("handler panicked", "error", err, "stack", string(debug.Stack()))
		}
	}()
	return call()
}
