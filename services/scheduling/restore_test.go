package scheduling

import (
	"errors"
	"strings"
	"testing"
	"time"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/order"
)

// snapshot is what the bucket of deployments holds now.
func (s *story) snapshot() map[string][]byte {
	s.t.Helper()
	kv, err := s.admin.JetStream().KeyValue(s.t.Context(), events.BucketDeployments)
	if err != nil {
		s.t.Fatal(err)
	}
	keys, err := kv.Keys(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	all := map[string][]byte{}
	for _, key := range keys {
		entry, err := kv.Get(s.t.Context(), key)
		if err != nil {
			s.t.Fatal(err)
		}
		all[key] = entry.Value()
	}
	return all
}

// restore makes the bucket anew with what it held before.
func (s *story) restore(all map[string][]byte) {
	s.t.Helper()
	if err := s.admin.JetStream().DeleteKeyValue(s.t.Context(), events.BucketDeployments); err != nil {
		s.t.Fatal(err)
	}
	if err := s.admin.Provision(s.t.Context(), bus.Topology{}); err != nil {
		s.t.Fatal(err)
	}
	kv, err := s.admin.JetStream().KeyValue(s.t.Context(), events.BucketDeployments)
	if err != nil {
		s.t.Fatal(err)
	}
	for key, value := range all {
		if _, err := kv.Put(s.t.Context(), key, value); err != nil {
			s.t.Fatal(err)
		}
	}
}

func TestARestoredBucketRefusesNothingRight(t *testing.T) {
	for name, whileRunning := range map[string]bool{"while the service stands": false, "while the service runs": true} {
		t.Run(name, func(t *testing.T) {
			s := newStory(t)
			r := s.replica()
			r.deploymentStore.check = 50 * time.Millisecond
			stop := s.run(r)
			s.report(facts("agent001"), facts("agent002"))
			s.published()
			must(s, events.CollectionSet, linuxMachines())
			s.knows(r, 2)
			s.deploy()
			s.released(1, nil)
			old := s.snapshot()
			s.deploy(func(o *order.Order) { o.Revision = 2 })
			third := s.deploy(func(o *order.Order) { o.Revision = 3 })
			envelope := stored(s, r, "hello", kindDeployment).Envelope
			s.released(1, func(e events.Event[events.Release]) bool { return e.Data.Revision == 3 })
			publish(s, events.ServiceSource("execution"), events.DeploymentProgressed, "hello", events.Progress{Deployment: "hello", Revision: 3, States: map[events.State]int64{events.Running: 2}, Total: 2, At: time.Now()})

			if !whileRunning {
				stop()
			}
			s.restore(old)
			if !whileRunning {
				s.running()
			}
			s.eventually("the older revision is back", func() bool { return must(s, events.DeploymentShow, events.Named{Name: "hello"}).Revision == 1 })
			// The revision that would follow here is one that agents have seen already.
			for _, revision := range []uint64{2, 3} {
				_, err := ask(s, events.DeploymentCreate, events.DeploymentRequest{Envelope: s.sign(s.order(func(o *order.Order) { o.Revision, o.Rerun = revision, order.RerunAlways }))})
				if !errors.Is(err, bus.ErrConflict) || !strings.Contains(err.Error(), "sign revision 4") {
					t.Errorf("another order with revision %d: %v", revision, err)
				}
			}
			// The very order that was lost may be brought again.
			if v := s.deployAgain(envelope); v.Order != third.Order || v.Life != events.LifeActive {
				t.Errorf("revision 3 again: %+v", v)
			}
			// And so may what follows the highest revision that execution knows.
			if v := s.deploy(func(o *order.Order) { o.Revision = 4 }); v.Revision != 4 || v.Life != events.LifeActive {
				t.Errorf("revision 4: %+v", v)
			}
			if got := s.released(1, func(e events.Event[events.Release]) bool { return e.Data.Revision == 4 }); len(got) != 2 {
				t.Errorf("revision 4 was released to %v", got)
			}
		})
	}
}
