package agent

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"chandler/agent/execute"
	"chandler/agent/journal"
	"chandler/events"
	"chandler/events/calendar"
	"chandler/events/order"
)

// night is a window of the machines with that expression, every day at 02:00 for so long.
func night(expression string, length time.Duration) order.Windows {
	return order.Windows{Collection: "servers", Expression: expression, Windows: []calendar.Window{{Daily: 1, At: "02:00", For: calendar.Duration(length)}}}
}

func held(windows ...order.Windows) func(*given) {
	return func(g *given) { g.order.Windows, g.order.NotAfter = windows, g.order.Issued.Add(30*24*time.Hour) }
}

func runs(limit time.Duration) func(*given) {
	return program(func(p *events.Program) { p.MaxRunTime = events.Duration(limit) })
}

// In the bubble it is midnight.
func TestAProgramStartsOnlyWhereAMaintenanceWindowLeavesItsTime(t *testing.T) {
	linux, windows := `agent.os == "linux"`, `agent.os == "windows"`
	for name, c := range map[string]struct {
		change []func(*given)
		after  time.Duration // midnight
		user   string        // who started it
		opens  int           // the hour at which it may start, 0: now
		reason events.Reason
		says   string
	}{
		"no windows anywhere":                      {},
		"windows of other machines":                {change: []func(*given){held(night(windows, time.Hour))}},
		"before the window":                        {change: []func(*given){held(night(linux, 3*time.Hour))}, opens: 2, says: "opens at 2000-01-01T02:00:00Z"},
		"in the window":                            {change: []func(*given){held(night(linux, 3*time.Hour))}, after: 2 * time.Hour},
		"in the window, with just enough time":     {change: []func(*given){held(night(linux, 3*time.Hour))}, after: 3 * time.Hour},
		"in the window, with too little time":      {change: []func(*given){held(night(linux, 3*time.Hour))}, after: 3*time.Hour + time.Minute, opens: 26},
		"in that of one collection of two":         {change: []func(*given){held(night(windows, time.Hour), night(linux, 3*time.Hour))}, after: 2 * time.Hour},
		"120 minutes in a window of 60":            {change: []func(*given){held(night(linux, time.Hour))}, reason: events.WindowNeverFits, says: "2h0m0s"},
		"20 minutes in a window of 60":             {change: []func(*given){held(night(linux, time.Hour)), runs(20 * time.Minute)}, opens: 2},
		"a window after the deployment's end":      {change: []func(*given){held(night(linux, 3*time.Hour)), func(g *given) { g.order.Expires = new(calendar.At(g.order.Issued.Add(time.Hour))) }}, reason: events.WindowNeverFits, says: "has ended"},
		"a collection that cannot be evaluated":    {change: []func(*given){held(night(`agent.tags[7] == "x"`, 3*time.Hour))}, reason: events.WindowNeverFits, says: "no maintenance window that is known"},
		"windows that the order ignores":           {change: []func(*given){held(night(linux, time.Hour)), func(g *given) { g.order.IgnoreWindows = true }}},
		"a local user who knows better":            {change: []func(*given){held(night(linux, time.Hour))}, user: "alice"},
		"two windows that together are long":       {change: []func(*given){held(night(linux, time.Hour), order.Windows{Collection: "more", Expression: linux, Windows: []calendar.Window{{Daily: 1, At: "03:00", For: calendar.Duration(time.Hour)}}})}, opens: 2},
		"a window of this machine named in a list": {change: []func(*given){held(order.Windows{Collection: "named", Include: []string{machineID}, Windows: night(linux, 3*time.Hour).Windows})}, opens: 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMachine(t)
				task := m.decided(c.change...)
				task.job.AskedBy = c.user
				midnight := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
				time.Sleep(time.Until(midnight.Add(c.after)))
				why, opens, err := task.windowHindrance(m.Clock())
				e, _ := errors.AsType[*ending](err)
				if e == nil {
					e = &ending{}
				}
				if e.reason != c.reason || !strings.Contains(why+e.detail.explanation, c.says) || (c.reason != "") != (e.state == events.Failed) {
					t.Fatalf("%q, %v", why, err)
				}
				if want := midnight.Add(time.Duration(c.opens) * time.Hour); c.opens > 0 && !opens.Equal(want) || c.opens == 0 && why != "" {
					t.Errorf("it may start at %s: %s; want %s", opens, why, want)
				}
			})
		})
	}
}

