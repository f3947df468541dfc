package scheduling

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/calendar"
	"chandler/events/eventstest"
	"chandler/events/order"
)

func TestPlansAndRollbacksThatAreRefused(t *testing.T) {
	s := newStory(t)
	s.running()
	s.published()
	must(s, events.CollectionSet, linuxMachines())
	rolls := func(change func(*order.Rolls)) []byte {
		return s.signedRollback(func(o *order.Order) { change(o.Rolls) })
	}
	for name, c := range map[string]struct {
		plan     *events.Plan
		rollback []byte
		want     error
		says     string
	}{
		"a plan without gates":           {plan: &events.Plan{Phases: []events.Phase{{Name: "a", Percent: 1}, {Name: "b", Percent: 100}}}, want: bus.ErrBadRequest, says: "advance-when"},
		"a phase in no collection":       {plan: &events.Plan{Phases: []events.Phase{{Name: "a", Collection: "pilots"}}}, want: bus.ErrBadRequest, says: `no collection "pilots"`},
		"a rollback that was not signed": {plan: &events.Plan{OnHalt: events.OnHaltRollback}, want: bus.ErrBadRequest, says: "signed with the deployment"},
		"an event that nobody stores": {plan: &events.Plan{Phases: []events.Phase{{Name: "a", Percent: 1, AdvanceWhen: &events.Advance{Event: &events.ExternalGate{Type: events.Heartbeat.Name, Subject: "x"}}}, {Name: "b", Percent: 100}}},
			want: bus.ErrBadRequest, says: "no event that is kept"},
		"a rollback of another deployment":      {rollback: rolls(func(r *order.Rolls) { r.Deployment = "other" }), want: bus.ErrBadRequest, says: "not install of hello"},
		"a rollback of another revision":        {rollback: rolls(func(r *order.Rolls) { r.Revision = 2 }), want: bus.ErrBadRequest, says: "revision 2"},
		"a rollback of another program":         {rollback: rolls(func(r *order.Rolls) { r.Program = "remove" }), want: bus.ErrBadRequest, says: "takes back remove"},
		"a rollback that takes nothing back":    {rollback: s.signedRollback(func(o *order.Order) { o.Rolls = nil }), want: bus.ErrBadRequest, says: "takes nothing back"},
		"a rollback of another name":            {rollback: s.signedRollback(func(o *order.Order) { o.Deployment = "undo" }), want: bus.ErrBadRequest, says: "is called hello-rollback"},
		"a rollback of another fleet's package": {rollback: s.signedRollback(func(o *order.Order) { o.Manifest = events.DigestOf(nil) }), want: bus.ErrNotFound, says: "not published"},
		"a rollback that is none":               {rollback: []byte("{}"), want: bus.ErrBadRequest, says: "rollback is refused"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ask(s, events.DeploymentCreate, events.DeploymentRequest{Envelope: s.sign(s.order()), Plan: c.plan, Rollback: c.rollback})
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v, want %v: %s", err, c.want, c.says)
			}
		})
	}
	if _, err := ask(s, events.DeploymentCreate, events.DeploymentRequest{Envelope: s.signedRollback()}); !errors.Is(err, bus.ErrConflict) || !strings.Contains(err.Error(), "not there") {
		t.Errorf("an order that takes back what is not there: %v", err)
	}
}

