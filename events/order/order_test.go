package order

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chandler/events"
	"chandler/events/calendar"
	"chandler/events/sign"
	"chandler/events/trust"
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

func sample() Order {
	return Order{
		Fleet: "testfleet", Deployment: "hello", Revision: 1, Package: "hello", Version: "1.0", Manifest: events.DigestOf([]byte("m")),
		Program: "install", Run: events.RunAdministrative, Collection: "all", Expression: "true", Assignments: []Assignment{{ASAP: true}},
		Rerun: RerunNever, Issued: issued, NotAfter: issued.Add(DefaultValidity),
	}
}

func signed(t testing.TB, o Order, signers ...sign.Signer) []byte {
	t.Helper()
	envelope, err := Sign(o, signers...)
	if err != nil {
		t.Fatal(err)
	}
	return envelope
}

// altered returns the envelope with its payload changed by edit and the signatures kept.
func altered(t *testing.T, envelope []byte, edit func(string) string) []byte {
	t.Helper()
	var e map[string]any
	if err := json.Unmarshal(envelope, &e); err != nil {
		t.Fatal(err)
	}
	payload, _ := base64.StdEncoding.DecodeString(e["payload"].(string))
	e["payload"] = base64.StdEncoding.EncodeToString([]byte(edit(string(payload))))
	out, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestAnAgentObeysOnlyWhatWasSignedForIt(t *testing.T) {
	a, b, stranger := key(t, 1), key(t, 2), key(t, 3)
	one := trust.Bundle{Fleet: "testfleet", Threshold: 1, Keys: []sign.PublicKey{a.Public().Named("a"), b.Public().Named("b")}}
	two := trust.Bundle{Fleet: "testfleet", Threshold: 2, Keys: one.Keys}
	other := sample()
	other.Fleet = "elsewhere"
	lost := one
	lost.Keys = []sign.PublicKey{b.Public().Named("b")}
	lost.Revoked = []trust.RevokedKey{{PublicKey: a.Public().Named("a"), At: issued, Why: "laptop stolen"}}
	lostOfTwo := lost
	lostOfTwo.Threshold, lostOfTwo.Keys = 2, []sign.PublicKey{b.Public().Named("b"), stranger.Public().Named("c")}

	for name, c := range map[string]struct {
		envelope []byte
		trust    trust.Bundle
		at       time.Time
		want     events.Reason
	}{
		"one signature where one is needed":           {signed(t, sample(), a), one, issued, ""},
		"two signatures where two are needed":         {signed(t, sample(), a, b), two, issued, ""},
		"a stranger's signature beside a trusted one": {signed(t, sample(), stranger, b), one, issued, ""},
		"no signature":                             {signed(t, sample()), one, issued, events.OrderUnsigned},
		"one signature where two are needed":       {signed(t, sample(), a), two, issued, events.OrderUnsigned},
		"the same key twice counts once":           {signed(t, sample(), a, a), two, issued, events.OrderUnsigned},
		"only a stranger signed":                   {signed(t, sample(), stranger), one, issued, events.OrderUnknownKey},
		"only a revoked key signed":                {signed(t, sample(), a), lost, issued, events.OrderRevokedKey},
		"a revoked key beside too few":             {signed(t, sample(), a, b), lostOfTwo, issued, events.OrderRevokedKey},
		"a revoked key beside enough":              {signed(t, sample(), a, b), lost, issued, ""},
		"a stranger, and another key is revoked":   {signed(t, sample(), stranger), lost, issued, events.OrderUnknownKey},
		"an altered order of a revoked key":        {altered(t, signed(t, sample(), a), func(s string) string { return strings.Replace(s, `"install"`, `"remove"`, 1) }), lost, issued, events.OrderUnknownKey},
		"another program after signing":            {altered(t, signed(t, sample(), a), func(s string) string { return strings.Replace(s, `"install"`, `"remove"`, 1) }), one, issued, events.OrderAltered},
		"another fleet's order":                    {signed(t, other, a), one, issued, events.OrderOtherFleet},
		"after its validity":                       {signed(t, sample(), a), one, issued.Add(DefaultValidity + time.Hour), events.OrderExpired},
		"just after its validity by a clock ahead": {signed(t, sample(), a), one, issued.Add(DefaultValidity + time.Minute), ""},
		"before it was issued":                     {signed(t, sample(), a), one, issued.Add(-time.Hour), events.OrderNotYetValid},
		"a truncated envelope":                     {signed(t, sample(), a)[:100], one, issued, events.OrderMalformed},
		"an empty trust bundle":                    {signed(t, sample(), a), trust.Bundle{Fleet: "testfleet"}, issued, events.AgentFault},
	} {
		t.Run(name, func(t *testing.T) {
			_, digest, err := Verify(c.envelope, c.trust, c.at)
			var refused *sign.Refusal
			switch {
			case c.want == "" && (err != nil || events.ValidDigest(digest) != nil):
				t.Fatalf("got %v, want it accepted", err)
			case c.want != "" && (!errors.As(err, &refused) || refused.Reason != c.want):
				t.Fatalf("got %v, want reason %s", err, c.want)
			}
		})
	}
}

func TestAnOrderOfANewerFormatIsNotHalfUnderstood(t *testing.T) {
	a := key(t, 1)
	bundle := trust.Bundle{Fleet: "testfleet", Threshold: 1, Keys: []sign.PublicKey{a.Public().Named("a")}}
	for name, payload := range map[string]string{
		"a newer format number": `{"format":2}`,
		"an unknown condition":  `{"format":1,"only-on-sundays":true}`,
	} {
		t.Run(name, func(t *testing.T) {
			_, err := decode([]byte(payload))
			var refused *sign.Refusal
			if !errors.As(err, &refused) || refused.Reason != events.UnsupportedFormat {
				t.Fatalf("got %v", err)
			}
		})
	}
	if _, _, err := Verify(signed(t, sample(), a), bundle, issued); err != nil {
		t.Fatal(err)
	}
}

func TestTheTargetListsAreBound(t *testing.T) {
	o := sample()
	include := []string{"agent0002", "agent0001"}
	o.IncludeDigest = ListDigest(include)
	if _, err := o.Target([]string{"agent0001", "agent0002"}, nil); err != nil {
		t.Fatalf("the order of a list must not matter: %v", err)
	}
	if _, err := o.Target([]string{"agent0001"}, nil); err == nil {
		t.Fatal("a shorter list was taken")
	}
	if _, err := o.Target(include, []string{"agent0003"}); err == nil {
		t.Fatal("an added exclusion was taken")
	}
}

func TestContradictoryOrdersAreNotSigned(t *testing.T) {
	at := func(h int) *calendar.Moment { return new(calendar.At(issued.Add(time.Duration(h) * time.Hour))) }
	for name, edit := range map[string]func(*Order){
		"expiry before availability":        func(o *Order) { o.Available, o.Expires = at(5), at(4) },
		"expiry before the deadline":        func(o *Order) { o.Assignments = []Assignment{{At: at(5)}}; o.Expires = at(4) },
		"a deadline before availability":    func(o *Order) { o.Available, o.Assignments = at(5), []Assignment{{At: at(4)}} },
		"an assignment of both kinds":       func(o *Order) { o.Assignments = []Assignment{{ASAP: true, At: at(1)}} },
		"as soon as possible and at logon":  func(o *Order) { o.Assignments = []Assignment{{ASAP: true, Logon: true}} },
		"at logon and at logoff":            func(o *Order) { o.Assignments = []Assignment{{Logon: true, Logoff: true}} },
		"at logoff and at a time":           func(o *Order) { o.Assignments = []Assignment{{Logoff: true, At: at(1)}} },
		"an assignment of no kind":          func(o *Order) { o.Assignments = []Assignment{{}} },
		"an assignment that is there twice": func(o *Order) { o.Assignments = []Assignment{{ASAP: true}, {Logon: true}, {ASAP: true}} },
		"too many assignments": func(o *Order) {
			for h := range MaxAssignments + 1 {
				o.Assignments = append(o.Assignments, Assignment{At: at(h)})
			}
		},
		"a cron that never fires": func(o *Order) { o.Assignments = []Assignment{{Cron: "0 0 31 2 *"}} },
		"a zone that is none":     func(o *Order) { o.Zone = "Europe/Nowhere" },
		"a step that is the program itself": func(o *Order) {
			o.First = []Step{{Why: StepFirst, Package: o.Package, Version: o.Version, Manifest: o.Manifest, Program: o.Program, Run: o.Run}}
		},
		"a step for no reason": func(o *Order) {
			o.First = []Step{{Package: o.Package, Version: o.Version, Manifest: o.Manifest, Program: "prepare", Run: o.Run}}
		},
		"windows without a window": func(o *Order) { o.Windows = []Windows{{Collection: "c", Expression: "true"}} },
		"a rollback of itself": func(o *Order) {
			o.Rolls = &Rolls{Deployment: o.Deployment, Revision: 1, Package: o.Package, Version: o.Version, Program: o.Program}
		},
		"a grace of months":               func(o *Order) { o.Grace = events.Duration(2 * MaxDelay) },
		"an account that is no name":      func(o *Order) { o.InstallationAccount = "corp.*" },
		"a target that reaches nobody":    func(o *Order) { o.Expression = "" },
		"an expression that is no CEL":    func(o *Order) { o.Expression = "agent." },
		"no run mode":                     func(o *Order) { o.Run = "" },
		"a deployment named with a dot":   func(o *Order) { o.Deployment = "a.b" },
		"a revision of zero":              func(o *Order) { o.Revision = 0 },
		"an expression that is too large": func(o *Order) { o.Expression = "agent.os == \"" + strings.Repeat("x", MaxSize) + "\"" },
		"a validity that ends at once":    func(o *Order) { o.NotAfter = o.Issued },
	} {
		t.Run(name, func(t *testing.T) {
			o := sample()
			edit(&o)
			if _, err := Sign(o, key(t, 1)); err == nil {
				t.Fatal("it was signed")
			}
		})
	}
}

func TestOrdersForLogonAndLogoffAreReadBackWithTheirAccount(t *testing.T) {
	k := key(t, 1)
	bundle := trust.Bundle{Fleet: "testfleet", Threshold: 1, Keys: []sign.PublicKey{k.Public().Named("a")}}
	for _, a := range []Assignment{{ASAP: true}, {Logon: true}, {Logoff: true}, {At: new(calendar.At(issued.Add(time.Hour)))}} {
		t.Run(a.String(), func(t *testing.T) {
			want := sample()
			want.Format, want.Assignments, want.InstallationAccount = Format, []Assignment{a}, "corp-installer"
			got, _, err := Verify(signed(t, want, k), bundle, issued)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
			if timed := got.Deadline() != nil; timed != (a.At != nil) || (got.Assignments[0].Occurrence() != 0) != timed {
				t.Errorf("deadline %v, occurrence %d", got.Deadline(), got.Assignments[0].Occurrence())
			}
		})
	}
}

func TestAnOrderAgreesWithItsProgram(t *testing.T) {
	administrative := events.Program{Run: events.RunAdministrative}
	change := func(f func(*events.Program)) events.Program { p := administrative; f(&p); return p }
	for name, c := range map[string]struct {
		edit    func(*Order)
		program events.Program
		want    events.Reason
	}{
		"the same run mode":               {func(*Order) {}, administrative, ""},
		"another run mode":                {func(o *Order) { o.Run = events.RunUser }, administrative, events.ManifestMismatch},
		"the same account":                {func(o *Order) { o.InstallationAccount = "corp" }, change(func(p *events.Program) { p.InstallationAccount = "corp" }), ""},
		"another account":                 {func(o *Order) { o.InstallationAccount = "corp" }, change(func(p *events.Program) { p.InstallationAccount = "corp2" }), events.ManifestMismatch},
		"an account the manifest lacks":   {func(o *Order) { o.InstallationAccount = "corp" }, administrative, events.ManifestMismatch},
		"an account the order lacks":      {func(*Order) {}, change(func(p *events.Program) { p.InstallationAccount = "corp" }), events.ManifestMismatch},
		"logoff, logon none":              {logoff, change(func(p *events.Program) { p.Logon = events.LogonNone }), ""},
		"logoff, logon any":               {logoff, change(func(p *events.Program) { p.Logon = events.LogonAny }), events.ContextUnsupported},
		"logoff, logon user":              {logoff, change(func(p *events.Program) { p.Logon = events.LogonUser }), events.ContextUnsupported},
		"logoff, no word of logon":        {logoff, administrative, events.ContextUnsupported},
		"logoff, a user's program":        {func(o *Order) { logoff(o); o.Run = events.RunUser }, events.Program{Run: events.RunUser}, events.ContextUnsupported},
		"logon, logon none":               {logon, change(func(p *events.Program) { p.Logon = events.LogonNone }), events.ContextUnsupported},
		"logon, logon any":                {logon, change(func(p *events.Program) { p.Logon = events.LogonAny }), ""},
		"logon, no word of logon":         {logon, administrative, ""},
		"logon, a user's program":         {func(o *Order) { logon(o); o.Run = events.RunUser }, events.Program{Run: events.RunUser}, ""},
		"logon, logon user":               {logon, change(func(p *events.Program) { p.Logon = events.LogonUser }), ""},
		"the same resource":               {func(o *Order) { o.Resources = []string{"smb://f/a"} }, change(func(p *events.Program) { p.References = []events.Reference{{URL: "smb://f/a"}} }), ""},
		"a resource the manifest lacks":   {func(o *Order) { o.Resources = []string{"smb://f/a"} }, administrative, events.ManifestMismatch},
		"a resource the order lacks":      {func(*Order) {}, change(func(p *events.Program) { p.References = []events.Reference{{URL: "smb://f/a"}} }), events.ManifestMismatch},
		"as soon as possible, logon none": {func(*Order) {}, change(func(p *events.Program) { p.Logon = events.LogonNone }), ""},
	} {
		t.Run(name, func(t *testing.T) {
			o := sample()
			c.edit(&o)
			m := events.Manifest{Package: o.Package, Version: o.Version, Programs: map[string]events.Program{o.Program: c.program}}
			err := o.Agrees(m)
			var refused *sign.Refusal
			if errors.As(err, &refused) != (c.want != "") || refused != nil && refused.Reason != c.want || err != nil && refused == nil {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func logoff(o *Order) { o.Assignments = []Assignment{{Logoff: true}} }

func logon(o *Order) { o.Assignments = []Assignment{{Logon: true}} }

func TestSignedTellsWhoSignedADraftSoFar(t *testing.T) {
	a, b, stranger := key(t, 1), key(t, 2), key(t, 3)
	bundle := trust.Bundle{Fleet: "testfleet", Threshold: 2, Keys: []sign.PublicKey{b.Public().Named("zoe"), a.Public().Named("ada")}}
	forged := altered(t, signed(t, sample(), a), func(s string) string { return strings.Replace(s, `"install"`, `"remove"`, 1) })
	for name, c := range map[string]struct {
		envelope []byte
		names    []string
		complete bool
		reason   events.Reason
	}{
		"a draft nobody signed":  {signed(t, sample()), nil, false, ""},
		"one of two":             {signed(t, sample(), b), []string{"zoe"}, false, ""},
		"both, in sorted order":  {signed(t, sample(), b, a), []string{"ada", "zoe"}, true, ""},
		"a stranger's is nobody": {signed(t, sample(), stranger), nil, false, ""},
		"one that does not fit":  {forged, nil, false, events.OrderAltered},
		"one that is cut off":    {forged[:90], nil, false, events.OrderMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			names, complete, err := Signed(c.envelope, bundle)
			var refused *sign.Refusal
			if errors.As(err, &refused) != (c.reason != "") || refused != nil && refused.Reason != c.reason {
				t.Fatalf("got %v, want %q", err, c.reason)
			}
			if diff := cmp.Diff(c.names, names); diff != "" || complete != c.complete {
				t.Errorf("complete %v %s", complete, diff)
			}
		})
	}
}

// Two deployers sign the same draft on their own machines; what they send is united.
func TestSignaturesMadeApartMakeAnOrderTogether(t *testing.T) {
	a, b := key(t, 1), key(t, 2)
	bundle := trust.Bundle{Fleet: "testfleet", Threshold: 2, Keys: []sign.PublicKey{a.Public().Named("a"), b.Public().Named("b")}}
	draft := signed(t, sample())
	byA, err := sign.Add(draft, a)
	if err != nil {
		t.Fatal(err)
	}
	byB, err := sign.Add(draft, b)
	if err != nil {
		t.Fatal(err)
	}
	both, err := sign.Merge(byA, byB)
	if err != nil {
		t.Fatal(err)
	}
	_, want, err := Open(draft)
	if err != nil {
		t.Fatal(err)
	}
	if _, digest, err := Verify(both, bundle, issued); err != nil || digest != want {
		t.Fatalf("order %s, was %s: %v", digest, want, err)
	}
}

func FuzzVerify(f *testing.F) {
	k := key(f, 1)
	bundle := trust.Bundle{Fleet: "testfleet", Threshold: 1, Keys: []sign.PublicKey{k.Public().Named("a")}}
	f.Add(signed(f, sample(), k))
	f.Add([]byte(`{"payloadType":"application/vnd.chandler.order+json","payload":"e30=","signatures":[]}`))
	good := signed(f, sample(), k)
	_, want, _ := Open(good)
	f.Fuzz(func(t *testing.T, envelope []byte) {
		_, digest, err := Verify(envelope, bundle, issued)
		if err == nil && digest != want {
			t.Fatalf("an order that was never signed verified: %s", envelope)
		}
	})
}
