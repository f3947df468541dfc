package agent

import (
	"math/rand/v2"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

func joinServers(servers []string) string { return strings.Join(servers, ",") }

func connectOptions(a *Agent) ([]nats.Option, error) {
	options := []nats.Option{
		nats.Name("chandler-agent " + a.id), nats.CustomInboxPrefix("_INBOX." + a.id),
		nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.IgnoreAuthErrorAbort(),
		// Full jitter over a growing range: a fleet that lost its broker does not come back at once.
		nats.CustomReconnectDelay(func(attempts int) time.Duration {
			return rand.N(min(a.ReconnectMax, 250*time.Millisecond<<min(attempts, 12)) + 1)
		}),
		nats.ReconnectBufSize(-1), // what cannot be sent stays in the journal, not in the client
		nats.ConnectHandler(a.connected), nats.ReconnectHandler(a.connected),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			a.changed.Store(true)
			if err != nil { // nil: we hung up
				a.log.Warn("broker away, trying again", "error", err)
			}
		}),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { a.log.Warn("broker refused", "error", err) }),
	}
	if a.Enrolment == nil {
		return options, nil
	}
	identity, err := a.Enrolment.NATSOptions()
	return append(options, identity...), err
}

// connected is called by the client's goroutine, possibly before all parts are made; then there is nothing
// to tell, because they look at their start.
func (a *Agent) connected(conn *nats.Conn) {
	a.changed.Store(true)
	a.log.Info("broker connected", "url", conn.ConnectedUrlRedacted())
	select {
	case <-a.made:
		a.inbox.Reconnected()
		a.reporter.Wake()
		select {
		case a.beat <- struct{}{}:
		default:
		}
	default:
	}
}
