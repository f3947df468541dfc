package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"chandler/events"
	"chandler/events/calendar"
	"chandler/events/timing"
)

// window says whether the maintenance windows of this machine let what takes so long begin at a time. Who is in which
// collection the agent finds out by itself, by what was signed; a fault is part of the words.
func (t *task) window(at time.Time, need time.Duration) (fit calendar.Fit, fault error) {
	if len(t.order.Windows) == 0 {
		return calendar.Fit{Open: true}, nil
	}
	windows, held, faults := timing.WindowsOf(t.order, t.a.Facts())
	return timing.Fits(windows, held, t.machine(), at, need), errors.Join(faults...)
}

// windowHindrance says in words why the program must not start at a time, and when the next window opens that is long
// enough; "": nothing. It ends a job for which there is none before the deployment is over. Windows do not hold what a
// local user starts: who sits before the machine knows best when (domain-facts §5).
func (t *task) windowHindrance(at time.Time) (why string, opens time.Time, err error) {
	if t.order.IgnoreWindows || t.job.AskedBy != "" {
		return "", time.Time{}, nil
	}
	need := t.program.RunTime()
	fit, fault := t.window(at, need)
	ends := timing.Ends(t.order, t.machine())
	switch {
	case fit.Open:
		return "", time.Time{}, nil
	case fault != nil && fit.Never:
		return "", time.Time{}, end(events.Failed, events.WindowNeverFits, "the program may run for %s; the machine has no maintenance window that is known: %v", need, fault)
	case fit.Never:
		return "", time.Time{}, end(events.Failed, events.WindowNeverFits, "the program may run for %s, and the longest maintenance window of this machine to come is %s", need, fit.Longest)
	case !fit.Next.Before(ends):
		return "", time.Time{}, end(events.Failed, events.WindowNeverFits, "the next maintenance window of this machine that is as long as the program may run (%s) opens at %s, when the deployment has ended (%s)",
			need, shown(fit.Next), shown(ends))
	}
	return fmt.Sprintf("outside of the machine's maintenance windows; the next that leaves the %s that the program may run opens at %s", need, shown(fit.Next)), fit.Next, nil
}

// everFits ends a job at once whose program can never start in a window, rather than when its time has come.
func (t *task) everFits() error {
	at := t.a.Clock()
	if d := t.timing(); d.Verdict == timing.Prepare {
		at = d.Until
	}
	if t.umbrella() && len(t.order.Assignments) == 0 {
		return nil // a local user will start it
	}
	_, _, err := t.windowHindrance(at)
	return err
}

// restartTime is what a restart needs of a maintenance window.
const restartTime = 5 * time.Minute

// restartOutside says in words that the machine must not be restarted now, since it is outside of its maintenance windows,
// and when the next one opens (zero: never); "": it may be.
func (t *task) restartOutside() (opens time.Time, why string) {
	if t.order.RestartOutside {
		return time.Time{}, ""
	}
	switch fit, _ := t.window(t.a.Clock(), restartTime); {
	case fit.Open:
		return time.Time{}, ""
	case fit.Next.IsZero():
		return time.Time{}, "no maintenance window of the machine is to come, and the agent restarts it in no other time: somebody has to restart it"
	default:
		return fit.Next, "the machine is restarted in its next maintenance window, which opens at " + shown(fit.Next)
	}
}

// awaitRestartTime waits until the machine may be restarted, in its maintenance windows, and the programs that run have
// ended. Until a window opens others run; from then on none starts.
func (t *task) awaitRestartTime(ctx context.Context) error {
	for {
		opens, why := t.restartOutside()
		var changed <-chan struct{}
		switch {
		case why != "":
			t.a.slots.unblock(t.job.Offer.Job)
			if changed = after(ctx, time.Minute); !opens.IsZero() {
				changed = t.at(ctx, opens)
			}
		default:
			if !t.job.Hard {
				t.job.Hard = true
				if err := t.journalled(ctx, func() error { return t.a.journal.Keep(t.job) }); err != nil {
					return err
				}
			}
			t.a.slots.block(t.job.Offer.Job)
			var idle bool
			if idle, changed = t.a.slots.idle(); idle {
				return nil
			}
		}
		stopped := t.stopped
		if t.step == nil || why == "" {
			stopped = nil // the job's own program has succeeded, or the restart comes anyway
		}
		select {
		case <-stopped:
			t.job.Hard = false
			return t.parked(ctx)
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

func shown(at time.Time) string { return at.Format(time.RFC3339) }
