package calendar

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
)

// rule is a window made ready to be computed with. Days are counted from 1970-01-01.
type rule struct {
	kind     recurrence
	loc      *time.Location
	length   time.Duration
	once     wall
	every    int  // days, weeks or months
	weekdays uint // Sunday is bit 0
	nth      int  // which of the month's weekday, or lastOne
	date     int  // of the month, or lastOne
	plus     int
	at       wall // since midnight
	from     int
	until    int
}

type recurrence int

const (
	once recurrence = iota + 1
	daily
	weekly
	monthly
	nth
)

const (
	lastOne = -1
	noDay   = math.MaxInt32 // after all dates
)

// rule reads all of a window but whether it ever opens.
func (w Window) rule(own *time.Location) (*rule, error) {
	r := &rule{loc: orUTC(own), length: time.Duration(w.For), every: 1, plus: w.Plus, until: noDay}
	if w.Zone != ZoneAgent {
		loc, err := w.Zone.load()
		if err != nil {
			return nil, w.Zone.Validate() // which says what was meant
		}
		r.loc = loc
	}
	if r.length < shortestWindow || r.length >= windowLimit {
		return nil, fmt.Errorf("for %s: it must last from 5m to less than 24h", w.For)
	}
	if err := w.readKind(r); err != nil {
		return nil, err
	}
	if r.kind == once {
		return r, w.readOnce(r)
	}
	for _, read := range []func(*rule) error{w.readDay, w.readAt, w.readEvery, w.readDates} {
		if err := read(r); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func (w Window) readKind(r *rule) error {
	kinds := 0
	for kind, given := range []bool{once: !w.Once.IsZero(), daily: w.Daily != 0, weekly: len(w.Weekly) > 0, monthly: w.Monthly != "", nth: w.Nth != ""} {
		if given {
			r.kind = recurrence(kind)
			kinds++
		}
	}
	if kinds != 1 {
		return errors.New("write exactly one of once, daily, weekly, monthly and nth")
	}
	if w.Plus != 0 && r.kind != nth {
		return errors.New("plus goes with nth alone")
	}
	return nil
}

func (w Window) readOnce(r *rule) error {
	if w.At != "" || w.Every != 0 || w.From != "" || w.Until != "" {
		return errors.New("once goes with for and zone alone: at, every, from and until are for windows that recur")
	}
	if !w.Once.Floating() {
		if w.Zone != "" {
			return fmt.Errorf("once %s is an instant: leave out the zone, or the offset", w.Once)
		}
		r.loc = time.UTC
	}
	r.once = wall(w.Once.sec)
	return nil
}

// readDay reads which days of the week or of the month.
func (w Window) readDay(r *rule) (err error) {
	switch r.kind {
	case weekly:
		for _, name := range w.Weekly {
			day, err := parseWeekday(name)
			if err != nil {
				return fmt.Errorf("weekly: %w", err)
			}
			if r.weekdays&(1<<day) != 0 {
				return fmt.Errorf("weekly: %s stands there twice", name)
			}
			r.weekdays |= 1 << day
		}
	case monthly:
		if r.date, err = countOrLast(w.Monthly, 31); err != nil {
			return fmt.Errorf("monthly %.50q: %w", w.Monthly, err)
		}
	case nth:
		count, name, _ := strings.Cut(w.Nth, " ")
		day, err := parseWeekday(name)
		if r.nth, _ = countOrLast(count, 5); r.nth == 0 || err != nil {
			return fmt.Errorf(`nth %.50q: write it as "2 tue" (1 to 5 or last, then the day of the week)`, w.Nth)
		}
		r.weekdays = 1 << day
		if w.Plus < 0 || w.Plus > 27 {
			return fmt.Errorf("plus %d: write 0 to 27 days", w.Plus)
		}
	}
	return nil
}

func (w Window) readAt(r *rule) error {
	at, err := time.Parse("15:04", w.At)
	if err != nil || len(w.At) != len("15:04") {
		return fmt.Errorf(`at %.50q: write it as "02:00"`, w.At)
	}
	r.at = wall(at.Hour()*60*60 + at.Minute()*60)
	return nil
}

func (w Window) readEvery(r *rule) error {
	switch {
	case r.kind == daily && w.Every != 0:
		return errors.New("every does not go with daily: write daily: 2 for every other day")
	case r.kind == daily:
		r.every = w.Daily
	case w.Every != 0:
		r.every = w.Every
	}
	if most := [...]int{daily: 366, weekly: 52, monthly: 12, nth: 12}[r.kind]; r.every < 1 || r.every > most {
		return fmt.Errorf("every %d: write 1 to %d", r.every, most)
	}
	if r.every > 1 && w.From == "" {
		return fmt.Errorf("every %d needs a date to count from: write from: 2026-12-01", r.every)
	}
	return nil
}

func (w Window) readDates(r *rule) (err error) {
	if w.From != "" {
		if r.from, err = parseDate(w.From); err != nil {
			return fmt.Errorf("from %w", err)
		}
	}
	if w.Until != "" {
		if r.until, err = parseDate(w.Until); err != nil {
			return fmt.Errorf("until %w", err)
		}
	}
	if r.until < r.from {
		return fmt.Errorf("until %s is before from %s", w.Until, w.From)
	}
	return nil
}

// opens refuses a recurrence that has no date, as day 30 of every twelfth month from February on.
func (r *rule) opens() error {
	if _, ok := r.next(wall(r.from)*dayLength - 1); !ok && r.kind != once {
		return fmt.Errorf("never opens, or not within %d years", horizonYears)
	}
	return nil
}

// next is the first wall time after w at which the window opens, if zones did not skip it.
func (r *rule) next(w wall) (wall, bool) {
	if r.kind == once {
		return r.once, r.once > w
	}
	day := r.day(max((w-r.at).date()+1, r.from))
	return wall(day)*dayLength + r.at, day <= r.until && day != noDay
}

// day is the first that the recurrence names, from one on; noDay if there is none within 12 years.
func (r *rule) day(from int) int {
	switch r.kind {
	case daily:
		return from + modulo(r.from-from, r.every)
	case weekly:
		for day := from; ; {
			if off := (week(day) - week(r.from)) % r.every; off != 0 {
				day += (r.every-off)*7 - modulo(day+3, 7) // on to Monday
			} else if r.weekdays&(1<<weekday(day)) != 0 {
				return day
			} else {
				day++
			}
		}
	}
	year, month, _ := civil(from)
	firstYear, firstMonth, _ := civil(r.from)
	for i := -1; i <= horizonYears*12+1; i++ { // -1: plus leads into the month after
		months := (year-firstYear)*12 + int(month-firstMonth) + i
		if months%r.every != 0 {
			continue
		}
		if day, ok := r.dayIn(year, month+time.Month(i)); ok && day >= from {
			return day
		}
	}
	return noDay
}

// dayIn is the one day of a month; the month may lie outside 1 to 12.
func (r *rule) dayIn(year int, month time.Month) (int, bool) {
	first := dayOf(year, month, 1)
	days := dayOf(year, month+1, 1) - first
	switch {
	case r.kind == monthly && r.date == lastOne:
		return first + days - 1, true
	case r.kind == monthly:
		return first + r.date - 1, r.date <= days
	}
	offset := 0
	for r.weekdays&(1<<weekday(first+offset)) == 0 {
		offset++
	}
	if r.nth == lastOne {
		offset += (days - 1 - offset) / 7 * 7
	} else {
		offset += (r.nth - 1) * 7
	}
	return first + offset + r.plus, offset < days
}

// week counts weeks that begin on Monday.
func week(day int) int { return int(floor(int64(day)+3, 7)) }

func parseWeekday(s string) (time.Weekday, error) {
	low := strings.ToLower(s)
	for day := time.Sunday; day <= time.Saturday; day++ {
		if name := strings.ToLower(day.String()); low == name || low == name[:3] {
			return day, nil
		}
	}
	return 0, fmt.Errorf("unknown day of the week %.50q: write mon, tue, wed, thu, fri, sat or sun", s)
}

// countOrLast reads a number from 1 to most, or last.
func countOrLast(s string, most int) (int, error) {
	if s == "last" {
		return lastOne, nil
	}
	n, err := number(s)
	if err != nil || n < 1 || n > most || s[0] == '0' {
		return 0, fmt.Errorf("write 1 to %d or last", most)
	}
	return n, nil
}

func parseDate(s string) (int, error) {
	t, err := time.Parse(time.DateOnly, s)
	if err != nil || t.Year() < 1970 {
		return 0, fmt.Errorf("%.50q: write the date as 2026-12-01", s)
	}
	year, month, day := t.Date()
	return dayOf(year, month, day), nil
}
