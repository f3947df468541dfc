package scheduling

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/eventstest"
	"chandler/events/order"
	"chandler/events/sign"
)

// story is a broker with scheduling and everybody who talks to it.
type story struct {
	t      testing.TB
	broker *eventstest.Server
	conn   *nats.Conn
	admin  *bus.Bus
	key    sign.Key
	clock  *clock
}

// clock is the wall clock, moved by hand.
type clock struct {
	mu    sync.Mutex
	ahead time.Duration
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.ahead)
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead += d
}

func newStory(t testing.TB) *story {
	t.Helper()
	s := &story{t: t, broker: eventstest.Broker(t), clock: &clock{}}
	s.conn = eventstest.Connect(t, s.broker)
	s.admin = s.bus("")
	eventstest.Provision(t, s.admin)
	key, err := sign.NewKey([]byte("0123456789abcdef0123456789abcdef"))
	if err != nil {
		t.Fatal(err)
	}
	s.key = key
	return s
}

func (s *story) bus(source string) *bus.Bus {
	s.t.Helper()
	b, err := bus.New(bus.Options{Conn: s.conn, Source: source, CheckPublished: true, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		s.t.Fatal(err)
	}
	return b
}

// replica makes a replica that does not run yet.
func (s *story) replica(change ...func(*Options)) *Service {
	s.t.Helper()
	b, err := bus.New(bus.Options{Conn: eventstest.Connect(s.t, s.broker), Source: events.ServiceSource(serviceName), CheckPublished: true, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		s.t.Fatal(err)
	}
	o := Options{Bus: b, Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(), Now: s.clock.now, Tick: time.Hour, PackagePatience: 50 * time.Millisecond}
	for _, c := range change {
		c(&o)
	}
	r, err := New(o)
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

// run runs a replica until the returned function is called, or the test ends.
func (s *story) run(r *Service) (stop func()) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			s.t.Errorf("run: %v", err)
		}
	})
	s.t.Cleanup(stop)
	return stop
}

func (s *story) running(change ...func(*Options)) *Service {
	s.t.Helper()
	r := s.replica(change...)
	s.run(r)
	s.eventually("scheduling is healthy", func() bool { return r.Healthy(s.t.Context()) == nil })
	return r
}

func (s *story) eventually(what string, ok func() bool) {
	s.t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			s.t.Fatalf("never: %s", what)
		}
	}
}

func facts(id string, change ...func(*events.Facts)) events.Facts {
	f := events.Facts{ID: id, Hostname: "host-" + id, OS: "linux", OSName: "debian", OSVersion: "12.7", Arch: "amd64", Addresses: []string{"192.0.2.1"}, Tags: []string{"office"}, ClientKind: events.Advanced, Zone: "UTC"}
	for _, c := range change {
		c(&f)
	}
	return f
}

func windows(f *events.Facts) { f.OS = "windows" }

// report lets agents report.
func (s *story) report(all ...events.Facts) {
	s.t.Helper()
	for _, f := range all {
		publish(s, events.AgentSource(f.ID), events.AgentReported, f.ID, events.AgentReport{Facts: f, At: time.Now()})
	}
}

func publish[T any](s *story, source string, kind events.Type[T], subject string, data T) {
	s.t.Helper()
	s.t.Helper()
	id := events.DeriveID("test", kind.Name, subject, fmt.Sprint(time.Now().UnixNano()))
	if _, err := bus.Publish(s.t.Context(), s.bus(source), kind, events.Event[T]{ID: id, Subject: subject, Data: data}); err != nil {
		s.t.Fatal(err)
	}
}

var manifest = events.DigestOf([]byte("manifest of hello"))

func (s *story) published() {
	s.t.Helper()
	publish(s, events.ServiceSource("content"), events.PackagePublished, "hello",
		events.PackageNotice{Package: "hello", Version: "2.10-3", Digest: manifest, Bytes: 1, Files: 1, Programs: []string{"install", "remove"}, By: "ada"})
}

// ask makes a request as an administrator, again while nobody answers.
func ask[Req, Resp any](s *story, c events.Call[Req, Resp], req Req) (Resp, error) {
	s.t.Helper()
	for {
		resp, err := bus.Request(s.t.Context(), s.admin, "ada", c, req)
		if !errors.Is(err, bus.ErrUnavailable) {
			return resp, err
		}
		select {
		case <-s.t.Context().Done():
			return resp, err
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// must is ask for requests that succeed.
func must[Req, Resp any](s *story, c events.Call[Req, Resp], req Req) Resp {
	s.t.Helper()
	resp, err := ask(s, c, req)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp
}

func linuxMachines() events.Collection {
	return events.Collection{Name: "linux", Expression: `agent.os == "linux"`}
}

// order is a valid order for the collection linux as it is.
func (s *story) order(change ...func(*order.Order)) order.Order {
	now := s.clock.now()
	o := order.Order{Fleet: "demo", Deployment: "hello", Revision: 1, Package: "hello", Version: "2.10-3", Manifest: manifest, Program: "install", Run: events.RunAdministrative,
		Collection: "linux", Expression: `agent.os == "linux"`, Assignments: []order.Assignment{{ASAP: true}}, Rerun: order.RerunIfFailed, Issued: now.Add(-time.Minute), NotAfter: now.Add(order.DefaultValidity)}
	for _, c := range change {
		c(&o)
	}
	return o
}

func (s *story) sign(o order.Order) []byte {
	s.t.Helper()
	envelope, err := order.Sign(o, s.key)
	if err != nil {
		s.t.Fatal(err)
	}
	return envelope
}

func (s *story) deploy(change ...func(*order.Order)) events.DeploymentView {
	s.t.Helper()
	return must(s, events.DeploymentCreate, events.DeploymentRequest{Envelope: s.sign(s.order(change...))})
}

// released waits until n batches were told, no more, and lists their agents.
func (s *story) released(n int, match func(events.Event[events.Release]) bool) (agents []string) {
	s.t.Helper()
	for _, e := range eventstest.ExpectExactly(s.t, s.admin, events.DeploymentReleased, match, n) {
		agents = append(agents, e.Data.Agents...)
	}
	return agents
}

// knows waits until a replica has these agents' facts in memory.
func (s *story) knows(r *Service, n int) {
	s.t.Helper()
	s.eventually(fmt.Sprintf("%d agents are known", n), func() bool { return len(r.fleet.all()) == n })
}

func names(n int) (ids []string) {
	for i := range n {
		ids = append(ids, fmt.Sprintf("agent%05d", i))
	}
	slices.Sort(ids)
	return ids
}

// offline is a replica's memory alone, without a broker.
func offline() *Service {
	return newMemory(Options{Log: slog.New(slog.DiscardHandler), Now: time.Now})
}
