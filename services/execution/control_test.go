package execution

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/eventstest"
	"chandler/events/order"
)

func TestAStopReachesWhatDoesNotRunAndCountsIt(t *testing.T) {
	w := newWorld(t)
	r := w.start()
	d, ids := w.deploy("hello", 1), agents(6)
	w.release(d, 0, ids...)
	w.states(r, "hello", map[events.State]int64{events.Offered: 6})
	w.tell(statusOf(w, d, ids[0], 1, events.Running))
	w.tell(statusOf(w, d, ids[1], 1, events.Succeeded))
	w.tell(statusOf(w, d, ids[2], 1, events.Waiting))
	w.states(r, "hello", map[events.State]int64{events.Offered: 3, events.Running: 1, events.Succeeded: 1, events.Waiting: 1})

	over := w.now().UTC().Add(24*time.Hour + order.ClockTolerance)
	answer := must[events.StopAnswer](w)(ask(w, events.ExecutionStop, events.StopRequest{Deployment: "hello", Why: "wrong version"}))
	if answer.Running != 1 || answer.Ended != 1 || answer.Unreachable != 4 || answer.Stopped != 0 || answer.MayStart == nil || answer.MayStart.After(over) {
		t.Errorf("stop %+v", answer)
	}
	for _, c := range eventstest.ExpectExactly(t, w.bus, events.JobCancelRequested, nil, 5) {
		if c.Data.Agent == ids[1] || c.Data.Deployment != "hello" || c.Data.Revision != 1 || c.Data.By != "admin" {
			t.Errorf("cancellation %+v", c.Data)
		}
	}
	halted := eventstest.ExpectExactly(t, w.bus, events.DeploymentHalted, nil, 1)[0]
	if halted.Data.By != "admin" || halted.Data.Why != "wrong version" {
		t.Errorf("halted %+v", halted.Data)
	}

	// Whatever is replayed, nothing is offered any more; a newer revision is.
	w.release(d, 0, append(ids, agents(7)[6])...)
	for i, agent := range ids[2:] {
		w.tell(statusOf(w, d, agent, uint32(2+i), events.Cancelled))
	}
	w.states(r, "hello", map[events.State]int64{events.Cancelled: 4, events.Running: 1, events.Succeeded: 1})
	answer = must[events.StopAnswer](w)(ask(w, events.ExecutionStopped, events.StopQuery{Deployment: "hello"}))
	if diff := cmp.Diff(events.StopAnswer{Deployment: "hello", Stopped: 4, Running: 1, Ended: 1}, answer); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	eventstest.ExpectExactly(t, w.bus, events.JobOffered, nil, 6)
	if _, err := ask(w, events.ExecutionRetry, events.Named{Name: "hello"}); !errors.Is(err, bus.ErrConflict) {
		t.Errorf("a stopped deployment is tried again: %v", err)
	}
	second := w.deploy("hello", 2)
	w.release(second, 0, ids...)
	w.states(r, "hello", map[events.State]int64{events.Offered: 6})
}

func TestAStopWithKillComesAfterAStopWithout(t *testing.T) {
	w := newWorld(t)
	r := w.start()
	d, agent := w.deploy("hello", 1), agents(1)[0]
	w.tell(statusOf(w, d, agent, 1, events.Running))
	w.states(r, "hello", map[events.State]int64{events.Running: 1})
	for _, kill := range []bool{false, true, false} {
		must[events.StopAnswer](w)(ask(w, events.ExecutionStop, events.StopRequest{Deployment: "hello", Kill: kill}))
	}
	cancels := eventstest.ExpectExactly(t, w.bus, events.JobCancelRequested, nil, 2)
	if cancels[0].Data.Kill || !cancels[1].Data.Kill {
		t.Errorf("cancellations %+v: want one without kill and then one with", cancels)
	}
}

func TestAStopThatWasInterruptedIsCompletedByTheSweep(t *testing.T) {
	w := newWorld(t)
	r := w.start()
	d, ids := w.deploy("hello", 1), agents(3)
	w.release(d, 0, ids...)
	w.states(r, "hello", map[events.State]int64{events.Offered: 3})
	k, _ := r.orders.newest("hello")
	if _, err := r.markStopped(t.Context(), stopMark{Deployment: k.Deployment, Revision: 1, By: "admin"}); err != nil {
		t.Fatal(err) // and here the replica died
	}
	eventstest.ExpectExactly(t, w.bus, events.JobCancelRequested, nil, 3)
}

