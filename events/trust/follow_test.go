package trust

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"chandler/events"
	"chandler/events/sign"
)

func TestAnAgentFollowsOnlyWhatItsRootsSigned(t *testing.T) {
	three, rotated, strangers := roots(t, 2, 1, 2, 3), roots(t, 2, 2, 3, 4), roots(t, 1, 9)
	now := bundle(t, 5, three)
	now.Revoked = []RevokedKey{{PublicKey: public(t, 50).Named("lost-root")}}
	with := func(edit func(*Bundle)) Bundle {
		b := bundle(t, 6, three)
		edit(&b)
		return b
	}
	lowered := with(func(b *Bundle) { b.Threshold, b.Keys = 1, []sign.PublicKey{public(t, 66)} })
	for name, x := range map[string]struct {
		envelope []byte
		reason   events.Reason
		text     string
	}{
		"signed by two of three":                    {signed(t, bundle(t, 6, three), 1, 3), "", ""},
		"signed by all":                             {signed(t, bundle(t, 6, three), 1, 2, 3), "", ""},
		"versions were left out":                    {signed(t, bundle(t, 60, three), 1, 2), "", ""},
		"a stranger signed too":                     {signed(t, bundle(t, 6, three), 1, 9, 2), "", ""},
		"a rotation that both root sets signed":     {signed(t, bundle(t, 6, rotated), 1, 2, 4), "", ""},
		"a rotation by two who stay":                {signed(t, bundle(t, 6, rotated), 2, 3), "", ""},
		"signed by one of three":                    {signed(t, bundle(t, 6, three), 1), events.OrderUnsigned, "present roots"},
		"signed by nobody":                          {signed(t, bundle(t, 6, three)), events.OrderUnsigned, "present roots"},
		"signed by strangers":                       {signed(t, bundle(t, 6, three), 8, 9), events.OrderUnknownKey, "present roots"},
		"signed by a deployer and a publisher":      {signed(t, bundle(t, 6, three), 101, 111), events.OrderUnknownKey, "present roots"},
		"a rotation that only the new roots signed": {signed(t, bundle(t, 6, strangers), 9), events.OrderUnknownKey, "present roots"},
		"a rotation that too few old roots signed":  {signed(t, bundle(t, 6, rotated), 2, 4), events.OrderUnsigned, "present roots"},
		"a rotation that only the old roots signed": {signed(t, bundle(t, 6, strangers), 1, 2), events.OrderUnknownKey, "new roots"},
		"a rotation that too few new roots signed":  {signed(t, bundle(t, 6, rotated), 1, 2), events.OrderUnsigned, "new roots"},
		"a raised root threshold by the old count":  {signed(t, bundle(t, 6, roots(t, 3, 1, 2, 3)), 1, 2), events.OrderUnsigned, "new roots"},
		"a lowered root threshold by the new count": {signed(t, bundle(t, 6, roots(t, 1, 1, 2, 3)), 1), events.OrderUnsigned, "present roots"},
		"a lowered order threshold without roots":   {signed(t, lowered, 66), events.OrderUnknownKey, "present roots"},
		"a threshold changed after signing":         {altered(t, signed(t, bundle(t, 6, roots(t, 2, 1, 2, 3)), 1, 2), `"roots":{"threshold":2`, `"roots":{"threshold":1`), events.OrderAltered, "does not fit"},
		"a deployer put in after signing":           {altered(t, signed(t, bundle(t, 6, three), 1, 2), public(t, 101).Key, public(t, 66).Key), events.OrderAltered, "does not fit"},
		"an old bundle with a newer number":         {altered(t, signed(t, bundle(t, 4, three), 1, 2), `"version":4`, `"version":6`), events.OrderAltered, "does not fit"},
		"another fleet's bundle":                    {signed(t, with(func(b *Bundle) { b.Fleet = "elsewhere" }), 1, 2), events.OrderOtherFleet, "fleet elsewhere"},
		"a revoked root in the place of one":        {signed(t, bundle(t, 6, three), 1, 50), events.OrderRevokedKey, "lost-root"},
		"a truncated one":                           {signed(t, bundle(t, 6, three), 1, 2)[:300], events.OrderMalformed, "bundle 1 in the list"},
		"nothing":                                   {nil, events.OrderMalformed, "bundle 1 in the list"},
		"one that is too large":                     {append(signed(t, bundle(t, 6, three), 1, 2), bytes.Repeat([]byte(" "), MaxSize)...), events.OrderMalformed, "larger"},
		"one of a newer format":                     {altered(t, signed(t, bundle(t, 6, three), 1, 2), `"format":1`, `"format":2`), events.UnsupportedFormat, "format 2"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := now.Follow([][]byte{x.envelope})
			if reason(err) != x.reason || err != nil && !strings.Contains(err.Error(), x.text) {
				t.Fatalf("got %v (%s), want %q with %q", err, reason(err), x.reason, x.text)
			}
			if moved := got.Version > now.Version; moved != (err == nil) {
				t.Errorf("version %d with error %v", got.Version, err)
			}
			if ok, text := Missing(&now, x.envelope); ok != (err == nil) || ok != (text == "") {
				t.Errorf("missing says %v, %q", ok, text)
			}
		})
	}
}

