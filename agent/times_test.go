package agent

import (
	"testing"
	"testing/synctest"
	"time"

	"chandler/agent/local"
	"chandler/events"
	"chandler/events/calendar"
	"chandler/events/order"
	"chandler/events/timing"
)

func TestGraceIsForMachinesThatWereAwayAtTheirTime(t *testing.T) {
	const until, grace = 10 * time.Hour, 2 * time.Hour
	for name, c := range map[string]struct {
		off, on time.Duration // when the machine is away; 0, 0: never
		busy    time.Duration // how long nobody looks at the job from its time on
		want    time.Duration // from its time on
	}{
		"it was there":                             {},
		"it was there, and fetched its content":    {busy: 3 * time.Hour},
		"its agent restarted over its time":        {off: until - time.Minute, on: until + time.Minute},
		"it was off":                               {off: until - time.Hour, on: until + 5*time.Hour, want: 5*time.Hour + grace},
		"it was off long before":                   {off: time.Hour, on: 2 * time.Hour},
		"it was there, and off while it was held":  {off: until + 3*time.Hour, on: until + 5*time.Hour},
		"it was off for longer than the grace was": {off: until - time.Hour, on: until + 30*time.Hour, want: 30*time.Hour + grace},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMachine(t)
				at := calendar.At(m.Clock().Add(until))
				task := m.decided(assigned(order.Assignment{At: &at}), func(g *given) { g.order.Grace = events.Duration(grace) })
				task.job.Opened = m.Clock()
				began := time.Now()
				looked := false
				for task.timing(); time.Since(began) < until+40*time.Hour; time.Sleep(time.Minute) {
					now := time.Since(began)
					if c.on > 0 && now >= c.off && now < c.on {
						time.Sleep(c.on - now)
						m.presence = presence{} // a later process
						task = m.again(task)
						now = c.on
					}
					m.presence.since(m.Clock())
					if now >= until && now < until+c.busy {
						continue
					}
					if task.timing().Verdict == timing.Start {
						looked = true
						// A start that is held is one still after the machine was off.
						if want := until + c.want + c.busy; now < want || now > want+2*time.Minute && c.off < until {
							t.Errorf("it starts %s after its time, want %s", now-until, c.want)
						}
						if c.off < until || now > c.on {
							break
						}
					} else if looked {
						t.Fatalf("%s after its time it may not start any more", now-until)
					}
				}
				if !looked {
					t.Error("it never starts")
				}
			})
		})
	}
}

func TestALocalUserStartsAJobAheadOfItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		at := calendar.At(m.Clock().Add(10 * time.Hour))
		task := m.decided(assigned(order.Assignment{At: &at}), held(night(`agent.os == "linux"`, 3*time.Hour)))
		m.tasks[task.job.Offer.Job] = task
		if err := task.prepare(t.Context()); err != nil {
			t.Fatal(err)
		}
		free := make(chan error, 1)
		go func() {
			for {
				if hindered, err := task.hindered(t.Context(), true); !hindered || err != nil {
					free <- err
					return
				}
			}
		}()
		time.Sleep(time.Minute / 2)
		if items := m.startable(local.Caller{}); len(items) != 1 || !items[0].Starts.Equal(at.In(time.UTC)) {
			t.Fatalf("available: %+v", items)
		}
		began := time.Now()
		if words, err := m.startFor(t.Context(), local.Caller{Name: "alice"}, "hello"); err != nil || words == "" {
			t.Fatalf("%q, %v", words, err)
		}
		if err := <-free; err != nil || time.Since(began) > time.Second {
			t.Fatalf("it is free after %s: %v", time.Since(began), err)
		}
		if kept, _, err := m.journal.Job(task.job.Offer.Job); err != nil || kept.AskedBy != "alice" {
			t.Errorf("journalled: %q, %v", kept.AskedBy, err)
		}
		if _, err := m.startFor(t.Context(), local.Caller{Name: "bob"}, "hello"); !refusedFor(err, "under way") {
			t.Errorf("a second time: %v", err)
		}
	})
}

func TestAProgramRunsAsTheUserWhoAskedForIt(t *testing.T) {
	m := newMachine(t)
	at := time.Now().Add(-time.Hour)
	desk := session("1", "alice", at)
	desk.Seat = "seat0"
	m.seat(desk, session("2", "bob", at))
	task := m.decided()
	task.program.Run = events.RunUser
	for asker, want := range map[string]string{"": "alice", "bob": "bob", "root": "alice", "carol": ""} {
		task.job.AskedBy = asker
		what, _, err := task.logonHindrance(t.Context(), false)
		got := ""
		if task.session != nil {
			got = task.session.User
		}
		if err != nil || got != want || (what == "") != (want != "") {
			t.Errorf("asked for by %q it runs as %q and waits for %q, %v; want %q", asker, got, what, err, want)
		}
	}
}

func TestWhatAnotherJobRanMeanwhileIsDecidedAnewWithTheSlot(t *testing.T) {
	m := newMachine(t)
	never := func(g *given) { g.order.Rerun = order.RerunNever }
	first, second := m.decided(never), m.decided(never)
	second.job.Offer.Job, second.job.Offer.Deployment = "second", "another"
	if a, b := first.slotNames(), second.slotNames(); len(a) == 0 || a[0] != b[0] {
		t.Fatalf("two jobs of one program have slots %q and %q", a, b)
	}
	if err := second.runElsewhere(t.Context()); err != nil {
		t.Fatalf("before the first ran: %v", err)
	}
	first.job.Ran = true
	first.enter(t.Context(), events.Succeeded, events.NoReason, status{})
	if e := asEnding(second.runElsewhere(t.Context())); e.state != events.WillNotRerun {
		t.Errorf("after the first ran it is %s (%s)", e.state, e.reason)
	}
	second.job.Offer.Attempt = 2
	if err := second.runElsewhere(t.Context()); err != nil {
		t.Errorf("a retry: %v", err)
	}
}

func TestAHaltHoldsItsDeploymentUpToItsRevision(t *testing.T) {
	m := newMachine(t)
	m.freezes = []events.Freeze{{ID: "deployment-hello", Scope: "deployment", Name: "hello", Revision: 3}}
	for _, c := range []struct {
		deployment string
		revision   uint64
		held       bool
	}{{"hello", 1, true}, {"hello", 3, true}, {"hello", 4, false}, {"other", 1, false}} {
		if freeze, _ := m.frozen(m.facts, c.deployment, c.revision); (freeze != nil) != c.held {
			t.Errorf("%s revision %d: held %v", c.deployment, c.revision, freeze != nil)
		}
	}
}
