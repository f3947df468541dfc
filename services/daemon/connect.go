package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"chandler/events"
)

// ConnectOptions says how to reach the broker.
type ConnectOptions struct {
	URLs   []string // tried in random order; none: the default of nats.go, on this machine
	Name   string   // shown by the broker, and the label of the metrics
	Caller string   // who this is: the last token of its requests, and its own inbox prefix
	// CredentialsFile holds a user JWT and its seed; it is read again at every connect. CAFile verifies the
	// broker's certificate instead of the system's authorities. Both may be empty.
	CredentialsFile, CAFile string
	// InProcess is a broker in this process, used instead of URLs.
	InProcess nats.InProcessConnProvider
	// MaxReconnectWait bounds the pause between tries; 0: 10 s. Large fleets take 60–120 s for agents.
	MaxReconnectWait time.Duration
	Log              *slog.Logger
	Registerer       prometheus.Registerer
}

// firstReconnectWait is the bound of the first pause; it doubles with each try.
const firstReconnectWait = 250 * time.Millisecond

// Connect opens a connection that is kept up for ever: a broker that is away, also at the start, is no
// error. While it is away nothing is buffered: publishing fails at once and the caller tries again, so that
// nothing old is sent by surprise. Errors are mistakes of configuration. The caller closes the connection.
func Connect(o ConnectOptions) (*nats.Conn, error) {
	if err := events.ValidToken(o.Caller); err != nil {
		return nil, fmt.Errorf("connect to broker: caller: %w", err)
	}
	m, err := newMetrics(o.Registerer, o.Name)
	if err != nil {
		return nil, fmt.Errorf("connect to broker: %w", err)
	}
	options, err := o.natsOptions(m)
	if err != nil {
		return nil, fmt.Errorf("connect to broker: %w", err)
	}
	nc, err := options.Connect()
	if err != nil {
		return nil, fmt.Errorf("connect to broker: %w", err)
	}
	if nc.IsConnected() {
		m.connected.Set(1)
	}
	return nc, nil
}

func (o ConnectOptions) natsOptions(m *metrics) (nats.Options, error) {
	log := o.Log.With("component", "daemon", "connection", o.Name)
	maxWait := o.MaxReconnectWait
	if maxWait == 0 {
		maxWait = 10 * time.Second
	}
	options := nats.GetDefaultOptions()
	options.Servers = o.URLs
	for _, set := range []nats.Option{
		nats.Name(o.Name), nats.CustomInboxPrefix("_INBOX." + o.Caller),
		nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.ReconnectBufSize(-1), nats.IgnoreAuthErrorAbort(),
		nats.Timeout(5 * time.Second), nats.PingInterval(20 * time.Second), nats.MaxPingsOutstanding(2),
		nats.CustomReconnectDelay(func(attempts int) time.Duration { return reconnectWait(attempts, maxWait) }),
		nats.ConnectHandler(func(nc *nats.Conn) { m.up(); log.Info("connected", "url", nc.ConnectedUrlRedacted()) }),
		nats.ReconnectHandler(func(nc *nats.Conn) { m.up(); log.Info("connected again", "url", nc.ConnectedUrlRedacted()) }),
		nats.DisconnectErrHandler(func(nc *nats.Conn, err error) {
			if !nc.IsClosed() { // by us
				log.Warn("disconnected from the broker, trying again", "error", err)
			}
			m.connected.Set(0)
		}),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { log.Warn("the broker cannot be reached, trying again", "error", err) }),
		nats.ErrorHandler(func(_ *nats.Conn, s *nats.Subscription, err error) {
			m.errors.Inc()
			subject := ""
			if s != nil {
				subject = s.Subject
			}
			log.Error("the broker reports an error", "subject", subject, "error", err)
		}),
	} {
		if err := set(&options); err != nil {
			return options, err
		}
	}
	return options, o.files(&options)
}

// files sets what is read from files; files that cannot be read are told now, not at the first connect.
func (o ConnectOptions) files(options *nats.Options) error {
	var sets []nats.Option
	if o.CredentialsFile != "" {
		if _, err := os.Stat(o.CredentialsFile); err != nil {
			return fmt.Errorf("credentials: %w", err)
		}
		sets = append(sets, nats.UserCredentials(o.CredentialsFile))
	}
	if o.CAFile != "" {
		sets = append(sets, nats.RootCAs(o.CAFile))
	}
	if o.InProcess != nil {
		sets = append(sets, nats.InProcessServer(o.InProcess))
	}
	for _, set := range sets {
		if err := set(options); err != nil {
			return err
		}
	}
	return nil
}

// reconnectWait is full jitter: anything up to a bound that doubles with each attempt, so that a fleet does
// not come back all at once.
func reconnectWait(attempts int, maxWait time.Duration) time.Duration {
	bound := firstReconnectWait << min(max(attempts, 1)-1, 16)
	return rand.N(min(bound, maxWait)) + time.Millisecond
}

// Connected is a health check of a connection.
func Connected(nc *nats.Conn) Check {
	return func(context.Context) error {
		if !nc.IsConnected() {
			return errors.New("not connected to the broker: " + nc.Status().String())
		}
		return nil
	}
}
