package calendar

import (
	"fmt"
	"regexp"
	"time"
)

// Moment is a point in time as people write it. With an offset, "2026-12-01T08:00:00Z" or "2026-12-01T08:00:00+01:00"
// (RFC 3339), it is an instant. Without one, "2026-12-01T08:00:00" or "2026-12-01T08:00", it floats: it is a wall-clock
// time of a zone that is named elsewhere. Instants keep fractions of a second, but not the offset that they were written
// with: equal instants are ==. The zero Moment is none.
type Moment struct {
	sec      int64 // since 1970-01-01T00:00:00, in UTC or as a wall time
	nsec     int32
	set      bool
	floating bool
}

const (
	secondsLayout = "2006-01-02T15:04:05"
	minutesLayout = "2006-01-02T15:04"
	latestSecond  = 253402300799 // 9999-12-31T23:59:59
)

// rfc3339 is stricter than package time, which also reads a comma and offsets of a day.
var rfc3339 = regexp.MustCompile(`^[0-9-]{10}T[0-9:]{8}(\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$`)

// ParseMoment reads an instant or a floating moment of the years 1970 to 9999. The zero Moment has no spelling.
func ParseMoment(s string) (Moment, error) {
	for _, layout := range []string{secondsLayout, minutesLayout} {
		// Package time reads more than it writes, so what counts is that it writes the same.
		if t, err := time.Parse(layout, s); err == nil && t.Format(layout) == s {
			return inRange(s, Moment{sec: t.Unix(), set: true, floating: true})
		}
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil || !rfc3339.MatchString(s) {
		return Moment{}, fmt.Errorf("moment %.50q: write it as 2026-12-01T08:00, or 2026-12-01T08:00:00 with Z or +01:00 behind it", s)
	}
	return inRange(s, Moment{sec: t.Unix(), nsec: int32(t.Nanosecond()), set: true})
}

func inRange(s string, m Moment) (Moment, error) {
	if m.sec < 0 || m.sec > latestSecond {
		return Moment{}, fmt.Errorf("moment %s: not of the years 1970 to 9999", s)
	}
	return m, nil
}

// At is the moment of an instant of the years 1970 to 9999; none of the zero time.
func At(t time.Time) Moment {
	if t.IsZero() {
		return Moment{}
	}
	return Moment{sec: t.Unix(), nsec: int32(t.Nanosecond()), set: true}
}

// IsZero says that m is none.
func (m Moment) IsZero() bool { return !m.set }

// Floating says that m is a wall-clock time, which needs a zone to be an instant.
func (m Moment) Floating() bool { return m.floating }

// String is the one spelling of m: instants in UTC, floating ones with seconds only where there are any; "" of none.
// ParseMoment gives m again.
func (m Moment) String() string {
	switch {
	case !m.set:
		return ""
	case !m.floating:
		return time.Unix(m.sec, int64(m.nsec)).UTC().Format(time.RFC3339Nano)
	case m.sec%60 == 0:
		return wall(m.sec).text(minutesLayout)
	}
	return wall(m.sec).text(secondsLayout)
}

// MarshalText writes String.
func (m Moment) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText reads as ParseMoment, and none from empty text.
func (m *Moment) UnmarshalText(text []byte) (err error) {
	if len(text) == 0 {
		*m = Moment{}
		return nil
	}
	*m, err = ParseMoment(string(text))
	return err
}

// In is the instant of m, told in loc (nil: UTC). A floating moment's is the first at which clocks of loc show it;
// where clocks skip it, the one at which they do. None has the zero time.
func (m Moment) In(loc *time.Location) time.Time {
	loc = orUTC(loc)
	switch {
	case !m.set:
		return time.Time{}
	case m.floating:
		t, _ := wall(m.sec).in(loc)
		return t
	}
	return time.Unix(m.sec, int64(m.nsec)).In(loc)
}

// Earliest is when m comes first, in any of the zones of the world: an instant is always itself, a floating moment
// comes first to UTC+14.
func (m Moment) Earliest() time.Time { return m.shifted(-14 * time.Hour) }

// Latest is when m has come to every zone of the world: an instant is always itself, a floating moment comes last to
// UTC-12.
func (m Moment) Latest() time.Time { return m.shifted(12 * time.Hour) }

func (m Moment) shifted(by time.Duration) time.Time {
	t := m.In(time.UTC)
	if m.floating {
		t = t.Add(by)
	}
	return t
}

// Equal says whether two moments are the same: instants at the same time, or floating ones that show the same wall clock.
func (m Moment) Equal(other Moment) bool { return m == other }
