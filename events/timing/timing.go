// Package timing decides everything about time: when a job may start, whether a program runs again, and
// an agent's place in a rollout. Scheduling and agents decide by the same code.
//
// It is pure: the time comes in as a parameter, nothing waits, nothing is read.
package timing

import (
	"crypto/sha256"
	"encoding/binary"
	"strconv"
	"time"

	"chandler/events"
	"chandler/events/calendar"
	"chandler/events/order"
)

// Machine is what the decisions need to know of the machine.
type Machine struct {
	ID   string         // agent id
	Zone *time.Location // its own; nil: UTC
}

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

// Decide says what to do with the occurrence of an order at now. heard is when the machine first could act on it: when
// it was told of the order, or was there again after having been away. A machine that was away at its time starts when
// it is back and its grace is over, unless the deployment has expired by then.
func Decide(o order.Order, a order.Assignment, occurrence int64, m Machine, heard, now time.Time) Decision {
	d := Standing(o, m, now)
	if d.Verdict != Start {
		return d
	}
	if at := StartOf(o, a, occurrence, m, heard); now.Before(at) {
		return Decision{Prepare, at}
	}
	return Decision{Verdict: Start}
}

// Standing says whether an order is available and has not expired: NotYet, Start or TooLate.
func Standing(o order.Order, m Machine, now time.Time) Decision {
	switch {
	case !now.Before(Ends(o, m)):
		return Decision{Verdict: TooLate}
	case o.Available != nil && now.Before(o.Available.In(o.Zone.Location(m.Zone))):
		return Decision{NotYet, o.Available.In(o.Zone.Location(m.Zone))}
	}
	return Decision{Verdict: Start}
}

// Ends is when nothing of the order starts any more on this machine.
func Ends(o order.Order, m Machine) time.Time {
	end := o.NotAfter.Add(order.ClockTolerance)
	if o.Expires != nil {
		if at := o.Expires.In(o.Zone.Location(m.Zone)); at.Before(end) {
			return at
		}
	}
	return end
}

// late is by how much a machine may miss its time and still count as having been there.
const late = 5 * time.Minute

// StartOf is the instant from which an occurrence may start: its time and the machine's part of the jitter; after the
// grace, where the machine was away at its time. An assignment that names no time starts, jitter apart, at once.
func StartOf(o order.Order, a order.Assignment, occurrence int64, m Machine, heard time.Time) time.Time {
	base, timed := TimeOf(o, a, occurrence, m)
	switch {
	case timed && heard.After(base.Add(late)) && o.Grace > 0:
		return heard.Add(time.Duration(o.Grace))
	case timed && heard.After(base.Add(late)), !timed && heard.After(base):
		base = heard
	}
	jitter := min(time.Duration(o.Jitter), max(0, Ends(o, m).Sub(base))) // nobody is to be delayed past the end
	return base.Add(time.Duration(float64(jitter) * part(o.Deployment, m.ID, occurrence)))
}

// TimeOf is the time of an occurrence by its assignment, not before the order is available. Where the assignment names no
// time, timed is false and at when the order is available; zero: at once.
func TimeOf(o order.Order, a order.Assignment, occurrence int64, m Machine) (at time.Time, timed bool) {
	loc := o.Zone.Location(m.Zone)
	switch {
	case a.At != nil:
		at, timed = a.At.In(loc), true
	case a.Cron != "":
		at, timed = instant(occurrence, loc), true
	}
	if o.Available != nil {
		if available := o.Available.In(loc); available.After(at) {
			at = available
		}
	}
	return at, timed
}

// instant is that of an occurrence's number (see [order.Assignment.Occurrence]) in a zone.
func instant(occurrence int64, loc *time.Location) time.Time {
	wall, err := calendar.ParseMoment(time.Unix(occurrence, 0).UTC().Format("2006-01-02T15:04:05"))
	if err != nil {
		return time.Unix(occurrence, 0) // a year that nobody writes
	}
	return wall.In(loc)
}

// number is the occurrence of an instant in a zone: the Unix time of its wall clock read as UTC.
func number(at time.Time, loc *time.Location) int64 {
	_, offset := at.In(loc).Zone()
	return at.Unix() + int64(offset)
}

// NumberAt is the number of an occurrence that no time names, and that begins at an instant: as those which a time names,
// it is the Unix time of the wall clock, in the order's zone, read as UTC.
func NumberAt(o order.Order, m Machine, at time.Time) int64 {
	return number(at, o.Zone.Location(m.Zone))
}

// part is this machine's share of the jitter of an occurrence, in [0, 1).
func part(deployment, agent string, occurrence int64) float64 {
	return Place(deployment+"\x00"+strconv.FormatInt(occurrence, 10), agent)
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
