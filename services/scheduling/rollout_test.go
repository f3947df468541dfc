package scheduling

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chandler/events"
	"chandler/events/eventstest"
	"chandler/events/order"
)

func canaryAndRest() *events.Plan {
	return &events.Plan{Phases: []events.Phase{
		{Name: "canary", Percent: 10, AdvanceWhen: &events.Advance{Succeeded: &events.Limit{Percent: 90}}, HaltWhen: &events.Halt{Failed: &events.Limit{Percent: 20}}},
		{Name: "rest", Percent: 100},
	}}
}

// rolledOut deploys with a plan to n agents that all are known.
func (s *story) rolledOut(n int, plan *events.Plan, replicas ...*Service) []string {
	s.t.Helper()
	ids := names(n)
	for _, id := range ids {
		s.report(facts(id))
	}
	s.published()
	must(s, events.CollectionSet, linuxMachines())
	for _, r := range replicas {
		s.knows(r, n)
	}
	must(s, events.DeploymentCreate, events.DeploymentRequest{Envelope: s.sign(s.order()), Plan: plan})
	return ids
}

// progress tells, as execution, how the phases stand.
func (s *story) progress(waves ...events.WaveCounts) {
	s.t.Helper()
	p := events.Progress{Deployment: "hello", Revision: 1, States: map[events.State]int64{}, Waves: waves, At: time.Now()}
	for _, w := range waves {
		p.Total += w.Offered
	}
	publish(s, events.ServiceSource("execution"), events.DeploymentProgressed, "hello", p)
}

// wave counts a phase whose agents all were offered.
func wave(index, agents, succeeded, failed int) events.WaveCounts {
	n := int64(agents)
	return events.WaveCounts{Wave: index, Offered: n, Agents: n, Succeeded: int64(succeeded), Failed: int64(failed), InFlight: n - int64(succeeded) - int64(failed)}
}

func (s *story) hello() events.DeploymentView {
	s.t.Helper()
	return must(s, events.DeploymentShow, events.Named{Name: "hello"})
}

func opened(s *story, n int) []events.PhaseNotice {
	s.t.Helper()
	var all []events.PhaseNotice
	for _, e := range eventstest.ExpectExactly(s.t, s.admin, events.RolloutOpened, nil, n) {
		all = append(all, e.Data)
	}
	return all
}

func TestTheNextPhaseOpensWhenTheGateIsMet(t *testing.T) {
	s := newStory(t)
	r := s.running()
	ids := s.rolledOut(50, canaryAndRest(), r)
	canaries := s.released(1, nil)
	if len(canaries) != 5 {
		t.Fatalf("canaries: %v", canaries)
	}
	first := opened(s, 1)[0]
	if first.Phase != "canary" || first.Index != 0 || first.Size != 5 {
		t.Errorf("opened: %+v", first)
	}
	for agent, want := range map[string]events.WhyDecision{
		canaries[0]: {Released: true, Phase: "canary", Says: "a member, handed to execution: `chandler job why` tells what became of it"},
		slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return slices.Contains(canaries, id) })[0]: {Phase: "rest",
			Says: "a member, its phase, rest, is not open yet: phase 1 of 2, canary, is the newest that is open (0 of 5 succeeded, 0 failed); not handed to execution yet"},
	} {
		want.Deployment, want.Member, want.Life = "hello", true, events.LifeActive
		if diff := cmp.Diff(want, must(s, events.Why, events.WhyRequest{Agent: agent, Deployment: "hello"}).Answers[0]); diff != "" {
			t.Errorf("why: %s", diff)
		}
	}
	s.progress(wave(0, 5, 4, 0)) // 80 %
	s.progress(wave(0, 5, 5, 0))
	rest := s.released(2, nil)[5:]
	if second := opened(s, 2)[1]; second.Phase != "rest" || second.Index != 1 || second.Size != 45 {
		t.Errorf("opened: %+v", second)
	}
	all := slices.Sorted(slices.Values(slices.Concat(canaries, rest)))
	if diff := cmp.Diff(ids, all); diff != "" {
		t.Error(diff)
	}
	for i, e := range s.releases(50) {
		if e.Data.Phase != i || e.Data.Wave != fmt.Sprint(i) || e.Data.Batch != i || e.Data.Joined {
			t.Errorf("release %d: phase %d wave %s batch %d joined %t", i, e.Data.Phase, e.Data.Wave, e.Data.Batch, e.Data.Joined)
		}
	}
	if created := eventstest.ExpectExactly(t, s.admin, events.DeploymentCreated, nil, 1)[0].Data; cmp.Diff(canaryAndRest(), created.Plan) != "" {
		t.Errorf("told with plan %+v", created.Plan)
	}
}

