package bus_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/eventstest"
)

const (
	agent = "amrqzcs6aqpwdvsh3k7b2"
	other = "abbbbbbbbbbbbbbbbbbb2"
	trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

	patience = 30 * time.Second
)

// status is a valid event of an agent in a state.
func status(id string, state events.State, transition uint32) (events.Type[events.JobStatus], events.Event[events.JobStatus]) {
	kind, ok := events.StatusType(state)
	if !ok {
		panic("no event for state " + state)
	}
	data := kind.Example.(events.JobStatus)
	data.Agent, data.Transition = id, transition
	data.Job = events.JobID(data.Deployment, data.Revision, id, 0, "")
	return kind, events.Event[events.JobStatus]{ID: data.StatusID(), Source: events.AgentSource(id), Subject: id, Time: data.At, Data: data}
}

// collection is a valid event of scheduling.
func collection(name string) events.Event[events.Collection] {
	return events.Event[events.Collection]{ID: events.DeriveID("test", name), Source: events.ServiceSource("scheduling"), Subject: name,
		Time: time.Date(2026, 12, 1, 8, 0, 0, 0, time.UTC), Data: events.Collection{Name: name}}
}

func encode[T any](t testing.TB, kind events.Type[T], e events.Event[T]) *nats.Msg {
	t.Helper()
	m, err := bus.Message(kind, e)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func publish[T any](t testing.TB, b *bus.Bus, kind events.Type[T], e events.Event[T]) {
	t.Helper()
	if _, err := bus.Publish(t.Context(), b, kind, e); err != nil {
		t.Fatal(err)
	}
}

// store puts a message as it is into its stream.
func store(t testing.TB, b *bus.Bus, m *nats.Msg) {
	t.Helper()
	if _, err := b.JetStream().PublishMsg(t.Context(), m); err != nil {
		t.Fatalf("store %s: %v", m.Subject, err)
	}
}

// start runs a blocking call until the test ends, or stop is called; stop returns the call's error.
func start(t testing.TB, run func(ctx context.Context) error) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	stop = sync.OnceValue(func() error {
		cancel()
		select {
		case err := <-done:
			return err
		case <-time.After(patience):
			return errors.New("the call did not return after its context was done")
		}
	})
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	return stop
}

// receive waits for one value.
func receive[T any](t testing.TB, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatal("nothing came")
		panic("unreachable")
	}
}

// eventually waits until a condition holds.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); <-tick.C {
		if condition() {
			return
		}
	}
	t.Fatalf("never came true: %s", what)
}

