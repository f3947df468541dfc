package eventstest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
	"chandler/events/bus"
)

// settling is how long ExpectExactly watches for one event too many.
const settling = 300 * time.Millisecond

// Expect waits until an event of type t that satisfies match (nil: any) is stored, and returns the first.
// Events that were stored before count.
func Expect[T any](tb testing.TB, b *bus.Bus, t events.Type[T], match func(events.Event[T]) bool) events.Event[T] {
	tb.Helper()
	found := expect(tb, b, t, match, 1, false)
	if len(found) == 0 {
		tb.FailNow()
	}
	return found[0]
}

// ExpectExactly waits until n events of type t that satisfy match (nil: any) are stored, and fails if there
// are more, then or a moment later. It returns them in the stream's order; n may be 0.
func ExpectExactly[T any](tb testing.TB, b *bus.Bus, t events.Type[T], match func(events.Event[T]) bool, n int) []events.Event[T] {
	tb.Helper()
	return expect(tb, b, t, match, n, true)
}

func expect[T any](tb testing.TB, b *bus.Bus, t events.Type[T], match func(events.Event[T]) bool, n int, exact bool) []events.Event[T] {
	tb.Helper()
	if t.Stream == "" {
		tb.Fatalf("%s is not stored: use bus.Listen", t.Name)
	}
	ctx, cancel := context.WithTimeout(tb.Context(), Patience)
	defer cancel()
	w := watch[T]{kind: t, match: match, want: n, exact: exact, stop: func() { time.AfterFunc(settling, cancel) }}
	from := uint64(1)
	if exact && n == 0 {
		// That nothing is there must have been read, not only not heard of in time.
		var err error
		if from, err = b.Replay(ctx, t.Stream, t.Filter(), 1, w.see); err != nil && !errors.Is(err, errEnough) {
			tb.Fatalf("read %s: %v", t.Stream, err)
		}
		w.stop()
	}
	if err := b.Follow(ctx, t.Stream, t.Filter(), from, w.see); err != nil && !errors.Is(err, errEnough) {
		tb.Fatalf("read %s: %v", t.Stream, err)
	}
	if len(w.found) < n || exact && len(w.found) > n {
		tb.Fatalf("%d events %s match, want %d; stored were %d:\n%s", len(w.found), t.Name, n, len(w.seen), strings.Join(w.seen, "\n"))
	}
	return w.found
}

// errEnough ends the reading.
var errEnough = errors.New("enough seen")

// watch collects the events of one type.
type watch[T any] struct {
	kind  events.Type[T]
	match func(events.Event[T]) bool
	want  int
	exact bool
	stop  func() // ends the reading a moment later
	found []events.Event[T]
	seen  []string
}

func (w *watch[T]) see(m jetstream.Msg) error {
	raw, err := bus.Decode(&nats.Msg{Subject: m.Subject(), Header: m.Headers(), Data: m.Data()})
	if err != nil || raw.Type() != w.kind.Name {
		w.seen = append(w.seen, fmt.Sprintf("%s: not a %s (%v)", m.Subject(), w.kind.Name, err))
		return nil
	}
	e, err := bus.Typed[T](raw)
	if err != nil {
		w.seen = append(w.seen, fmt.Sprintf("%s: %v", m.Subject(), err))
		return nil
	}
	w.seen = append(w.seen, fmt.Sprintf("%s: %s", m.Subject(), m.Data()))
	if w.match != nil && !w.match(e) {
		return nil
	}
	w.found = append(w.found, e)
	switch {
	case len(w.found) > w.want || len(w.found) == w.want && !w.exact:
		return errEnough
	case len(w.found) == w.want:
		w.stop()
	}
	return nil
}
