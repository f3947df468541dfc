package scheduling

import (
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chandler/events"
	"chandler/events/eventstest"
	"chandler/events/order"
)

var takenBackSaid = regexp.MustCompile(`(^|by ada at \S+Z; )taken back by deployment hello-rollback, asked for by ada at \S+Z: breaks printing$`)

func TestWhatIsStoppedOrOverCanStillBeTakenBack(t *testing.T) {
	for name, end := range map[string]struct {
		life events.Life
		by   func(*story, events.DeploymentView)
	}{
		"stopped": {events.LifeStopped, func(s *story, v events.DeploymentView) {
			publish(s, events.ServiceSource("execution"), events.DeploymentHalted, "hello", v.DeploymentNotice)
		}},
		"expired": {events.LifeExpired, func(s *story, v events.DeploymentView) { s.clock.advance(25 * time.Hour) }},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStory(t)
			r := s.running(func(o *Options) { o.Tick = 100 * time.Millisecond })
			for _, id := range names(50) {
				s.report(facts(id))
			}
			s.published()
			must(s, events.CollectionSet, linuxMachines())
			s.knows(r, 50)
			valid := func(d time.Duration) func(*order.Order) {
				return func(o *order.Order) { o.NotAfter = o.Issued.Add(d) }
			}
			v := must(s, events.DeploymentCreate, events.DeploymentRequest{Envelope: s.sign(s.order(valid(24 * time.Hour))), Plan: canaryAndRest(), Rollback: s.signedRollback(valid(30 * 24 * time.Hour))})
			if v.RollbackTo != "hello@2.10-3/remove" {
				t.Errorf("it would be taken back by %q", v.RollbackTo)
			}
			if told := eventstest.ExpectExactly(t, s.admin, events.DeploymentCreated, nil, 1)[0].Data; told.RollbackTo != v.RollbackTo {
				t.Errorf("told: %q", told.RollbackTo)
			}
			canaries := s.released(1, nil)
			end.by(s, v)
			s.eventually("it is over", func() bool { return s.hello().Life == end.life })
			if v := must(s, events.DeploymentRollback, events.Named{Name: "hello", Why: "breaks printing"}); v.Life != end.life || !v.RolledBack || !takenBackSaid.MatchString(v.Why) {
				t.Errorf("rolled back: %+v", v)
			}
			back := s.released(1, func(e events.Event[events.Release]) bool { return e.Data.Deployment == "hello-rollback" })
			slices.Sort(back)
			if diff := cmp.Diff(canaries, back); diff != "" {
				t.Error(diff)
			}
			eventstest.ExpectExactly(t, s.admin, events.RolloutRolledBack, nil, 1)
			eventstest.ExpectExactly(t, s.admin, events.RolloutHalted, nil, 0) // nothing of it runs any more
		})
	}
}

func TestARollbackThatWasAskedForAndInterruptedIsCarriedOutThoughTheDeploymentIsOver(t *testing.T) {
	s := newStory(t)
	r := s.running(func(o *Options) { o.Tick = 100 * time.Millisecond })
	for _, id := range names(50) {
		s.report(facts(id))
	}
	s.published()
	must(s, events.CollectionSet, linuxMachines())
	s.knows(r, 50)
	v := must(s, events.DeploymentCreate, events.DeploymentRequest{Envelope: s.sign(s.order()), Plan: canaryAndRest(), Rollback: s.signedRollback()})
	s.released(1, nil)
	publish(s, events.ServiceSource("execution"), events.DeploymentHalted, "hello", v.DeploymentNotice)
	s.eventually("it is stopped", func() bool { return s.hello().Life == events.LifeStopped })
	// A replica died between the two steps.
	d, _ := r.deployment("hello")
	if _, err := r.changeRollout(t.Context(), d, func(now *rolloutRecord) error {
		return now.takeBack("hello-rollback", "ada", "", r.now().UTC(), false)
	}); err != nil {
		t.Fatal(err)
	}
	s.released(1, func(e events.Event[events.Release]) bool { return e.Data.Deployment == "hello-rollback" })
}

func TestARollbackIsForWhomTheOtherWasHandedOverToAndEndsWithThem(t *testing.T) {
	s := newStory(t)
	r := s.running()
	for _, id := range names(50) {
		s.report(facts(id))
	}
	s.published()
	must(s, events.CollectionSet, linuxMachines())
	s.knows(r, 50)
	must(s, events.DeploymentCreate, events.DeploymentRequest{Envelope: s.sign(s.order()), Plan: canaryAndRest(), Rollback: s.signedRollback()})
	canaries := s.released(1, nil)
	must(s, events.DeploymentRollback, events.Named{Name: "hello"})
	s.released(1, func(e events.Event[events.Release]) bool { return e.Data.Deployment == "hello-rollback" })
	back := func() events.DeploymentView {
		return must(s, events.DeploymentShow, events.Named{Name: "hello-rollback"})
	}
	s.eventually("they all were handed over", func() bool { return back().Released == 5 })
	if v := back(); v.Members != 5 {
		t.Errorf("%d members", v.Members)
	}
	for _, id := range []string{"agent00000", "agent00001", "agent00002", "agent00003", "agent00004", "agent00005"} {
		got := slices.Contains(canaries, id)
		w := must(s, events.Why, events.WhyRequest{Agent: id, Deployment: "hello-rollback"}).Answers[0]
		if w.Member != got || w.Released != got || !got && w.Says != "not a member: deployment hello, which this one takes back, was not handed over to it" {
			t.Errorf("why of %s: %+v", id, w)
		}
	}
	if _, err := ask(s, events.DeploymentRemove, events.Named{Name: "hello-rollback"}); err == nil {
		t.Error("removed while its jobs go on")
	}
	publish(s, events.ServiceSource("execution"), events.DeploymentProgressed, "hello-rollback",
		events.Progress{Deployment: "hello-rollback", Revision: 1, Total: 5, States: map[events.State]int64{events.Succeeded: 5}, At: time.Now()})
	s.eventually("its end is known", func() bool { return back().Progress != nil })
	must(s, events.DeploymentRemove, events.Named{Name: "hello-rollback"})
}