func TestARollbackNeedsTheSignaturesOfTheDeployment(t *testing.T) {
	s := newStory(t)
	r := s.running()
	s.published()
	must(s, events.CollectionSet, linuxMachines())
	s.trusts(bundle(1), r)
	back := s.order(func(o *order.Order) {
		o.Deployment, o.Program = "hello-rollback", "remove"
		o.Rolls = &order.Rolls{Deployment: "hello", Revision: 1, Package: "hello", Version: "2.10-3", Program: "install"}
	})
	o := s.order()
	for what, req := range map[string]events.DeploymentRequest{
		"too few signed the rollback":         {Envelope: s.signed(o, "ada", "bob"), Rollback: s.signed(back, "ada")},
		"a stranger signed it":                {Envelope: s.signed(o, "ada", "bob"), Rollback: s.signed(back, "mallory", "ada")},
		"a draft holds no rollback":           {Envelope: s.signed(o, "ada"), Rollback: s.signed(back, "ada"), Draft: true},
		"the deployment itself lacks another": {Envelope: s.signed(o, "ada"), Rollback: s.signed(back, "ada", "bob")},
	} {
		if _, err := ask(s, events.DeploymentCreate, req); !errors.Is(err, bus.ErrBadRequest) {
			t.Errorf("%s: %v", what, err)
		}
	}
	v := must(s, events.DeploymentCreate, events.DeploymentRequest{Envelope: s.signed(o, "ada", "bob"), Rollback: s.signed(back, "bob", "ada")})
	if v.Rollback != "hello-rollback" {
		t.Errorf("created: %+v", v)
	}
	// Signed later, without a pair, it does the same.
	must(s, events.DeploymentCreate, events.DeploymentRequest{Envelope: s.signed(back, "eve", "ada")})
	s.eventually("the deployment is taken back", func() bool { return s.hello().RolledBack && s.hello().Life == events.LifeHalted })
}

