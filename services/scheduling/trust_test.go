package scheduling

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/order"
	"chandler/events/sign"
	"chandler/events/trust"
)

func signer(name string) sign.Key {
	key, err := sign.NewKey([]byte(fmt.Sprintf("%-32s", name)))
	if err != nil {
		panic(err) // the seed has the right length
	}
	return key
}

func publics(names ...string) (keys []sign.PublicKey) {
	for _, name := range names {
		keys = append(keys, signer(name).Public().Named(name))
	}
	return keys
}

// bundle trusts ada, bob and eve, two of whom must sign.
func bundle(version int, change ...func(*trust.Bundle)) trust.Bundle {
	b := trust.Bundle{Fleet: "demo", Version: version, Threshold: 2, Keys: publics("ada", "bob", "eve"), Roots: trust.Roots{Threshold: 1, Keys: publics("root")}, Issued: time.Now().Add(-time.Hour)}
	for _, c := range change {
		c(&b)
	}
	return b
}

func threshold(n int) func(*trust.Bundle) { return func(b *trust.Bundle) { b.Threshold = n } }

// revoked takes a deployer's key out.
func revoked(name string) func(*trust.Bundle) {
	return func(b *trust.Bundle) {
		var left []sign.PublicKey
		for _, k := range b.Keys {
			if k.Name != name {
				left = append(left, k)
			}
		}
		b.Keys, b.Revoked = left, append(b.Revoked, trust.RevokedKey{PublicKey: signer(name).Public().Named(name), At: time.Now(), Why: "stolen"})
	}
}

func (s *story) tellTrust(b trust.Bundle) {
	s.t.Helper()
	envelope, err := trust.Sign(b, signer("root"))
	if err != nil {
		s.t.Fatal(err)
	}
	publish(s, events.ServiceSource("credentials"), events.TrustChanged, b.Fleet, events.TrustNotice{Fleet: b.Fleet, Version: b.Version, Bundle: envelope, By: "ada", At: time.Now()})
}

// trusts tells replicas a bundle and waits until they know it.
func (s *story) trusts(b trust.Bundle, replicas ...*Service) {
	s.t.Helper()
	s.tellTrust(b)
	for _, r := range replicas {
		s.eventually(fmt.Sprintf("bundle %d is known", b.Version), func() bool { known := r.trusted(); return known != nil && known.Version >= b.Version })
	}
}

// signed is an order with the signatures of these.
func (s *story) signed(o order.Order, names ...string) []byte {
	s.t.Helper()
	var signers []sign.Signer
	for _, name := range names {
		signers = append(signers, signer(name))
	}
	envelope, err := order.Sign(o, signers...)
	if err != nil {
		s.t.Fatal(err)
	}
	return envelope
}

func TestSignaturesAreHeldAgainstTheTrustBundle(t *testing.T) {
	s := newStory(t)
	r := s.running()
	s.published()
	must(s, events.CollectionSet, linuxMachines())
	s.trusts(bundle(1, revoked("eve")), r)
	altered := func(o order.Order) []byte {
		return []byte(strings.Replace(string(s.signed(o, "ada", "bob")), string(sigOf(t, s.signed(o, "bob"))), string(sigOf(t, s.signed(s.order(), "bob"))), 1))
	}
	for name, c := range map[string]struct {
		signers []string
		alter   bool
		fleet   string
		draft   bool
		says    string // "" accepted
	}{
		"enough signatures":                        {signers: []string{"ada", "bob"}},
		"enough, and a stranger's":                 {signers: []string{"ada", "bob", "mallory"}},
		"enough, and a revoked key's":              {signers: []string{"ada", "bob", "eve"}},
		"enough, asked for as a draft":             {signers: []string{"ada", "bob"}, draft: true},
		"too few":                                  {signers: []string{"ada"}, says: "(order_unsigned)"},
		"too few, which a draft would collect":     {signers: []string{"ada"}, says: "--draft"},
		"none":                                     {says: "(order_unsigned)"},
		"none, for a draft":                        {draft: true, says: "(order_unsigned)"},
		"only strangers":                           {signers: []string{"mallory"}, says: "(order_unknown_key)"},
		"only strangers, for a draft":              {signers: []string{"mallory"}, draft: true, says: "(order_unknown_key)"},
		"a revoked key":                            {signers: []string{"eve"}, draft: true, says: "(order_revoked_key)"},
		"too few, and a revoked key":               {signers: []string{"ada", "eve"}, says: "(order_revoked_key)"},
		"a signature of something else":            {alter: true, says: "(order_altered)"},
		"a signature of something else on a draft": {alter: true, draft: true, says: "(order_altered)"},
		"another fleet's, rightly signed":          {signers: []string{"ada", "bob"}, fleet: "other", says: "for fleet other, this is demo"},
	} {
		t.Run(name, func(t *testing.T) {
			o := s.order(func(o *order.Order) {
				o.Deployment = events.DeriveID("test", name)
				if c.fleet != "" {
					o.Fleet = c.fleet
				}
			})
			envelope := s.signed(o, c.signers...)
			if c.alter {
				envelope = altered(o)
			}
			v, err := ask(s, events.DeploymentCreate, events.DeploymentRequest{Envelope: envelope, Draft: c.draft})
			if c.says != "" {
				if !errors.Is(err, bus.ErrBadRequest) || !strings.Contains(err.Error(), c.says) {
					t.Errorf("error %v, want %q", err, c.says)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]string{"ada", "bob"}, v.Signers); diff != "" || v.Life != events.LifeActive {
				t.Errorf("%s %s", v.Life, diff)
			}
		})
	}
}

