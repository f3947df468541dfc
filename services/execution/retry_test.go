package execution

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/eventstest"
)

func TestABudgetOfRetries(t *testing.T) {
	at := func(minutes float64) time.Time { return testTime.Add(time.Duration(minutes * float64(time.Minute))) }
	for name, c := range map[string]struct {
		perMinute float64
		spent     float64 // at the beginning
		after     float64 // minutes
		want      float64
	}{
		"is full at the beginning":                   {75, 0, 0, 75},
		"has less after retries":                     {75, 70, 0, 5},
		"comes back at its pace":                     {60, 60, 0.5, 30},
		"is never more than that of a minute":        {60, 10, 500, 60},
		"of less than one a minute lets one through": {0.125, 0, 0, 1},
		"of less than one comes back slowly":         {0.125, 1, 4, 0.5},
		"that another replica overdrew is owed":      {60, 90, 0.25, -15},
		"does not grow while the clock goes back":    {60, 60, -10, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var b budget
			b.charge(c.spent, c.perMinute, at(0))
			b.refill(c.perMinute, at(c.after))
			if diff := b.tokens - c.want; diff > 1e-9 || diff < -1e-9 {
				t.Errorf("%g left, want %g", b.tokens, c.want)
			}
		})
	}
}

func TestRetriesThatArePutOffComeOneAfterTheOther(t *testing.T) {
	var b budget
	for i := range 4 {
		if got, want := b.book(30, testTime), testTime.Add(time.Duration(i+1)*2*time.Second); !got.Equal(want) {
			t.Errorf("number %d is put off to %s, want %s", i, got, want)
		}
	}
	later := testTime.Add(time.Minute)
	if got := b.book(30, later); !got.Equal(later.Add(2 * time.Second)) {
		t.Errorf("when all have come, one is put off to %s", got)
	}
	if got := b.book(0.001, later); !got.Equal(later.Add(longestPostponement)) {
		t.Errorf("the longest is %s", got.Sub(later))
	}
}

// samePartition gives agents of partition 0.
func samePartition(n int) (ids []string) {
	for i := 0; len(ids) < n; i++ {
		if id := events.AgentID(fmt.Append(nil, "key", i)); events.Partition(id, events.Partitions) == 0 {
			ids = append(ids, id)
		}
	}
	return ids
}

// limit sets the fleet's budget of retries.
func (w *world) limit(perMinute int, replicas ...*Service) {
	w.t.Helper()
	publish(w, events.LimitsChanged, events.ServiceSource("scheduling"), "fleet", events.Limits{RetriesPerMinute: perMinute, By: "admin", At: w.now().UTC()})
	for _, r := range replicas {
		w.until("the limits are known", func() bool { return r.control.retriesPerMinute() == perMinute })
	}
}

// retrying tells that the jobs of agents are to be tried again, at a time that has come.
func (w *world) retrying(d events.DeploymentOrder, ids []string) {
	w.t.Helper()
	for _, agent := range ids {
		s := statusOf(w, d, agent, 2, events.Retrying)
		s.Reason, s.RetryAt = events.SourceUnreachable, new(w.now().UTC())
		w.tell(s)
	}
}

func TestTwoReplicasKeepOneBudgetOfRetries(t *testing.T) {
	w := newWorld(t)
	var frozen sync.Mutex
	now := w.now()
	clock := func(s *Service) {
		s.now = func() time.Time { frozen.Lock(); defer frozen.Unlock(); return now }
	}
	a, b := w.start(clock), w.start(clock)
	d, ids := w.deploy("hello", 1), samePartition(12)
	w.limit(5*events.Partitions, a.Service, b.Service)
	w.retrying(d, ids)
	putOff := func() float64 {
		return testutil.ToFloat64(a.metrics.postponed) + testutil.ToFloat64(b.metrics.postponed)
	}
	w.until("7 are put off", func() bool { return putOff() >= 7 })
	w.states(a, "hello", map[events.State]int64{events.Offered: 5, events.Retrying: 7})
	w.states(b, "hello", map[events.State]int64{events.Offered: 5, events.Retrying: 7})

	a.stop() // what it spent is spent
	frozen.Lock()
	now = now.Add(3*time.Minute + retrySlack) // the sweep finds them, whose timers are lost to this clock
	frozen.Unlock()
	w.states(b, "hello", map[events.State]int64{events.Offered: 10, events.Retrying: 2})
	frozen.Lock()
	now = now.Add(time.Minute)
	frozen.Unlock()
	w.states(b, "hello", map[events.State]int64{events.Offered: 12})
	eventstest.ExpectExactly(t, w.bus, events.JobOffered, nil, 12)
}

func TestAnAdministratorsRetryIsNoneOfTheBudget(t *testing.T) {
	w := newWorld(t)
	r := w.start()
	d, ids := w.deploy("hello", 1), samePartition(20)
	w.limit(events.Partitions, r.Service)
	for _, agent := range ids {
		w.tell(statusOf(w, d, agent, 3, events.Failed))
	}
	w.states(r, "hello", map[events.State]int64{events.Failed: 20})
	if answer := must[events.RetryAnswer](w)(ask(w, events.ExecutionRetry, events.Named{Name: "hello"})); answer.Offered != 20 {
		t.Errorf("%d are tried again", answer.Offered)
	}
	if r.partitions[0].jobs.granted != 0 {
		t.Error("they were counted")
	}
}

func TestAnOlderLimitChangesNothing(t *testing.T) {
	w := newWorld(t)
	s := w.replicaWithoutReaders()
	for _, l := range []events.Limits{{RetriesPerMinute: 40, At: testTime.Add(time.Hour)}, {RetriesPerMinute: 8, At: testTime}} {
		if err := s.limitsChanged(t.Context(), events.Event[events.Limits]{Data: l}, bus.Meta{}); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.control.retriesPerMinute(); got != 40 {
		t.Errorf("%d retries a minute", got)
	}
	if err := s.limitsChanged(t.Context(), events.Event[events.Limits]{Data: events.Limits{RetriesPerMinute: -1, At: testTime.Add(2 * time.Hour)}}, bus.Meta{}); err == nil {
		t.Error("a negative budget was accepted")
	}
}

func TestAHaltedDeploymentRetriesNothingUntilItIsResumed(t *testing.T) {
	w := newWorld(t)
	r := w.start()
	d, other, ids := w.deploy("hello", 1), w.deploy("other", 1), agents(2)
	w.halt(d, w.now())
	w.until("it is halted", func() bool { _, halted := r.control.halted("hello", 1); return halted })
	w.retrying(d, ids[:1])
	w.retrying(other, ids[1:])
	w.states(r, "hello", map[events.State]int64{events.Retrying: 1})
	w.states(r, "other", map[events.State]int64{events.Offered: 1}) // whose timer came no sooner
	w.ahead.Add(int64(time.Hour))
	w.states(r, "hello", map[events.State]int64{events.Retrying: 1})
	w.resume(d, w.now())
	w.states(r, "hello", map[events.State]int64{events.Offered: 1})
	eventstest.ExpectExactly(t, w.bus, events.JobOffered, nil, 2)
}