func TestAPlanIsChangedWhereItIsNotOpenYet(t *testing.T) {
	s := newStory(t)
	r := s.running()
	s.rolledOut(50, canaryAndRest(), r)
	s.released(1, nil)
	plan := *canaryAndRest()
	plan.Phases[0].Percent, plan.Phases[0].MaxInFlight = 50, 3 // the first is open: only its limit changes
	plan.Phases = []events.Phase{plan.Phases[0], {Name: "half", Percent: 50, AdvanceWhen: &events.Advance{Approval: true}}, plan.Phases[1]}
	v := must(s, events.DeploymentPlan, events.PlanRequest{Deployment: "hello", Plan: plan})
	if p := v.Plan.Phases; len(p) != 3 || p[0].Percent != 10 || p[0].MaxInFlight != 3 || p[1].Name != "half" {
		t.Errorf("changed: %+v", v.Plan)
	}
	told := eventstest.ExpectExactly(t, s.admin, events.DeploymentCreated, nil, 2)[1].Data
	if diff := cmp.Diff(v.Plan, told.Plan); diff != "" {
		t.Error(diff)
	}
	must(s, events.DeploymentPlan, events.PlanRequest{Deployment: "hello", Plan: plan}) // again: nothing is told
	s.progress(wave(0, 5, 5, 0))
	if got := s.released(2, nil); len(got) != 25 {
		t.Errorf("%d agents were handed over", len(got))
	}
	eventstest.ExpectExactly(t, s.admin, events.DeploymentCreated, nil, 2)
	absent := plan
	absent.Phases = slices.Clone(plan.Phases)
	absent.Phases[2] = events.Phase{Name: "all", Collection: "absent"}
	if _, err := ask(s, events.DeploymentPlan, events.PlanRequest{Deployment: "hello", Plan: absent}); !errors.Is(err, bus.ErrBadRequest) || !strings.Contains(err.Error(), `there is no collection "absent"`) {
		t.Errorf("a phase in no collection: %v", err)
	}
	for what, p := range map[string]events.Plan{
		"phases that are open are left out": {Phases: plan.Phases[2:]},
		"an open one is another":            *canaryAndRest(),
	} {
		if _, err := ask(s, events.DeploymentPlan, events.PlanRequest{Deployment: "hello", Plan: p}); !errors.Is(err, bus.ErrConflict) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestADeploymentToEverybodyAtOnceGetsNoPhasesLater(t *testing.T) {
	s := newStory(t)
	r := s.running()
	s.rolledOut(3, nil, r)
	s.released(1, nil)
	_, err := ask(s, events.DeploymentPlan, events.PlanRequest{Deployment: "hello", Plan: *canaryAndRest()})
	if !errors.Is(err, bus.ErrConflict) || !strings.Contains(err.Error(), "everybody at once") {
		t.Errorf("phases afterwards: %v", err)
	}
	must(s, events.DeploymentPlan, events.PlanRequest{Deployment: "hello", Plan: events.Plan{MaxInFlight: 3}})
	s.report(facts("agent009"))
	s.knows(r, 4)
	s.eventually("it is held back", func() bool { return r.countHeld() == 1 })
	s.released(1, nil)
}

func TestAPhaseInACollectionFollowsTheCollection(t *testing.T) {
	s := newStory(t)
	r := s.running()
	must(s, events.CollectionSet, events.Collection{Name: "pilots", Include: []string{"agent00003"}})
	plan := canaryAndRest()
	plan.Phases[0].Percent, plan.Phases[0].Collection = 0, "pilots"
	s.rolledOut(10, plan, r)
	if diff := cmp.Diff([]string{"agent00003"}, s.released(1, nil)); diff != "" {
		t.Error(diff)
	}
	if _, err := ask(s, events.CollectionRemove, events.Named{Name: "pilots"}); !errors.Is(err, bus.ErrConflict) {
		t.Errorf("a collection that a phase needs was removed: %v", err)
	}
	must(s, events.CollectionSet, events.Collection{Name: "pilots", Include: []string{"agent00003", "agent00007"}})
	s.report(facts("agent00007", func(f *events.Facts) { f.OSVersion = "13" })) // it is looked at again
	joined := s.released(1, func(e events.Event[events.Release]) bool { return e.Data.Joined && e.Data.Phase == 0 })
	if diff := cmp.Diff([]string{"agent00007"}, joined); diff != "" {
		t.Error(diff)
	}
}

func TestNoPhaseOpensWhileNobodyIsInTheFirst(t *testing.T) {
	s := newStory(t)
	r := s.running()
	s.rolledOut(0, canaryAndRest(), r)
	s.eventually("it says so", func() bool {
		v := s.hello()
		return len(v.Phases) == 2 && v.Life == events.LifeActive && v.Phases[0].Says == "there is nobody for it: nobody is in the target; it opens when there is somebody; `chandler deployment skip hello` passes it"
	})
	s.eventually("it is counted", func() bool { return r.countStuck() == 1 })
	s.report(facts("agent001"))
	if first := opened(s, 1)[0]; first.Size != 1 {
		t.Errorf("opened: %+v", first)
	}
	s.released(1, nil)
	s.eventually("it is counted no more", func() bool { return r.countStuck() == 0 })
}

func TestAPhaseThatThereIsNobodyForIsToldAndPassed(t *testing.T) {
	advance := &events.Advance{Approval: true}
	rest := events.Phase{Name: "rest", Percent: 100}
	pilots := events.Phase{Name: "pilots", Collection: "pilots", AdvanceWhen: advance}
	for name, c := range map[string]struct {
		phases  []events.Phase
		away    time.Duration // since when all machines were heard of last
		stuck   int           // index of the phase that there is nobody for
		nobody  string
		skipped int // phases that somebody skipped, at the end
	}{
		"the first, of whose collection nobody is in the target": {phases: []events.Phase{pilots, rest}, nobody: "nobody of the target is in collection pilots", skipped: 1},
		"the first, for whose share nobody was heard of lately": {phases: []events.Phase{{Name: "tenth", Percent: 10, AdvanceWhen: advance}, rest}, away: 20 * 24 * time.Hour,
			nobody: "whoever may be in it was not heard of for 14 days", skipped: 1},
		"the second, for whose share nobody was heard of lately": {phases: []events.Phase{pilots, {Name: "tenth", Percent: 10, AdvanceWhen: advance}, rest}, away: 20 * 24 * time.Hour, stuck: 1,
			nobody: "whoever may be in it was not heard of for 14 days", skipped: 2},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStory(t)
			for _, id := range names(10) {
				s.report(facts(id))
			}
			r := s.running()
			s.knows(r, 10)
			s.clock.advance(c.away)
			must(s, events.CollectionSet, events.Collection{Name: "pilots", Expression: `agent.os == "windows"`})
			s.rolledOut(0, &events.Plan{Phases: c.phases})
			for range c.stuck { // the phases before it have nobody either
				s.eventually("nobody is in the one before", func() bool { return r.countStuck() == 1 })
				must(s, events.DeploymentSkip, events.Named{Name: "hello"})
			}
			says := "there is nobody for it: " + c.nobody + "; it opens when there is somebody; `chandler deployment skip hello` passes it"
			s.eventually("it says so", func() bool {
				v := s.hello()
				return v.Phases[c.stuck].Opened.IsZero() && v.Phases[c.stuck].Says == says
			})
			why := must(s, events.Why, events.WhyRequest{Agent: "agent00003", Deployment: "hello"}).Answers[0]
			if !strings.Contains(why.Says, c.phases[c.stuck].Name+" does not open: "+says) {
				t.Errorf("why: %s", why.Says)
			}
			s.released(0, nil)
			must(s, events.DeploymentSkip, events.Named{Name: "hello"})
			if got := s.released(1, nil); len(got) != 10 {
				t.Errorf("%d agents were handed over", len(got))
			}
			skipped := 0
			for _, p := range s.hello().Phases {
				if p.Skipped == "ada" {
					skipped++
				}
			}
			if skipped != c.skipped {
				t.Errorf("%d phases were skipped", skipped)
			}
			s.eventually("it is counted no more", func() bool { return r.countStuck() == 0 })
		})
	}
}