func TestAnAgentNeverGoesBack(t *testing.T) {
	three := roots(t, 1, 1, 2, 3)
	now := bundle(t, 5, three)
	fork := bundle(t, 5, three)
	fork.Keys = []sign.PublicKey{public(t, 66)}
	for name, envelope := range map[string][]byte{
		"an older one":                    signed(t, bundle(t, 4, three), 1),
		"the same version, other content": signed(t, fork, 1),
		"an older one that nobody signed": signed(t, bundle(t, 1, roots(t, 1, 9))),
	} {
		got, err := now.Follow([][]byte{envelope})
		if err != nil || got.Version != 5 || got.Keys[0] != now.Keys[0] {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		if ok, text := Missing(&now, envelope); ok || !strings.Contains(text, "not newer than version 5") {
			t.Errorf("%s: missing says %v, %q", name, ok, text)
		}
	}
}

func TestAChainIsFollowedToItsFirstBreak(t *testing.T) {
	a, b, c := roots(t, 1, 1), roots(t, 1, 2), roots(t, 1, 3)
	one, two, three := signed(t, bundle(t, 1, a), 1), signed(t, bundle(t, 2, b), 1, 2), signed(t, bundle(t, 3, c), 2, 3)
	rogue := signed(t, bundle(t, 9, roots(t, 1, 9)), 9)
	first := bundle(t, 1, a)
	for name, x := range map[string]struct {
		envelopes [][]byte
		version   int
		refused   string
	}{
		"the whole chain":                 {[][]byte{one, two, three}, 3, ""},
		"nothing":                         {nil, 1, ""},
		"everything twice":                {[][]byte{one, two, one, two, three, three}, 3, ""},
		"a link is missing":               {[][]byte{one, three}, 1, "version 3"},
		"a rogue one at the end":          {[][]byte{one, two, rogue}, 2, "version 9"},
		"a rogue one in the middle stops": {[][]byte{one, rogue, two, three}, 1, "version 9"},
		"rubbish in the middle stops":     {[][]byte{one, two, []byte("x"), three}, 2, "bundle 3 in the list"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := first.Follow(x.envelopes)
			if got.Version != x.version || (err == nil) != (x.refused == "") || err != nil && !strings.Contains(err.Error(), x.refused) {
				t.Fatalf("reached version %d, %v", got.Version, err)
			}
		})
	}
}

