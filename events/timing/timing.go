// Package timing decides everything about time: when a job may start, whether a program runs again, and
// an agent's place in a rollout. Scheduling and agents decide by the same code.
//
// It is pure: the time comes in as a parameter, nothing waits, nothing is read.
package timing

import (
	"crypto/sha256"
	"encoding/binary"
	"time"

	"chandler/events"
	"chandler/events/order"
)

// Verdict says what to do with a job now.
type Verdict int

// The verdicts.
const (
	NotYet  Verdict = iota // not available: do nothing before Until
	Prepare                // available, its assignment is still to come: fetch the content, start at Until
	Start                  // start
	TooLate                // the deployment has expired
)

// Decision is a verdict and, for NotYet and Prepare, until when it holds.
type Decision struct {
	Verdict Verdict
	Until   time.Time
}

// Decide says what to do with the occurrence of an order at now. A machine that was away at its deadline
// starts when it is back, unless the deployment has expired by then.
func Decide(o order.Order, a order.Assignment, now time.Time) Decision {
	switch {
	case o.Expires != nil && !now.Before(*o.Expires):
		return Decision{Verdict: TooLate}
	case now.After(o.NotAfter.Add(order.ClockTolerance)):
		return Decision{Verdict: TooLate}
	case o.Available != nil && now.Before(*o.Available):
		return Decision{NotYet, *o.Available}
	case a.At != nil && now.Before(*a.At):
		return Decision{Prepare, *a.At}
	}
	return Decision{Verdict: Start}
}

// Last is how a program ended on this machine the last time, whichever deployment ran it.
type Last int

// The last results.
const (
	NeverRan Last = iota
	LastSucceeded
	LastFailed
)

// RunsAgain is the table of rerun behaviour and last result (domain-facts §1.3). Never means never, also
// after a failure or with changed content; the others run a program that never ran.
func RunsAgain(r order.Rerun, last Last) bool {
	if last == NeverRan {
		return true
	}
	switch r {
	case order.RerunAlways:
		return true
	case order.RerunIfFailed:
		return last == LastFailed
	case order.RerunIfSucceeded:
		return last == LastSucceeded
	}
	return false
}

// LastOf turns a terminal state into a last result; states in which the program did not run say nothing.
func LastOf(s events.State) Last {
	switch s {
	case events.Succeeded:
		return LastSucceeded
	case events.Failed:
		return LastFailed
	}
	return NeverRan
}

// Place is an agent's fixed place in a deployment's rollout, in [0, 1): phases by percent cut there, so
// that agents who join do not reshuffle the others.
func Place(deployment, agent string) float64 {
	sum := sha256.Sum256([]byte(deployment + "\x00" + agent))
	return float64(binary.BigEndian.Uint64(sum[:8])>>11) / (1 << 53)
}