func TestAStoppedDeploymentStaysStoppedWhenScheduledByAnotherReplica(t *testing.T) {
	w := newWorld(t)
	d, ids := w.deploy("hello", 1), agents(2)
	first := w.start()
	w.until("the order is known", func() bool { return first.orders.knows("hello") })
	must[events.StopAnswer](w)(ask(w, events.ExecutionStop, events.StopRequest{Deployment: "hello"}))
	blind := w.replicaWithoutReaders()
	blind.control.mu.Lock()
	clear(blind.control.stops) // its watch is behind
	blind.control.mu.Unlock()
	err := blind.released(t.Context(), events.Event[events.Release]{Data: events.Release{Deployment: "hello", Revision: 1, Order: d.Order, Agents: ids}}, bus.Meta{})
	if err != nil {
		t.Fatal(err)
	}
	eventstest.ExpectExactly(t, w.bus, events.JobOffered, nil, 0)
}

func TestRefusedStops(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.deploy("hello", 1)
	tests := []struct {
		name string
		call func() error
		want error
	}{
		{"an unknown deployment cannot be stopped", func() error {
			_, err := ask(w, events.ExecutionStop, events.StopRequest{Deployment: "nobody"})
			return err
		}, bus.ErrNotFound},
		{"a name that is none is refused", func() error {
			_, err := ask(w, events.ExecutionStop, events.StopRequest{Deployment: "a.b"})
			return err
		}, bus.ErrBadRequest},
		{"there is no answer about a stop that was not asked for", func() error {
			_, err := ask(w, events.ExecutionStopped, events.StopQuery{Deployment: "hello"})
			return err
		}, bus.ErrNotFound},
		{"a freeze of an unknown collection needs its definition", func() error {
			_, err := ask(w, events.ExecutionFreeze, events.Freeze{Scope: "collection", Name: "office"})
			return err
		}, bus.ErrNotFound},
		{"a freeze of a collection takes only that collection's definition", func() error {
			_, err := ask(w, events.ExecutionFreeze, events.Freeze{Scope: "collection", Name: "office", Collection: &events.Collection{Name: "other", Expression: "true"}})
			return err
		}, bus.ErrBadRequest},
		{"a frozen collection lists few agents", func() error {
			_, err := ask(w, events.ExecutionFreeze, events.Freeze{Scope: "collection", Name: "office", Collection: &events.Collection{Name: "office", Include: agents(maxFrozen / 20)}})
			return err
		}, bus.ErrBadRequest},
		{"the reason of a freeze is short", func() error {
			_, err := ask(w, events.ExecutionFreeze, events.Freeze{Scope: "fleet", Why: strings.Repeat("x", maxWhy+1)})
			return err
		}, bus.ErrBadRequest},
		{"an unknown scope is refused", func() error {
			_, err := ask(w, events.ExecutionFreeze, events.Freeze{Scope: "planet"})
			return err
		}, bus.ErrBadRequest},
		{"what is not frozen cannot be lifted", func() error {
			_, err := ask(w, events.ExecutionUnfreeze, events.Named{Name: "fleet"})
			return err
		}, bus.ErrNotFound},
	}
	w.until("the order is known", func() bool {
		_, err := ask(w, events.ExecutionProgress, events.Named{Name: "hello"})
		return err == nil
	})
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if err := test.call(); !errors.Is(err, test.want) {
				t.Errorf("error %v, want %v", err, test.want)
			}
		})
	}
}