func TestAJobStartsWhenItsWindowOpensAndFetchesBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		task := m.decided(held(night("true", 3*time.Hour)))
		if err := task.prepare(t.Context()); err != nil || !task.fetched {
			t.Fatalf("content is fetched: %v, %v", task.fetched, err)
		}
		began := time.Now()
		for {
			hindered, err := task.hindered(t.Context(), true)
			if err != nil {
				t.Fatal(err)
			}
			if !hindered {
				break
			}
			if last := task.job.Last; last.WaitingFor != events.WaitMaintenanceWindow {
				t.Fatalf("it waits for %s: %s", last.WaitingFor, last.Explanation)
			}
		}
		if took := time.Since(began); took < 2*time.Hour-time.Second || took > 2*time.Hour+time.Second {
			t.Errorf("it starts after %s", took)
		}
		if said := m.said(task.job.Offer.Job); len(said) != 2 {
			t.Errorf("it said %q", said)
		}
	})
}

func TestAJobThatNeverFitsEndsBeforeItsContentIsFetched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		at := calendar.At(m.Clock().Add(48 * time.Hour))
		task := m.decided(held(night("true", time.Hour)), assigned(order.Assignment{At: &at}))
		if e := asEnding(task.prepare(t.Context())); e.reason != events.WindowNeverFits || e.reason.Info().Class.Retry().Attempts > 1 {
			t.Errorf("it is %s (%s)", e.state, e.reason)
		}
		standing := m.umbrella(held(night("true", time.Hour)), assigned(order.Assignment{Cron: "0 12 * * *"}))
		if e := asEnding(standing.standing(t.Context())); e.reason != events.WindowNeverFits {
			t.Errorf("the umbrella is %s (%s)", e.state, e.reason)
		}
		if err := newMachine(t).umbrella(held(night("true", time.Hour)), assigned()).everFits(); err != nil {
			t.Errorf("what a local user starts: %v", err)
		}
	})
}

func TestTheMachineIsRestartedInsideOfItsWindowsUnlessTold(t *testing.T) {
	for name, c := range map[string]struct {
		outside bool
		window  order.Windows
		user    string
		want    time.Duration
		says    string
	}{
		"in the next window":                     {window: night("true", 3*time.Hour), want: 2 * time.Hour, says: "opens at 2000-01-01T02:00:00Z"},
		"in the next window, whoever started it": {window: night("true", 3*time.Hour), user: "alice", want: 2 * time.Hour, says: "in its next maintenance window"},
		"outside, where the order says so":       {window: night("true", 3*time.Hour), outside: true, says: "the machine is restarted"},
		"at once, where it has no windows":       {window: night("false", 3*time.Hour), says: "the machine is restarted"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMachine(t)
				m.facts.BootID = "boot 1"
				restarted := make(chan time.Duration, restartTries)
				began := time.Now()
				m.Restart = func(context.Context, string) error { restarted <- time.Since(began); return nil }
				task := m.decided(program(func(p *events.Program) { p.After = events.AfterRestart }), held(c.window), func(g *given) { g.order.RestartOutside = c.outside })
				task.job.AskedBy = c.user
				task.job.Work = &journal.Work{Order: task.order, Program: task.program}
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				go func() { ended <- task.afterwards(ctx, execute.Success) }()
				time.Sleep(time.Minute / 2)
				synctest.Wait()
				if last := task.job.Last; last.State != events.RebootPending || !strings.Contains(last.Explanation, c.says) {
					t.Errorf("it is %s: %s", last.State, last.Explanation)
				}
				if ok, _ := m.slots.take("other"); ok != (c.want > 0) {
					t.Errorf("another program may start meanwhile: %v", ok)
				} else if ok {
					m.slots.leave("other")
				}
				if got := <-restarted; got < c.want || got > c.want+time.Minute {
					t.Errorf("it restarts after %s, want %s", got, c.want)
				}
				if ok, _ := m.slots.take("other"); ok {
					t.Error("another program starts while the machine restarts")
				}
				cancel()
				<-ended
			})
		})
	}
}
