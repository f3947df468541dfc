package execution

import (
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/eventstest"
	"chandler/events/order"
)

func every(cron string) func(*order.Order) {
	return func(o *order.Order) { o.Assignments = []order.Assignment{{Cron: cron}} }
}

// occurrenceOf is a status of an occurrence that the agent opened.
func occurrenceOf(w *world, d events.DeploymentOrder, agent string, occurrence int64, transition uint32, state events.State) events.JobStatus {
	s := statusOf(w, d, agent, transition, state)
	s.Occurrence, s.Job = occurrence, events.JobID(d.Deployment, d.Revision, agent, occurrence, "")
	return s
}

// outstandingOf asks as the agent what is outstanding, without what is the same for all.
func (w *world) outstandingOf(r replica, agent string) events.SyncAnswer {
	w.t.Helper()
	return must[events.SyncAnswer](w)(bus.Request(w.t.Context(), w.bus, agent, events.ExecutionSync,
		events.SyncRequest{JobsGeneration: r.generations.jobs(), StatusGeneration: r.generations.status()}))
}

func TestAStandingOrderIsOfferedOnceAndItsOccurrencesAreHeardOf(t *testing.T) {
	w := newWorld(t)
	r := w.start()
	d, agent := w.deploy("nightly", 1, every("0 3 * * *")), agents(1)[0]
	w.release(d, 0, agent)
	w.states(r, "nightly", map[events.State]int64{events.Offered: 1})
	w.tell(statusOf(w, d, agent, 1, events.Waiting)) // the umbrella
	w.states(r, "nightly", map[events.State]int64{events.Waiting: 1})
	w.tell(occurrenceOf(w, d, agent, 1000, 1, events.Running))
	w.states(r, "nightly", map[events.State]int64{events.Running: 1})
	umbrella := events.Outstanding{State: events.Waiting, Transition: math.MaxUint32, JobOffer: events.JobOffer{Job: events.JobID("nightly", 1, agent, 0, ""),
		Deployment: "nightly", Revision: 1, Order: d.Order, Attempt: 1}}
	running := events.Outstanding{State: events.Running, Transition: 1, JobOffer: events.JobOffer{Job: events.JobID("nightly", 1, agent, 1000, ""), Deployment: "nightly", Revision: 1,
		Order: d.Order, Occurrence: 1000, Attempt: 1}}
	same := cmpopts.IgnoreFields(events.JobOffer{}, "Format", "Agent")
	if diff := cmp.Diff([]events.Outstanding{running, umbrella}, w.outstandingOf(r, agent).Offers, same); diff != "" {
		t.Errorf("while an occurrence runs (-want +got):\n%s", diff)
	}
	w.tell(occurrenceOf(w, d, agent, 1000, 2, events.Succeeded))
	w.states(r, "nightly", map[events.State]int64{events.Succeeded: 1})
	if diff := cmp.Diff([]events.Outstanding{umbrella}, w.outstandingOf(r, agent).Offers, same); diff != "" {
		t.Errorf("between occurrences (-want +got):\n%s", diff)
	}
	w.release(d, 0, agent) // it has the order
	w.ahead.Add(int64(20 * time.Hour))
	w.tell(occurrenceOf(w, d, agent, 2000, 1, events.Failed))
	w.states(r, "nightly", map[events.State]int64{events.Failed: 1})
	if n := r.countUpTo("nightly", 1).Silent; n != 0 {
		t.Errorf("%d agents are silent between occurrences", n)
	}
	must[events.RetryAnswer](w)(ask(w, events.ExecutionRetry, events.Named{Name: "nightly"}))
	offers := eventstest.ExpectExactly(t, w.bus, events.JobOffered, nil, 2)
	if offers[0].Data.Occurrence != 0 || offers[1].Data.Occurrence != 2000 || offers[1].Data.Attempt != 2 {
		t.Errorf("offers %+v", offers)
	}
	w.tell(occurrenceOf(w, d, agent, 2000, 5, events.Succeeded))
	w.states(r, "nightly", map[events.State]int64{events.Succeeded: 1})
	w.ahead.Add(int64(10 * time.Hour)) // its time is over
	if offers := w.outstandingOf(r, agent).Offers; len(offers) != 0 {
		t.Errorf("after its time %+v is outstanding", offers)
	}
	eventstest.ExpectExactly(t, w.bus, events.JobFinished, func(e events.Event[events.JobEnd]) bool { return e.Data.Silent }, 0)
}

func TestAStopReachesAStandingOrderBetweenItsOccurrences(t *testing.T) {
	w := newWorld(t)
	r := w.start()
	d, once, agent := w.deploy("nightly", 1, every("0 3 * * *")), w.deploy("once", 1), agents(1)[0]
	w.tell(occurrenceOf(w, d, agent, 1000, 2, events.Succeeded))
	w.tell(statusOf(w, once, agent, 2, events.Succeeded))
	w.states(r, "nightly", map[events.State]int64{events.Succeeded: 1})
	w.states(r, "once", map[events.State]int64{events.Succeeded: 1})
	k, _ := r.orders.newest("nightly")
	if _, err := r.markStopped(t.Context(), stopMark{Deployment: k.Deployment, Revision: 1, By: "admin"}); err != nil {
		t.Fatal(err) // and here the replica died
	}
	must[events.StopAnswer](w)(ask(w, events.ExecutionStop, events.StopRequest{Deployment: "once"}))
	c := eventstest.ExpectExactly(t, w.bus, events.JobCancelRequested, nil, 1)[0]
	if c.Data.Deployment != "nightly" || c.Data.Agent != agent {
		t.Errorf("cancellation %+v", c.Data)
	}
}

func TestAStopOfAStandingOrderCountsWhoMayStillOpenAnOccurrence(t *testing.T) {
	w := newWorld(t)
	r := w.start()
	d, ids := w.deploy("nightly", 1, every("0 3 * * *")), agents(3)
	w.release(d, 0, ids...)
	for _, agent := range ids {
		w.tell(occurrenceOf(w, d, agent, 1000, 2, events.Succeeded))
	}
	w.states(r, "nightly", map[events.State]int64{events.Succeeded: 3})
	k, _ := r.orders.newest("nightly")
	answer := must[events.StopAnswer](w)(ask(w, events.ExecutionStop, events.StopRequest{Deployment: "nightly"}))
	if diff := cmp.Diff(events.StopAnswer{Deployment: "nightly", Unreachable: 3, MayStart: new(k.over())}, answer); diff != "" {
		t.Errorf("at first (-want +got):\n%s", diff)
	}
	w.tell(statusOf(w, d, ids[0], 7, events.Cancelled)) // the umbrella
	stopped := func() events.StopAnswer {
		return must[events.StopAnswer](w)(ask(w, events.ExecutionStopped, events.StopQuery{Deployment: "nightly"}))
	}
	w.until("one confirmed it", func() bool { return stopped().Stopped == 1 })
	if got := stopped(); got.Unreachable != 2 || got.Ended != 0 {
		t.Errorf("one has confirmed: %+v", got)
	}
	if offers := w.outstandingOf(r, ids[0]).Offers; len(offers) != 0 {
		t.Errorf("outstanding of who confirmed: %+v", offers)
	}
	w.ahead.Add(int64(30 * time.Hour)) // its time is over
	if got := stopped(); got.Unreachable != 0 || got.Ended != 2 || got.Stopped != 1 || got.MayStart != nil {
		t.Errorf("at the end: %+v", got)
	}
}
