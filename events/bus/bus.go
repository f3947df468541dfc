package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"chandler/events"
)

const (
	// ackTimeout bounds the wait for the store's answer to an asynchronous publication. Without it a
	// publisher waits for ever for a leader that died.
	ackTimeout = 10 * time.Second
	// apiTimeout bounds one request to JetStream's API.
	apiTimeout = 10 * time.Second
	// defaultWindow is the number of publications under way in one pipeline.
	defaultWindow = 512
)

// Options of a bus.
type Options struct {
	Conn *nats.Conn
	// Source is who publishes: events.ServiceSource(name) or events.AgentSource(id). Publish fills it in
	// where an event names no source. Empty for programs that only read.
	Source string
	// Key is the public key of the connection's user, for requests of people; empty: events.NoKey, for a broker
	// that asks for none.
	Key string
	// Domain is the JetStream domain of the hub, for connections that pass a leaf node; empty: none.
	Domain     string
	Registerer prometheus.Registerer // nil: metrics are kept but not registered
	Log        *slog.Logger          // nil: slog.Default()
	// PublishWindow is the number of asynchronous publications under way per pipeline; 0: 512.
	PublishWindow int
	// CheckPublished validates every event against its schema before it is sent. Tests switch it on.
	CheckPublished bool
	// Durable makes what the broker has stored until now outlive a power cut. [Bus.Serve] calls it before it answers what
	// people changed, or a machine that enrols: they rely on the answer, and nobody tells it again. nil: the broker syncs
	// by itself before it acknowledges, or what was changed last may be lost with it.
	Durable func(context.Context) error
}

// Bus publishes and handles events over one connection. It is safe for concurrent use. It owns no
// goroutines of its own: they belong to the calls that block (Handle, Serve, …).
type Bus struct {
	conn    *nats.Conn
	js      jetstream.JetStream
	api     string // prefix of JetStream's API, with the domain
	source  string
	key     string
	window  int
	strict  bool
	durable func(context.Context) error
	log     *slog.Logger
	metrics *metrics

	mu       sync.Mutex
	topology *Topology  // as last provisioned by this bus; nil: not by this bus
	idle     []*answers // for pipelines to come
}

// New makes a bus on a connection. It starts nothing and asks the broker nothing.
func New(o Options) (*Bus, error) {
	if o.Conn == nil {
		return nil, errors.New("bus needs a connection")
	}
	if name, ok := strings.CutPrefix(o.Source, "/services/"); o.Source != "" && events.SourceAgent(o.Source) == "" && (!ok || events.ValidToken(name) != nil) {
		return nil, fmt.Errorf("source %q is neither /services/<name> nor /agents/<id>", o.Source)
	}
	if o.Key == "" {
		o.Key = events.NoKey
	}
	if err := events.ValidKey(o.Key); err != nil {
		return nil, fmt.Errorf("bus: %w", err)
	}
	if o.PublishWindow == 0 {
		o.PublishWindow = defaultWindow
	}
	if o.PublishWindow < 0 {
		return nil, fmt.Errorf("publish window %d is negative", o.PublishWindow)
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if _, err := known(); err != nil {
		return nil, err
	}
	// The pipelines keep their own windows; the client's bound only has to be wider than a few of them.
	opts := []jetstream.JetStreamOpt{
		jetstream.WithPublishAsyncTimeout(ackTimeout), jetstream.WithPublishAsyncMaxPending(16 * o.PublishWindow), jetstream.WithDefaultTimeout(apiTimeout),
	}
	var js jetstream.JetStream
	var err error
	api := jetstream.DefaultAPIPrefix
	if o.Domain != "" {
		api = "$JS." + o.Domain + ".API."
		js, err = jetstream.NewWithDomain(o.Conn, o.Domain, opts...)
	} else {
		js, err = jetstream.New(o.Conn, opts...)
	}
	if err != nil {
		return nil, fmt.Errorf("open jetstream: %w", err)
	}
	m, err := newMetrics(o.Registerer)
	if err != nil {
		return nil, err
	}
	return &Bus{conn: o.Conn, js: js, api: api, source: o.Source, key: o.Key, window: o.PublishWindow, strict: o.CheckPublished, durable: o.Durable,
		log: o.Log.With("component", "bus"), metrics: m}, nil
}

// JetStream is the bus's own context, for buckets and for what the bus has no word for.
func (b *Bus) JetStream() jetstream.JetStream { return b.js }

// Conn is the connection the bus was made with.
func (b *Bus) Conn() *nats.Conn { return b.conn }

// Source is who this bus publishes as.
func (b *Bus) Source() string { return b.source }

// asking bounds one request to JetStream's API: by time, and by the connection, since nobody answers what
// was asked on one that is lost. A broker that shuts down ends pull requests before it hangs up, so that
// the first request afterwards often goes into the closing connection.
func (b *Bus) asking(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	lost := b.conn.StatusChanged(nats.DISCONNECTED, nats.RECONNECTING, nats.CLOSED)
	go func() {
		defer b.conn.RemoveStatusListener(lost)
		select {
		case <-ctx.Done():
		case <-lost:
			cancel()
		}
	}()
	return ctx, cancel
}
