package scheduling

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/eventstest"
	"chandler/events/order"
)

const testTrace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

func TestReconcileTellsEveryLiveDeploymentAndItsBatchesAgain(t *testing.T) {
	s := newStory(t)
	r := s.running()
	s.published()
	ids := names(events.ReleaseSize + 10)
	for _, id := range ids {
		s.report(facts(id))
	}
	s.knows(r, len(ids))
	must(s, events.CollectionSet, linuxMachines())
	live := s.deploy(func(o *order.Order) { o.Deployment = "live" })
	stopped := s.deploy(func(o *order.Order) { o.Deployment = "stopped" })
	for _, name := range []string{"live", "stopped"} {
		s.eventually("everybody is released by "+name, func() bool { return must(s, events.DeploymentShow, events.Named{Name: name}).Released == len(ids) })
	}
	must(s, events.DeploymentPause, events.Named{Name: "live"})
	publish(s, events.ServiceSource("execution"), events.DeploymentHalted, "stopped", stopped.DeploymentNotice)
	s.eventually("the stop is known", func() bool {
		return must(s, events.DeploymentShow, events.Named{Name: "stopped"}).Life == events.LifeStopped
	})

	stream, err := s.admin.JetStream().Stream(t.Context(), events.StreamEvents)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	for run := 1; run <= 2; run++ { // within the broker's duplicate window
		answer := must(s, events.Reconcile, events.Nothing{})
		if answer.Deployments != 1 || answer.Batches < 2 || answer.Agents != len(ids) {
			t.Errorf("run %d: %+v", run, answer)
		}
		created := eventstest.ExpectExactly(t, s.admin, events.DeploymentCreated, nil, run)[run-1]
		if diff := cmp.Diff(live.DeploymentNotice, created.Data.DeploymentNotice); diff != "" || len(created.Data.Envelope) == 0 {
			t.Errorf("run %d: %s", run, diff)
		}
		var told []string
		for _, e := range eventstest.ExpectExactly(t, s.admin, events.DeploymentReleased, nil, run*answer.Batches)[(run-1)*answer.Batches:] {
			told = append(told, e.Data.Agents...)
		}
		slices.Sort(told)
		if diff := cmp.Diff(ids, told); diff != "" {
			t.Errorf("run %d: %s", run, diff)
		}
		// Other events may follow; the last release must not.
		last, err := stream.GetLastMsgForSubject(t.Context(), events.DeploymentReleased.Subject("live"))
		if err != nil || last.Sequence != answer.Sequence {
			t.Errorf("run %d: the last release is at %d, the answer says %d: %v", run, last.Sequence, answer.Sequence, err)
		}
	}
}

func TestReconcileWithNothingToTellTellsNothing(t *testing.T) {
	s := newStory(t)
	s.running()
	answer := must(s, events.Reconcile, events.Nothing{})
	if answer.Run == "" || answer.Deployments+answer.Batches+answer.Agents != 0 || answer.Sequence != 0 {
		t.Errorf("%+v", answer)
	}
}

func TestATraceGoesFromTheRequestToEveryEventOfTheDeployment(t *testing.T) {
	s := newStory(t)
	s.running()
	s.published()
	s.report(facts("agent001"))
	must(s, events.CollectionSet, linuxMachines())
	request := events.DeploymentRequest{Envelope: s.sign(s.order(func(o *order.Order) { o.Deployment = "traced" }))}
	if _, err := bus.Request(bus.WithTrace(t.Context(), testTrace), s.admin, "ada", events.DeploymentCreate, request); err != nil {
		t.Fatal(err)
	}
	created, released := eventstest.Expect(t, s.admin, events.DeploymentCreated, nil), eventstest.Expect(t, s.admin, events.DeploymentReleased, nil)
	must(s, events.DeploymentPause, events.Named{Name: "traced"})
	paused := eventstest.Expect(t, s.admin, events.DeploymentPaused, nil)
	for what, trace := range map[string]string{"created": created.Trace, "released": released.Trace, "paused": paused.Trace} {
		if trace != testTrace {
			t.Errorf("%s carries the trace %q", what, trace)
		}
	}
	must(s, events.Reconcile, events.Nothing{})
	for _, e := range eventstest.ExpectExactly(t, s.admin, events.DeploymentReleased, nil, 2) {
		if e.Trace != testTrace {
			t.Errorf("a batch that is told again carries the trace %q", e.Trace)
		}
	}
}

func TestWhatABrokerLostOfWhatItHeardLastIsToldAgain(t *testing.T) {
	s := newStory(t)
	r := s.running(func(o *Options) { o.Tick = 100 * time.Millisecond })
	s.report(facts("agent001"))
	s.published()
	s.knows(r, 1)
	must(s, events.CollectionSet, linuxMachines())
	s.deploy()
	s.released(1, nil)
	created := eventstest.Expect(t, s.admin, events.DeploymentCreated, nil)
	s.eventually("it takes all for told", func() bool {
		r.mu.RLock()
		defer r.mu.RUnlock()
		return r.releases["hello"][1].batches[0].announced && len(r.deployments["hello"].record.Outbox.Notes) == 0
	})
	stream, err := s.admin.JetStream().Stream(t.Context(), events.StreamEvents)
	if err != nil {
		t.Fatal(err)
	}
	for _, subject := range []string{"chandler.event.deployment.created.hello", "chandler.event.deployment.released.hello"} {
		m, err := stream.GetLastMsgForSubject(t.Context(), subject)
		if err == nil {
			err = stream.SecureDeleteMsg(t.Context(), m.Sequence) // as a power cut would
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	s.broker.Restart()
	again := eventstest.ExpectExactly(t, s.admin, events.DeploymentCreated, nil, 1)
	s.released(1, nil)
	if again[0].ID != created.ID {
		t.Errorf("it is told as another event: %s, before %s", again[0].ID, created.ID)
	}
	eventstest.ExpectExactly(t, s.admin, events.CollectionChanged, nil, 1) // which was not lost
}

func TestOnlyTheLastNotesThatWereToldAreKept(t *testing.T) {
	var o outbox
	at := time.Date(2026, 12, 1, 8, 0, 0, 0, time.UTC)
	for i := range 20 {
		o = o.with(events.DeploymentPaused.Declaration, "ada", "", at.Add(time.Duration(i)*time.Minute)).without(uint64(i + 1))
	}
	if len(o.Notes) != 0 || len(o.Told) != toldNotes || o.Told[toldNotes-1].Number != 20 {
		t.Errorf("%d notes, told %v", len(o.Notes), o.Told)
	}
	if got := o.toldSince(at.Add(17 * time.Minute)); len(got) != 2 || got[0].Number != 19 {
		t.Errorf("told since then: %v", got)
	}
}
