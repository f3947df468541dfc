package credentials

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/eventstest"
)

// secret is planted and looked for afterwards.
const secret = "Pl4nted-s3cret-7f3a91c2-do-not-leak"

const agent = "agent001"

// story is a broker with the service and who talks to it.
type story struct {
	t      testing.TB
	broker *eventstest.Server
	admin  *bus.Bus
	log    *lines
	dir    string
	// options of every replica, beside what each needs.
	options func(*Options)
}

// lines collects what everybody logs.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func newStory(t testing.TB) *story {
	s := &story{t: t, broker: eventstest.Broker(t), log: &lines{}, dir: filepath.Join(t.TempDir(), "credentials")}
	t.Cleanup(func() {
		if t.Failed() {
			s.log.mu.Lock()
			defer s.log.mu.Unlock()
			t.Logf("logged:\n%s", s.log.buf.String())
		}
	})
	s.admin = s.bus("")
	eventstest.Provision(t, s.admin)
	return s
}

func (s *story) bus(source string) *bus.Bus {
	s.t.Helper()
	b, err := bus.New(bus.Options{Conn: eventstest.Connect(s.t, s.broker), Source: source, CheckPublished: true, Log: s.log.logger()})
	if err != nil {
		s.t.Fatal(err)
	}
	return b
}

func (s *story) replica() *Service {
	s.t.Helper()
	b := s.bus(events.ServiceSource(serviceName))
	o := Options{Bus: b, Dir: s.dir, Log: s.log.logger(), Provision: func(ctx context.Context) error { return b.Provision(ctx, bus.Topology{}) }}
	if s.options != nil {
		s.options(&o)
	}
	return s.replicaOf(o)
}

func (s *story) replicaOf(o Options) *Service {
	s.t.Helper()
	o.Registerer, o.Tick = prometheus.NewRegistry(), time.Hour
	r, err := New(o)
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

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

func (s *story) running() *Service {
	s.t.Helper()
	r := s.replica()
	s.run(r)
	s.eventually("healthy", func() bool { return r.Healthy(s.t.Context()) == nil })
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

// ask makes a request, again while nobody answers.
func ask[Req, Resp any](s *story, caller string, c events.Call[Req, Resp], req Req) (resp Resp, err error) {
	s.t.Helper()
	s.eventually("somebody answers", func() bool {
		resp, err = bus.Request(s.t.Context(), s.admin, caller, c, req)
		return !errors.Is(err, bus.ErrUnavailable)
	})
	return resp, err
}

func reader() events.AccountRequest {
	return events.AccountRequest{Account: "corp-reader", Kind: events.NetworkAccess, User: `EXAMPLE\reader`, Resources: []string{"smb://files.example/software/*"}, Secret: []byte(secret)}
}