// deadLetters waits for n letters of a stream and returns their headers in the order of their arrival.
func deadLetters(t testing.TB, b *bus.Bus, stream string, n int) []jetstream.Msg {
	t.Helper()
	var letters []jetstream.Msg
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	enough := errors.New("enough")
	err := b.Follow(ctx, events.StreamDeadLetter, events.DeadLetterSubject(stream), 1, func(m jetstream.Msg) error {
		if letters = append(letters, m); len(letters) == n {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) {
		t.Fatalf("found %d dead letters of %s, want %d (%v)", len(letters), stream, n, err)
	}
	return letters
}

// noDeadLetters checks that there are none.
func noDeadLetters(t testing.TB, b *bus.Bus) {
	t.Helper()
	s, err := b.JetStream().Stream(t.Context(), events.StreamDeadLetter)
	if err != nil {
		t.Fatal(err)
	}
	if n := s.CachedInfo().State.Msgs; n != 0 {
		t.Errorf("%d dead letters, want none", n)
	}
}

// measured is a bus with a registry.
func measured(t testing.TB, srv *eventstest.Server, source string) (*bus.Bus, *prometheus.Registry) {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	b, err := bus.New(bus.Options{Conn: eventstest.Connect(t, srv), Source: source, Registerer: reg})
	if err != nil {
		t.Fatal(err)
	}
	eventstest.Provision(t, b)
	return b, reg
}

// counter sums what a metric counted with these labels (name, value, …).
func counter(t testing.TB, reg *prometheus.Registry, name string, labels ...string) (sum float64) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			matches := 0
			for _, l := range m.GetLabel() {
				for i := 0; i < len(labels); i += 2 {
					if l.GetName() == labels[i] && l.GetValue() == labels[i+1] {
						matches++
					}
				}
			}
			if matches == len(labels)/2 {
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return sum
}

func TestAnEventIsPublishedAndHandled(t *testing.T) {
	b := eventstest.Bus(t, eventstest.Broker(t), events.AgentSource(agent))
	kind, e := status(agent, events.Running, 3)
	e.Trace = trace
	publish(t, b, kind, e)

	type delivered struct {
		event events.Event[events.JobStatus]
		meta  bus.Meta
	}
	got := make(chan delivered, 1)
	stop := start(t, func(ctx context.Context) error {
		return b.Handle(ctx, bus.Consumer{Stream: events.StreamStatus, Name: "test"}, bus.On(kind, func(_ context.Context, e events.Event[events.JobStatus], m bus.Meta) error {
			got <- delivered{e, m}
			return nil
		}))
	})
	d := receive(t, got)
	if diff := cmp.Diff(e, d.event); diff != "" {
		t.Errorf("published -, handled +:\n%s", diff)
	}
	if since := time.Since(d.meta.Stored); since < 0 || since > patience {
		t.Errorf("stored %s ago", since)
	}
	stored := fmt.Sprintf("chandler.job.running.%s.%d", agent, events.Partition(agent, events.Partitions))
	want := bus.Meta{Type: kind.Name, StreamSequence: 1, Delivered: 1, Subject: stored, Stored: d.meta.Stored}
	if diff := cmp.Diff(want, d.meta); diff != "" {
		t.Error(diff)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestEveryTypeRoundTrips(t *testing.T) {
	for _, d := range events.Types() {
		token, source := "x-1", ""
		if d.Subject("") == d.Pattern {
			token = ""
		}
		switch {
		case d.Sender == "agent":
			token = agent
			source = events.AgentSource(agent)
		case d.Sender == "the broker" || d.Sender == events.EveryService:
			token, source = "scheduling", events.ServiceSource("scheduling")
		default:
			source = events.ServiceSource(d.Sender)
		}
		if _, ok := d.Example.(interface{ Validate() error }); ok {
			token = agent
		}
		t.Run(d.Name, func(t *testing.T) { roundTrip(t, d, token, source) })
	}
}

// roundTrip sends an example through the message and back, with the types that only the catalogue knows.
func roundTrip(t *testing.T, d events.Declaration, token, source string) {
	kind := events.Type[any]{Declaration: d}
	e := events.Event[any]{ID: events.DeriveID("test", d.Name), Source: source, Subject: token, Time: time.Date(2026, 12, 1, 8, 0, 0, 123456789, time.UTC), Trace: trace, Data: d.Example}
	m, err := bus.Message(kind, e)
	if err != nil {
		t.Fatal(err)
	}
	if m.Subject != d.Subject(token) {
		t.Errorf("subject %s, want %s", m.Subject, d.Subject(token))
	}
	if got := m.Header.Get("ce-dataschema"); got != d.SchemaID() {
		t.Errorf("dataschema %s, want %s", got, d.SchemaID())
	}
	if got := m.Header.Get(jetstream.MsgIDHeader); got != e.ID {
		t.Errorf("message id %s, want %s", got, e.ID)
	}
	raw, err := bus.Decode(m)
	if err != nil {
		t.Fatal(err)
	}
	data := reflect.New(d.Data)
	if err := json.Unmarshal(raw.Data(), data.Interface()); err != nil {
		t.Fatal(err)
	}
	back := events.Event[any]{ID: raw.ID(), Source: raw.Source(), Subject: raw.Subject(), Time: raw.Time(), Trace: raw.Extensions()["traceparent"].(string), Data: data.Elem().Interface()}
	if diff := cmp.Diff(e, back); diff != "" {
		t.Errorf("sent -, read +:\n%s", diff)
	}
	if raw.Type() != d.Name || raw.DataContentType() != "application/json" {
		t.Errorf("type %s, content %s", raw.Type(), raw.DataContentType())
	}
}

func TestMetricsOfOneProcessAreSharedAndWellNamed(t *testing.T) {
	srv := eventstest.Broker(t)
	reg := prometheus.NewPedanticRegistry()
	for range 2 {
		b, err := bus.New(bus.Options{Conn: eventstest.Connect(t, srv), Source: events.ServiceSource("scheduling"), Registerer: reg})
		if err != nil {
			t.Fatal(err)
		}
		eventstest.Provision(t, b)
		publish(t, b, events.CollectionChanged, collection("a"))
	}
	if got := counter(t, reg, "chandler_bus_published_total", "result", "stored"); got != 1 {
		t.Errorf("%g stored, want 1", got)
	}
	if got := counter(t, reg, "chandler_bus_published_total", "result", "duplicate"); got != 1 {
		t.Errorf("%g duplicates, want 1", got)
	}
	problems, err := testutil.GatherAndLint(reg)
	if err != nil || len(problems) > 0 {
		t.Errorf("metrics: %v %v", problems, err)
	}
}

func TestABusIsRefusedWhatItCannotWorkWith(t *testing.T) {
	conn := eventstest.Connect(t, eventstest.Broker(t))
	tests := map[string]bus.Options{
		"no connection":          {Source: events.ServiceSource("x")},
		"a source without form":  {Conn: conn, Source: "execution"},
		"a service named *":      {Conn: conn, Source: "/services/*"},
		"an agent named *":       {Conn: conn, Source: "/agents/*"},
		"a window below nothing": {Conn: conn, PublishWindow: -1},
	}
	for name, o := range tests {
		if _, err := bus.New(o); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	if _, err := bus.New(bus.Options{Conn: conn}); err != nil {
		t.Errorf("a bus that only reads: %v", err)
	}
}

func TestWhatCannotTravelIsNotPublished(t *testing.T) {
	b := eventstest.Bus(t, eventstest.Broker(t), events.ServiceSource("scheduling"))
	good := collection("a")
	tests := map[string]func(*events.Event[events.Collection]){
		"no id":             func(e *events.Event[events.Collection]) { e.ID = "" },
		"no subject":        func(e *events.Event[events.Collection]) { e.Subject = "" },
		"a wildcard":        func(e *events.Event[events.Collection]) { e.Subject = "*" },
		"two tokens":        func(e *events.Event[events.Collection]) { e.Subject = "a.b" },
		"another's source":  func(e *events.Event[events.Collection]) { e.Source = events.ServiceSource("execution") },
		"an agent's source": func(e *events.Event[events.Collection]) { e.Source = events.AgentSource(agent) },
	}
	for name, change := range tests {
		e := good
		change(&e)
		if _, err := bus.Publish(t.Context(), b, events.CollectionChanged, e); err == nil {
			t.Errorf("%s is published", name)
		}
	}
	beacon := events.Event[events.BeaconNote]{ID: "x", Source: events.ServiceSource("execution"), Subject: "x", Data: events.BeaconNote{}}
	if err := bus.Send(t.Context(), b, events.Beacon, beacon); err == nil {
		t.Error("a beacon about somebody is sent")
	}
	if beacon.Subject = ""; bus.Send(t.Context(), b, events.Beacon, beacon) != nil {
		t.Error("a beacon is not sent")
	}
	good.Source = "" // the bus's own
	publish(t, b, events.CollectionChanged, good)
	eventstest.ExpectExactly(t, b, events.CollectionChanged, nil, 1)
}
