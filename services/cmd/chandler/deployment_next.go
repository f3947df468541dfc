package main

import (
	"context"
	"slices"
	"time"

	"chandler/events"
	"chandler/events/calendar"
	"chandler/events/order"
	"chandler/events/timing"
)

// shownStarts is how many times of a recurring deployment are shown before it is signed.
const shownStarts = 3

// recurs says whether an order's program is to start again and again.
func recurs(o order.Order) bool {
	return slices.ContainsFunc(o.Assignments, func(s order.Assignment) bool { return s.Cron != "" })
}

// nextStarts are the next times, in words, at which a recurring order starts its program on machines of a zone; none of one
// that does not recur. In each machine's own time they are wall-clock times.
func (a *app) nextStarts(o order.Order, own *time.Location, n int) (lines []string) {
	if !recurs(o) {
		return nil
	}
	var times []time.Time
	loc, from := o.Zone.Location(own), a.now()
	if o.Available != nil && o.Available.In(loc).After(from) {
		from = o.Available.In(loc).Add(-time.Second) // that one counts
	}
	ends := timing.Ends(o, timing.Machine{Zone: own})
	for _, s := range o.Assignments {
		switch {
		case s.At != nil && s.At.In(loc).After(from):
			times = append(times, s.At.In(loc))
		case s.Cron != "":
			times = append(times, firings(s.Cron, from, loc, n)...)
		}
	}
	slices.SortFunc(times, time.Time.Compare)
	for _, at := range slices.CompactFunc(times, time.Time.Equal) {
		if len(lines) == n || !at.Before(ends) {
			break
		}
		text := at.In(loc).Format("Mon 2006-01-02 15:04 MST")
		if o.Zone == calendar.ZoneAgent && own == time.UTC {
			text = at.In(loc).Format("Mon 2006-01-02 15:04") + ", each machine's own time"
		}
		lines = append(lines, text)
	}
	return lines
}

func firings(cron string, after time.Time, loc *time.Location, n int) (times []time.Time) {
	parsed, err := calendar.ParseCron(cron)
	if err != nil {
		return nil // such an order is refused before it is signed
	}
	for range n {
		if after = parsed.Next(after, loc); after.IsZero() {
			return times
		}
		times = append(times, after)
	}
	return times
}

// nextOccurrence is when a live deployment that recurs starts next on machines of a zone, in words; "" where it does not,
// or where its order cannot be read any more.
func (a *app) nextOccurrence(ctx context.Context, c *client, view events.DeploymentView, own *time.Location) string {
	live := []events.Life{events.LifePending, events.LifeActive, events.LifePaused, events.LifeHalted}
	if !slices.Contains(live, view.Life) || view.RolledBack {
		return ""
	}
	found, err := findOrder(ctx, c, view)
	if err != nil || found == nil {
		return ""
	}
	o, _, err := order.Open(found.Envelope)
	if err != nil {
		return ""
	}
	for _, text := range a.nextStarts(o, own, 1) {
		return text
	}
	return ""
}
