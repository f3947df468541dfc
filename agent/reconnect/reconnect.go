// Package reconnect is how an agent comes back to its broker, so that a fleet that lost it does not come back at once: for
// the agent itself, and for the light agents that measure what a broker stands.
//
// Under failure: attempts go on for ever, each after a pause drawn from all of a range that doubles.
package reconnect

import (
	"math/rand/v2"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	// Most is the longest pause between two attempts, where nobody says another.
	Most = 90 * time.Second
	// AttemptTime bounds one attempt. It is longer than the broker itself allows (10 s): who gives up earlier has made it
	// work in vain, and comes again, just when thousands want to be let in.
	AttemptTime = 12 * time.Second

	// least is the range of the first pause. A broker lets some hundreds in each second that it has a core for.
	least = 4 * time.Second
)

// Pause before an attempt, which are counted from 1.
func Pause(attempt int, most time.Duration) time.Duration {
	return rand.N(min(most, least<<min(max(attempt-1, 0), 10)) + 1)
}

// Options are what all this asks of the client.
func Options(most time.Duration) []nats.Option {
	return []nats.Option{
		nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.IgnoreAuthErrorAbort(), nats.Timeout(AttemptTime),
		nats.CustomReconnectDelay(func(attempt int) time.Duration { return Pause(attempt, most) }),
		nats.ReconnectBufSize(-1), // what cannot be sent stays in the journal, not in the client
	}
}
