package timing

import (
	"time"

	"chandler/events"
	"chandler/events/calendar"
	"chandler/events/order"
	"chandler/events/target"
)

// WindowsOf are the maintenance windows that hold for a machine: those of every collection that it is in, by the
// definitions that were signed. held: it is in a collection with windows, or that cannot be found out; then faults says
// why, and a machine held by nothing but faults has no window at all.
func WindowsOf(o order.Order, facts events.Facts) (windows []calendar.Window, held bool, faults []error) {
	for _, w := range o.Windows {
		t, err := target.New(w.Expression, w.Include, w.Exclude)
		member := false
		if err == nil {
			member, err = t.Matches(facts)
		}
		switch {
		case err != nil:
			held = true
			faults = append(faults, err)
		case member:
			held = true
			windows = append(windows, w.Windows...)
		}
	}
	return windows, held, faults
}

// Fits says whether a program that may run for need may start now, by the windows of [WindowsOf].
func Fits(windows []calendar.Window, held bool, m Machine, now time.Time, need time.Duration) calendar.Fit {
	if !held {
		return calendar.Fit{Open: true}
	}
	if len(windows) == 0 {
		return calendar.Fit{Never: true}
	}
	return calendar.Fits(windows, m.Zone, now, need)
}