func TestAPhaseThatThereIsNobodyForWhenTheGateBeforeItIsMetIsPassedAtOnce(t *testing.T) {
	s := newStory(t)
	r := s.running()
	approval := &events.Advance{Approval: true}
	s.rolledOut(10, &events.Plan{Phases: []events.Phase{{Name: "one", Count: 1, AdvanceWhen: approval}, {Name: "five", Count: 5, AdvanceWhen: approval}, {Name: "rest", Percent: 100}}}, r)
	s.released(1, nil)
	s.clock.advance(20 * 24 * time.Hour)
	if says := s.hello().Phases[1].Says; says != "opens when the gate of the phase before it is met" {
		t.Errorf("before the gate is met: %s", says)
	}
	must(s, events.DeploymentApprove, events.Named{Name: "hello"})
	s.eventually("it says so", func() bool {
		return strings.HasPrefix(s.hello().Phases[1].Says, "there is nobody for it: whoever may be in it was not heard of")
	})
	s.released(1, nil)
	must(s, events.DeploymentSkip, events.Named{Name: "hello"})
	if got := s.released(2, nil); len(got) != 10 {
		t.Errorf("%d agents were handed over", len(got))
	}
	if v := s.hello(); v.Phases[0].Skipped != "" || v.Phases[1].Skipped != "ada" {
		t.Errorf("skipped: %+v", v.Phases)
	}
}

func TestMachinesThatWereNotHeardOfForLongWaitForTheLastPhase(t *testing.T) {
	s := newStory(t)
	for _, id := range names(10) {
		s.report(facts(id))
	}
	r := s.running()
	s.knows(r, 10)
	s.clock.advance(20 * 24 * 3600e9)
	seen := []string{"agent00002", "agent00006"}
	for _, id := range seen {
		a, _ := r.fleet.get(id)
		a.attendance.hear(s.clock.now())
	}
	plan := canaryAndRest()
	plan.Phases[0].Percent = 50
	s.rolledOut(0, plan)
	got := s.released(1, nil)
	if len(got) != 1 || got[0] != seen[0] && got[0] != seen[1] {
		t.Errorf("canaries: %v", got)
	}
	s.progress(wave(0, 1, 1, 0))
	if all := s.released(2, nil); len(all) != 10 {
		t.Errorf("%d agents were handed over", len(all))
	}
}

