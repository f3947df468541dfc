package scheduling

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/eventstest"
	"chandler/events/order"
)

func TestABrokerThatIsAwayAtTheStartAndLaterIsWaitedFor(t *testing.T) {
	s := newStory(t)
	s.broker.Stop()
	r := s.replica()
	s.run(r)
	if err := r.Healthy(t.Context()); err == nil {
		t.Error("healthy without a broker")
	}
	s.broker.Start()
	s.eventually("healthy", func() bool { return r.Healthy(t.Context()) == nil })
	s.report(facts("agent001"))
	s.knows(r, 1)
	s.published()
	must(s, events.CollectionSet, linuxMachines())
	s.deploy()
	s.released(1, nil)

	s.broker.Stop()
	s.eventually("the outage is told", func() bool { return r.Healthy(t.Context()) != nil })
	s.broker.Start()
	s.eventually("healthy again", func() bool { return s.conn.IsConnected() && r.Healthy(t.Context()) == nil })
	s.report(facts("agent002"))
	s.released(2, nil)
}

func TestABucketThatIsLostIsReadAnew(t *testing.T) {
	s := newStory(t)
	r := s.replica(func(o *Options) {
		o.Provision = func(ctx context.Context) error { return o.Bus.Provision(ctx, bus.Topology{}) }
	})
	for _, m := range r.mirrors() {
		m.check = 50 * time.Millisecond
	}
	s.run(r)
	s.report(facts("agent001"))
	s.knows(r, 1)
	s.published()
	must(s, events.CollectionSet, linuxMachines())
	s.deploy()
	s.released(1, nil)
	for _, bucket := range []string{events.BucketAgents, events.BucketDeployments, events.BucketCollections} {
		if err := s.admin.JetStream().DeleteKeyValue(t.Context(), bucket); err != nil {
			t.Fatal(err)
		}
	}
	s.eventually("memory is empty and healthy again", func() bool {
		return len(r.fleet.all()) == 0 && len(r.deploymentNames()) == 0 && r.Healthy(t.Context()) == nil
	})
	// Agents report again, content tells of its packages again, and the administrator starts over.
	s.report(facts("agent001"), facts("agent002"))
	s.knows(r, 2)
	s.published()
	must(s, events.CollectionSet, linuxMachines())
	s.deploy(func(o *order.Order) { o.Revision = 2 })
	s.released(1, func(e events.Event[events.Release]) bool { return e.Data.Revision == 2 && len(e.Data.Agents) == 2 })
}

func TestEditsOfManyReplicasAreAllKept(t *testing.T) {
	s := newStory(t)
	const each = 5
	var all sync.WaitGroup
	for n := range 3 {
		r := s.running()
		all.Go(func() {
			for i := range each {
				_, err := change(t.Context(), r.collectionStore, "counted", func(old collectionRecord, _ bool) (collectionRecord, error) {
					old.Include = append(old.Include, fmt.Sprintf("agent%d%d00", n, i))
					return old, nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	r := s.running()
	record, _, err := load[collectionRecord](t.Context(), r.collectionStore, "counted")
	if err != nil || len(record.Include) != 3*each {
		t.Errorf("%d of %d edits are kept, %v", len(record.Include), 3*each, err)
	}
}

func TestWhatCannotBeToldIsToldLater(t *testing.T) {
	s := newStory(t)
	r := s.running()
	must(s, events.CollectionSet, linuxMachines())
	eventstest.ExpectExactly(t, s.admin, events.CollectionChanged, nil, 1)
	// The stream of events is gone for a while: changes are kept, health tells, nothing is lost.
	if err := s.admin.JetStream().DeleteStream(t.Context(), events.StreamEvents); err != nil {
		t.Fatal(err)
	}
	must(s, events.CollectionSet, events.Collection{Name: "all", Expression: "true"})
	s.eventually("health tells", func() bool { return r.Healthy(t.Context()) != nil })
	eventstest.Provision(t, s.bus(""))
	eventstest.ExpectExactly(t, s.admin, events.CollectionChanged, func(e events.Event[events.Collection]) bool { return e.Data.Name == "all" }, 1)
	s.eventually("healthy again", func() bool { return r.Healthy(t.Context()) == nil })
}

func TestABucketThatWasReplacedAndHasGrownIsReadAnew(t *testing.T) {
	s := newStory(t)
	r := s.replica()
	r.agentStore.check = 2 * time.Second // long enough to replace the bucket between two looks
	s.run(r)
	s.report(facts("agent001"))
	s.knows(r, 1)
	if err := s.admin.JetStream().DeleteKeyValue(t.Context(), events.BucketAgents); err != nil {
		t.Fatal(err)
	}
	eventstest.Provision(t, s.admin)
	s.report(facts("agent002"), facts("agent003"), facts("agent004"))
	s.eventually("memory is what the new bucket holds", func() bool {
		_, old := r.fleet.get("agent001")
		return len(r.fleet.all()) == 3 && !old && r.Healthy(t.Context()) == nil
	})
}

func TestARemovedCollectionLeavesNoMarker(t *testing.T) {
	s := newStory(t)
	r, other := s.running(), s.running()
	must(s, events.CollectionSet, linuxMachines())
	must(s, events.CollectionRemove, events.Named{Name: "linux"})
	stream, err := s.admin.JetStream().Stream(t.Context(), "KV_"+events.BucketCollections)
	if err != nil {
		t.Fatal(err)
	}
	s.eventually("nothing of it is stored", func() bool {
		info, err := stream.Info(t.Context())
		return err == nil && info.State.LastSeq > 0 && info.State.Msgs == 0
	})
	for _, replica := range []*Service{r, other} {
		s.eventually("it is forgotten", func() bool {
			if err := replica.announceCollection(t.Context(), "linux"); err != nil {
				t.Fatal(err)
			}
			replica.mu.RLock()
			defer replica.mu.RUnlock()
			return len(replica.collections) == 0
		})
	}
	must(s, events.CollectionSet, linuxMachines()) // and may be made again
}

func TestAReplicaForgetsWhatWasPurgedBeforeItHeardOfTheRemoval(t *testing.T) {
	s := newStory(t)
	r := s.running()
	must(s, events.CollectionSet, linuxMachines())
	must(s, events.CollectionSet, events.Collection{Name: "all", Expression: "true"})
	s.eventually("it knows both and owes nothing", func() bool {
		r.mu.RLock()
		defer r.mu.RUnlock()
		return len(r.collections) == 2 && len(r.collections["linux"].Outbox.Notes)+len(r.collections["all"].Outbox.Notes) == 0
	})
	stream, err := s.admin.JetStream().Stream(t.Context(), "KV_"+events.BucketCollections)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Purge(t.Context(), jetstream.WithPurgeSubject("$KV."+events.BucketCollections+".linux")); err != nil {
		t.Fatal(err)
	}
	if err := r.collectionStore.missed(t.Context(), ">"); err != nil {
		t.Fatal(err)
	}
	r.mu.RLock()
	_, linux := r.collections["linux"]
	_, all := r.collections["all"]
	r.mu.RUnlock()
	if linux || !all {
		t.Error("the purged collection is still known:", linux, "; the other one:", all)
	}
	must(s, events.CollectionSet, linuxMachines())
	if got := must(s, events.CollectionShow, events.Named{Name: "linux"}); got.Name != "linux" {
		t.Error("it is not there again:", got)
	}
}
