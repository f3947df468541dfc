package content

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/eventstest"
	"chandler/events/manifest"
	"chandler/events/sign"
	"chandler/events/trust"
)

// bundle trusts these publishers; from the second on, keys of others that are known are revoked.
func bundle(version int, publishers ...string) trust.Bundle {
	b := trust.Bundle{Fleet: "demo", Version: version, Threshold: 1, Keys: keys("dan"), Publishers: keys(publishers...), Roots: trust.Roots{Threshold: 1, Keys: keys("root")}, Issued: clock}
	for _, k := range keys("ada", "bob", "eve") {
		if version > 1 && !slices.Contains(b.Publishers, k) {
			b.Revoked = append(b.Revoked, trust.RevokedKey{PublicKey: k, At: clock, Why: "lost"})
		}
	}
	return b
}

func keys(names ...string) (all []sign.PublicKey) {
	for _, name := range names {
		all = append(all, publisher(name).Public().Named(name))
	}
	return all
}

func (s *story) tellTrust(b trust.Bundle) {
	s.t.Helper()
	envelope, err := trust.Sign(b, publisher("root"))
	if err != nil {
		s.t.Fatal(err)
	}
	credentials, err := bus.New(bus.Options{Conn: s.admin.Conn(), Source: events.ServiceSource("credentials"), CheckPublished: true})
	if err != nil {
		s.t.Fatal(err)
	}
	_, err = bus.Publish(s.t.Context(), credentials, events.TrustChanged, events.Event[events.TrustNotice]{ID: events.DigestOf(envelope), Subject: b.Fleet,
		Data: events.TrustNotice{Fleet: b.Fleet, Version: b.Version, Bundle: envelope, By: "admin", At: time.Now()}})
	if err != nil {
		s.t.Fatal(err)
	}
}

// trusts tells of a bundle and waits until it is kept.
func (s *story) trusts(b trust.Bundle) {
	s.t.Helper()
	s.tellTrust(b)
	s.until("the bundle is kept", func() bool {
		kept, err := s.trusted(s.t.Context())
		return err == nil && kept != nil && kept.Version >= b.Version
	})
}

func TestOnlyWhatAPublisherSignedIsPublished(t *testing.T) {
	for name, c := range map[string]struct {
		signers []string
		trust   []trust.Bundle
		says    string // "" published
	}{
		"by a publisher":                               {signers: []string{"ada"}, trust: []trust.Bundle{bundle(1, "ada")}},
		"by a publisher and a stranger":                {signers: []string{"ada", "mallory"}, trust: []trust.Bundle{bundle(1, "ada")}},
		"by a publisher of the newest bundle":          {signers: []string{"bob"}, trust: []trust.Bundle{bundle(1, "ada"), bundle(2, "bob")}},
		"by anybody while it is not known who may":     {signers: []string{"mallory"}},
		"by nobody while it is not known who may":      {},
		"by a stranger":                                {signers: []string{"mallory"}, trust: []trust.Bundle{bundle(1, "ada")}, says: "(manifest_unsigned)"},
		"by nobody":                                    {trust: []trust.Bundle{bundle(1, "ada")}, says: "(manifest_unsigned)"},
		"by a deployer":                                {signers: []string{"dan"}, trust: []trust.Bundle{bundle(1, "ada")}, says: "(manifest_unsigned)"},
		"by a publisher whose key was revoked":         {signers: []string{"ada"}, trust: []trust.Bundle{bundle(1, "ada"), bundle(2, "bob")}, says: "which is revoked"},
		"while the bundle trusts no publisher":         {signers: []string{"ada"}, trust: []trust.Bundle{bundle(1)}, says: "names no publishers"},
		"by a publisher of an older bundle told later": {signers: []string{"ada"}, trust: []trust.Bundle{bundle(2, "bob"), bundle(1, "ada")}, says: "(manifest_unsigned)"},
	} {
		t.Run(name, func(t *testing.T) {
			s := begin(t)
			for _, b := range c.trust {
				s.trusts(b)
			}
			p := s.packBy(signedBy(c.signers...), "hello", "1", clock, map[string]string{"a.sh": "one"})
			_, err := s.publish(p)
			if c.says == "" && err != nil || c.says != "" && (!errors.Is(err, bus.ErrBadRequest) || !strings.Contains(err.Error(), c.says)) {
				t.Errorf("error %v, want %q", err, c.says)
			}
			if published := len(s.list()) == 1; published != (c.says == "") {
				t.Errorf("published: %v", published)
			}
		})
	}
}