func TestMaintenanceWindowsOfCollections(t *testing.T) {
	s := newStory(t)
	r := s.running()
	s.published()
	s.report(facts("agent001"), facts("agent002", windows))
	s.knows(r, 2)
	night := calendar.Window{Daily: 1, At: "02:00", For: calendar.Duration(3 * 3600e9)}
	c := linuxMachines()
	must(s, events.CollectionSet, c)
	s.deploy()
	c.Windows = []calendar.Window{night}
	v := must(s, events.CollectionSet, c)
	if diff := cmp.Diff([]string{"hello"}, v.OutdatedWindows); diff != "" || len(v.Outdated) != 0 || len(v.Windows) != 1 {
		t.Errorf("set: %+v", v)
	}
	s.toldOf("linux", "changed", "changed")
	s.deploy(func(o *order.Order) {
		o.Revision, o.Windows = 2, []order.Windows{{Collection: "linux", Expression: c.Expression, Windows: c.Windows}}
	})
	if v := must(s, events.CollectionShow, events.Named{Name: "linux"}); len(v.OutdatedWindows) != 0 {
		t.Errorf("signed with its windows: %v", v.OutdatedWindows)
	}
	other := events.Collection{Name: "other", Expression: `agent.os == "windows"`, Windows: c.Windows}
	if v := must(s, events.CollectionSet, other); len(v.OutdatedWindows) != 0 {
		t.Errorf("windows of nobody in the target: %v", v.OutdatedWindows)
	}
	s.deploy(func(o *order.Order) {
		o.Revision = 3
		o.Windows = []order.Windows{{Collection: "linux", Expression: c.Expression, Windows: c.Windows}, {Collection: "other", Expression: c.Expression, Windows: c.Windows}}
	})
	if v := must(s, events.CollectionShow, events.Named{Name: "other"}); !cmp.Equal(v.OutdatedWindows, []string{"hello"}) {
		t.Errorf("windows that hold the target as they were signed: %v", v.OutdatedWindows)
	}
	must(s, events.CollectionSet, c) // nothing new: no event
	s.toldOf("linux", "changed", "changed")
	c.Windows[0].Daily = 0
	if _, err := ask(s, events.CollectionSet, c); !errors.Is(err, bus.ErrBadRequest) || !strings.Contains(err.Error(), "window") {
		t.Errorf("a window that never opens: %v", err)
	}
	c.Windows = make([]calendar.Window, order.MaxWindows+1)
	if _, err := ask(s, events.CollectionSet, c); !errors.Is(err, bus.ErrBadRequest) {
		t.Errorf("too many windows: %v", err)
	}
}

func TestWhoLeavesBeforeBeingHandedOverIsNotWaitedFor(t *testing.T) {
	s := newStory(t)
	r := s.running()
	plan := &events.Plan{MaxInFlight: 2, Phases: []events.Phase{
		{Name: "four", Count: 4, AdvanceWhen: &events.Advance{Succeeded: &events.Limit{Percent: 100}}}, {Name: "rest", Percent: 100}}}
	ids := s.rolledOut(8, plan, r)
	got := s.released(1, nil)
	if len(got) != 2 {
		t.Fatalf("%v were handed over", got)
	}
	cut := r.rollouts["hello"][1].Phases[0].Cut
	left := 0
	for _, id := range ids {
		if left == 0 && !slices.Contains(got, id) && (phaseRecord{Cut: cut}).holds("hello", id) {
			s.report(facts(id, windows))
			left++
		}
	}
	s.eventually("one has left", func() bool { return s.hello().Members == 7 })
	s.progress(wave(0, 2, 2, 0))
	s.released(2, nil)
	opened(s, 1)
	s.progress(wave(0, 3, 3, 0)) // all that are still in it
	opened(s, 2)
}

func TestTheBrokersTimerEndsTheBakeTime(t *testing.T) {
	s := newStory(t)
	r := s.running() // its own look at everything comes once an hour
	plan := canaryAndRest()
	plan.Phases[0].AdvanceWhen.For = events.Duration(2 * time.Second)
	s.rolledOut(10, plan, r)
	s.released(1, nil)
	s.progress(wave(0, 1, 1, 0))
	second := eventstest.ExpectExactly(t, s.admin, events.RolloutOpened, nil, 2)[1]
	if met := s.hello().Phases[0].Met; met.IsZero() || second.Time.Before(met.Add(2*time.Second)) {
		t.Errorf("opened at %s, met since %s", second.Time, met)
	}
}

func TestReconcileTellsAHaltAndTheLimitsAgain(t *testing.T) {
	s := newStory(t)
	r := s.running()
	s.rolledOut(10, canaryAndRest(), r)
	must(s, events.LimitsSet, events.Limits{MaxInFlight: 5})
	s.released(1, nil)
	s.progress(wave(0, 1, 0, 1))
	first := eventstest.ExpectExactly(t, s.admin, events.RolloutHalted, nil, 1)[0]
	must(s, events.Reconcile, events.Nothing{})
	again := eventstest.ExpectExactly(t, s.admin, events.RolloutHalted, nil, 2)[1]
	if diff := cmp.Diff(first.Data, again.Data); diff != "" || first.ID == again.ID {
		t.Error(diff)
	}
	eventstest.ExpectExactly(t, s.admin, events.LimitsChanged, nil, 2)
}
