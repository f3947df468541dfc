package trust

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chandler/events"
	"chandler/events/sign"
)

var issued = time.Date(2026, 12, 1, 8, 0, 0, 0, time.UTC)

func key(t testing.TB, fill byte) sign.Key {
	t.Helper()
	k, err := sign.NewKey(bytes.Repeat([]byte{fill}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func public(t testing.TB, fill byte) sign.PublicKey {
	return key(t, fill).Public().Named(fmt.Sprint("key-", fill))
}

// numbered makes n different keys.
func numbered(t testing.TB, n int) []sign.PublicKey {
	t.Helper()
	keys := make([]sign.PublicKey, n)
	for i := range keys {
		k, err := sign.NewKey(fmt.Appendf(nil, "%032d", i))
		if err != nil {
			t.Fatal(err)
		}
		keys[i] = k.Public().Named(fmt.Sprint(i))
	}
	return keys
}

// roots makes a root set; deployers and publishers have other numbers.
func roots(t testing.TB, threshold int, fills ...byte) Roots {
	r := Roots{Threshold: threshold}
	for _, f := range fills {
		r.Keys = append(r.Keys, public(t, f))
	}
	return r
}

func bundle(t testing.TB, version int, r Roots) Bundle {
	return Bundle{
		Format: Format, Fleet: "testfleet", Version: version, Threshold: 1, Keys: []sign.PublicKey{public(t, 101)},
		Publishers: []sign.PublicKey{public(t, 111)}, Roots: r, Issued: issued,
	}
}

func signed(t testing.TB, b Bundle, fills ...byte) []byte {
	t.Helper()
	var signers []sign.Signer
	for _, f := range fills {
		signers = append(signers, key(t, f))
	}
	envelope, err := Sign(b, signers...)
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
	e["payload"] = base64.StdEncoding.EncodeToString(bytes.Replace(payload, []byte(old), []byte(new), 1))
	out, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func reason(err error) events.Reason {
	var r *sign.Refusal
	if errors.As(err, &r) {
		return r.Reason
	}
	if err != nil {
		return "not a refusal"
	}
	return ""
}

func TestABundleIsReadBackAsItWasSigned(t *testing.T) {
	b := bundle(t, 3, roots(t, 2, 1, 2, 3))
	b.Revoked = []RevokedKey{{PublicKey: public(t, 55), At: issued, Why: "laptop stolen"}}
	got, err := Open(signed(t, b, 1))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(b, got); diff != "" {
		t.Error(diff)
	}
}

func TestContradictoryBundlesAreNeitherSignedNorRead(t *testing.T) {
	for name, edit := range map[string]func(*Bundle){
		"no fleet":                      func(b *Bundle) { b.Fleet = "" },
		"a fleet with a dot":            func(b *Bundle) { b.Fleet = "a.b" },
		"version zero":                  func(b *Bundle) { b.Version = 0 },
		"a version below zero":          func(b *Bundle) { b.Version = -1 },
		"no threshold":                  func(b *Bundle) { b.Threshold = 0 },
		"more signatures than keys":     func(b *Bundle) { b.Threshold = 2 },
		"no deployers":                  func(b *Bundle) { b.Keys = nil },
		"a deployer twice":              func(b *Bundle) { b.Keys = append(b.Keys, b.Keys[0].Named("again")) },
		"two deployers of one name":     func(b *Bundle) { b.Keys = append(b.Keys, public(t, 102).Named(b.Keys[0].Name)) },
		"a deployer without a name":     func(b *Bundle) { b.Keys[0].Name = "" },
		"a malformed deployer":          func(b *Bundle) { b.Keys[0].Key = "aaaa" },
		"a publisher twice":             func(b *Bundle) { b.Publishers = append(b.Publishers, b.Publishers[0].Named("again")) },
		"a malformed publisher":         func(b *Bundle) { b.Publishers[0].Key = "" },
		"no roots":                      func(b *Bundle) { b.Roots = Roots{} },
		"no threshold of roots":         func(b *Bundle) { b.Roots.Threshold = 0 },
		"a higher threshold than roots": func(b *Bundle) { b.Roots.Threshold = 4 },
		"a root twice to reach it":      func(b *Bundle) { b.Roots = Roots{2, []sign.PublicKey{public(t, 1), public(t, 1).Named("x")}} },
		"a deployer who is revoked":     func(b *Bundle) { b.Revoked = []RevokedKey{{PublicKey: public(t, 101).Named("other")}} },
		"a publisher who is revoked":    func(b *Bundle) { b.Revoked = []RevokedKey{{PublicKey: public(t, 111)}} },
		"a root that is revoked":        func(b *Bundle) { b.Revoked = []RevokedKey{{PublicKey: public(t, 2)}} },
		"a key revoked twice":           func(b *Bundle) { b.Revoked = slices.Repeat([]RevokedKey{{PublicKey: public(t, 55)}}, 2) },
		"a malformed revoked key":       func(b *Bundle) { b.Revoked = []RevokedKey{{PublicKey: sign.PublicKey{Name: "x"}}} },
		"a reason of several lines":     func(b *Bundle) { b.Revoked = []RevokedKey{{PublicKey: public(t, 55), Why: "a\nb"}} },
		"an endless reason": func(b *Bundle) {
			b.Revoked = []RevokedKey{{PublicKey: public(t, 55), Why: strings.Repeat("x", MaxWhy+1)}}
		},
		"too many keys": func(b *Bundle) {
			b.Publishers = numbered(t, MaxKeys)
		},
		"more signatures than fit an envelope": func(b *Bundle) {
			b.Roots = Roots{Threshold: MaxThreshold + 1}
			for i := range byte(MaxThreshold + 1) {
				b.Roots.Keys = append(b.Roots.Keys, public(t, i+120))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := bundle(t, 1, roots(t, 2, 1, 2, 3))
			edit(&b)
			if _, err := Sign(b, key(t, 1), key(t, 2)); err == nil {
				t.Error("it was signed")
			}
			payload, err := json.Marshal(b)
			if err != nil {
				t.Fatal(err)
			}
			envelope, err := sign.Seal(PayloadType, payload, key(t, 1), key(t, 2))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := Open(envelope); reason(err) != events.OrderMalformed {
				t.Errorf("it was read: %v", err)
			}
		})
	}
}

func TestALargeBundleTakesEverySignature(t *testing.T) {
	b := bundle(t, 1, roots(t, 1, 1))
	for _, k := range numbered(t, MaxKeys-3) {
		b.Revoked = append(b.Revoked, RevokedKey{PublicKey: k.Named(strings.Repeat("n", sign.MaxName-3) + k.Name), At: issued, Why: strings.Repeat("x", MaxWhy)})
	}
	envelope := signed(t, b, 1)
	for i := range byte(sign.MaxSignatures - 1) {
		var err error
		if envelope, err = sign.Add(envelope, key(t, 150+i)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Begin(b.Roots.Fingerprint(), [][]byte{envelope}); err != nil {
		t.Fatal(err)
	}
	for i := range b.Revoked {
		b.Revoked[i].Why = strings.Repeat("<", MaxWhy) // six bytes each in JSON
	}
	if _, err := Sign(b, key(t, 1)); err == nil || !strings.Contains(err.Error(), "at most") {
		t.Errorf("too large a bundle was signed: %v", err)
	}
}

func TestABundleOfANewerFormatIsNotHalfUnderstood(t *testing.T) {
	good := signed(t, bundle(t, 1, roots(t, 1, 1)), 1)
	for name, x := range map[string]struct {
		envelope []byte
		want     events.Reason
	}{
		"a newer format number":             {altered(t, good, `"format":1`, `"format":2`), events.UnsupportedFormat},
		"an unknown restriction":            {altered(t, good, `"format":1`, `"format":1,"only_on_sundays":true`), events.UnsupportedFormat},
		"an unknown restriction of a key":   {altered(t, good, `{"name"`, `{"only":"x","name"`), events.UnsupportedFormat},
		"no format":                         {altered(t, good, `"format":1,`, ``), events.OrderMalformed},
		"something behind it":               {altered(t, good, `"issued":"2026-12-01T08:00:00Z"}`, `"issued":"2026-12-01T08:00:00Z"}{}`), events.OrderMalformed},
		"an order in the place of a bundle": {bytes.Replace(good, []byte("chandler.trust"), []byte("chandler.order"), 1), events.OrderMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Open(x.envelope); reason(err) != x.want {
				t.Fatalf("got %v", err)
			}
		})
	}
}

func TestAFingerprintNamesKeysAndThreshold(t *testing.T) {
	want := roots(t, 2, 1, 2, 3).Fingerprint()
	renamed := roots(t, 2, 1, 2, 3)
	renamed.Keys[0].Name = "other"
	for name, x := range map[string]struct {
		roots Roots
		same  bool
	}{
		"another order":     {roots(t, 2, 3, 1, 2), true},
		"other names":       {renamed, true},
		"another threshold": {roots(t, 1, 1, 2, 3), false},
		"a key less":        {roots(t, 2, 1, 2), false},
		"another key":       {roots(t, 2, 1, 2, 4), false},
	} {
		if got := x.roots.Fingerprint(); (got == want) != x.same || events.ValidDigest(got) != nil {
			t.Errorf("%s: %s, was %s", name, got, want)
		}
	}
	if got := (Roots{}).Fingerprint(); got != "" {
		t.Errorf("no roots have the fingerprint %s", got)
	}
}

func TestDifferenceSaysWhatChanges(t *testing.T) {
	old := bundle(t, 1, roots(t, 2, 1, 2, 3))
	if c := Difference(old, old); !c.None() || c.RootsChanged() {
		t.Fatalf("got %v", c.Lines())
	}
	old.Revoked = []RevokedKey{{PublicKey: public(t, 60)}}
	next := bundle(t, 2, roots(t, 1, 2, 3, 4))
	next.Keys = []sign.PublicKey{public(t, 102), public(t, 103)}
	next.Publishers = []sign.PublicKey{public(t, 111).Named("build server")}
	next.Threshold = 2
	next.Revoked = []RevokedKey{{PublicKey: public(t, 101), At: issued, Why: "left"}}
	got := Difference(old, next)
	want := Changes{
		Keys:       KeyChanges{Added: []sign.PublicKey{public(t, 102), public(t, 103)}, Removed: []sign.PublicKey{public(t, 101)}},
		Publishers: KeyChanges{Renamed: []sign.PublicKey{public(t, 111).Named("build server")}},
		Roots:      KeyChanges{Added: []sign.PublicKey{public(t, 4)}, Removed: []sign.PublicKey{public(t, 1)}},
		Revoked:    next.Revoked, Restored: old.Revoked, Threshold: Step{1, 2}, RootThreshold: Step{2, 1},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if got.None() || !got.RootsChanged() || len(got.Lines()) != 10 {
		t.Errorf("got %q", got.Lines())
	}
	if next.Roots = old.Roots; Difference(old, next).RootsChanged() {
		t.Error("roots that stay were said to change")
	}
	pinned := old
	pinned.PinnedReferences = true
	for _, c := range []Changes{Difference(old, pinned), Difference(pinned, old)} {
		if len(c.Lines()) != 1 || !strings.Contains(c.Lines()[0], "SHA-256") || c.Pinned == c.Unpinned {
			t.Errorf("references that are to be pinned, or are no longer: %+v", c)
		}
	}
}