func TestASignatureThatDoesNotFitIsRefused(t *testing.T) {
	s := begin(t)
	s.trusts(bundle(1, "ada"))
	p := s.pack("hello", "1", clock, map[string]string{"a.sh": "one"})
	other := s.pack("hello", "2", clock, map[string]string{"a.sh": "one"})
	_, signatures, err := openEnvelope(p.Envelope)
	if err != nil {
		t.Fatal(err)
	}
	forged, err := seal(other.Manifest, signatures)
	if err != nil {
		t.Fatal(err)
	}
	other.Envelope, other.Digest = forged, events.DigestOf(forged)
	other.Blobs[len(other.Blobs)-1].BlobRef = events.BlobRef{SHA256: other.Digest, Size: int64(len(forged))}
	if _, err := s.publish(other); !errors.Is(err, bus.ErrBadRequest) || !strings.Contains(err.Error(), "(manifest_mismatch)") {
		t.Errorf("error: %v", err)
	}
}

func TestWhoShowsAPackageGetsWhatItsPublisherSigned(t *testing.T) {
	for name, files := range map[string]map[string]string{"a small one": {"a.sh": "one"}, "one whose manifest is a blob only": many("one")} {
		t.Run(name, func(t *testing.T) {
			s := begin(t)
			s.trusts(bundle(1, "ada"))
			p := s.pack("hello", "1", clock, files)
			s.mustPublish(p)
			info, err := s.show("hello", "1")
			if err != nil {
				t.Fatal(err)
			}
			m, err := manifest.Verify(info.Envelope, bundle(1, "ada"))
			if diff := cmp.Diff(p.Manifest, m); diff != "" || err != nil || events.DigestOf(info.Envelope) != info.Digest || !cmp.Equal(info.Manifest, m) {
				t.Errorf("%v %s", err, diff)
			}
			l, err := bus.Request(t.Context(), s.admin, "admin", events.ContentList, events.Nothing{})
			if err != nil || len(l.Packages) != 1 || l.Packages[0].Envelope != nil {
				t.Errorf("the list holds envelopes: %v", err)
			}
		})
	}
}

func TestAPackageOfAPublisherWhoIsTrustedNoLongerIsPublishedAnew(t *testing.T) {
	s := begin(t)
	s.trusts(bundle(1, "ada"))
	first := s.mustPublish(s.pack("hello", "1", clock, map[string]string{"a.sh": "one"}))
	s.trusts(bundle(2, "bob"))
	again := s.packBy(signedBy("bob"), "hello", "1", clock, map[string]string{"a.sh": "one"})
	if _, err := s.publish(again); !errors.Is(err, bus.ErrConflict) || !strings.Contains(err.Error(), "trusted no longer: remove it") {
		t.Errorf("error: %v", err)
	}
	if _, err := s.remove("hello", "1"); err != nil {
		t.Fatal(err)
	}
	if info := s.mustPublish(again); info.Digest == first.Digest {
		t.Error("it is the old package")
	}
}

