package manifest

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"chandler/events"
	"chandler/events/sign"
	"chandler/events/trust"
)

func key(t testing.TB, fill byte) sign.Key {
	t.Helper()
	k, err := sign.NewKey(bytes.Repeat([]byte{fill}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func sealed(t testing.TB, m events.Manifest, signers ...sign.Signer) []byte {
	t.Helper()
	envelope, err := Seal(m, signers...)
	if err != nil {
		t.Fatal(err)
	}
	return envelope
}

// altered changes the payload and keeps the signatures.
func altered(t testing.TB, envelope []byte, old, new string) []byte {
	t.Helper()
	var e map[string]any
	if err := json.Unmarshal(envelope, &e); err != nil {
		t.Fatal(err)
	}
	payload, err := base64.StdEncoding.DecodeString(e["payload"].(string))
	if err != nil || !bytes.Contains(payload, []byte(old)) {
		t.Fatalf("%s does not hold %s: %v", payload, old, err)
	}
	e["payload"] = base64.StdEncoding.EncodeToString(bytes.ReplaceAll(payload, []byte(old), []byte(new)))
	out, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestAnAgentAcceptsOnlyWhatAPublisherSigned(t *testing.T) {
	publisher, deployer, lost, stranger := key(t, 1), key(t, 2), key(t, 3), key(t, 4)
	bundle := trust.Bundle{
		Fleet: "testfleet", Version: 3, Threshold: 1, Keys: []sign.PublicKey{deployer.Public().Named("ada")},
		Publishers: []sign.PublicKey{key(t, 9).Public().Named("other"), publisher.Public().Named("builds")},
		Revoked:    []trust.RevokedKey{{PublicKey: lost.Public().Named("old-builds")}},
	}
	noPublishers, faulty := bundle, bundle
	noPublishers.Publishers = nil
	faulty.Publishers = []sign.PublicKey{{Name: "x", Key: "aaaa"}}
	payload := []byte("{\"api\":\"chandler/v9\"}\n")
	newer, err := sign.Seal(PayloadType, payload, publisher)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := Encode(valid())
	if err != nil {
		t.Fatal(err)
	}
	order, err := sign.Seal("application/vnd.chandler.order+json", plain, publisher)
	if err != nil {
		t.Fatal(err)
	}
	good := sealed(t, valid(), publisher)
	for name, c := range map[string]struct {
		envelope []byte
		bundle   trust.Bundle
		reason   events.Reason
		text     string // of the refusal; else who signed
	}{
		"a publisher's":                       {good, bundle, "", "builds"},
		"two publishers'":                     {sealed(t, valid(), key(t, 9), publisher), bundle, "", "builds, other"},
		"a publisher's beside a stranger's":   {sealed(t, valid(), stranger, publisher), bundle, "", "builds"},
		"a publisher's beside a revoked one":  {sealed(t, valid(), lost, publisher), bundle, "", "builds"},
		"nobody's":                            {sealed(t, valid()), bundle, events.ManifestUnsigned, "no publisher signed"},
		"a stranger's":                        {sealed(t, valid(), stranger), bundle, events.ManifestUnsigned, "none of them trusted"},
		"a deployer's":                        {sealed(t, valid(), deployer), bundle, events.ManifestUnsigned, "none of them trusted"},
		"a revoked publisher's":               {sealed(t, valid(), lost), bundle, events.ManifestUnsigned, "old-builds"},
		"a fleet without publishers":          {good, noPublishers, events.ManifestUnsigned, "names no publishers"},
		"a bundle with a malformed publisher": {good, faulty, events.AgentFault, "base64"},
		"another file after signing":          {altered(t, good, "hello.deb", "hullo.deb"), bundle, events.ManifestMismatch, "builds"},
		"a signed order in its place":         {order, bundle, events.ManifestMismatch, "not a manifest"},
		"a manifest without an envelope":      {plain, bundle, events.ManifestMismatch, "holds \"\""},
		"half an envelope":                    {good[:len(good)/2], bundle, events.ManifestMismatch, "not a DSSE envelope"},
		"nothing":                             {nil, bundle, events.ManifestMismatch, "not a DSSE envelope"},
		"too large an envelope":               {append(bytes.Clone(good), bytes.Repeat([]byte(" "), MaxEnvelope)...), bundle, events.ManifestMismatch, "larger"},
		"a signed manifest of another form":   {newer, bundle, events.UnsupportedFormat, "chandler/v9"},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := Verify(c.envelope, c.bundle)
			var refused *sign.Refusal
			switch {
			case c.reason == "":
				if diff := cmp.Diff(valid(), m); diff != "" || err != nil {
					t.Fatal(err, diff)
				}
				if names, err := Signed(c.envelope, c.bundle); err != nil || strings.Join(names, ", ") != c.text {
					t.Fatalf("signed by %q, %v; want %s", names, err, c.text)
				}
			case !errors.As(err, &refused) || refused.Reason != c.reason || !strings.Contains(refused.Text, c.text):
				t.Fatalf("got %v, want %s with %q", err, c.reason, c.text)
			case m.Package != "":
				t.Fatalf("a refused manifest was given back: %+v", m)
			}
		})
	}
}

func TestServicesReadEnvelopesWithoutTrust(t *testing.T) {
	m, err := Open(sealed(t, valid()))
	if diff := cmp.Diff(valid(), m); diff != "" || err != nil {
		t.Fatal(err, diff)
	}
	if _, err := Open(altered(t, sealed(t, valid()), `":`, `": `)); err == nil {
		t.Error("a payload that is in another form was read")
	}
}

// Whoever may publish the largest manifest must also be able to have it signed, stored and read.
func TestTheLargestManifestFitsItsEnvelope(t *testing.T) {
	m := valid()
	digest := events.DigestOf([]byte("block"))
	for size := 0; size < MaxBytes-100_000; {
		f := events.File{Path: fmt.Sprintf("x%04d", len(m.Files)), Mode: 0o644, SHA256: events.DigestOf([]byte{byte(len(m.Files))})}
		for range 1000 {
			f.Blocks = append(f.Blocks, digest)
		}
		f.Size = int64(len(f.Blocks)) * events.BlockSize
		m.Files = append(m.Files, f)
		size += 1000 * (len(digest) + 3)
	}
	envelope := sealed(t, m, key(t, 1))
	if payload, err := Encode(m); err != nil || len(payload) < MaxBytes-200_000 {
		t.Fatalf("the manifest has %d bytes, too few to show anything (%v)", len(payload), err)
	}
	if len(envelope) > MaxEnvelope || MaxEnvelope > sign.MaxSize {
		t.Fatalf("%d bytes, limits %d and %d", len(envelope), MaxEnvelope, sign.MaxSize)
	}
	if _, err := Verify(envelope, trust.Bundle{Publishers: []sign.PublicKey{key(t, 1).Public()}}); err != nil {
		t.Fatal(err)
	}
}

func FuzzVerify(f *testing.F) {
	bundle := trust.Bundle{Publishers: []sign.PublicKey{key(f, 1).Public().Named("a")}}
	good := sealed(f, valid(), key(f, 1))
	f.Add(good)
	f.Add(sealed(f, valid(), key(f, 2)))
	f.Add(altered(f, good, "hello", "hullo"))
	f.Fuzz(func(t *testing.T, envelope []byte) {
		m, err := Verify(envelope, bundle)
		var refused *sign.Refusal
		switch {
		case err == nil && !Same(m, valid()):
			t.Fatalf("a manifest that was never signed was accepted: %+v", m)
		case err != nil && !errors.As(err, &refused):
			t.Fatalf("an error without a reason: %v", err)
		}
		if opened, openErr := Open(envelope); err == nil && (openErr != nil || !Same(opened, m)) {
			t.Fatalf("an agent and a service read two things: %v", openErr)
		}
	})
}
