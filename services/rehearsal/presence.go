package rehearsal

import (
	"encoding/hex"
	"fmt"
	"math/bits"
	"time"

	"chandler/events/rollout"
)

// hours of a week.
const hoursOfWeek = 7 * 24

// Presence has a bit for each hour of the week, from Monday 00:00 UTC, in which a machine is there; none: nothing is known.
type Presence [hoursOfWeek / 8]byte

// ParsePresence reads [events.AgentView.Presence]: 42 hexadecimal digits, the first hour highest, or nothing.
func ParsePresence(s string) (p Presence, err error) {
	if s == "" {
		return p, nil
	}
	if hex.DecodedLen(len(s)) != len(p) {
		return p, fmt.Errorf("presence of %d digits: it has %d", len(s), 2*len(p))
	}
	if _, err := hex.Decode(p[:], []byte(s)); err != nil {
		return Presence{}, fmt.Errorf("presence: %w", err)
	}
	return p, nil
}

func (p Presence) known() bool { return p != Presence{} }

func (p Presence) in(hour int) bool { return p[hour/8]&(0x80>>(hour%8)) != 0 }

// Heard are the hours of the week in which any of the machines was heard. In the others nobody listened yet, rather than
// that everybody was away.
func Heard(fleet []Machine) (p Presence) {
	for _, m := range fleet {
		for i, hours := range m.Presence {
			p[i] |= hours
		}
	}
	return p
}

// hours is how many of the week there are in it.
func (p Presence) hours() (n int) {
	for _, hours := range p {
		n += bits.OnesCount8(hours)
	}
	return n
}

// among is the presence of a machine, with the hours that nothing is known of.
func (p Presence) among(heard Presence) Presence {
	if p.known() && heard.known() {
		for i := range p {
			p[i] |= ^heard[i]
		}
	}
	return p
}

// hourOf is the hour of the week of an instant.
func hourOf(t time.Time) int {
	t = t.UTC()
	return (int(t.Weekday())+6)%7*24 + t.Hour()
}

// away says that a machine is put away: it was not heard of for so long that no phase before the last draws it.
func (m Machine) away(recorded time.Time) bool { return m.LastSeen.Before(recorded.Add(-rollout.Seen)) }

// there is the first instant from now on at which the machine is there; zero: never. One that was heard of late and of
// which no hours are known is always there.
func (m Machine) there(recorded, now time.Time) time.Time {
	if m.away(recorded) {
		return time.Time{}
	}
	if !m.Presence.known() || m.Presence.in(hourOf(now)) {
		return now
	}
	at := now.UTC().Truncate(time.Hour)
	for range hoursOfWeek {
		if at = at.Add(time.Hour); m.Presence.in(hourOf(at)) {
			return at
		}
	}
	return time.Time{}
}
