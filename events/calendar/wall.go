package calendar

import (
	"math"
	"time"
)

// wall is what a clock shows, date and time, as the seconds since it showed 1970-01-01T00:00:00. It has no zone.
type wall int64

const (
	dayLength = 24 * 60 * 60
	// reach is more than any zone's offset, and a day more: a wall time's instants lie within it.
	reach = 40 * 60 * 60
)

func wallOf(year int, month time.Month, day, hour, minute, second int) wall {
	return wall(time.Date(year, month, day, hour, minute, second, 0, time.UTC).Unix())
}

// date is the wall's date in days since 1970-01-01.
func (w wall) date() int { return int(floor(int64(w), dayLength)) }

// text in the layout of package time.
func (w wall) text(layout string) string { return time.Unix(int64(w), 0).UTC().Format(layout) }

// in is the first instant at which clocks of loc show w or a later time. It never decreases with w. ok is false where
// loc skips the whole date of w.
func (w wall) in(loc *time.Location) (t time.Time, ok bool) {
	before := 0
	for from := int64(w) - reach; ; {
		offset, end := segment(from, loc)
		sec := max(from, int64(w)-int64(offset))
		if sec >= end {
			from, before = end, offset
			continue
		}
		skipped := sec+int64(offset) != int64(w)
		midnight := int64(w.date()) * dayLength
		ok = !skipped || midnight < from+int64(before) || from+int64(offset) < midnight+dayLength
		return time.Unix(sec, 0).In(loc), ok
	}
}

// shown is the latest wall time that clocks of loc have shown up to t. A wall time's instant is after t exactly if
// the wall time is after shown.
func shown(t time.Time, loc *time.Location) wall {
	sec, latest := t.Unix(), int64(math.MinInt64)
	for from := sec - reach; ; {
		offset, end := segment(from, loc)
		if sec < end {
			return wall(max(latest, sec+int64(offset)))
		}
		latest = max(latest, end-1+int64(offset))
		from = end
	}
}

// segment gives the offset of loc at an instant, in seconds, and until when it certainly holds, which is later.
//
// In years beyond a zone's table package time takes all years for 365 days long: on 31 December of a leap year it
// gives that day's start as the bound. No zone has a rule for that day, so the offset holds until its end.
func segment(sec int64, loc *time.Location) (offset int, end int64) {
	t := time.Unix(sec, 0).In(loc)
	_, offset = t.Zone()
	_, bound := t.ZoneBounds()
	if bound.IsZero() {
		return offset, math.MaxInt64
	}
	if end = bound.Unix(); end <= sec {
		end = (floor(sec, dayLength) + 1) * dayLength
	}
	return offset, end
}

// civil is the date of a day counted from 1970-01-01.
func civil(day int) (int, time.Month, int) { return time.Unix(int64(day)*dayLength, 0).UTC().Date() }

// dayOf is the inverse of civil; day 0 is the last of the month before.
func dayOf(year int, month time.Month, day int) int { return wallOf(year, month, day, 0, 0, 0).date() }

func daysIn(year int, month time.Month) int { return dayOf(year, month+1, 1) - dayOf(year, month, 1) }

// weekday of a day counted from 1970-01-01, which was a Thursday.
func weekday(day int) time.Weekday { return time.Weekday(modulo(day+4, 7)) }

func floor(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

func modulo(a, b int) int { return ((a % b) + b) % b }