func TestAFreezeReachesAgentsAtOnceAndUntilItIsLifted(t *testing.T) {
	w := newWorld(t)
	r := w.start()
	office := events.Collection{Name: "office", Expression: `"office" in agent.tags`, Changed: w.now().UTC()}
	publish(w, events.CollectionChanged, events.ServiceSource("scheduling"), "office", office)
	w.until("the collection is known", func() bool { _, ok := r.control.collection("office"); return ok })
	heard := w.beacons()

	fleet := must[events.Freeze](w)(ask(w, events.ExecutionFreeze, events.Freeze{Scope: "fleet", Why: "change freeze", By: "somebody else"}))
	if fleet.ID != "fleet" || fleet.By != "admin" {
		t.Errorf("freeze %+v", fleet)
	}
	must[events.Freeze](w)(ask(w, events.ExecutionFreeze, events.Freeze{Scope: "collection", Name: "office"}))
	w.until("a beacon carries both", func() bool {
		n, ok := heard()
		return ok && len(n.Freezes) == 2 && n.Freezes[0].ID == "collection-office" && n.Freezes[0].Collection.Expression == office.Expression && n.Freezes[1].ID == "fleet"
	})
	answer, err := bus.Request(t.Context(), w.bus, agents(1)[0], events.ExecutionSync, events.SyncRequest{JobsGeneration: r.generations.jobs(), StatusGeneration: r.generations.status()})
	if err != nil || len(answer.Freezes) != 2 {
		t.Errorf("sync %+v, %v: want both freezes", answer, err)
	}
	must[events.Freeze](w)(ask(w, events.ExecutionUnfreeze, events.Named{Name: "fleet", Why: "over"}))
	w.until("a beacon carries one", func() bool { n, ok := heard(); return ok && len(n.Freezes) == 1 })
	list := must[events.FreezeList](w)(ask(w, events.ExecutionFreezes, events.Nothing{}))
	if len(list.Freezes) != 1 || list.Freezes[0].ID != "collection-office" {
		t.Errorf("freezes %+v", list)
	}
	eventstest.ExpectExactly(t, w.bus, events.FreezeSet, nil, 2)
	eventstest.ExpectExactly(t, w.bus, events.FreezeLifted, nil, 1)
}

func TestSyncTellsWhatIsOutstanding(t *testing.T) {
	w := newWorld(t)
	r := w.start()
	ids := agents(2)
	one, two := w.deploy("one", 1), w.deploy("two", 3)
	w.release(one, 0, ids...)
	w.release(two, 0, ids...)
	w.states(r, "one", map[events.State]int64{events.Offered: 2})
	w.states(r, "two", map[events.State]int64{events.Offered: 2})
	w.tell(statusOf(w, one, ids[0], 4, events.Succeeded))
	w.tell(statusOf(w, two, ids[0], 2, events.Waiting))
	w.states(r, "one", map[events.State]int64{events.Offered: 1, events.Succeeded: 1})
	w.states(r, "two", map[events.State]int64{events.Offered: 1, events.Waiting: 1})
	must[events.StopAnswer](w)(ask(w, events.ExecutionStop, events.StopRequest{Deployment: "one"}))

	request := events.SyncRequest{JobsGeneration: r.generations.jobs(), StatusGeneration: r.generations.status(), OfferFormat: 1}
	answer, err := bus.Request(t.Context(), w.bus, ids[0], events.ExecutionSync, request)
	if err != nil {
		t.Fatal(err)
	}
	want := []events.Outstanding{{State: events.Waiting, Transition: 2, JobOffer: events.JobOffer{Format: 1, Agent: ids[0], Job: events.JobID("two", 3, ids[0], 0, ""),
		Deployment: "two", Revision: 3, Order: two.Order, Attempt: 1}}}
	if diff := cmp.Diff(want, answer.Offers); diff != "" {
		t.Errorf("offers (-want +got):\n%s", diff)
	}
	if len(answer.Cancels) != 1 || answer.Cancels[0].Deployment != "one" || answer.Cancels[0].Agent != ids[0] {
		t.Errorf("cancellations %+v: want that of the stopped deployment", answer.Cancels)
	}
	if answer.JobsGeneration != r.generations.jobs() || answer.JobsGeneration.Created == 0 {
		t.Errorf("generation %+v", answer.JobsGeneration)
	}
}

func TestSyncAnswersOneMessageHoweverMuchIsOutstanding(t *testing.T) {
	w := newWorld(t)
	r := w.start()
	d, agent := w.deploy("hello", 1), agents(1)[0]
	w.until("the order is known", func() bool { return r.orders.knows("hello") })
	for n := range outstandingMost + 50 {
		s := statusOf(w, d, agent, 1, events.Waiting)
		s.User = fmt.Sprintf("%0*d", maxUser, n)
		s.Job = events.JobID("hello", 1, agent, 0, s.User)
		w.tell(s)
	}
	w.states(r, "hello", map[events.State]int64{events.Waiting: outstandingMost + 50})
	w.release(d, 0, agent) // the one job that the agent may not know
	w.states(r, "hello", map[events.State]int64{events.Waiting: outstandingMost + 50, events.Offered: 1})
	answer, err := bus.Request(t.Context(), w.bus, agent, events.ExecutionSync, events.SyncRequest{JobsGeneration: r.generations.jobs(), StatusGeneration: r.generations.status()})
	if err != nil || len(answer.Offers) != outstandingMost || answer.Offers[0].State != events.Offered {
		t.Errorf("%d offers, %v: want %d, what the agent has not spoken of first", len(answer.Offers), err, outstandingMost)
	}
}

