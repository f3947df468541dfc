package scheduling

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/eventstest"
	"chandler/events/order"
	"chandler/events/trust"
)

// draft keeps an order as a draft.
func (s *story) draft(o order.Order, names ...string) events.DeploymentView {
	s.t.Helper()
	return must(s, events.DeploymentCreate, events.DeploymentRequest{Envelope: s.signed(o, names...), Draft: true})
}

func (s *story) addSignature(o order.Order, names ...string) (events.DeploymentView, error) {
	s.t.Helper()
	return ask(s, events.DeploymentSign, events.SignRequest{Envelope: s.signed(o, names...)})
}

// keysLeft waits until the bucket of deployments has so many keys of a kind.
func (s *story) keysLeft(kind string, n int) {
	s.t.Helper()
	stream, err := s.admin.JetStream().Stream(s.t.Context(), "KV_"+events.BucketDeployments)
	if err != nil {
		s.t.Fatal(err)
	}
	s.eventually("so many keys are left", func() bool {
		info, err := stream.Info(s.t.Context(), jetstream.WithSubjectFilter("$KV."+events.BucketDeployments+"."+kind+".>"))
		return err == nil && len(info.State.Subjects) == n
	})
}

func TestADraftIsReleasedOnceItIsComplete(t *testing.T) {
	s := newStory(t)
	r, other := s.running(), s.running()
	s.report(facts("agent001"))
	s.published()
	must(s, events.CollectionSet, linuxMachines())
	s.trusts(bundle(1, threshold(3)), r, other)
	s.knows(r, 1)
	o := s.order()
	v := s.draft(o, "ada")
	if v.Life != events.LifeDraft || v.Needed != 3 || !cmp.Equal(v.Signers, []string{"ada"}) || v.Members != 1 || v.Released != 0 {
		t.Errorf("drafted: %+v", v)
	}
	eventstest.ExpectExactly(t, s.admin, events.DeploymentDrafted, nil, 1)
	if v, err := s.addSignature(o, "bob"); err != nil || v.Life != events.LifeDraft || !cmp.Equal(v.Signers, []string{"ada", "bob"}) {
		t.Errorf("signed by bob: %+v, %v", v, err)
	}
	d := must(s, events.DeploymentDraft, events.Named{Name: "hello"})
	if names, complete, err := order.Signed(d.Envelope, bundle(1, threshold(3))); err != nil || complete || !cmp.Equal(names, d.Signed) || d.Needed != 3 || len(names) != 2 {
		t.Errorf("the draft to sign: %v of %d, %v, %v", d.Signed, d.Needed, complete, err)
	}
	for _, all := range [][]events.DeploymentView{must(s, events.DeploymentList, events.Nothing{}).Deployments, {must(s, events.DeploymentShow, events.Named{Name: "hello"})}} {
		if len(all) != 1 || all[0].Life != events.LifeDraft || all[0].Needed != 3 {
			t.Errorf("shown: %+v", all)
		}
	}
	s.released(0, nil)
	v, err := s.addSignature(o, "eve")
	if err != nil || v.Life != events.LifeActive || !cmp.Equal(v.Signers, []string{"ada", "bob", "eve"}) {
		t.Errorf("complete: %+v, %v", v, err)
	}
	s.released(1, nil)
	created := eventstest.ExpectExactly(t, s.admin, events.DeploymentCreated, nil, 1)[0].Data
	if _, _, err := order.Verify(created.Envelope, bundle(1, threshold(3)), time.Now()); err != nil {
		t.Errorf("agents refuse what was released: %v", err)
	}
	if again, err := s.addSignature(o, "bob"); err != nil || again.Life != events.LifeActive {
		t.Errorf("signed once more: %+v, %v", again, err)
	}
	if _, err := ask(s, events.DeploymentDraft, events.Named{Name: "hello"}); !errors.Is(err, bus.ErrNotFound) {
		t.Errorf("the draft is still there: %v", err)
	}
	s.keysLeft(kindDraft, 0)
	eventstest.ExpectExactly(t, s.admin, events.DeploymentCreated, nil, 1)
}