func TestWhoJoinsLaterBelongsToThePhaseOfItsPlace(t *testing.T) {
	s := newStory(t)
	r := s.running()
	s.rolledOut(50, canaryAndRest(), r)
	canaries := s.released(1, nil)
	// So many more that some belong to the canaries.
	var late []string
	for i := range 60 {
		late = append(late, fmt.Sprintf("late%05d", i))
		s.report(facts(late[i]))
	}
	s.knows(r, 110)
	cut := r.rollouts["hello"][1].Phases[0].Cut
	var want []string
	for _, id := range late {
		if (phaseRecord{Cut: cut}).holds("hello", id) {
			want = append(want, id)
		}
	}
	if len(want) == 0 {
		t.Fatal("the test needs joiners in the first phase")
	}
	s.eventually("the joiners are handed over", func() bool { return s.hello().Released == len(canaries)+len(want) })
	var joined []string
	for _, e := range s.releases(len(canaries) + len(want)) {
		if e.Data.Joined {
			joined = append(joined, e.Data.Agents...)
		}
	}
	slices.Sort(joined)
	if diff := cmp.Diff(want, joined); diff != "" {
		t.Error(diff)
	}
}

func TestABadGateHaltsAndResumingForgives(t *testing.T) {
	s := newStory(t)
	r := s.running()
	s.rolledOut(50, canaryAndRest(), r)
	s.released(1, nil)
	s.progress(wave(0, 5, 3, 1))
	halted := eventstest.ExpectExactly(t, s.admin, events.RolloutHalted, nil, 1)[0].Data
	if want := "1 of 5 machines failed (20%) in phase canary; the gate halts at 20%"; halted.Why != want || halted.Phase != "canary" || halted.Revision != 1 {
		t.Errorf("halted: %+v", halted)
	}
	if v := s.hello(); v.Life != events.LifeHalted || v.Why != halted.Why {
		t.Errorf("shown: %s %s", v.Life, v.Why)
	}
	s.progress(wave(0, 5, 4, 1))
	if v := must(s, events.DeploymentResume, events.Named{Name: "hello", Why: "known"}); v.Life != events.LifeActive || v.Why != "" {
		t.Errorf("resumed: %s %s", v.Life, v.Why)
	}
	resumed := eventstest.ExpectExactly(t, s.admin, events.DeploymentResumed, nil, 1)[0].Data
	if resumed.By != "ada" || resumed.Why != "known" {
		t.Errorf("told: %+v", resumed)
	}
	s.progress(wave(0, 5, 4, 1)) // 80 %, which is too few, and the failure is forgiven
	must(s, events.DeploymentSkip, events.Named{Name: "hello"})
	opened(s, 2)
	eventstest.ExpectExactly(t, s.admin, events.RolloutHalted, nil, 1)
	eventstest.ExpectExactly(t, s.admin, events.RolloutSkipped, nil, 1)
	if got := s.released(2, nil); len(got) != 50 {
		t.Errorf("%d agents were handed over", len(got))
	}
}

func TestBakeTimeAndApprovalAreWaitedFor(t *testing.T) {
	s := newStory(t)
	r := s.running(func(o *Options) { o.Tick = 50 * time.Millisecond })
	plan := canaryAndRest()
	plan.Phases[0].AdvanceWhen.For, plan.Phases[0].AdvanceWhen.Approval = events.Duration(24*time.Hour), true
	s.rolledOut(20, plan, r)
	s.released(1, nil)
	if _, err := ask(s, events.DeploymentApprove, events.Named{Name: "absent"}); err == nil {
		t.Error("a deployment that is not there was approved")
	}
	s.progress(wave(0, 2, 2, 0))
	s.eventually("the gate is met", func() bool { return len(s.hello().Phases) == 2 && !s.hello().Phases[0].Met.IsZero() })
	s.clock.advance(25 * time.Hour)
	s.eventually("it waits for the approval alone", func() bool {
		says := s.hello().Phases[0].Says
		return strings.Contains(says, "approval") && !strings.Contains(says, "bake")
	})
	v := must(s, events.DeploymentApprove, events.Named{Name: "hello"})
	if v.Phases[0].Approved != "ada" {
		t.Errorf("approved: %+v", v.Phases[0])
	}
	opened(s, 2)
	s.eventually("all are handed over", func() bool { return s.hello().Released == 20 })
	eventstest.ExpectExactly(t, s.admin, events.RolloutApproved, nil, 1)
}

