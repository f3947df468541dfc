package agent

import (
	"strings"

	"github.com/nats-io/nats.go"

	"chandler/agent/reconnect"
)

func joinServers(servers []string) string { return strings.Join(servers, ",") }

func connectOptions(a *Agent) ([]nats.Option, error) {
	options := []nats.Option{
		nats.Name("chandler-agent " + a.id), nats.CustomInboxPrefix("_INBOX." + a.id),
		nats.ConnectHandler(a.connected), nats.ReconnectHandler(a.connected),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			a.changed.Store(true)
			if err != nil { // nil: we hung up
				a.log.Warn("broker away, trying again", "error", err)
			}
		}),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { a.log.Warn("broker refused", "error", err) }),
	}
	options = append(options, reconnect.Options(a.ReconnectMax)...)
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