func TestDeployersWhoSignAtOnceLoseNothing(t *testing.T) {
	s := newStory(t)
	replicas := []*Service{s.running(), s.running()}
	s.published()
	must(s, events.CollectionSet, linuxMachines())
	names := []string{"ada", "bob", "eve", "fay", "gil", "hal"}
	s.trusts(bundle(1, threshold(len(names)), func(b *trust.Bundle) { b.Keys = publics(names...) }), replicas...)
	o := s.order()
	s.draft(o, "ada")
	var all sync.WaitGroup
	for i, name := range names[1:] {
		all.Go(func() {
			envelope := s.signed(o, name)
			if _, err := replicas[i%2].deploymentSign(t.Context(), name, events.SignRequest{Envelope: envelope}); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	all.Wait()
	created := eventstest.ExpectExactly(t, s.admin, events.DeploymentCreated, nil, 1)[0].Data
	signed, complete, err := order.Signed(created.Envelope, *replicas[0].trusted())
	if diff := cmp.Diff(names, signed); diff != "" || !complete || err != nil {
		t.Errorf("%v %s", err, diff)
	}
}

func TestSignaturesThatADraftDoesNotTake(t *testing.T) {
	s := newStory(t)
	r := s.running()
	s.published()
	must(s, events.CollectionSet, linuxMachines())
	s.trusts(bundle(1, threshold(3)), r)
	o := s.order()
	s.draft(o, "ada")
	other := s.order(func(o *order.Order) { o.Rerun = order.RerunAlways })
	for name, c := range map[string]struct {
		order   order.Order
		signers []string
		want    error
		says    string
	}{
		"of a stranger":                     {o, []string{"mallory"}, bus.ErrBadRequest, "(order_unknown_key)"},
		"none":                              {o, nil, bus.ErrBadRequest, "(order_unsigned)"},
		"of another order of that name":     {other, []string{"bob"}, bus.ErrConflict, "is another order, of revision 1 by ada"},
		"of an order that nobody drafted":   {s.order(func(o *order.Order) { o.Deployment = "absent" }), []string{"bob"}, bus.ErrNotFound, `no draft of deployment "absent"`},
		"of another order kept as a draft":  {other, []string{"bob"}, bus.ErrConflict, "sign that one, or remove it first"},
		"a draft that was read as no order": {want: bus.ErrBadRequest, says: "the order is refused"},
	} {
		t.Run(name, func(t *testing.T) {
			var err error
			switch {
			case c.order.Deployment == "":
				_, err = ask(s, events.DeploymentSign, events.SignRequest{Envelope: []byte("{}")})
			case strings.Contains(c.says, "remove it first"):
				_, err = ask(s, events.DeploymentCreate, events.DeploymentRequest{Envelope: s.signed(c.order, c.signers...), Draft: true})
			default:
				_, err = s.addSignature(c.order, c.signers...)
			}
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v, want %v: %s", err, c.want, c.says)
			}
		})
	}
	if d := must(s, events.DeploymentDraft, events.Named{Name: "hello"}); !cmp.Equal(d.Signed, []string{"ada"}) {
		t.Errorf("signed by %v", d.Signed)
	}
}

func TestWhatChangedMeanwhileKeepsADraftFromBeingReleased(t *testing.T) {
	for name, c := range map[string]struct {
		meanwhile func(*story)
		want      error
		says      string
	}{
		"the collection": {func(s *story) {
			must(s, events.CollectionSet, events.Collection{Name: "linux", Expression: `agent.os == "windows"`})
		}, bus.ErrConflict, "is not the one that was signed"},
		"the package": {func(s *story) {
			publish(s, events.ServiceSource("content"), events.PackageRemoved, "hello", events.PackageNotice{Package: "hello", Version: "2.10-3", Digest: manifest, By: "ada"})
			publish(s, events.ServiceSource("content"), events.PackagePublished, "last", events.PackageNotice{Package: "last", Version: "1", Digest: events.DigestOf([]byte("last")), Programs: []string{"install"}, By: "ada"})
		}, bus.ErrNotFound, "was removed"},
		"the revision that is live": {func(s *story) {
			must(s, events.DeploymentCreate, events.DeploymentRequest{Envelope: s.signed(s.order(func(o *order.Order) { o.Revision, o.Rerun = 2, order.RerunAlways }), "bob", "eve")})
		}, bus.ErrConflict, "has another order with revision 2: sign revision 3"},
		"who is trusted": {func(s *story) { s.tellTrust(bundle(2, revoked("ada"))) }, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStory(t)
			r := s.running()
			s.report(facts("agent001"))
			s.published()
			must(s, events.CollectionSet, linuxMachines())
			s.trusts(bundle(1), r)
			must(s, events.DeploymentCreate, events.DeploymentRequest{Envelope: s.signed(s.order(), "ada", "bob")})
			o := s.order(func(o *order.Order) { o.Revision = 2 })
			s.draft(o, "ada")
			if v := must(s, events.DeploymentShow, events.Named{Name: "hello"}); v.Revision != 1 || v.Life != events.LifeActive {
				t.Errorf("the draft of the next revision did not leave the live one alone: %+v", v)
			}
			c.meanwhile(s)
			s.eventually("that is known", func() bool {
				p, _ := r.packageOf(manifest)
				_, last := r.packageOf(events.DigestOf([]byte("last")))
				return p.Removed == last && (name != "who is trusted" || r.trusted().Version == 2)
			})
			v, err := s.addSignature(o, "bob")
			if c.want == nil { // ada's signature counts no more: the draft waits for another
				if err != nil || v.Life != events.LifeDraft || !cmp.Equal(v.Signers, []string{"bob"}) {
					t.Errorf("signed: %+v, %v", v, err)
				}
				return
			}
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v, want %v: %s", err, c.want, c.says)
			}
		})
	}
}