func TestExternalGates(t *testing.T) {
	for what, c := range map[string]struct {
		gate events.ExternalGate
		tell func(*story)
	}{
		"somebody's signal": {events.ExternalGate{Type: "com.example.smoketest.passed", Subject: "hello on oslo"}, func(s *story) {
			must(s, events.GateSignal, events.Signal{Type: "com.example.smoketest.passed", Subject: "hello on bergen"})
			must(s, events.GateSignal, events.Signal{Type: "com.example.smoketest.passed", Subject: "hello on oslo", Text: "all green"})
		}},
		"an event of Chandler's own": {events.ExternalGate{Type: events.CollectionChanged.Name, Subject: "ready"}, func(s *story) {
			must(s, events.CollectionSet, events.Collection{Name: "ready"})
		}},
	} {
		t.Run(what, func(t *testing.T) {
			s := newStory(t)
			r := s.running(func(o *Options) { o.Tick = 100 * time.Millisecond })
			plan := canaryAndRest()
			plan.Phases[0].AdvanceWhen = &events.Advance{Event: &c.gate}
			s.rolledOut(20, plan, r)
			s.eventually("it waits for the event", func() bool {
				v := s.hello()
				return len(v.Phases) == 2 && strings.Contains(v.Phases[0].Says, c.gate.Type)
			})
			opened(s, 1)
			c.tell(s)
			opened(s, 2)
			if got := s.released(2, nil); len(got) != 20 {
				t.Errorf("%d agents were handed over", len(got))
			}
		})
	}
}

func TestNoMoreAreHandedOverThanMayBeInFlight(t *testing.T) {
	s := newStory(t)
	r := s.running()
	ids := s.rolledOut(20, &events.Plan{MaxInFlight: 8}, r)
	if got := s.released(1, nil); len(got) != 8 {
		t.Fatalf("%d agents were handed over", len(got))
	}
	s.progress(wave(0, 8, 3, 0))
	s.released(2, nil)
	s.progress(wave(0, 11, 5, 6)) // ended, all of them
	got := s.released(3, nil)
	if len(got) != 19 {
		t.Errorf("%d agents were handed over", len(got))
	}
	left := slices.DeleteFunc(ids, func(id string) bool { return slices.Contains(got, id) })[0]
	if why := must(s, events.Why, events.WhyRequest{Agent: left, Deployment: "hello"}).Answers[0]; why.Released || why.Says != "a member, held back by a limit: at most 8 jobs in flight in the deployment, and there are as many; it is handed to execution when some have ended" {
		t.Errorf("why: %+v", why)
	}
	s.progress(wave(0, 19, 19, 0))
	if got := s.released(4, nil); len(got) != 20 {
		t.Errorf("%d agents were handed over", len(got))
	}
}

