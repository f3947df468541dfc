package integration

import (
	"testing"

	"chandler/events"
	"chandler/events/eventstest"
)

// purge empties a stream.
func (f *fleet) purge(stream string) {
	f.t.Helper()
	s, err := f.owner.JetStream().Stream(f.t.Context(), stream)
	must(f.t, err)
	must(f.t, s.Purge(f.t.Context()))
}

// reconcile does what `chandler doctor --reconcile` does.
func (f *fleet) reconcile() events.ReconcileAnswer {
	f.t.Helper()
	told := mustAsk(f, events.Reconcile, events.Nothing{})
	eventually(f.t, "execution takes what was told again", func() bool {
		c, err := f.owner.JetStream().Consumer(f.t.Context(), events.StreamEvents, "execution")
		return err == nil && c.CachedInfo().AckFloor.Stream >= told.Sequence
	})
	mustAsk(f, events.ExecutionRetell, events.Nothing{})
	return told
}

// TestReconcileMakesTheStateRightAgain loses what the services told each other, and then what execution
// kept, with one job done, one running, one offered to a machine that is away, and a release that execution
// never heard of. Each time the state becomes what it would have been, and nothing runs twice.
func TestReconcileMakesTheStateRightAgain(t *testing.T) {
	f := newFleet(t)
	done, busy, away := f.machine("done"), f.machine("busy"), f.machine("away")
	p := f.publish("1.0", payload, "")
	f.everyone(3)
	away.stop()
	busy.write("hold", "")
	f.deploy("first", p)
	f.want("first", done, events.Succeeded)
	f.want("first", busy, events.Running)
	f.want("first", away, events.Offered)
	f.stopService("execution")
	f.deploy("unheard", p)
	eventually(t, "the second deployment is released", func() bool {
		return mustAsk(f, events.DeploymentShow, events.Named{Name: "unheard"}).Released == 3
	})
	f.purge(events.StreamEvents)
	f.startService("execution")
	asBefore := func() {
		t.Helper()
		f.want("first", done, events.Succeeded)
		f.want("first", busy, events.Running)
		f.want("first", away, events.Offered)
		f.want("unheard", done, events.Succeeded)
		f.want("unheard", away, events.Offered)
	}

	f.want("first", busy, events.Running)
	for _, stream := range []string{events.StreamEvents, events.StreamFold, events.StreamJobs} {
		f.purge(stream)
	}
	if _, ok := f.row("unheard", done); ok {
		t.Fatal("execution has heard of the release: the test shows nothing")
	}
	if told := f.reconcile(); told.Deployments != 2 || told.Agents != 6 {
		t.Errorf("told again: %+v", told)
	}
	asBefore()
	for _, o := range eventstest.ExpectExactly(t, f.owner, events.JobOffered, nil, 3) {
		if o.Data.Deployment != "unheard" {
			t.Errorf("offered twice: %+v", o.Data)
		}
	}

	f.stopService("execution")
	for _, stream := range []string{events.StreamFold, "OBJ_" + events.BucketFold, events.StreamJobs, events.StreamStatus} {
		f.purge(stream)
	}
	f.startService("execution")
	if _, ok := f.row("first", done); ok {
		t.Fatal("execution still knows the job: the test shows nothing")
	}
	f.reconcile()
	asBefore()

	busy.remove("hold")
	away.start()
	for _, d := range []string{"first", "unheard"} {
		for _, m := range []*machine{done, busy, away} {
			f.want(d, m, events.Succeeded)
		}
	}
	for _, m := range []*machine{done, busy, away} {
		if ran := m.ran(); len(ran) != 2 {
			t.Errorf("%s ran %d times: %v", m.name, len(ran), ran)
		}
	}
}
