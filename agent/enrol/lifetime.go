package enrol

import (
	"time"

	"chandler/events"
)

// lifetime of an identity, by clocks that may differ: the issuer's, and this machine's, which may be wrong. An
// identity has expired only if both say so; the broker, which judges by its own clock, is heard besides.
type lifetime struct {
	issued, expires time.Time // by the issuer's clock; expires zero: never
	received        time.Time // by this machine's
}

// length is how long the identity lives, the shorter of what the clocks say; 0 if it lives for ever, or no clock
// makes sense of it, and only the broker will tell.
func (l lifetime) length() time.Duration {
	if l.expires.IsZero() {
		return 0
	}
	byIssuer, byOwn := l.expires.Sub(l.issued), l.expires.Sub(l.received)
	switch {
	case byIssuer <= 0:
		return max(0, byOwn)
	case byOwn <= 0:
		return byIssuer
	}
	return min(byIssuer, byOwn)
}

// start is when the identity came, by a clock that now is on: this machine's own, unless that was set back.
func (l lifetime) start(now time.Time) time.Time {
	if l.received.IsZero() || now.Before(l.received) {
		return l.issued
	}
	return l.received
}

// due is when the identity is to be renewed, after the given share of its life. One that never expires is
// never due.
func (l lifetime) due(now time.Time, share float64) (at time.Time, ever bool) {
	return l.start(now).Add(time.Duration(share * float64(l.length()))), l.length() > 0
}

func (l lifetime) expired(now time.Time) bool {
	return l.length() > 0 && !now.Before(l.expires) && now.Sub(l.start(now)) >= l.length()
}

// Pauses between attempts. They grow from the first to a bound and are drawn at random below that (full
// jitter), so that a fleet that lost its enrolment service does not come back at once.
const (
	pauseLeast   = 200 * time.Millisecond
	pauseFirst   = 5 * time.Second
	pausePending = 5 * time.Minute  // an administrator who approves waits no longer
	pauseMost    = 10 * time.Minute //
	pauseFinal   = time.Hour        // after a refusal that only an administrator can turn
)

// pause is how long not to ask, by the time that passes and not by a clock, which somebody may set.
type pause struct {
	until time.Time // with its monotonic reading
	tries int
	away  bool // nobody answered: it may be cut short when the broker is heard of
}

func (p *pause) over(now time.Time) bool { return !now.Before(p.until) }

func (p *pause) wait(now time.Time, d time.Duration) { p.until = now.Add(d) }

// grow waits longer than the last time, at most so long as most.
func (p *pause) grow(now time.Time, random float64, most time.Duration) {
	p.wait(now, pauseLeast+time.Duration(random*float64(min(most, pauseFirst<<min(p.tries, 20)))))
	p.tries++
}

// after sets the pause that follows an attempt's error.
func (p *pause) after(err error, now time.Time, random float64) {
	r := refusal(err)
	p.away = r == nil
	switch {
	case r == nil:
		p.grow(now, random, pauseMost)
	case r.Later > 0:
		later := min(r.Later, pauseFinal)
		p.wait(now, later+time.Duration(random*float64(later)))
	case r.Refused.Final():
		p.wait(now, pauseFinal+time.Duration(random*float64(pauseFinal/10)))
	case r.Refused == events.RefusedPending:
		p.grow(now, random, pausePending)
	default:
		p.grow(now, random, pauseMost)
	}
}