func TestAnAgentBeginsOnlyWithTheRootsOfItsToken(t *testing.T) {
	a, b := roots(t, 2, 1, 2, 3), roots(t, 1, 4)
	one, two, three := signed(t, bundle(t, 1, a), 1, 2), signed(t, bundle(t, 2, b), 1, 2, 4), signed(t, bundle(t, 3, b), 4)
	half := signed(t, bundle(t, 1, a), 1)
	for name, x := range map[string]struct {
		fingerprint string
		envelopes   [][]byte
		version     int
		reason      events.Reason
	}{
		"from the first on":                     {a.Fingerprint(), [][]byte{one, two, three}, 3, ""},
		"by a token made after a rotation":      {b.Fingerprint(), [][]byte{one, two, three}, 3, ""},
		"a beginning alone":                     {a.Fingerprint(), [][]byte{one}, 1, ""},
		"a half-signed one before the real one": {a.Fingerprint(), [][]byte{half, one, two}, 2, ""},
		"only a half-signed one":                {a.Fingerprint(), [][]byte{half}, 0, events.OrderUnsigned},
		"a rogue service's own root":            {a.Fingerprint(), [][]byte{two, three}, 0, events.OrderUnknownKey},
		"its own root behind the right keys":    {a.Fingerprint(), [][]byte{altered(t, one, public(t, 101).Key, public(t, 66).Key)}, 0, events.OrderAltered},
		"a lower threshold of the same roots":   {a.Fingerprint(), [][]byte{signed(t, bundle(t, 1, roots(t, 1, 1, 2, 3)), 1)}, 0, events.OrderUnknownKey},
		"a rogue successor":                     {a.Fingerprint(), [][]byte{one, three}, 1, events.OrderUnknownKey},
		"no bundle":                             {a.Fingerprint(), nil, 0, events.OrderUnknownKey},
		"no fingerprint":                        {"", [][]byte{one}, 0, "not a refusal"},
		"half a fingerprint":                    {a.Fingerprint()[:32], [][]byte{one}, 0, "not a refusal"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Begin(x.fingerprint, x.envelopes)
			if reason(err) != x.reason || got.Version != x.version {
				t.Fatalf("version %d, %v (%s)", got.Version, err, reason(err))
			}
		})
	}
}

func TestABundleWithoutRootsFollowsNothing(t *testing.T) {
	plain := bundle(t, 1, Roots{})
	_, err := plain.Follow([][]byte{signed(t, bundle(t, 2, roots(t, 1, 1)), 1)})
	if reason(err) != events.AgentFault || !strings.Contains(err.Error(), "no present roots") {
		t.Fatalf("got %v", err)
	}
}

func TestMissingNamesWhoHasStillToSign(t *testing.T) {
	old := bundle(t, 1, roots(t, 2, 1, 2, 3))
	next := bundle(t, 2, roots(t, 2, 3, 4, 5))
	envelope := signed(t, next)
	if ok, text := Missing(nil, signed(t, old, 2)); ok || text != "1 more of the first roots must sign: key-1, key-3" {
		t.Errorf("first bundle: %v, %q", ok, text)
	}
	if ok, text := Missing(nil, signed(t, old, 2, 1)); !ok || text != "" {
		t.Errorf("a complete first bundle: %v, %q", ok, text)
	}
	for _, step := range []struct {
		signer byte
		want   string
	}{
		{9, "2 more of the present roots must sign: key-1, key-2, key-3; 2 more of the new roots must sign: key-3, key-4, key-5"},
		{1, "1 more of the present roots must sign: key-2, key-3; 2 more of the new roots must sign: key-3, key-4, key-5"},
		{3, "1 more of the new roots must sign: key-4, key-5"},
		{5, ""},
	} {
		var err error
		if envelope, err = sign.Add(envelope, key(t, step.signer)); err != nil {
			t.Fatal(err)
		}
		if ok, text := Missing(&old, envelope); ok != (step.want == "") || text != step.want {
			t.Errorf("after key-%d: %v, %q, want %q", step.signer, ok, text, step.want)
		}
	}
}

