package execution

import (
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"chandler/events"
	"chandler/events/eventstest"
)

func TestAFleetThatComesBackAheadOfWhatWasKnownMakesExecutionLookOnce(t *testing.T) {
	w := newWorld(t)
	g := newGenerations(w.bus.JetStream())
	if err := g.check(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := g.of(events.StreamStatus)
	d := w.orderOf("hello", 1)
	for n := range 5 {
		w.tell(statusOf(w, d, agents(1)[0], uint32(n+1), events.Waiting))
	}
	asked := make(chan string, 1000)
	watcher := eventstest.Connect(t, w.server)
	if _, err := watcher.Subscribe("$JS.API.>", func(m *nats.Msg) { asked <- m.Subject }); err != nil {
		t.Fatal(err)
	}
	if err := watcher.Flush(); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for n := range 50 {
		all.Go(func() {
			if raised, err := g.lost(t.Context(), events.StreamStatus, before.Generation, before.Last+1+uint64(n%5), time.Now()); raised || err != nil {
				t.Errorf("raised %v, %v", raised, err)
			}
		})
	}
	all.Wait()
	if err := watcher.Flush(); err != nil {
		t.Fatal(err)
	}
	if n := len(asked); n != 1 {
		t.Errorf("the broker was asked %d times, the first time %s", n, <-asked)
	}
	if now := g.of(events.StreamStatus); now.Generation != before.Generation || now.Last != before.Last+5 {
		t.Errorf("known is %+v, before %+v", now, before)
	}
	if raised, err := g.lost(t.Context(), events.StreamStatus, before.Generation, before.Last+6, time.Now()); !raised || err != nil {
		t.Errorf("an agent has seen more than there is: raised %v, %v", raised, err)
	}
}

func TestWhatWasSeenOfAStreamAndNotWrittenYetIsMissedAllTheSame(t *testing.T) {
	g := func(counter int, last uint64) storedGeneration {
		return storedGeneration{events.Generation{Created: 5, Counter: counter}, last}
	}
	for name, c := range map[string]struct {
		written, here storedGeneration
		last          uint64
		want          storedGeneration
	}{
		"nothing is known here":                      {g(0, 7), storedGeneration{}, 8, g(0, 8)},
		"it went back behind what was seen here":     {g(0, 7), g(0, 9), 8, g(1, 8)},
		"it grew beyond what was seen here":          {g(0, 7), g(0, 9), 10, g(0, 10)},
		"what was seen here is of an older one":      {g(1, 7), g(0, 9), 8, g(1, 8)},
		"another replica has seen more":              {g(0, 9), g(0, 7), 8, g(1, 8)},
		"it went back behind what both replicas saw": {g(0, 7), g(0, 9), 6, g(1, 6)},
	} {
		t.Run(name, func(t *testing.T) {
			if got := c.written.orLater(c.here).next(5, c.last); got != c.want {
				t.Errorf("%+v, want %+v", got, c.want)
			}
		})
	}
}
