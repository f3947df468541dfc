package timing

import (
	"slices"
	"time"

	"chandler/events/calendar"
	"chandler/events/order"
)

// Opening is an occurrence of a standing order that is due.
type Opening struct {
	Assignment int   // index
	Occurrence int64 // its number, as jobs are named by
	At         time.Time
}

// asapOccurrence is the number of "as soon as possible" among several assignments; every other one is later.
const asapOccurrence = 1

// Due finds the occurrences of a standing order that are to be opened at now, oldest first: of each assignment the newest
// that has come since the machine heard of the order and was not opened. One that a machine missed several times is opened
// once. opened are the highest numbers opened so far, by assignment; missing ones count as none. Logon and logoff are no
// matter of time and not among them.
func Due(o order.Order, m Machine, opened map[int]int64, heard, now time.Time) (due []Opening) {
	if Standing(o, m, now).Verdict != Start {
		return nil
	}
	loc := o.Zone.Location(m.Zone)
	for i, a := range o.Assignments {
		next := Opening{Assignment: i}
		switch {
		case a.ASAP:
			next.Occurrence, next.At = asapOccurrence, heard
		case a.At != nil:
			next.Occurrence, next.At = a.Occurrence(), a.At.In(loc)
		case a.Cron != "":
			cron, err := calendar.ParseCron(a.Cron)
			if err != nil {
				continue // such an order was never valid
			}
			at, ok := cron.Last(heard, now, loc)
			if !ok {
				continue
			}
			next.Occurrence, next.At = number(at, loc), at
		default:
			continue
		}
		if next.Occurrence > opened[i] && !next.At.After(now) {
			due = append(due, next)
		}
	}
	slices.SortFunc(due, func(a, b Opening) int { return a.At.Compare(b.At) })
	return due
}

// NextDue is when [Due] will find something that it does not find at now; zero: never.
func NextDue(o order.Order, m Machine, opened map[int]int64, now time.Time) (next time.Time) {
	loc := o.Zone.Location(m.Zone)
	from := now
	if d := Standing(o, m, now); d.Verdict == NotYet {
		return d.Until
	}
	for i, a := range o.Assignments {
		var at time.Time
		switch {
		case a.At != nil && a.Occurrence() > opened[i]:
			at = a.At.In(loc)
		case a.Cron != "":
			cron, err := calendar.ParseCron(a.Cron)
			if err != nil {
				continue
			}
			at = cron.Next(from, loc)
		}
		if at.After(now) && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	if end := Ends(o, m); !next.IsZero() && !next.Before(end) {
		return time.Time{}
	}
	return next
}
