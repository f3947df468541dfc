package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"chandler/events"
	"chandler/events/calendar"
	"chandler/events/order"
	"chandler/events/timing"
)

// doubts are what an order says that can hardly be meant.
func doubts(o order.Order) (all []string) {
	recurs, timed := false, false
	for _, s := range o.Assignments {
		recurs = recurs || s.Cron != ""
		timed = timed || s.Cron != "" || s.At != nil
	}
	if recurs && (o.Rerun == order.RerunNever || o.Rerun == order.RerunIfFailed) {
		all = append(all, fmt.Sprintf("with rerun %s it runs once on each machine, and cron makes no difference after that: say --rerun always if each time is meant", o.Rerun))
	}
	if o.Grace > 0 && !timed {
		all = append(all, "grace is given after a time that a machine missed, and there is no time: say --at TIME, cron or --deadline, or leave it out")
	}
	return all
}

func tellDoubts(w io.Writer, o order.Order) {
	for _, text := range doubts(o) {
		note(w, "WARNING: deployment %s: %s", o.Deployment, text)
	}
}

// tellLeftOut warns where machines of the target are in no phase.
func tellLeftOut(w io.Writer, p proposal, hit []reach) {
	left := len(p.collection.Members)
	for _, h := range hit {
		left -= h.Machines
	}
	if left > 0 {
		last := p.plan.Phases[len(p.plan.Phases)-1]
		note(w, "WARNING: deployment %s: the last phase, %s, is %s: %s of the target are in no phase and never get it", p.order.Deployment, last.Name, shareText(last), plural(left, "machine", "machines"))
	}
}

// tellPastWindows warns of maintenance windows that never open any more.
func tellPastWindows(w io.Writer, collection string, windows []calendar.Window, now time.Time) {
	for _, one := range windows {
		// Zones differ by a day at most: who asks by UTC two days ago misses nothing that is still to come.
		if len(calendar.Openings([]calendar.Window{one}, time.UTC, now.Add(-48*time.Hour), 1)) == 0 {
			note(w, "WARNING: collection %s: the maintenance window %q lies in the past and never opens", collection, one)
		}
	}
}

// heedsWindows says whether maintenance windows hold any start of an order's program; what users ask for they do not.
func heedsWindows(o order.Order) bool {
	return len(o.Windows) > 0 && !o.IgnoreWindows && len(o.Assignments) > 0
}

// misfits are the machines of a target on which a program would find no maintenance window.
type misfits struct {
	never, late int    // no window is long enough; the next that is opens only after the deployment's end
	first       string // such a machine
}

// tellFit warns where the maintenance windows of machines of the target are too short for what would run there, or open
// too late.
func (a *app) tellFit(ctx context.Context, w io.Writer, l *lookups, p proposal, agents []events.AgentView) error {
	need, err := l.longest(ctx, p)
	if err != nil {
		return err
	}
	target, err := p.order.Target(p.collection.Include, p.collection.Exclude)
	if err != nil {
		return err
	}
	var found misfits
	for _, v := range agents {
		if in, err := target.Matches(v.Facts); err == nil && in {
			found.add(p.order, v.Facts, a.now(), need)
		}
	}
	if found.never > 0 {
		note(w, "WARNING: deployment %s: on %s (such as %s) it will fail as maintenance_window_never_fits: no window is ever long enough for %s, the longest max-run-time of what runs. Give the program a shorter one, the collection a longer window, or say --ignore-windows",
			p.order.Deployment, plural(found.never, "machine", "machines"), found.first, calendar.Duration(need))
	}
	if found.late > 0 {
		note(w, "WARNING: deployment %s: on %s (such as %s) it will fail as maintenance_window_never_fits: the next window that is long enough opens only after the deployment has ended. Give it a later --expires or a longer validity, the collection another window, or say --ignore-windows",
			p.order.Deployment, plural(found.late, "machine", "machines"), found.first)
	}
	return nil
}

func (m *misfits) add(o order.Order, f events.Facts, now time.Time, need time.Duration) {
	windows, held, _ := timing.WindowsOf(o, f)
	who := timing.Machine{ID: f.ID, Zone: zoneOf(f)}
	if begins := o.Begins(); begins.After(now) {
		now = begins
	}
	switch fit := timing.Fits(windows, held, who, now, need); {
	case fit.Never:
		m.never++
	case !fit.Open && !fit.Next.Before(timing.Ends(o, who)):
		m.late++
	default:
		return
	}
	if m.first == "" {
		m.first = f.Hostname
	}
}

// zoneOf is a machine's own zone; UTC where it is not known here.
func zoneOf(f events.Facts) *time.Location {
	zone, err := time.LoadLocation(f.Zone)
	if err != nil || f.Zone == "Local" {
		return time.UTC
	}
	return zone
}
