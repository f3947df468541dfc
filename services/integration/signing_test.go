package integration

import (
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
	"chandler/events/access"
	"chandler/events/bus"
	"chandler/events/calendar"
	"chandler/events/eventstest"
	"chandler/events/order"
	"chandler/events/sign"
	"chandler/events/trust"
)

// demandTwo lets agents demand the signatures of two of three deployers.
func (f *fleet) demandTwo(second, third sign.Key) {
	f.t.Helper()
	next := f.trust
	next.Version++
	next.Threshold = 2
	next.Issued = time.Now().UTC().Truncate(time.Second)
	next.Keys = append([]sign.PublicKey{second.Public().Named("second"), third.Public().Named("third")}, next.Keys...)
	f.setTrust(next, f.roots...)
	eventually(f.t, "agents follow", func() bool {
		for _, a := range mustAsk(f, events.AgentList, events.AgentQuery{}).Agents {
			if a.Facts.Trust != next.Version {
				return false
			}
		}
		return true
	})
}

func TestTwoDeployersSignAtOnce(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	m := f.machine("ws1")
	p := f.publish("1.0", payload, "")
	f.everyone(1)
	second, third := newKey(t, 21), newKey(t, 22)
	f.demandTwo(second, third)

	request := f.sign("both", p) // by the first of them
	_, err := ask(f, events.DeploymentCreate, request)
	refused(t, err, bus.CodeBadRequest, string(events.OrderUnsigned))
	request.Draft = true
	if view := mustAsk(f, events.DeploymentCreate, request); view.Life != events.LifeDraft || view.Needed != 2 {
		t.Fatalf("kept as %+v", view)
	}
	draft := mustAsk(f, events.DeploymentDraft, events.Named{Name: "both"})
	var signing sync.WaitGroup
	for name, key := range map[string]sign.Key{"dora": second, "dan": third} {
		b := f.broker.Bus(t, access.Deployer, name)
		signing.Go(func() {
			envelope, err := sign.Add(draft.Envelope, key)
			if err == nil {
				_, err = bus.Request(t.Context(), b, name, events.DeploymentSign, events.SignRequest{Envelope: envelope})
			}
			if err != nil {
				t.Errorf("%s cannot sign: %v", name, err)
			}
		})
	}
	signing.Wait()
	f.want("both", m, events.Succeeded)
	f.check("both", m)
	eventstest.ExpectExactly(t, f.owner, events.DeploymentCreated, nil, 1)
}

// TestARestoredSchedulingServiceMakesNoRightOrderLookOld gives scheduling back what it knew before the last
// revisions, which agents have already seen.
func TestARestoredSchedulingServiceMakesNoRightOrderLookOld(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	m := f.machine("ws1")
	p := f.publish("1.0", payload, "")
	f.everyone(1)
	f.deploy("often", p)
	f.want("often", m, events.Succeeded)
	kept := f.bucket(events.BucketDeployments)
	for revision := uint64(2); revision <= 4; revision++ {
		f.deploy("often", p, func(o *order.Order) { o.Revision = revision })
		eventually(t, "the machine has seen the revision, which runs nothing anew", func() bool {
			row, ok := f.row("often", m)
			return ok && row.Revision == revision && row.State == events.WillNotRerun
		})
	}
	f.stopService("scheduling")
	store, err := f.owner.JetStream().KeyValue(t.Context(), events.BucketDeployments)
	must(t, err)
	for key := range f.bucket(events.BucketDeployments) {
		must(t, store.Purge(t.Context(), key))
	}
	for key, value := range kept {
		_, err := store.Put(t.Context(), key, value)
		must(t, err)
	}
	f.startService("scheduling")
	eventually(t, "scheduling is back at the old revision", func() bool {
		view, err := ask(f, events.DeploymentShow, events.Named{Name: "often"})
		return err == nil && view.Revision == 1
	})
	// As the administrator's tool numbers it: after the highest that anybody knows.
	progress := mustAsk(f, events.ExecutionProgress, events.Named{Name: "often"})
	if progress.Revision != 4 {
		t.Fatalf("execution knows revision %d", progress.Revision)
	}
	f.deploy("often", p, func(o *order.Order) {
		o.Revision = progress.Revision + 1
		o.Assignments = []order.Assignment{{At: new(calendar.At(time.Now().Add(-time.Minute)))}}
	})
	eventually(t, "the next revision runs", func() bool {
		row, ok := f.row("often", m)
		if ok && row.State == events.Rejected {
			t.Fatalf("the agent rejects it: %s", row.Reason)
		}
		return ok && row.Revision == 5 && row.State == events.Succeeded
	})
}

// bucket is what a bucket holds.
func (f *fleet) bucket(name string) map[string][]byte {
	f.t.Helper()
	store, err := f.owner.JetStream().KeyValue(f.t.Context(), name)
	must(f.t, err)
	keys, err := store.Keys(f.t.Context(), jetstream.IgnoreDeletes())
	must(f.t, err)
	values := map[string][]byte{}
	for _, key := range keys {
		entry, err := store.Get(f.t.Context(), key)
		must(f.t, err)
		values[key] = entry.Value()
	}
	return values
}

// TestAnAgentThatWasAwayFollowsTheRoots: the roots changed twice meanwhile, and the deployer with them.
func TestAnAgentThatWasAwayFollowsTheRoots(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	m := f.machine("ws1")
	p := f.publish("1.0", payload, "")
	f.everyone(1)
	m.stop()
	for number := byte(1); number <= 2; number++ {
		old := f.roots
		f.roots = []sign.Signer{newKey(t, 30+number), newKey(t, 40+number)}
		next := f.trust
		next.Version++
		next.Issued = time.Now().UTC().Truncate(time.Second)
		next.Roots = trust.Roots{Threshold: 2, Keys: []sign.PublicKey{f.roots[0].Public().Named("a"), f.roots[1].Public().Named("b")}}
		f.setTrust(next, append(old, f.roots...)...)
	}
	first := f.key
	f.key = newKey(t, 50)
	next := f.trust
	next.Version++
	next.Keys = []sign.PublicKey{f.key.Public().Named("new deployer")}
	next.Revoked = []trust.RevokedKey{{PublicKey: first.Public().Named("deployer"), At: next.Issued, Why: "left"}}
	next.Publishers = []sign.PublicKey{f.key.Public().Named("new publisher")}
	f.setTrust(next, f.roots...)
	m.start()
	eventually(t, "the agent holds the newest bundle", func() bool {
		view := mustAsk(f, events.AgentList, events.AgentQuery{Name: m.id})
		return len(view.Agents) == 1 && view.Agents[0].Facts.Trust == next.Version
	})
	t.Run("what the old key published is refused", func(t *testing.T) {
		// Scheduling asks no publisher's signature: agents are the ones to be convinced.
		mustAsk(f, events.DeploymentCreate, f.sign("old-package", p))
		f.ends(t, "old-package", m, events.Rejected, events.ManifestUnsigned, "")
	})
	fresh := f.publish("2.0", payload, "")
	f.deploy("new", fresh)
	f.want("new", m, events.Succeeded)
	f.check("new", m)
}