func TestSyncSaysLaterWhenTooManyAsk(t *testing.T) {
	w := newWorld(t)
	r := w.start()
	for range cap(r.syncing) {
		r.syncing <- struct{}{}
	}
	answer, err := bus.Request(t.Context(), w.bus, agents(1)[0], events.ExecutionSync, events.SyncRequest{})
	if err != nil || time.Duration(answer.Later) < laterLeast || time.Duration(answer.Later) > laterMost {
		t.Errorf("answer %+v, %v: want to come later", answer, err)
	}
}

func TestTheGenerationFollowsTheStream(t *testing.T) {
	g := func(created int64, counter int, last uint64) storedGeneration {
		return storedGeneration{events.Generation{Created: created, Counter: counter}, last}
	}
	tests := []struct {
		name    string
		before  storedGeneration
		created int64
		last    uint64
		want    storedGeneration
	}{
		{"a stream never seen begins a generation", storedGeneration{}, 5, 7, g(5, 0, 7)},
		{"a stream that grew is the same", g(5, 1, 7), 5, 9, g(5, 1, 9)},
		{"a stream that ends earlier is another", g(5, 1, 7), 5, 6, g(5, 2, 6)},
		{"a stream made anew is another, counted from 0", g(5, 3, 7), 6, 100, g(6, 0, 100)},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := test.before.next(test.created, test.last); got != test.want {
				t.Errorf("%+v, want %+v", got, test.want)
			}
		})
	}
}

func TestATimerIsNeverEarly(t *testing.T) {
	now := time.Unix(1000, 500)
	tests := []struct {
		name      string
		due, want int64 // due in milliseconds
	}{
		{"a fraction of a second is rounded up", 1500_250, 1501},
		{"a whole second stays", 1500_000, 1500},
		{"what is past comes with the second after next", 900_000, 1002},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := roundUp(time.UnixMilli(test.due), now); got.Unix() != test.want || got.Nanosecond() != 0 {
				t.Errorf("at %s, want second %d", got, test.want)
			}
		})
	}
}

func FuzzParseRetryKey(f *testing.F) {
	f.Add(retryKey(job{revision: 2, occurrence: -3, attempt: 4, agent: "aaaaaaaa", user: `EXAMPLE\kim berg`}))
	f.Fuzz(func(t *testing.T, key string) {
		j, err := parseRetryKey("hello", key)
		if err != nil {
			return
		}
		again, err := parseRetryKey("hello", retryKey(j))
		if err != nil || again != j {
			t.Errorf("%q is read as %+v and then as %+v, %v", key, j, again, err)
		}
	})
}

func TestAFreezeIsLiftedByAReplicaThatHasNotHeardOfItYet(t *testing.T) {
	w := newWorld(t)
	r := w.start()
	set := must[events.Freeze](w)(ask(w, events.ExecutionFreeze, events.Freeze{Scope: "site", Name: "oslo", Why: "fire"}))
	r.control.mu.Lock()
	delete(r.control.freezes, set.ID) // as if another replica had set it just now
	r.control.mu.Unlock()
	lifted := must[events.Freeze](w)(ask(w, events.ExecutionUnfreeze, events.Named{Name: set.ID, Why: "it is out"}))
	if lifted.ID != set.ID || lifted.Scope != "site" || lifted.Name != "oslo" {
		t.Errorf("lifted is %+v, set was %+v", lifted, set)
	}
	if _, err := ask(w, events.ExecutionUnfreeze, events.Named{Name: set.ID}); err == nil {
		t.Error("it is lifted twice")
	}
	eventstest.ExpectExactly(t, w.bus, events.FreezeLifted, nil, 1)
}
