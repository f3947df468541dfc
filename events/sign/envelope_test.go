package sign

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	"pgregory.net/rapid"

	"chandler/events"
)

const (
	thing = "application/vnd.chandler.order+json"
	limit = 64 << 10
)

func sealed(t testing.TB, signers ...Signer) []byte {
	t.Helper()
	envelope, err := Seal(thing, []byte(`{"do":"this"}`), signers...)
	if err != nil {
		t.Fatal(err)
	}
	return envelope
}

// edited returns an envelope after a change that needs no key.
func edited(t testing.TB, envelope []byte, edit func(*dsse.Envelope)) []byte {
	t.Helper()
	var e dsse.Envelope
	if err := json.Unmarshal(envelope, &e); err != nil {
		t.Fatal(err)
	}
	edit(&e)
	out, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func reason(err error) events.Reason {
	var r *Refusal
	if errors.As(err, &r) {
		return r.Reason
	}
	if err != nil {
		return "not a refusal"
	}
	return ""
}

func TestSignaturesOfDifferentTrustedKeysAreCounted(t *testing.T) {
	a, b, c, stranger := key(t, 1), key(t, 2), key(t, 3), key(t, 9)
	all := []PublicKey{a.Public().Named("a"), b.Public().Named("b"), c.Public().Named("c")}
	twice := edited(t, sealed(t, a), func(e *dsse.Envelope) { e.Signatures = append(e.Signatures, e.Signatures[0]) })
	claim := func(by, as Signer) []byte { // by's signature under as's name
		return edited(t, sealed(t, by), func(e *dsse.Envelope) { e.Signatures[0].KeyID = as.Public().ID() })
	}
	for name, x := range map[string]struct {
		envelope  []byte
		keys      []PublicKey
		threshold int
		reason    events.Reason
		signed    string
	}{
		"one where one is needed":                       {sealed(t, b), all, 1, "", "b"},
		"more than are needed":                          {sealed(t, c, a), all, 1, "", "a c"},
		"two where two are needed":                      {sealed(t, c, a), all, 2, "", "a c"},
		"a stranger's beside a trusted one":             {sealed(t, stranger, a), all, 1, "", "a"},
		"a stranger's does not count":                   {sealed(t, stranger, a), all, 2, events.OrderUnsigned, "a"},
		"none":                                          {sealed(t), all, 1, events.OrderUnsigned, ""},
		"none at all in the JSON":                       {edited(t, sealed(t), func(e *dsse.Envelope) { e.Signatures = nil }), all, 1, events.OrderUnsigned, ""},
		"one where two are needed":                      {sealed(t, a), all, 2, events.OrderUnsigned, "a"},
		"the same signature twice":                      {twice, all, 2, events.OrderUnsigned, "a"},
		"the same key signing twice":                    {sealed(t, a, a), all, 2, events.OrderUnsigned, "a"},
		"the same key listed twice":                     {sealed(t, a), []PublicKey{all[0], all[0].Named("other")}, 2, events.OrderUnsigned, "a"},
		"only a stranger's":                             {sealed(t, stranger), all, 1, events.OrderUnknownKey, ""},
		"nobody is trusted":                             {sealed(t, a), nil, 1, events.OrderUnknownKey, ""},
		"a stranger's under a trusted name":             {claim(stranger, a), all, 1, events.OrderAltered, ""},
		"a trusted one under another's name":            {claim(b, a), all, 1, events.OrderAltered, ""},
		"another payload":                               {edited(t, sealed(t, a), func(e *dsse.Envelope) { e.Payload = "e30=" }), all, 1, events.OrderAltered, ""},
		"an altered one beside one that fits":           {edited(t, sealed(t, a, b), func(e *dsse.Envelope) { e.Signatures[1].Sig = e.Signatures[0].Sig }), all, 1, events.OrderAltered, ""},
		"a signature that is no base64":                 {edited(t, sealed(t, a), func(e *dsse.Envelope) { e.Signatures[0].Sig = "!" }), all, 1, events.OrderAltered, ""},
		"a signature that is empty":                     {edited(t, sealed(t, a), func(e *dsse.Envelope) { e.Signatures[0].Sig = "" }), all, 1, events.OrderAltered, ""},
		"another type":                                  {edited(t, sealed(t, a), func(e *dsse.Envelope) { e.PayloadType = "text/plain" }), all, 1, events.OrderMalformed, ""},
		"a payload that is no base64":                   {edited(t, sealed(t, a), func(e *dsse.Envelope) { e.Payload = "!" }), all, 1, events.OrderMalformed, ""},
		"a truncated envelope":                          {sealed(t, a)[:60], all, 1, events.OrderMalformed, ""},
		"no envelope":                                   {nil, all, 1, events.OrderMalformed, ""},
		"a second envelope after the first":             {append(sealed(t, a), sealed(t, a)...), all, 1, events.OrderMalformed, ""},
		"too large an envelope":                         {append(sealed(t, a), bytes.Repeat([]byte(" "), limit)...), all, 1, events.OrderMalformed, ""},
		"too many signatures":                           {edited(t, sealed(t, a), func(e *dsse.Envelope) { e.Signatures = slices.Repeat(e.Signatures, MaxSignatures+1) }), all, 1, events.OrderMalformed, ""},
		"a threshold of zero":                           {sealed(t, a), all, 0, events.AgentFault, ""},
		"a threshold below zero":                        {sealed(t), all, -1, events.AgentFault, ""},
		"a malformed key among the trusted":             {sealed(t, a), append([]PublicKey{{Name: "x"}}, all...), 1, events.AgentFault, ""},
		"an unnamed signature and a malformed key":      {edited(t, sealed(t, a), func(e *dsse.Envelope) { e.Signatures[0].KeyID = "" }), []PublicKey{{}}, 1, events.AgentFault, ""},
		"a signature that does not say whose it is":     {edited(t, sealed(t, a), func(e *dsse.Envelope) { e.Signatures[0].KeyID = "" }), all, 1, events.OrderUnknownKey, ""},
		"a signature whose key is in other letter case": {edited(t, sealed(t, a), func(e *dsse.Envelope) { e.Signatures[0].KeyID = strings.ToUpper(e.Signatures[0].KeyID) }), all, 1, events.OrderUnknownKey, ""},
	} {
		t.Run(name, func(t *testing.T) {
			payload, signed, err := Check(x.envelope, thing, limit, x.keys, x.threshold)
			if reason(err) != x.reason {
				t.Fatalf("got %v (%s), want %q", err, reason(err), x.reason)
			}
			var names []string
			for _, k := range signed {
				names = append(names, k.Name)
			}
			if got := strings.Join(names, " "); got != x.signed {
				t.Errorf("signed by %q, want %q", got, x.signed)
			}
			if (err == nil) != (string(payload) == `{"do":"this"}`) || err != nil && payload != nil {
				t.Errorf("payload %q with error %v", payload, err)
			}
		})
	}
}

// A signature for one kind of statement must be none for another.
func TestASignatureIsBoundToTheTypeOfItsPayload(t *testing.T) {
	a := key(t, 1)
	other := edited(t, sealed(t, a), func(e *dsse.Envelope) { e.PayloadType = "application/vnd.chandler.trust+json" })
	_, _, err := Check(other, "application/vnd.chandler.trust+json", limit, []PublicKey{a.Public().Named("a")}, 1)
	if reason(err) != events.OrderAltered {
		t.Fatalf("got %v", err)
	}
}

func TestAddReplacesASignatureOfTheSameKey(t *testing.T) {
	a, b := key(t, 1), key(t, 2)
	keys := []PublicKey{a.Public().Named("a"), b.Public().Named("b")}
	broken := edited(t, sealed(t, a), func(e *dsse.Envelope) { e.Signatures[0].Sig = "AAAA" })
	mended, err := Add(broken, a)
	if err != nil {
		t.Fatal(err)
	}
	if mended, err = Add(mended, b); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Check(mended, thing, limit, keys, 2); err != nil {
		t.Fatal(err)
	}
	_, ids, err := Open(mended, thing, limit)
	if diff := cmp.Diff([]string{a.Public().ID(), b.Public().ID()}, ids); diff != "" || err != nil {
		t.Error(diff, err)
	}
}

func TestMergeUnitesSignaturesOfTheSamePayloadOnly(t *testing.T) {
	a, b, c := key(t, 1), key(t, 2), key(t, 3)
	keys := []PublicKey{a.Public().Named("a"), b.Public().Named("b"), c.Public().Named("c")}
	both, err := Merge(sealed(t, a, b), sealed(t, b, c))
	if err != nil {
		t.Fatal(err)
	}
	if _, signed, err := Check(both, thing, limit, keys, 3); err != nil || len(signed) != 3 {
		t.Fatal(signed, err)
	}
	broken := edited(t, sealed(t, a), func(e *dsse.Envelope) { e.Signatures[0].Sig = "AAAA" })
	if mended, err := Merge(broken, sealed(t, a)); err != nil || !bytes.Equal(mended, sealed(t, a)) {
		t.Errorf("a signature that did not fit stayed: %s, %v", mended, err)
	}

	crowd := func(from byte) []byte {
		e := sealed(t)
		for i := range byte(MaxSignatures) {
			if e, err = Add(e, key(t, from+i)); err != nil {
				t.Fatal(err)
			}
		}
		return e
	}
	for name, x := range map[string]struct {
		a, b []byte
		want events.Reason
	}{
		"another payload":         {sealed(t, a), edited(t, sealed(t, a), func(e *dsse.Envelope) { e.Payload = "e30=" }), events.OrderAltered},
		"another type":            {sealed(t, a), edited(t, sealed(t, a), func(e *dsse.Envelope) { e.PayloadType = "x" }), events.OrderAltered},
		"a truncated second":      {sealed(t, a), sealed(t, a)[:50], events.OrderMalformed},
		"a truncated first":       {sealed(t, a)[:50], sealed(t, a), events.OrderMalformed},
		"more signatures than go": {crowd(1), crowd(100), events.OrderMalformed},
	} {
		if got, err := Merge(x.a, x.b); reason(err) != x.want || got != nil {
			t.Errorf("%s: %v, want %s", name, err, x.want)
		}
	}
}

// liar signs with another key than it shows, as a wrongly chosen key of an ssh-agent would.
type liar struct{ shows, signs Key }

func (l liar) Public() PublicKey             { return l.shows.Public() }
func (l liar) Sign(m []byte) ([]byte, error) { return l.signs.Sign(m) }

func TestASignatureThatDoesNotFitItsKeyIsNotWritten(t *testing.T) {
	if e, err := Seal(thing, nil, liar{key(t, 1), key(t, 2)}); err == nil {
		t.Fatalf("got %s", e)
	}
}

func TestAPayloadWithinItsRoomTakesEverySignature(t *testing.T) {
	envelope, err := Seal(thing, make([]byte, Room(limit)))
	if err != nil {
		t.Fatal(err)
	}
	for i := range byte(MaxSignatures) {
		if envelope, err = Add(envelope, key(t, i+1)); err != nil {
			t.Fatal(err)
		}
	}
	if _, ids, err := Open(envelope, thing, limit); err != nil || len(ids) != MaxSignatures {
		t.Errorf("%d signatures, %v", len(ids), err)
	}
	if _, err := Add(envelope, key(t, 200)); reason(err) != events.OrderMalformed {
		t.Errorf("a signature above the limit: %v", err)
	}
}

func TestCheckAgreesWithACountOfSigners(t *testing.T) {
	var pool []Key
	for i := range byte(6) {
		pool = append(pool, key(t, i+1))
	}
	index := rapid.SliceOfDistinct(rapid.IntRange(0, len(pool)-1), rapid.ID[int])
	rapid.Check(t, func(r *rapid.T) {
		signers, trusted := index.Draw(r, "signers"), index.Draw(r, "trusted")
		threshold := rapid.IntRange(1, 4).Draw(r, "threshold")
		half := rapid.IntRange(0, len(signers)).Draw(r, "half")
		parts := [2][]Signer{}
		want := 0
		for i, s := range signers {
			parts[min(1, i/max(half, 1))] = append(parts[min(1, i/max(half, 1))], pool[s])
			if slices.Contains(trusted, s) {
				want++
			}
		}
		envelope, err := Merge(sealed(t, parts[0]...), sealed(t, parts[1]...))
		if err != nil {
			r.Fatal(err)
		}
		var keys []PublicKey
		for _, i := range trusted {
			keys = append(keys, pool[i].Public())
		}
		_, signed, err := Check(envelope, thing, limit, keys, threshold)
		if (err == nil) != (want >= threshold) || len(signed) != want {
			r.Fatalf("%d of %v trust %v, threshold %d: %d signed, %v", want, signers, trusted, threshold, len(signed), err)
		}
	})
}

func seeds(f *testing.F) {
	a, b := key(f, 1), key(f, 2)
	f.Add(sealed(f, a))
	f.Add(sealed(f, a, b))
	f.Add(sealed(f))
	f.Add(edited(f, sealed(f, a), func(e *dsse.Envelope) { e.PayloadType = "x" }))
	f.Add([]byte(`{"payloadType":"application/vnd.chandler.order+json","payload":"e30=","signatures":null}`))
	f.Add([]byte(`null`))
}

func FuzzCheck(f *testing.F) {
	seeds(f)
	keys := []PublicKey{key(f, 1).Public().Named("a"), key(f, 2).Public().Named("b")}
	f.Fuzz(func(t *testing.T, envelope []byte) {
		payload, signed, err := Check(envelope, thing, limit, keys, 1)
		if err == nil && (string(payload) != `{"do":"this"}` || len(signed) == 0) {
			t.Fatalf("%q that was never signed was accepted by %v", payload, signed)
		}
		if err != nil && !events.Reason.Known(reason(err)) {
			t.Fatalf("an error without a reason: %v", err)
		}
	})
}

func FuzzOpen(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, envelope []byte) {
		payload, ids, err := Open(envelope, thing, limit)
		if err != nil {
			if reason(err) != events.OrderMalformed {
				t.Fatalf("refused as %s", reason(err))
			}
			return
		}
		if len(ids) > MaxSignatures {
			t.Fatalf("%d signatures", len(ids))
		}
		more, err := Add(envelope, key(t, 5))
		if err != nil {
			if len(ids) < MaxSignatures {
				t.Fatalf("no signature could be added: %v", err)
			}
			return
		}
		got, _, err := Check(more, thing, MaxSize, []PublicKey{key(t, 5).Public()}, 1)
		if err != nil || !bytes.Equal(got, payload) {
			t.Fatalf("%q became %q: %v", payload, got, err)
		}
	})
}

func FuzzMerge(f *testing.F) {
	a, b := key(f, 1), key(f, 2)
	f.Add(sealed(f, a), sealed(f, b))
	f.Add(sealed(f, a), []byte(`{}`))
	f.Add([]byte(`{}`), []byte(`{"signatures":[{}]}`))
	f.Fuzz(func(t *testing.T, x, y []byte) {
		both, err := Merge(x, y)
		if err != nil {
			return
		}
		for _, part := range [][]byte{x, y} {
			again, err := Merge(both, part)
			if err != nil {
				t.Fatalf("the union does not take its part again: %v", err)
			}
			_, was, errWas := Open(both, thing, MaxSize)
			_, is, errIs := Open(again, thing, MaxSize)
			slices.Sort(was)
			slices.Sort(is)
			if reason(errWas) != reason(errIs) || !slices.Equal(was, is) {
				t.Fatalf("the part adds signatures that the union had lost: %v, %v", was, is)
			}
		}
	})
}
