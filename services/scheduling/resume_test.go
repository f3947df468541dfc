package scheduling

import (
	"testing"
	"time"

	"chandler/events"
	"chandler/events/eventstest"
)

func TestWhatWasForgivenAndIsTriedAgainCountsAnewWhenItFailsAgain(t *testing.T) {
	s := newStory(t)
	r := s.running()
	s.rolledOut(50, canaryAndRest(), r)
	s.released(1, nil)
	s.progress(wave(0, 5, 3, 1))
	eventstest.ExpectExactly(t, s.admin, events.RolloutHalted, nil, 1)
	must(s, events.DeploymentResume, events.Named{Name: "hello"})
	forgiven := func() int64 {
		r.mu.RLock()
		defer r.mu.RUnlock()
		return r.rollouts["hello"][1].Phases[0].Forgiven.Failed
	}
	if forgiven() != 1 {
		t.Errorf("%d failures are forgiven", forgiven())
	}
	s.progress(wave(0, 5, 3, 0)) // it is retried
	s.eventually("no failure is left to forgive", func() bool { return forgiven() == 0 })
	s.progress(wave(0, 5, 3, 1))
	eventstest.ExpectExactly(t, s.admin, events.RolloutHalted, nil, 2)
}

func TestAHaltBeginsTheBakeTimeAnew(t *testing.T) {
	s := newStory(t)
	r := s.running(func(o *Options) { o.Tick = 50 * time.Millisecond })
	plan := canaryAndRest()
	plan.Phases[0].AdvanceWhen = &events.Advance{For: events.Duration(24 * time.Hour)}
	s.rolledOut(50, plan, r)
	s.released(1, nil)
	s.clock.advance(20 * time.Hour)
	s.progress(wave(0, 5, 3, 1))
	eventstest.ExpectExactly(t, s.admin, events.RolloutHalted, nil, 1)
	s.clock.advance(20 * time.Hour)
	resumed := s.clock.now()
	must(s, events.DeploymentResume, events.Named{Name: "hello"})
	s.eventually("it bakes since it was resumed", func() bool { return s.hello().Phases[0].Met.After(resumed) })
	opened(s, 1)
	s.clock.advance(25 * time.Hour)
	opened(s, 2)
}

func TestWhatComesLaterIsToldAsLaterThoughAReplicasClockIsBehind(t *testing.T) {
	s := newStory(t)
	r := s.running()
	s.rolledOut(50, canaryAndRest(), r)
	s.released(1, nil)
	s.progress(wave(0, 5, 3, 1))
	halted := eventstest.ExpectExactly(t, s.admin, events.RolloutHalted, nil, 1)[0].Data
	s.clock.advance(-time.Hour)
	must(s, events.DeploymentResume, events.Named{Name: "hello"})
	resumed := eventstest.ExpectExactly(t, s.admin, events.DeploymentResumed, nil, 1)[0].Data
	if !resumed.At.After(halted.At) {
		t.Errorf("halted at %s, resumed at %s: whoever holds the jobs would go on holding them", halted.At, resumed.At)
	}
	must(s, events.LimitsSet, events.Limits{MaxInFlight: 100})
	eventstest.ExpectExactly(t, s.admin, events.LimitsChanged, nil, 1)
	s.clock.advance(-time.Hour)
	must(s, events.LimitsSet, events.Limits{MaxInFlight: 200})
	limits := eventstest.ExpectExactly(t, s.admin, events.LimitsChanged, nil, 2)
	if !limits[1].Data.At.After(limits[0].Data.At) {
		t.Errorf("limits of %s, then of %s", limits[0].Data.At, limits[1].Data.At)
	}
}

func TestASignalIsRememberedWhileSomethingElseIsLacking(t *testing.T) {
	s := newStory(t)
	r := s.running(func(o *Options) { o.Tick = 50 * time.Millisecond })
	plan := canaryAndRest()
	plan.Phases[0].AdvanceWhen.Event = &events.ExternalGate{Type: "com.example.passed", Subject: "hello"}
	s.rolledOut(50, plan, r)
	s.released(1, nil)
	opened(s, 1)
	must(s, events.GateSignal, events.Signal{Type: "com.example.passed", Subject: "hello"})
	s.eventually("the signal is noted", func() bool {
		r.mu.RLock()
		defer r.mu.RUnlock()
		return r.rollouts["hello"][1].Phases[0].Signalled
	})
	// EVENTS does not keep it for ever.
	stream, err := s.admin.JetStream().Stream(t.Context(), events.StreamEvents)
	if err == nil {
		last, missing := stream.GetLastMsgForSubject(t.Context(), events.GateSignalled.Subject(events.SignalKey("com.example.passed", "hello")))
		if err = missing; err == nil {
			err = stream.DeleteMsg(t.Context(), last.Sequence)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	s.progress(wave(0, 5, 5, 0))
	opened(s, 2)
}
