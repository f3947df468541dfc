package scheduling

import (
	"slices"
	"testing"

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
