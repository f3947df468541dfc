package bus_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/eventstest"
)

// collect handles collections of a consumer and returns their names.
func collect(t *testing.T, b *bus.Bus) <-chan string {
	t.Helper()
	names := make(chan string, 1000)
	start(t, func(ctx context.Context) error {
		return b.Handle(ctx, bus.Consumer{Stream: events.StreamEvents, Name: "test"}, bus.On(events.CollectionChanged, func(_ context.Context, e events.Event[events.Collection], _ bus.Meta) error {
			names <- e.Subject
			return nil
		}))
	})
	return names
}

// insist publishes until the store confirms it, as a service would.
func insist(t *testing.T, b *bus.Bus, e events.Event[events.Collection]) {
	t.Helper()
	eventually(t, "the event is stored", func() bool {
		_, err := bus.Publish(t.Context(), b, events.CollectionChanged, e)
		return err == nil
	})
}

func TestHandlingGoesOnAfterTheBrokerRestarted(t *testing.T) {
	srv := eventstest.Broker(t)
	b := eventstest.Bus(t, srv, events.ServiceSource("scheduling"))
	names := collect(t, b)
	for i := range 3 {
		insist(t, b, collection(fmt.Sprint("before", i)))
		if got, want := receive(t, names), fmt.Sprint("before", i); got != want {
			t.Errorf("handled %s, want %s", got, want)
		}
		srv.Restart()
		insist(t, b, collection(fmt.Sprint("after", i)))
		if got, want := receive(t, names), fmt.Sprint("after", i); got != want {
			t.Errorf("handled %s, want %s", got, want)
		}
	}
}

func TestAStreamThatIsGoneIsMadeAnew(t *testing.T) {
	b := eventstest.Bus(t, eventstest.Broker(t), events.ServiceSource("scheduling"))
	names := collect(t, b)
	insist(t, b, collection("before"))
	receive(t, names)
	if err := b.JetStream().DeleteStream(t.Context(), events.StreamEvents); err != nil {
		t.Fatal(err)
	}
	insist(t, b, collection("after"))
	if got := receive(t, names); got != "after" {
		t.Errorf("handled %s", got)
	}
	s, err := b.JetStream().Stream(t.Context(), events.StreamEvents)
	if err != nil {
		t.Fatal(err)
	}
	if !s.CachedInfo().Config.AllowAtomicPublish {
		t.Error("the stream was not made as it is declared")
	}
}

func TestAConsumerThatIsGoneIsMadeAnew(t *testing.T) {
	b := eventstest.Bus(t, eventstest.Broker(t), events.ServiceSource("scheduling"))
	names := collect(t, b)
	insist(t, b, collection("before"))
	receive(t, names)
	if err := b.JetStream().DeleteConsumer(t.Context(), events.StreamEvents, "test"); err != nil {
		t.Fatal(err)
	}
	insist(t, b, collection("after"))
	for got := ""; got != "after"; { // a consumer that is new begins at the stream's beginning
		if got = receive(t, names); got != "before" && got != "after" {
			t.Errorf("handled %s", got)
		}
	}
}

func TestHandlingBeginsWhenTheBrokerComes(t *testing.T) {
	srv := eventstest.Broker(t)
	srv.Stop()
	b := eventstest.Bus(t, srv, events.ServiceSource("scheduling"))
	names := collect(t, b)
	provisioned := make(chan error, 1)
	go func() { provisioned <- b.Provision(t.Context(), bus.Topology{}) }()
	srv.Start()
	if err := receive(t, provisioned); err != nil {
		t.Fatal(err)
	}
	insist(t, b, collection("a"))
	if got := receive(t, names); got != "a" {
		t.Errorf("handled %s", got)
	}
}

func TestProvisioningThatWaitsForABrokerEndsWithItsContext(t *testing.T) {
	srv := eventstest.Broker(t)
	srv.Stop()
	b := eventstest.Bus(t, srv, "")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.Provision(ctx, bus.Topology{}); err == nil {
		t.Error("provisioned a broker that is away")
	}
}