func TestABucketThatIsLostIsNotFilledWithWhatNoPublisherSigned(t *testing.T) {
	s := begin(t)
	s.trusts(bundle(1, "ada"))
	s.mustPublish(s.pack("hello", "1", clock, map[string]string{"a.sh": "one"}))
	rogue := s.packBy(signedBy("mallory"), "rogue", "1", clock, map[string]string{"a.sh": "one"})
	if err := s.blobs.Put(t.Context(), rogue.Digest, int64(len(rogue.Envelope)), bytes.NewReader(rogue.Envelope)); err != nil {
		t.Fatal(err)
	}
	if err := s.admin.JetStream().DeleteKeyValue(t.Context(), events.BucketPackages); err != nil {
		t.Fatal(err)
	}
	if err := s.pass(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := s.list(); !cmp.Equal(got, []string{"hello@1"}) {
		t.Errorf("recalled %v", got)
	}
	if b, err := s.trusted(t.Context()); err != nil || b == nil || b.Version != 1 {
		t.Errorf("the trust bundle was not recalled: %v", err)
	}
}

func TestABundleThatARestoredBucketDoesNotHoldRefusesNothingRight(t *testing.T) {
	s := begin(t)
	s.trusts(bundle(1, "ada"))
	s.mustPublish(s.pack("before", "1", clock, map[string]string{"a.sh": "one"})) // no first look at the bucket helps later
	kv, err := s.admin.JetStream().KeyValue(t.Context(), events.BucketPackages)
	if err != nil {
		t.Fatal(err)
	}
	old, err := kv.Get(t.Context(), trustKey)
	if err != nil {
		t.Fatal(err)
	}
	s.trusts(bundle(2, "ada", "eve"))
	if _, err := kv.Put(t.Context(), trustKey, old.Value()); err != nil {
		t.Fatal(err)
	}
	s.mustPublish(s.packBy(signedBy("eve"), "hello", "1", clock, map[string]string{"a.sh": "one"}))
}

func TestABundleThatCannotBeReadIsNotKept(t *testing.T) {
	s := begin(t)
	s.trusts(bundle(1, "ada"))
	for name, e := range map[string]events.Event[events.TrustNotice]{
		"no envelope":       {Subject: "demo", Data: events.TrustNotice{Fleet: "demo", Version: 9, Bundle: []byte("{}")}},
		"of another fleet":  {Subject: "other", Data: events.TrustNotice{Fleet: "other", Version: 9, Bundle: mustSign(t, bundle(9, "mallory"))}},
		"no newer than one": {Subject: "demo", Data: events.TrustNotice{Fleet: "demo", Version: 9, Bundle: mustSign(t, bundle(1, "mallory"))}},
	} {
		if err := s.noteTrust(t.Context(), e); (err == nil) != (name == "no newer than one") {
			t.Errorf("%s: %v", name, err)
		}
		if b, err := s.trusted(t.Context()); err != nil || b.Version != 1 || b.Publishers[0].Name != "ada" {
			t.Errorf("%s: %+v is kept, %v", name, b, err)
		}
	}
}

func mustSign(t *testing.T, b trust.Bundle) []byte {
	t.Helper()
	envelope, err := trust.Sign(b, publisher("root"))
	if err != nil {
		t.Fatal(err)
	}
	return envelope
}

func TestTheAuditSaysWhatPublishingAndRemovingChanged(t *testing.T) {
	s := begin(t)
	p := s.pack("hello", "1", clock, map[string]string{"a.sh": "one"})
	s.mustPublish(p)
	if _, err := s.remove("hello", "1"); err != nil {
		t.Fatal(err)
	}
	verb := func(verb string) func(events.Event[events.AuditRecord]) bool {
		return func(e events.Event[events.AuditRecord]) bool { return e.Data.Verb == verb }
	}
	if e := eventstest.Expect(t, s.admin, events.AuditRecorded, verb("commit")); e.Data.Before != "" || e.Data.After == "" {
		t.Errorf("commit: %+v", e.Data)
	}
	if e := eventstest.Expect(t, s.admin, events.AuditRecorded, verb("remove")); e.Data.Before == "" || e.Data.After != "" {
		t.Errorf("remove: %+v", e.Data)
	}
}

func FuzzEnvelope(f *testing.F) {
	m := events.Manifest{API: manifest.API, Package: "hello", Version: "1", Published: clock, Programs: map[string]events.Program{"install": {Command: events.Command{Line: "true"}, Run: events.RunUser}}}
	good, err := manifest.Seal(m, publisher("ada"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"payloadType":"application/vnd.chandler.manifest+json","payload":"e30=","signatures":null}`))
	f.Add(bytes.Replace(good, []byte(`"sig"`), []byte(`"SIG"`), 1))
	f.Fuzz(func(t *testing.T, envelope []byte) {
		m, signatures, err := openEnvelope(envelope)
		if err != nil {
			return
		}
		again, err := seal(m, signatures)
		if err != nil || !bytes.Equal(again, envelope) || !bytes.HasPrefix(envelope, []byte(envelopeStart())) {
			t.Errorf("%q is %q when it is made again, %v", envelope, again, err)
		}
	})
}
