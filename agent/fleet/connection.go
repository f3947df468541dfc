package fleet

import (
	"errors"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"chandler/agent/reconnect"
)

// dialTime bounds the first part of an attempt to reach one broker.
const dialTime = 5 * time.Second

// connectOptions are those of the real agent.
func (l *life) connectOptions() []nats.Option {
	f := l.f
	options := []nats.Option{
		nats.Name("chandler-agent " + l.m.ID), nats.CustomInboxPrefix("_INBOX." + l.m.ID),
		nats.SetCustomDialer(&l.line),
		nats.ConnectHandler(func(*nats.Conn) { l.connected() }),
		nats.ReconnectHandler(func(*nats.Conn) {
			f.counts.reconnects.Add(1)
			l.connected()
		}),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil { // nil: we hung up
				f.log.Debug("broker away, trying again", "agent", l.m.ID, "error", err)
			}
		}),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			f.log.Debug("broker refused", "agent", l.m.ID, "error", err)
		}),
	}
	options = append(options, reconnect.Options(f.ReconnectMax)...)
	if f.TLS != nil {
		options = append(options, nats.Secure(f.TLS))
	}
	if l.m.JWT != "" {
		options = append(options, nats.UserJWT(func() (string, error) { return l.m.JWT, nil }, l.m.sign))
	}
	return options
}

func joinServers(servers []string) string { return strings.Join(servers, ",") }

// sign proves the member's key to the broker.
func (m *member) sign(nonce []byte) ([]byte, error) {
	pair, err := nkeys.FromSeed(m.Seed)
	if err != nil {
		return nil, err
	}
	defer pair.Wipe()
	return pair.Sign(nonce)
}

var errKilled = errors.New("the agent was killed")

// line makes the connections of one life and remembers the last, so that it can be cut.
type line struct {
	counts *counts

	mu   sync.Mutex
	conn net.Conn
	dead bool
}

// Dial makes a connection, for nats.go.
func (l *line) Dial(network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{Timeout: dialTime}).Dial(network, address)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dead {
		conn.Close()
		return nil, errKilled
	}
	l.conn = &countedConn{conn, l.counts}
	return l.conn, nil
}

// cut breaks the connection without a word; for good, where the agent is dead.
func (l *line) cut(dead bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dead = l.dead || dead
	if l.conn != nil {
		l.conn.Close()
		l.conn = nil
	}
}

// countedConn counts what passes.
type countedConn struct {
	net.Conn
	counts *counts
}

func (c *countedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.counts.bytesIn.Add(int64(n))
	return n, err
}

func (c *countedConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.counts.bytesOut.Add(int64(n))
	return n, err
}