func TestAPipelineSurvivesARestartAndStoresEachOnce(t *testing.T) {
	srv := eventstest.Broker(t)
	b := eventstest.Bus(t, srv, events.ServiceSource("scheduling"))
	const n = 5000
	p := b.NewPipeline()
	restarted := make(chan struct{})
	for i := range n {
		if i == n/2 {
			go func() { srv.Restart(); close(restarted) }()
		}
		m := encode(t, events.CollectionChanged, collection(fmt.Sprint("c", i)))
		for p.Add(t.Context(), m) != nil { // give up, settle, and say it again: the ids tell what is known
			if err := p.Flush(t.Context()); err != nil && t.Context().Err() != nil {
				t.Fatal(err)
			}
		}
	}
	receive(t, restarted)
	err := p.Flush(t.Context())
	for i := 0; err != nil && i < n; i++ { // all of them again, as a service does that does not know which
		if err = p.Add(t.Context(), encode(t, events.CollectionChanged, collection(fmt.Sprint("c", i)))); err == nil && i == n-1 {
			err = p.Flush(t.Context())
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	eventstest.ExpectExactly(t, b, events.CollectionChanged, nil, n)
}

func TestAPipelineDoesNotWaitForEverForABrokerThatIsAway(t *testing.T) {
	srv := eventstest.Broker(t)
	conn := eventstest.Connect(t, srv, nats.ReconnectBufSize(-1))
	b, err := bus.New(bus.Options{Conn: conn, Source: events.ServiceSource("scheduling")})
	if err != nil {
		t.Fatal(err)
	}
	eventstest.Provision(t, b)
	srv.Stop()
	eventually(t, "the connection noticed", func() bool { return !conn.IsConnected() })
	p := b.NewPipeline()
	if err := p.Add(t.Context(), encode(t, events.CollectionChanged, collection("a"))); err == nil {
		t.Log("taken into the connection's buffer")
	}
	if err := p.Flush(t.Context()); err == nil {
		t.Error("stored by nobody, and no error")
	}
	srv.Start()
	insist(t, b, collection("b"))
	if err := p.Flush(t.Context()); err != nil {
		t.Errorf("a pipeline that was flushed cannot be used again: %v", err)
	}
}

func TestFollowingGoesOnAfterARestartWithoutGapOrRepetition(t *testing.T) {
	srv := eventstest.Broker(t)
	b := eventstest.Bus(t, srv, events.ServiceSource("scheduling"))
	insist(t, b, collection("first"))
	seen := make(chan uint64, 1000)
	start(t, func(ctx context.Context) error {
		return b.Follow(ctx, events.StreamEvents, "chandler.event.collection.>", 2, func(m jetstream.Msg) error {
			meta, err := m.Metadata()
			if err != nil {
				return err
			}
			seen <- meta.Sequence.Stream
			return nil
		})
	})
	for i := range 9 {
		if i == 4 || i == 7 {
			srv.Restart()
		}
		insist(t, b, collection(fmt.Sprint("c", i)))
	}
	for want := uint64(2); want <= 9; want++ {
		if got := receive(t, seen); got != want {
			t.Fatalf("read %d, want %d", got, want)
		}
	}
}

func TestAReaderLearnsThatItsStreamWentBack(t *testing.T) {
	b := eventstest.Bus(t, eventstest.Broker(t), events.ServiceSource("scheduling"))
	insist(t, b, collection("a"))
	err := b.Follow(t.Context(), events.StreamEvents, "chandler.event.>", 3, func(jetstream.Msg) error { return nil })
	if !errors.Is(err, bus.ErrWentBack) {
		t.Errorf("from beyond the end: %v", err)
	}
	if _, err := b.Replay(t.Context(), events.StreamEvents, "chandler.event.>", 3, func(jetstream.Msg) error { return nil }); !errors.Is(err, bus.ErrWentBack) {
		t.Errorf("from beyond the end: %v", err)
	}
}