func TestLimitsOfTheFleetAndOfSitesBindAllDeployments(t *testing.T) {
	s := newStory(t)
	r := s.running()
	must(s, events.LimitsSet, events.Limits{MaxInFlight: 7, MaxInFlightPerSite: 4})
	for i, id := range names(20) {
		s.report(facts(id, func(f *events.Facts) { f.Site = []string{"oslo", "bergen"}[i%2] }))
	}
	s.published()
	must(s, events.CollectionSet, linuxMachines())
	s.knows(r, 20)
	s.deploy()
	for _, e := range s.releases(7) {
		if len(e.Data.Agents) != 7 || len(e.Data.Sites) != 7 {
			t.Errorf("released: %+v", e.Data)
		}
		sites := map[string]int{}
		for _, site := range e.Data.Sites {
			sites[site]++
		}
		if sites["oslo"] > 4 || sites["bergen"] > 4 {
			t.Errorf("sites: %v", sites)
		}
	}
	s.deploy(func(o *order.Order) { o.Deployment = "other" })
	must(s, events.LimitsSet, events.Limits{MaxInFlight: 100, MaxInFlightPerSite: 5})
	s.eventually("the sites are full", func() bool { return s.hello().Released == 10 })
	s.eventually("the other one waits", func() bool { return r.countHeld() == 10+20 })
	if why := must(s, events.Why, events.WhyRequest{Agent: "agent00000", Deployment: "other"}).Answers[0]; !strings.Contains(why.Says, "a member, held back by a limit: at most 5 jobs in flight at site oslo, in the fleet") {
		t.Errorf("why: %+v", why)
	}
	must(s, events.LimitsSet, events.Limits{MaxInFlight: 10})
	if why := must(s, events.Why, events.WhyRequest{Agent: "agent00000", Deployment: "other"}).Answers[0]; !strings.Contains(why.Says, "a member, held back by a limit: at most 10 jobs in flight in the fleet") {
		t.Errorf("why: %+v", why)
	}
	must(s, events.LimitsSet, events.Limits{})
	s.eventually("nothing holds back", func() bool {
		return s.hello().Released == 20 && must(s, events.DeploymentShow, events.Named{Name: "other"}).Released == 20
	})
	if told := eventstest.ExpectExactly(t, s.admin, events.LimitsChanged, nil, 4)[1].Data; told.MaxInFlight != 100 || told.By != "ada" {
		t.Errorf("told: %+v", told)
	}
	if l := must(s, events.LimitsShow, events.Nothing{}); l.MaxInFlight != 0 || l.By != "ada" {
		t.Errorf("limits: %+v", l)
	}
}

func (s *story) signedRollback(change ...func(*order.Order)) []byte {
	s.t.Helper()
	return s.sign(s.order(append([]func(*order.Order){func(o *order.Order) {
		o.Deployment, o.Program = "hello-rollback", "remove"
		o.Rolls = &order.Rolls{Deployment: "hello", Revision: 1, Package: "hello", Version: "2.10-3", Program: "install"}
	}}, change...)...))
}

func TestARollbackReachesWhoGotTheDeploymentAndNobodyElse(t *testing.T) {
	for _, unattended := range []bool{false, true} {
		t.Run(fmt.Sprintf("unattended %t", unattended), func(t *testing.T) {
			s := newStory(t)
			r := s.running()
			s.running() // a second replica does nothing twice
			for _, id := range names(50) {
				s.report(facts(id))
			}
			s.published()
			must(s, events.CollectionSet, linuxMachines())
			s.knows(r, 50)
			plan := canaryAndRest()
			if unattended {
				plan.OnHalt = events.OnHaltRollback
			}
			v := must(s, events.DeploymentCreate, events.DeploymentRequest{Envelope: s.sign(s.order()), Plan: plan, Rollback: s.signedRollback()})
			if v.Rollback != "hello-rollback" || v.RolledBack {
				t.Errorf("created: %+v", v)
			}
			canaries := s.released(1, nil)
			if unattended {
				s.progress(wave(0, 5, 0, 5))
			} else {
				v := must(s, events.DeploymentRollback, events.Named{Name: "hello", Why: "breaks printing"})
				if v.Life != events.LifeHalted || !v.RolledBack || !takenBackSaid.MatchString(v.Why) {
					t.Errorf("rolled back: %+v", v)
				}
			}
			back := s.released(1, func(e events.Event[events.Release]) bool { return e.Data.Deployment == "hello-rollback" })
			slices.Sort(back)
			if diff := cmp.Diff(canaries, back); diff != "" {
				t.Error(diff)
			}
			if told := eventstest.ExpectExactly(t, s.admin, events.RolloutRolledBack, nil, 1)[0].Data; told.Rolls != "hello-rollback" {
				t.Errorf("told: %+v", told)
			}
			eventstest.ExpectExactly(t, s.admin, events.RolloutHalted, nil, 1)
			if why := s.hello().Why; unattended && !(strings.HasPrefix(why, "taken back by deployment hello-rollback, asked for by its gate at ") && strings.HasSuffix(why, "Z: 5 of 5 machines failed (100%) in phase canary; the gate halts at 20%")) {
				t.Errorf("says: %s", why)
			}
			if _, err := ask(s, events.DeploymentResume, events.Named{Name: "hello"}); err == nil {
				t.Error("a deployment that is taken back was resumed")
			}
		})
	}
}