func TestRemovingADraftLeavesTheDeploymentAlone(t *testing.T) {
	s := newStory(t)
	r := s.running()
	s.report(facts("agent001"))
	s.published()
	must(s, events.CollectionSet, linuxMachines())
	s.trusts(bundle(1), r)
	must(s, events.DeploymentCreate, events.DeploymentRequest{Envelope: s.signed(s.order(), "ada", "bob")})
	s.draft(s.order(func(o *order.Order) { o.Revision = 2 }), "ada")
	if all := must(s, events.DeploymentList, events.Nothing{}).Deployments; len(all) != 2 || all[0].Revision != 1 || all[1].Life != events.LifeDraft {
		t.Errorf("listed: %+v", all)
	}
	must(s, events.DeploymentRemove, events.Named{Name: "hello"})
	if _, err := ask(s, events.DeploymentDraft, events.Named{Name: "hello"}); !errors.Is(err, bus.ErrNotFound) {
		t.Errorf("the draft is still there: %v", err)
	}
	if v := must(s, events.DeploymentShow, events.Named{Name: "hello"}); v.Revision != 1 || v.Life != events.LifeActive {
		t.Errorf("the deployment is %s", v.Life)
	}
	s.keysLeft(kindDraft, 0)
	eventstest.ExpectExactly(t, s.admin, events.DeploymentRemoved, nil, 0)
	eventstest.ExpectExactly(t, s.admin, events.DeploymentDrafted, nil, 1)
	// Another draft may take its place.
	if v := s.draft(s.order(func(o *order.Order) { o.Revision, o.Rerun = 2, order.RerunAlways }), "eve"); !cmp.Equal(v.Signers, []string{"eve"}) {
		t.Errorf("drafted again: %+v", v)
	}
	eventstest.ExpectExactly(t, s.admin, events.DeploymentDrafted, nil, 2)
}

func TestADraftGoesWithTheValidityOfItsOrder(t *testing.T) {
	s := newStory(t)
	r := s.running(func(o *Options) { o.Tick = 50 * time.Millisecond })
	s.published()
	must(s, events.CollectionSet, linuxMachines())
	s.trusts(bundle(1), r)
	o := s.order(func(o *order.Order) { o.NotAfter = s.clock.now().Add(time.Hour) })
	s.draft(o, "ada")
	eventstest.ExpectExactly(t, s.admin, events.DeploymentDrafted, nil, 1)
	s.clock.advance(time.Hour + 2*order.ClockTolerance)
	s.keysLeft(kindDraft, 0)
	if _, err := s.addSignature(o, "bob"); !errors.Is(err, bus.ErrNotFound) {
		t.Errorf("signed too late: %v", err)
	}
}

func TestACrashAfterADraftBecameTheDeploymentIsCaughtUp(t *testing.T) {
	s := newStory(t)
	r := s.replica()
	stop := s.run(r)
	s.published()
	must(s, events.CollectionSet, linuxMachines())
	s.trusts(bundle(1), r)
	o := s.order()
	s.draft(o, "ada")
	left := stored(s, r, "hello", kindDraft)
	must(s, events.DeploymentCreate, events.DeploymentRequest{Envelope: s.signed(o, "ada", "bob")})
	s.keysLeft(kindDraft, 0)
	stop()
	left.Outbox = outbox{} // as a replica leaves it that died between two steps
	if err := save(t.Context(), r.deploymentStore, draftKey("hello"), left, 0); err != nil {
		t.Fatal(err)
	}
	s.running()
	s.keysLeft(kindDraft, 0)
	eventstest.ExpectExactly(t, s.admin, events.DeploymentCreated, nil, 1)
}
