package agent

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	mathrand "math/rand/v2"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"chandler/events"
)

// loadIdentity reads the agent's key, made here at the first start and never shown to anybody, and
// derives the agent's id from it.
func loadIdentity(path string) (id string, err error) {
	seed, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if seed, err = newSeed(); err != nil {
			return "", err
		}
		if err := writeKey(path, seed); err != nil {
			return "", fmt.Errorf("keep agent key: %w", err)
		}
	} else if err != nil {
		return "", fmt.Errorf("read agent key: %w", err)
	}
	pair, err := nkeys.FromSeed(seed)
	if err != nil {
		return "", fmt.Errorf("agent key %s is damaged: %w", path, err)
	}
	defer pair.Wipe()
	public, err := pair.PublicKey()
	if err != nil {
		return "", err
	}
	return events.AgentID([]byte(public)), nil
}

func newSeed() ([]byte, error) {
	pair, err := nkeys.CreatePairWithRand(nkeys.PrefixByteUser, rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make agent key: %w", err)
	}
	return pair.Seed()
}

// writeKey is atomic: a half-written key would make a second identity of one machine.
func writeKey(path string, seed []byte) error {
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(seed)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func joinServers(servers []string) string { return strings.Join(servers, ",") }

func connectOptions(a *Agent) []nats.Option {
	return []nats.Option{
		nats.Name("chandler-agent " + a.id), nats.CustomInboxPrefix("_INBOX." + a.id),
		nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.IgnoreAuthErrorAbort(),
		// Full jitter over a growing range: a fleet that lost its broker does not come back at once.
		nats.CustomReconnectDelay(func(attempts int) time.Duration {
			return mathrand.N(min(a.ReconnectMax, 250*time.Millisecond<<min(attempts, 12)) + 1)
		}),
		nats.ReconnectBufSize(-1), // what cannot be sent stays in the journal, not in the client
		nats.ConnectHandler(func(*nats.Conn) { a.connected() }),
		nats.ReconnectHandler(func(*nats.Conn) { a.connected() }),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) { a.log.Info("broker away", "error", err) }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { a.log.Warn("broker refused", "error", err) }),
	}
}

// connected is called by the client's goroutine, possibly before New is done; then there is nothing to
// tell, because both parts look at their start.
func (a *Agent) connected() {
	select {
	case <-a.made:
		a.inbox.Reconnected()
		a.reporter.Wake()
	default:
	}
}
