package calendar

import (
	"math/bits"
	"time"
)

// Cron is a cron expression; the zero one never fires. Its zone is named elsewhere.
//
// A wall time that clocks skip fires when they are set, several of one gap once; one that they show twice fires the
// first time only.
type Cron struct {
	text         string
	minutes      uint64
	hours        uint64
	days         uint64 // of the month
	lastDay      bool   // of the month
	months       uint64
	weekdays     uint64 // Sunday is bit 0
	nthWeekdays  uint64 // bit 7*(n-1) + weekday
	lastWeekdays uint64
	anyDay       bool // the field begins with *, so that it only narrows the other field of days
	anyWeekday   bool
}

// horizon is how far ahead firings and openings are looked for. 29 February is missing for up to eight years.
const (
	horizonYears = 12
	horizonDays  = horizonYears*366 + 1
)

// String is the expression as written, with single spaces.
func (c Cron) String() string { return c.text }

// IsZero says that c is no expression.
func (c Cron) IsZero() bool { return c == Cron{} }

// MarshalText writes String.
func (c Cron) MarshalText() ([]byte, error) { return []byte(c.text), nil }

// UnmarshalText reads as ParseCron, and the zero Cron from empty text.
func (c *Cron) UnmarshalText(text []byte) (err error) {
	if len(text) == 0 {
		*c = Cron{}
		return nil
	}
	*c, err = ParseCron(string(text))
	return err
}

// Next is the first firing strictly after an instant, in the zone loc (nil: UTC), or zero if there is none within 12
// years.
func (c Cron) Next(after time.Time, loc *time.Location) time.Time {
	loc = orUTC(loc)
	limit := after.AddDate(horizonYears, 0, 0)
	for w := shown(after, loc); ; {
		next, ok := c.next(w)
		if !ok {
			return time.Time{}
		}
		if t, exists := next.in(loc); exists {
			if t.After(limit) {
				return time.Time{}
			}
			return t
		}
		w = next
	}
}

// Last is the newest firing after one instant, up to and including another, in the zone loc (nil: UTC).
func (c Cron) Last(after, upTo time.Time, loc *time.Location) (time.Time, bool) {
	loc = orUTC(loc)
	for w := shown(upTo, loc) + 1; ; {
		last, ok := c.last(w)
		if !ok {
			return time.Time{}, false
		}
		t, exists := last.in(loc)
		if !t.After(after) {
			return time.Time{}, false
		}
		if exists {
			return t, true
		}
		w = last
	}
}

// next is the first wall time after w that the expression names.
func (c Cron) next(w wall) (wall, bool) {
	first := w.date()
	minute := int(int64(w)-int64(first)*dayLength)/60 + 1
	for day := first; day <= first+horizonDays; day++ {
		year, month, date := civil(day)
		if c.months&(1<<month) == 0 {
			day = dayOf(year, month+1, 1) - 1
			continue
		}
		if day > first {
			minute = 0
		}
		if !c.onDay(day, year, month, date) {
			continue
		}
		if m, ok := c.minuteFrom(minute); ok {
			return wall(day)*dayLength + wall(m*60), true
		}
	}
	return 0, false
}

// last is the last wall time before w that the expression names.
func (c Cron) last(w wall) (wall, bool) {
	first := (w - 1).date()
	minute := int(int64(w-1)-int64(first)*dayLength) / 60
	for day := first; day >= first-horizonDays; day-- {
		year, month, date := civil(day)
		if c.months&(1<<month) == 0 {
			day = dayOf(year, month, 1)
			continue
		}
		if day < first {
			minute = 24*60 - 1
		}
		if !c.onDay(day, year, month, date) {
			continue
		}
		if m, ok := c.minuteUpTo(minute); ok {
			return wall(day)*dayLength + wall(m*60), true
		}
	}
	return 0, false
}

// onDay says whether the two fields of days name a day. If both are restricted, either will do.
func (c Cron) onDay(day, year int, month time.Month, date int) bool {
	of := weekday(day)
	left := daysIn(year, month) - date
	byDate := c.days&(1<<date) != 0 || c.lastDay && left == 0
	byWeekday := c.weekdays&(1<<of) != 0 ||
		c.nthWeekdays&(1<<((date-1)/7*7+int(of))) != 0 ||
		c.lastWeekdays&(1<<of) != 0 && left < 7
	if c.anyDay || c.anyWeekday {
		return byDate && byWeekday
	}
	return byDate || byWeekday
}

// minuteFrom is the first minute of a day's 1440, from one on, that the expression names.
func (c Cron) minuteFrom(minute int) (int, bool) {
	hour := minute / 60
	if c.hours&(1<<hour) != 0 {
		if rest := c.minutes >> (minute % 60) << (minute % 60); rest != 0 {
			return hour*60 + bits.TrailingZeros64(rest), true
		}
	}
	later := c.hours >> (hour + 1) << (hour + 1)
	if later == 0 || c.minutes == 0 {
		return 0, false
	}
	return bits.TrailingZeros64(later)*60 + bits.TrailingZeros64(c.minutes), true
}

// minuteUpTo is the last minute of a day's 1440, up to one, that the expression names.
func (c Cron) minuteUpTo(minute int) (int, bool) {
	hour := minute / 60
	if c.hours&(1<<hour) != 0 {
		if rest := c.minutes & (1<<(minute%60+1) - 1); rest != 0 {
			return hour*60 + bits.Len64(rest) - 1, true
		}
	}
	earlier := c.hours & (1<<hour - 1)
	if earlier == 0 || c.minutes == 0 {
		return 0, false
	}
	return (bits.Len64(earlier)-1)*60 + bits.Len64(c.minutes) - 1, true
}