// What Follow accepts is compared with a count of signatures, over random rotations and signers.
func TestFollowAgreesWithACountOfRoots(t *testing.T) {
	fills := []byte{1, 2, 3, 4, 5}
	pick := rapid.SliceOfNDistinct(rapid.SampledFrom(fills), 1, 4, rapid.ID[byte])
	rapid.Check(t, func(r *rapid.T) {
		draw := func(name string) ([]byte, int) {
			keys := pick.Draw(r, name)
			return keys, rapid.IntRange(1, len(keys)).Draw(r, name+" threshold")
		}
		oldKeys, oldN := draw("old")
		newKeys, newN := draw("new")
		signers := rapid.SliceOfDistinct(rapid.SampledFrom(fills), rapid.ID[byte]).Draw(r, "signers")
		version := rapid.IntRange(1, 3).Draw(r, "version")
		count := func(keys []byte) (n int) {
			for _, s := range signers {
				if slices.Contains(keys, s) {
					n++
				}
			}
			return n
		}
		old, next := bundle(t, 2, roots(t, oldN, oldKeys...)), bundle(t, version, roots(t, newN, newKeys...))
		got, err := old.Follow([][]byte{signed(t, next, signers...)})
		enough := count(oldKeys) >= oldN && count(newKeys) >= newN
		switch {
		case version <= 2 && (err != nil || got.Version != 2):
			r.Fatalf("an older one was not skipped: %v", err)
		case version > 2 && (err == nil) != enough:
			r.Fatalf("old %v/%d, new %v/%d, signers %v: %v", oldKeys, oldN, newKeys, newN, signers, err)
		}
	})
}

func FuzzFollow(f *testing.F) {
	now := bundle(f, 5, roots(f, 1, 1, 2))
	good := signed(f, bundle(f, 6, now.Roots), 1)
	f.Add(good)
	f.Add(signed(f, bundle(f, 6, roots(f, 1, 9)), 9))
	f.Add(signed(f, bundle(f, 4, now.Roots), 1))
	want, err := Open(good)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, envelope []byte) {
		got, err := now.Follow([][]byte{envelope})
		if !Difference(now, got).None() || got.Fleet != now.Fleet {
			t.Fatalf("a bundle that was never signed was followed: %s", envelope)
		}
		if got.Version != now.Version && (err != nil || got.Version != want.Version) {
			t.Fatalf("version %d, %v", got.Version, err)
		}
		ok, _ := Missing(&now, envelope)
		if moved := got.Version > now.Version; moved != ok {
			t.Fatalf("missing says %v, followed %v", ok, moved)
		}
		if b, err := Begin(now.Roots.Fingerprint(), [][]byte{envelope}); err == nil && b.Roots.Fingerprint() != now.Roots.Fingerprint() {
			t.Fatalf("began with the roots %s", b.Roots.Fingerprint())
		}
	})
}

func FuzzOpen(f *testing.F) {
	f.Add([]byte(`{"format":1,"fleet":"f","version":1,"threshold":1,"keys":[{"name":"a","key":"` + public(f, 1).Key + `"}],"roots":{"threshold":1,"keys":[{"name":"r","key":"` + public(f, 2).Key + `"}]}}`))
	f.Add([]byte(`{"format":1,"fleet":"f","threshold":-1,"keys":[{}]}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		envelope, err := sign.Seal(PayloadType, payload, key(t, 2))
		if err != nil {
			t.Fatal(err)
		}
		b, err := Open(envelope)
		if err != nil {
			if reason(err) == "not a refusal" {
				t.Fatalf("an error without a reason: %v", err)
			}
			return
		}
		if err := b.Validate(); err != nil {
			t.Fatalf("an invalid bundle was read: %v", err)
		}
		again, err := Sign(b)
		if err != nil {
			t.Fatalf("what was read cannot be signed: %v", err)
		}
		if back, err := Open(again); err != nil || !Difference(b, back).None() {
			t.Fatalf("%+v became %+v: %v", b, back, err)
		}
	})
}
