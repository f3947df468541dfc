package scheduling

import (
	"errors"
	"testing"
	"time"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/calendar"
	"chandler/events/eventstest"
	"chandler/events/order"
)

func TestLifeFollowsFromOrderClockAndDecisions(t *testing.T) {
	now := time.Date(2026, 12, 1, 8, 0, 0, 0, time.UTC)
	later, before := now.Add(time.Hour), now.Add(-time.Hour)
	for name, c := range map[string]struct {
		record deploymentRecord
		order  order.Order
		want   events.Life
	}{
		"available at once":                 {want: events.LifeActive},
		"available later":                   {order: order.Order{Available: new(calendar.At(later))}, want: events.LifePending},
		"available exactly now":             {order: order.Order{Available: new(calendar.At(now))}, want: events.LifeActive},
		"paused":                            {record: deploymentRecord{Paused: true}, want: events.LifePaused},
		"paused before it is available":     {record: deploymentRecord{Paused: true}, order: order.Order{Available: new(calendar.At(later))}, want: events.LifePaused},
		"expires later":                     {order: order.Order{Expires: new(calendar.At(later))}, want: events.LifeActive},
		"expires exactly now":               {order: order.Order{Expires: new(calendar.At(now))}, want: events.LifeExpired},
		"expired while paused":              {record: deploymentRecord{Paused: true}, order: order.Order{Expires: new(calendar.At(before))}, want: events.LifeExpired},
		"its end was told by another clock": {record: deploymentRecord{Lapsed: true}, order: order.Order{Expires: new(calendar.At(later))}, want: events.LifeExpired},
		"validity is over":                  {order: order.Order{NotAfter: now.Add(-order.ClockTolerance)}, want: events.LifeExpired},
		"validity is over, but not on clocks that agents tolerate": {order: order.Order{NotAfter: now.Add(-time.Minute)}, want: events.LifeActive},
		"stopped beats everything":                                 {record: deploymentRecord{Stopped: true, Paused: true, Lapsed: true}, order: order.Order{Expires: new(calendar.At(before))}, want: events.LifeStopped},
	} {
		t.Run(name, func(t *testing.T) {
			if c.order.NotAfter.IsZero() {
				c.order.NotAfter = now.Add(24 * time.Hour)
			}
			d := deployment{record: c.record, order: c.order}
			if got := d.life(now); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}

func in(d time.Duration) func() *calendar.Moment {
	return func() *calendar.Moment { return new(calendar.At(time.Now().Add(d))) }
}

func TestTheBrokersTimersStartAndEndADeployment(t *testing.T) {
	s := newStory(t)
	r := s.running() // its own look at everything comes once an hour
	s.report(facts("agent001"))
	s.published()
	must(s, events.CollectionSet, linuxMachines())
	s.knows(r, 1)
	v := s.deploy(func(o *order.Order) { o.Available, o.Expires = in(2*time.Second)(), in(4*time.Second)() })
	if v.Life != events.LifePending || v.Released != 0 {
		t.Errorf("created: %+v", v)
	}
	if w := must(s, events.Why, events.WhyRequest{Agent: "agent001"}).Answers[0]; !w.Member || w.Life != events.LifePending || w.Says == "" {
		t.Errorf("why: %+v", w)
	}
	e := eventstest.ExpectExactly(t, s.admin, events.DeploymentReleased, nil, 1)[0]
	if e.Time.Before(v.Available.In(time.UTC)) {
		t.Errorf("released at %s, available at %s", e.Time, v.Available)
	}
	lapsed := eventstest.ExpectExactly(t, s.admin, events.DeploymentLapsed, nil, 1)[0]
	if lapsed.Data.Revision != 1 || !lapsed.Data.At.Equal(v.Expires.In(time.UTC)) {
		t.Errorf("told: %+v", lapsed.Data)
	}
	if v := must(s, events.DeploymentShow, events.Named{Name: "hello"}); v.Life != events.LifeExpired {
		t.Errorf("shown: %s", v.Life)
	}
	s.report(facts("agent002")) // comes too late
	s.knows(r, 2)
	s.released(1, nil)
}

func TestLostTimersOnlyDelay(t *testing.T) {
	s := newStory(t)
	r := s.running(func(o *Options) { o.Tick = 50 * time.Millisecond })
	s.report(facts("agent001"))
	s.published()
	must(s, events.CollectionSet, linuxMachines())
	s.knows(r, 1)
	s.deploy(func(o *order.Order) { o.Available, o.Expires = in(time.Hour)(), in(2*time.Hour)() })
	eventstest.Expect(t, s.admin, events.DeploymentCreated, nil)
	s.released(0, nil)
	s.clock.advance(61 * time.Minute)
	s.released(1, nil)
	s.clock.advance(time.Hour)
	eventstest.ExpectExactly(t, s.admin, events.DeploymentLapsed, nil, 1)
}

func TestAStopReachesItsRevisionAndIsNotRepeatedOnTheNext(t *testing.T) {
	s := newStory(t)
	r := s.running()
	s.report(facts("agent001"))
	s.published()
	must(s, events.CollectionSet, linuxMachines())
	s.knows(r, 1)
	v := s.deploy()
	s.released(1, nil)
	stop := func(revision uint64) {
		n := v.DeploymentNotice
		n.Revision, n.By, n.Why = revision, "bob", "wrong package"
		publish(s, events.ServiceSource("execution"), events.DeploymentHalted, "hello", n)
	}
	life := func() events.Life { return must(s, events.DeploymentShow, events.Named{Name: "hello"}).Life }
	stop(1)
	s.eventually("it is stopped", func() bool { return life() == events.LifeStopped })
	s.report(facts("agent002"))
	s.knows(r, 2)
	s.released(1, nil)
	for _, c := range []events.Call[events.Named, events.DeploymentView]{events.DeploymentPause, events.DeploymentResume} {
		if _, err := ask(s, c, events.Named{Name: "hello"}); !errors.Is(err, bus.ErrConflict) {
			t.Errorf("%s of a stopped deployment: %v", c.Verb, err)
		}
	}
	if again := s.deployAgain(stored(s, r, "hello", kindDeployment).Envelope); again.Life != events.LifeStopped {
		t.Errorf("the same order again undid the stop: %s", again.Life)
	}
	s.deploy(func(o *order.Order) { o.Revision = 2 })
	s.released(1, func(e events.Event[events.Release]) bool { return e.Data.Revision == 2 })
	stop(1) // told once more, for instance by a restored stream
	publish(s, events.ServiceSource("execution"), events.DeploymentHalted, "unknown", events.DeploymentNotice{Deployment: "unknown", Revision: 1, Order: v.Order, At: time.Now()})
	s.report(facts("agent003")) // comes after it
	s.knows(r, 3)
	if l := life(); l != events.LifeActive {
		t.Errorf("an old stop reached a new revision: %s", l)
	}
}

func stored(s *story, r *Service, name, kind string) deploymentRecord {
	s.t.Helper()
	record, revision, err := load[deploymentRecord](s.t.Context(), r.deploymentStore, kind+"."+name)
	if err != nil || revision == 0 {
		s.t.Fatalf("no record of %s: %v", name, err)
	}
	return record
}

func TestRemovingADeployment(t *testing.T) {
	s := newStory(t)
	r := s.running(func(o *Options) { o.Tick = 100 * time.Millisecond })
	s.report(facts("agent001"))
	s.published()
	must(s, events.CollectionSet, linuxMachines())
	s.knows(r, 1)
	v := s.deploy()
	s.released(1, nil)
	if _, err := ask(s, events.DeploymentRemove, events.Named{Name: "hello"}); !errors.Is(err, bus.ErrConflict) {
		t.Errorf("an active deployment was removed: %v", err)
	}
	progress := events.Progress{Deployment: "hello", Revision: 1, States: map[events.State]int64{events.Running: 1}, Total: 1, At: time.Now()}
	publish(s, events.ServiceSource("execution"), events.DeploymentProgressed, "hello", progress)
	if v := must(s, events.DeploymentShow, events.Named{Name: "hello"}); v.Progress == nil || v.Progress.States[events.Running] != 1 {
		t.Errorf("progress is not shown: %+v", v.Progress)
	}
	if _, err := ask(s, events.DeploymentRemove, events.Named{Name: "hello"}); !errors.Is(err, bus.ErrConflict) {
		t.Errorf("a deployment with a running job was removed: %v", err)
	}
	progress.States = map[events.State]int64{events.Succeeded: 1, events.Running: 0}
	publish(s, events.ServiceSource("execution"), events.DeploymentProgressed, "hello", progress)
	must(s, events.DeploymentRemove, events.Named{Name: "hello", Why: "done"})
	removed := eventstest.ExpectExactly(t, s.admin, events.DeploymentRemoved, nil, 1)[0].Data
	if removed.Order != v.Order || removed.Why != "done" {
		t.Errorf("told: %+v", removed)
	}
	if _, err := ask(s, events.DeploymentShow, events.Named{Name: "hello"}); !errors.Is(err, bus.ErrNotFound) {
		t.Errorf("a removed deployment is shown: %v", err)
	}
	if all := must(s, events.DeploymentList, events.Nothing{}).Deployments; len(all) != 0 {
		t.Errorf("listed: %+v", all)
	}
	s.eventually("its batches are forgotten", func() bool { r.mu.RLock(); defer r.mu.RUnlock(); return len(r.releases) == 0 })
	// Agents remember revisions, so the name goes on from where it was.
	_, err := ask(s, events.DeploymentCreate, events.DeploymentRequest{Envelope: s.sign(s.order())})
	if !errors.Is(err, bus.ErrConflict) {
		t.Errorf("revision 1 was used twice: %v", err)
	}
	if v := s.deploy(func(o *order.Order) { o.Revision = 2 }); v.Life != events.LifeActive {
		t.Errorf("revision 2: %+v", v)
	}
}
