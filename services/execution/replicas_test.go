package execution

import (
	"context"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/eventstest"
)

func viewOfReplica(r replica) map[string]events.JobRow {
	all := map[string]events.JobRow{}
	for _, p := range r.partitions {
		p.mu.RLock()
		for name, row := range viewOf(p.jobs).Jobs {
			all[name] = row
		}
		p.mu.RUnlock()
	}
	return all
}

// runThrough tells a whole job of every agent, some transitions twice.
func (w *world) runThrough(d events.DeploymentOrder, ids []string) {
	w.t.Helper()
	for i, agent := range ids {
		for n, state := range []events.State{events.Accepted, events.Downloading, events.Running, events.Succeeded} {
			w.tell(statusOf(w, d, agent, uint32(n+1), state))
			if (i+n)%7 == 0 {
				w.tell(statusOf(w, d, agent, uint32(n+1), state))
			}
		}
	}
}

func TestReplicasThatChangeTheSamePartitionAtOnceAgree(t *testing.T) {
	w := newWorld(t)
	a, b := w.start(), w.start()
	d, ids := w.deploy("hello", 1), agents(200)
	w.until("both know the order", func() bool { return a.orders.knows("hello") && b.orders.knows("hello") })
	var statuses []events.JobStatus
	for _, agent := range ids {
		statuses = append(statuses, statusOf(w, d, agent, 1, events.Accepted), statusOf(w, d, agent, 2, events.Running))
	}
	// Each replica folds half of every agent's statuses, one by one, as if each thought it were alone.
	var both sync.WaitGroup
	for i, r := range []replica{a, b} {
		both.Go(func() {
			for n := i; n < len(statuses); n += 2 {
				p := r.partitionOf(statuses[n].Agent)
				reader := statusReader{Service: r.Service, p: p}
				if err := reader.take(t.Context(), statuses[n:n+1], uint64(n)); err != nil {
					t.Errorf("replica %d: %v", i, err)
				}
			}
		})
	}
	both.Wait()
	w.states(a, "hello", map[events.State]int64{events.Running: 200})
	w.states(b, "hello", map[events.State]int64{events.Running: 200})
	if diff := cmp.Diff(viewOfReplica(a), viewOfReplica(b)); diff != "" {
		t.Errorf("the replicas differ (-a +b):\n%s", diff)
	}
	if testutil.ToFloat64(a.metrics.conflicts)+testutil.ToFloat64(b.metrics.conflicts) == 0 {
		t.Error("the replicas never met: the test shows nothing")
	}
}

func TestAPausedReplicaThatWakesComputesAgain(t *testing.T) {
	w := newWorld(t)
	a, b := w.start(), w.start()
	d, agent := w.deploy("hello", 1), agents(1)[0]
	w.until("both know the order", func() bool { return a.orders.knows("hello") && b.orders.knows("hello") })
	looked := 0
	err := a.change(t.Context(), a.partitionOf(agent), func(jobs *jobs) outcome {
		if looked++; looked == 1 { // here a is paused, and b takes over
			reader := statusReader{Service: b.Service, p: b.partitionOf(agent)}
			if err := reader.take(t.Context(), []events.JobStatus{statusOf(w, d, agent, 5, events.Succeeded)}, 0); err != nil {
				t.Error(err)
			}
		}
		return fold(jobs, []events.JobStatus{statusOf(w, d, agent, 4, events.Running)})
	})
	if err != nil {
		t.Fatal(err)
	}
	if looked < 2 {
		t.Errorf("the change was computed %d times: it was stored although the state was older than another's", looked)
	}
	w.states(a, "hello", map[events.State]int64{events.Succeeded: 1})
	w.states(b, "hello", map[events.State]int64{events.Succeeded: 1})
}

