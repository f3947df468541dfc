package eventstest

import (
	"context"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"chandler/events/bus"
)

// Patience is the longest that anything here waits. It is long because test machines are slow: what is
// waited for comes as soon as it is there.
const Patience = 30 * time.Second

// Server is a broker with JetStream, for one test.
type Server struct {
	t       testing.TB
	options server.Options
	prepare func(*server.Options) // called before every start, if not nil

	mu      sync.Mutex
	running *server.Server
}

// Broker starts a broker on a free loopback port. change may alter its options before it starts.
func Broker(t testing.TB, change ...func(*server.Options)) *Server {
	t.Helper()
	s := newServer(t, change)
	s.Start()
	t.Cleanup(s.Stop)
	return s
}

func newServer(t testing.TB, change []func(*server.Options)) *Server {
	t.Helper()
	s := &Server{t: t, options: server.Options{
		ServerName: "test", Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), JetStreamMaxStore: 1 << 40, JetStreamMaxMemory: 1 << 30,
		NoLog: true, NoSigs: true, DisableJetStreamBanner: true,
	}}
	for _, c := range change {
		c(&s.options)
	}
	return s
}

// Start starts a stopped broker again, on the same port and files, and waits until JetStream is ready.
func (s *Server) Start() {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running != nil {
		return
	}
	options := s.options
	if s.prepare != nil {
		s.prepare(&options)
	}
	running, err := server.NewServer(&options)
	if err != nil {
		s.t.Fatalf("make broker: %v", err)
	}
	running.Start()
	if !running.ReadyForConnections(Patience) {
		s.t.Fatal("broker did not become ready")
	}
	if addr, ok := running.Addr().(*net.TCPAddr); ok && s.options.Port <= 0 {
		s.options.Port = addr.Port
	}
	s.running = running
}

// Stop ends the broker; its files stay.
func (s *Server) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running == nil {
		return
	}
	s.running.Shutdown()
	s.running.WaitForShutdown()
	s.running = nil
}

// Restart stops and starts the broker.
func (s *Server) Restart() {
	s.t.Helper()
	s.Stop()
	s.Start()
}

// URL to connect to; it stays the same over restarts.
func (s *Server) URL() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Sprintf("nats://127.0.0.1:%d", s.options.Port)
}

// StoreDir is where the broker keeps its streams.
func (s *Server) StoreDir() string { return s.options.StoreDir }

// Broker is the running server itself, nil while it is stopped.
func (s *Server) Broker() *server.Server {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running
}

// Connect opens a connection that comes back quickly after a restart, for as long as the test runs. It may
// be made while the broker is stopped.
func Connect(t testing.TB, s *Server, options ...nats.Option) *nats.Conn {
	t.Helper()
	options = append([]nats.Option{nats.MaxReconnects(-1), nats.ReconnectWait(20 * time.Millisecond), nats.ReconnectJitter(0, 0), nats.RetryOnFailedConnect(true)}, options...)
	conn, err := nats.Connect(s.URL(), options...)
	if err != nil {
		t.Fatalf("connect to the broker: %v", err)
	}
	t.Cleanup(conn.Close)
	return conn
}

// Bus opens a bus on a connection of its own. Every event that it publishes is held against its schema. If
// the broker runs, streams and buckets are provisioned.
func Bus(t testing.TB, s *Server, source string) *bus.Bus {
	t.Helper()
	b, err := bus.New(bus.Options{Conn: Connect(t, s), Source: source, CheckPublished: true})
	if err != nil {
		t.Fatalf("open bus: %v", err)
	}
	if s.Broker() != nil {
		Provision(t, b)
	}
	return b
}

// Provision makes streams and buckets, with one replica.
func Provision(t testing.TB, b *bus.Bus) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	if err := b.Provision(ctx, bus.Topology{}); err != nil {
		t.Fatalf("provision: %v", err)
	}
}
