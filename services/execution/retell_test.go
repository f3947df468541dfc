package execution

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/eventstest"
)

const testTrace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

func TestAnAdministratorLetsEverythingBeToldAgain(t *testing.T) {
	w := newWorld(t)
	a, b := w.start(), w.start()
	d, ids := w.deploy("hello", 1), agents(10)
	w.release(d, 0, ids...)
	w.states(a, "hello", map[events.State]int64{events.Offered: 10}) // a status that comes before its offer makes the offer needless
	w.runThrough(d, ids[:5])
	want := map[events.State]int64{events.Succeeded: 5, events.Offered: 5}
	w.states(a, "hello", want)
	before, heard := a.generations.status(), w.beacons()

	answer := must[events.RetellAnswer](w)(ask(w, events.ExecutionRetell, events.Nothing{}))
	if want := (events.Generation{Created: before.Created, Counter: before.Counter + 1}); answer.StatusGeneration != want {
		t.Errorf("the generation is %+v, want %+v", answer.StatusGeneration, want)
	}
	w.until("agents hear of it at once", func() bool { n, ok := heard(); return ok && n.Status == answer.StatusGeneration })
	for _, r := range []replica{a, b} {
		w.until("every partition is folded anew", func() bool {
			for _, p := range r.partitions {
				p.mu.RLock()
				behind := p.jobs.status != answer.StatusGeneration
				p.mu.RUnlock()
				if behind {
					return false
				}
			}
			return true
		})
	}
	w.runThrough(d, ids[:6]) // they tell what they keep
	w.states(a, "hello", map[events.State]int64{events.Succeeded: 6, events.Offered: 4})
	w.states(b, "hello", map[events.State]int64{events.Succeeded: 6, events.Offered: 4})
	eventstest.ExpectExactly(t, w.bus, events.JobOffered, nil, 10)
}

func TestATraceGoesFromTheOrderToItsJobs(t *testing.T) {
	w := newWorld(t)
	r := w.start()
	d, ids := w.orderOf("hello", 1), agents(2)
	source := events.ServiceSource("scheduling")
	if _, err := bus.Publish(t.Context(), w.bus, events.DeploymentCreated, events.Event[events.DeploymentOrder]{
		ID: "created", Source: source, Subject: "hello", Time: w.now(), Trace: testTrace, Data: d}); err != nil {
		t.Fatal(err)
	}
	w.release(d, 0, ids...)
	w.states(r, "hello", map[events.State]int64{events.Offered: 2})
	answer, err := bus.Request(t.Context(), w.bus, ids[0], events.ExecutionSync, events.SyncRequest{JobsGeneration: r.generations.jobs(), StatusGeneration: r.generations.status()})
	if err != nil || len(answer.Offers) != 1 || answer.Offers[0].Trace != testTrace {
		t.Errorf("a sync answers %+v, %v", answer.Offers, err)
	}
	w.tell(statusOf(w, d, ids[0], 1, events.Succeeded))
	w.states(r, "hello", map[events.State]int64{events.Offered: 1, events.Succeeded: 1})
	must[events.StopAnswer](w)(ask(w, events.ExecutionStop, events.StopRequest{Deployment: "hello"}))

	traces := map[string]string{
		"offer":    eventstest.Expect(t, w.bus, events.JobOffered, nil).Trace,
		"end":      eventstest.Expect(t, w.bus, events.JobFinished, nil).Trace,
		"cancel":   eventstest.Expect(t, w.bus, events.JobCancelRequested, nil).Trace,
		"stop":     eventstest.Expect(t, w.bus, events.DeploymentHalted, nil).Trace,
		"progress": eventstest.Expect(t, w.bus, events.DeploymentProgressed, nil).Trace,
	}
	if diff := cmp.Diff(map[string]string{"offer": testTrace, "end": testTrace, "cancel": testTrace, "stop": testTrace, "progress": testTrace}, traces); diff != "" {
		t.Error(diff)
	}
}

func TestHealthyTellsThatTheStateIsNotThereYetOrTheBrokerIsAway(t *testing.T) {
	w := newWorld(t)
	fresh, err := New(Options{Bus: eventstest.Bus(t, w.server, events.ServiceSource("execution"))})
	if err != nil {
		t.Fatal(err)
	}
	if fresh.Healthy(t.Context()) == nil {
		t.Error("healthy before its state is loaded")
	}
	r := w.start()
	if err := r.Healthy(t.Context()); err != nil {
		t.Error(err)
	}
	w.server.Stop()
	w.until("the outage is told", func() bool { return r.Healthy(t.Context()) != nil })
	w.server.Start()
	w.until("it is healthy again", func() bool { return r.Healthy(t.Context()) == nil })
}