func TestAReplicaTakesOverWhatAnotherLeft(t *testing.T) {
	w := newWorld(t)
	first := w.start()
	d, ids := w.deploy("hello", 1), agents(30)
	w.release(d, 0, ids...)
	w.states(first, "hello", map[events.State]int64{events.Offered: 30})
	w.runThrough(d, ids[:15])
	first.stop() // in the middle of what it was doing
	w.runThrough(d, ids[15:])
	second := w.start()
	w.states(second, "hello", map[events.State]int64{events.Succeeded: 30})
	ends := map[string]bool{}
	for _, e := range eventstest.ExpectExactly(t, w.bus, events.JobFinished, nil, 30) {
		ends[e.Data.Agent] = true
	}
	if len(ends) != 30 {
		t.Errorf("%d agents finished, want 30", len(ends))
	}
}

func TestACrashBeforeTheAcknowledgementCostsNothing(t *testing.T) {
	w := newWorld(t)
	first := w.start()
	d, ids := w.deploy("hello", 1), agents(20)
	w.until("the order is known", func() bool { return first.orders.knows("hello") })
	first.stop()
	w.runThrough(d, ids)

	// A replica that stores the change and dies before it acknowledges: the consumer does not know of it.
	dying := w.replicaWithoutReaders()
	for _, p := range dying.partitions {
		if err := (&statusReader{Service: dying, p: p}).readOn(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	second := w.start()
	w.states(second, "hello", map[events.State]int64{events.Succeeded: 20})
	w.until("everything is acknowledged", func() bool { return w.unacknowledged() == 0 })
	eventstest.ExpectExactly(t, w.bus, events.JobFinished, nil, 20)
	history := must[events.HistoryAnswer](w)(ask(w, events.ExecutionHistory, events.HistoryQuery{Agent: ids[0]}))
	if len(history.Jobs) != 1 {
		t.Errorf("history %+v", history.Jobs)
	}
}

func TestACrashBeforeTheChangeIsStoredForgetsNoEnd(t *testing.T) {
	w := newWorld(t)
	first := w.start()
	d, agent := w.deploy("hello", 1), agents(1)[0]
	w.until("the order is known", func() bool { return first.orders.knows("hello") })
	first.stop()
	w.tell(statusOf(w, d, agent, 1, events.Failed))

	dying := w.replicaWithoutReaders()
	o := fold(dying.partitionOf(agent).jobs, []events.JobStatus{statusOf(w, d, agent, 1, events.Failed)})
	if err := dying.say(t.Context(), o); err != nil { // and the process ends
		t.Fatal(err)
	}
	second := w.start()
	w.states(second, "hello", map[events.State]int64{events.Failed: 1})
	eventstest.ExpectExactly(t, w.bus, events.JobFinished, nil, 1)
}

// replicaWithoutReaders has its state and does nothing by itself.
func (w *world) replicaWithoutReaders() *Service {
	w.t.Helper()
	s, err := New(Options{Bus: eventstest.Bus(w.t, w.server, events.ServiceSource("execution")), Now: w.now})
	if err != nil {
		w.t.Fatal(err)
	}
	ready, stopped := make(chan struct{}), make(chan struct{})
	ctx, cancel := context.WithCancel(w.t.Context())
	go func() {
		defer close(stopped)
		if err := s.watchBuckets(ctx, ready); err != nil {
			w.t.Error(err)
		}
	}()
	w.t.Cleanup(func() { cancel(); <-stopped })
	<-ready
	if err := s.begin(ctx); err != nil {
		w.t.Fatal(err)
	}
	return s
}

// unacknowledged counts what the durable consumers of STATUS still hold.
func (w *world) unacknowledged() (n int) {
	w.t.Helper()
	consumers := streamNamed(w, events.StreamStatus).ListConsumers(w.t.Context())
	for info := range consumers.Info() {
		if info.Config.Durable != "" {
			n += info.NumAckPending + int(info.NumPending)
		}
	}
	if err := consumers.Err(); err != nil {
		w.t.Fatal(err)
	}
	return n
}

func TestASnapshotBringsTheStateBackAfterARestart(t *testing.T) {
	w := newWorld(t)
	first := w.start()
	d, ids := w.deploy("hello", 1), agents(50)
	w.release(d, 0, ids...)
	w.states(first, "hello", map[events.State]int64{events.Offered: 50})
	w.runThrough(d, ids[:20])
	w.states(first, "hello", map[events.State]int64{events.Offered: 30, events.Succeeded: 20})
	first.snapshots(t)
	w.runThrough(d, ids[20:30])
	w.states(first, "hello", map[events.State]int64{events.Offered: 20, events.Succeeded: 30})
	want := viewOfReplica(first)
	first.stop()
	if n := streamNamed(w, events.StreamFold).CachedInfo().State.Msgs; n == 0 || n > 100 {
		t.Errorf("FOLD holds %d deltas after the snapshots", n)
	}
	second := w.start()
	if diff := cmp.Diff(want, viewOfReplica(second)); diff != "" {
		t.Errorf("after the restart (-before +after):\n%s", diff)
	}
	w.runThrough(d, ids[30:])
	w.states(second, "hello", map[events.State]int64{events.Succeeded: 50})
}

func (r replica) snapshots(t *testing.T) {
	t.Helper()
	for _, p := range r.partitions {
		p.turn.Lock()
		if err := r.takeSnapshot(t.Context(), p); err != nil {
			t.Error(err)
		}
		p.turn.Unlock()
	}
}

func TestAReplicaThatMissedPurgedDeltasLoadsTheSnapshot(t *testing.T) {
	w := newWorld(t)
	a := w.start()
	d, ids := w.deploy("hello", 1), agents(16)
	w.until("the order is known", func() bool { return a.orders.knows("hello") })
	behind := w.replicaWithoutReaders() // does not follow
	for n := range 3 {
		for _, agent := range ids {
			w.tell(statusOf(w, d, agent, uint32(n+1), events.Waiting))
		}
		w.until("they are folded", func() bool { return w.unacknowledged() == 0 })
	}
	a.snapshots(t)
	for _, agent := range ids {
		p := behind.partitionOf(agent)
		err := (&statusReader{Service: behind, p: p}).take(t.Context(), []events.JobStatus{statusOf(w, d, agent, 4, events.Succeeded)}, p.jobs.folded)
		if err != nil {
			t.Fatal(err)
		}
	}
	w.states(a, "hello", map[events.State]int64{events.Succeeded: 16})
	if diff := cmp.Diff(viewOfReplica(a), viewOfReplica(replica{Service: behind})); diff != "" {
		t.Errorf("(-a +behind):\n%s", diff)
	}
}

func (w *world) deleteStream(name string) {
	w.t.Helper()
	if err := w.bus.JetStream().DeleteStream(w.t.Context(), name); err != nil {
		w.t.Fatal(err)
	}
	eventstest.Provision(w.t, w.bus)
}

func TestAStatusStreamMadeAnewIsFoldedFromWhatAgentsTellAgain(t *testing.T) {
	w := newWorld(t)
	r := w.start()
	d, ids := w.deploy("hello", 1), agents(10)
	w.runThrough(d, ids[:5])
	w.states(r, "hello", map[events.State]int64{events.Succeeded: 5})
	before := r.generations.status()
	heard := w.beacons()
	w.deleteStream(events.StreamStatus)
	w.until("the generation is another", func() bool { return r.generations.status() != before })
	w.until("agents hear of it", func() bool { n, ok := heard(); return ok && n.Status == r.generations.status() })
	w.runThrough(d, ids) // they tell what they keep
	w.states(r, "hello", map[events.State]int64{events.Succeeded: 10})
}

// beacons gives the last beacon heard.
func (w *world) beacons() func() (events.BeaconNote, bool) {
	w.t.Helper()
	var mu sync.Mutex
	var last *events.BeaconNote
	ctx, cancel := context.WithCancel(w.t.Context())
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		err := bus.Listen(ctx, w.bus, events.Beacon, "", func(e events.Event[events.BeaconNote]) {
			mu.Lock()
			defer mu.Unlock()
			last = &e.Data
		})
		if err != nil {
			w.t.Error(err)
		}
	}()
	w.t.Cleanup(func() { cancel(); <-stopped })
	w.until("somebody listens", func() bool { return w.server.Broker().NumSubscriptions() > 0 })
	return func() (events.BeaconNote, bool) {
		mu.Lock()
		defer mu.Unlock()
		if last == nil {
			return events.BeaconNote{}, false
		}
		return *last, true
	}
}

func TestAnAgentThatKnowsOfMoreThanAStreamHoldsBeginsANewGeneration(t *testing.T) {
	w := newWorld(t)
	r := w.start()
	agent := agents(1)[0]
	jobs, status := r.generations.jobs(), r.generations.status()
	sync := func(req events.SyncRequest) events.SyncAnswer {
		return must[events.SyncAnswer](w)(bus.Request(t.Context(), w.bus, agent, events.ExecutionSync, req))
	}
	if a := sync(events.SyncRequest{JobsGeneration: jobs, StatusGeneration: status}); a.JobsGeneration != jobs || a.StatusGeneration != status {
		t.Errorf("an agent that knows nothing began a generation: %+v", a)
	}
	if a := sync(events.SyncRequest{JobsSequence: 99, JobsGeneration: events.Generation{Created: 1}, StatusGeneration: status}); a.JobsGeneration != jobs {
		t.Errorf("an agent of an older generation began a new one: %+v", a)
	}
	a := sync(events.SyncRequest{JobsSequence: 99, JobsGeneration: jobs, StatusGeneration: status, StatusLost: true})
	if a.JobsGeneration.Counter != jobs.Counter+1 || a.StatusGeneration.Counter != status.Counter+1 {
		t.Errorf("generations %+v and %+v: want each one higher", a.JobsGeneration, a.StatusGeneration)
	}
	if b := sync(events.SyncRequest{JobsSequence: 99, JobsGeneration: a.JobsGeneration, StatusGeneration: a.StatusGeneration, StatusLost: true}); b.JobsGeneration != a.JobsGeneration {
		t.Errorf("a second claim at once began another generation: %+v", b.JobsGeneration)
	}
}

func TestALostFoldIsCarriedOnFromMemory(t *testing.T) {
	w := newWorld(t)
	a := w.start()
	d, ids := w.deploy("hello", 1), agents(20)
	w.release(d, 0, ids...)
	w.states(a, "hello", map[events.State]int64{events.Offered: 20})
	w.runThrough(d, ids[:10])
	w.states(a, "hello", map[events.State]int64{events.Offered: 10, events.Succeeded: 10})
	w.deleteStream(events.StreamFold)
	w.runThrough(d, ids[10:15])
	w.states(a, "hello", map[events.State]int64{events.Offered: 5, events.Succeeded: 15})
	a.stop()
	b := w.start()
	w.states(b, "hello", map[events.State]int64{events.Offered: 5, events.Succeeded: 15})
}

func TestALostFoldComesBackFromStatusesAndOffers(t *testing.T) {
	w := newWorld(t)
	a := w.start()
	d, ids := w.deploy("hello", 1), agents(20)
	w.release(d, 0, ids...)
	w.states(a, "hello", map[events.State]int64{events.Offered: 20})
	w.runThrough(d, ids[:10])
	w.states(a, "hello", map[events.State]int64{events.Offered: 10, events.Succeeded: 10})
	want := viewOfReplica(a)
	a.stop()
	if err := w.bus.JetStream().DeleteObjectStore(t.Context(), events.BucketFold); err != nil {
		t.Fatal(err)
	}
	w.deleteStream(events.StreamFold)
	b := w.start()
	w.states(b, "hello", map[events.State]int64{events.Offered: 10, events.Succeeded: 10})
	if diff := cmp.Diff(want, viewOfReplica(b)); diff != "" {
		t.Errorf("(-before +after):\n%s", diff)
	}
}

func TestExecutionGoesOnAfterTheBrokerRestarted(t *testing.T) {
	w := newWorld(t)
	r := w.start()
	d, ids := w.deploy("hello", 1), agents(10)
	w.runThrough(d, ids[:5])
	w.states(r, "hello", map[events.State]int64{events.Succeeded: 5})
	w.server.Restart()
	w.until("the broker takes statuses", func() bool {
		_, err := w.bus.JetStream().Stream(t.Context(), events.StreamStatus)
		return err == nil
	})
	w.runThrough(d, ids[5:])
	w.states(r, "hello", map[events.State]int64{events.Succeeded: 10})
}