// sigOf is the text of an envelope's first signature.
func sigOf(t *testing.T, envelope []byte) []byte {
	t.Helper()
	_, rest, ok := strings.Cut(string(envelope), `"sig":"`)
	sig, _, end := strings.Cut(rest, `"`)
	if !ok || !end {
		t.Fatalf("no signature in %s", envelope)
	}
	return []byte(sig)
}

func TestWithoutATrustBundleAgentsDecide(t *testing.T) {
	s := newStory(t)
	s.running()
	s.published()
	must(s, events.CollectionSet, linuxMachines())
	if v := must(s, events.DeploymentCreate, events.DeploymentRequest{Envelope: s.signed(s.order(), "mallory")}); v.Life != events.LifeActive || v.Signers != nil {
		t.Errorf("created: %+v", v)
	}
	_, err := ask(s, events.DeploymentCreate, events.DeploymentRequest{Envelope: s.signed(s.order(), "ada"), Draft: true})
	if !errors.Is(err, bus.ErrConflict) || !strings.Contains(err.Error(), "whose signatures are needed") {
		t.Errorf("a draft: %v", err)
	}
}

func TestOnlyTheNewestBundleOfTheFleetCounts(t *testing.T) {
	s := newStory(t)
	r := s.running(func(o *Options) { o.Fleet = "demo" })
	s.trusts(bundle(3), r)
	s.tellTrust(bundle(2, threshold(1)))
	s.tellTrust(bundle(9, func(b *trust.Bundle) { b.Fleet = "other" }))
	publish(s, events.ServiceSource("credentials"), events.TrustChanged, "demo", events.TrustNotice{Fleet: "demo", Version: 10, Bundle: []byte("{}"), By: "ada", At: time.Now()})
	s.trusts(bundle(4), r)
	if b := r.trusted(); b.Version != 4 || b.Threshold != 2 || r.fleetOf() != "demo" {
		t.Errorf("known: version %d of %s", b.Version, b.Fleet)
	}
	again := s.running() // what was learnt is kept
	if b := again.trusted(); b == nil || b.Version != 4 || again.fleetOf() != "demo" {
		t.Errorf("the next replica knows %+v", b)
	}
}

func TestABundleThatARestoredBucketDoesNotHoldRefusesNothingRight(t *testing.T) {
	s := newStory(t)
	r := s.replica()
	stop := s.run(r)
	s.published()
	must(s, events.CollectionSet, linuxMachines())
	s.trusts(bundle(1, func(b *trust.Bundle) { b.Keys = publics("ada", "bob") }), r)
	old := s.snapshot()
	s.trusts(bundle(2), r) // eve is trusted too
	stop()
	s.restore(old)
	s.running()
	must(s, events.DeploymentCreate, events.DeploymentRequest{Envelope: s.signed(s.order(), "ada", "eve")})
}
