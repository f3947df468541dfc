package order

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"chandler/events"
)

var issued = time.Date(2026, 12, 1, 8, 0, 0, 0, time.UTC)

func key(t testing.TB, fill byte) Key {
	t.Helper()
	k, err := NewKey(bytes.Repeat([]byte{fill}, 32))
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

func sign(t testing.TB, o Order, keys ...Key) []byte {
	t.Helper()
	envelope, err := Sign(o, keys...)
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
	one := Trust{Fleet: "testfleet", Threshold: 1, Keys: []PublicKey{a.Public("a"), b.Public("b")}}
	two := Trust{Fleet: "testfleet", Threshold: 2, Keys: one.Keys}
	other := sample()
	other.Fleet = "elsewhere"

	for name, c := range map[string]struct {
		envelope []byte
		trust    Trust
		at       time.Time
		want     events.Reason
	}{
		"one signature where one is needed":           {sign(t, sample(), a), one, issued, ""},
		"two signatures where two are needed":         {sign(t, sample(), a, b), two, issued, ""},
		"a stranger's signature beside a trusted one": {sign(t, sample(), stranger, b), one, issued, ""},
		"no signature":                             {sign(t, sample()), one, issued, events.OrderUnsigned},
		"one signature where two are needed":       {sign(t, sample(), a), two, issued, events.OrderUnsigned},
		"the same key twice counts once":           {sign(t, sample(), a, a), two, issued, events.OrderUnsigned},
		"only a stranger signed":                   {sign(t, sample(), stranger), one, issued, events.OrderUnknownKey},
		"another program after signing":            {altered(t, sign(t, sample(), a), func(s string) string { return strings.Replace(s, `"install"`, `"remove"`, 1) }), one, issued, events.OrderAltered},
		"another fleet's order":                    {sign(t, other, a), one, issued, events.OrderOtherFleet},
		"after its validity":                       {sign(t, sample(), a), one, issued.Add(DefaultValidity + time.Hour), events.OrderExpired},
		"just after its validity by a clock ahead": {sign(t, sample(), a), one, issued.Add(DefaultValidity + time.Minute), ""},
		"before it was issued":                     {sign(t, sample(), a), one, issued.Add(-time.Hour), events.OrderNotYetValid},
		"a truncated envelope":                     {sign(t, sample(), a)[:100], one, issued, events.OrderMalformed},
		"an empty trust bundle":                    {sign(t, sample(), a), Trust{Fleet: "testfleet"}, issued, events.AgentFault},
	} {
		t.Run(name, func(t *testing.T) {
			_, digest, err := Verify(c.envelope, c.trust, c.at)
			var refused *Error
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
	trust := Trust{Fleet: "testfleet", Threshold: 1, Keys: []PublicKey{a.Public("a")}}
	for name, payload := range map[string]string{
		"a newer format number": `{"format":2}`,
		"an unknown condition":  `{"format":1,"only-on-sundays":true}`,
	} {
		t.Run(name, func(t *testing.T) {
			_, err := decode([]byte(payload))
			var refused *Error
			if !errors.As(err, &refused) || refused.Reason != events.UnsupportedFormat {
				t.Fatalf("got %v", err)
			}
		})
	}
	if _, _, err := Verify(sign(t, sample(), a), trust, issued); err != nil {
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
	at := func(h int) *time.Time { return new(issued.Add(time.Duration(h) * time.Hour)) }
	for name, edit := range map[string]func(*Order){
		"expiry before availability":    func(o *Order) { o.Available, o.Expires = at(5), at(4) },
		"expiry before the deadline":    func(o *Order) { o.Assignments = []Assignment{{At: at(5)}}; o.Expires = at(4) },
		"an assignment of both kinds":   func(o *Order) { o.Assignments = []Assignment{{ASAP: true, At: at(1)}} },
		"no assignment":                 func(o *Order) { o.Assignments = nil },
		"a target that reaches nobody":  func(o *Order) { o.Expression = "" },
		"an expression that is no CEL":  func(o *Order) { o.Expression = "agent." },
		"no run mode":                   func(o *Order) { o.Run = "" },
		"a deployment named with a dot": func(o *Order) { o.Deployment = "a.b" },
		"a revision of zero":            func(o *Order) { o.Revision = 0 },
		"a validity that ends at once":  func(o *Order) { o.NotAfter = o.Issued },
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

func TestKeysAndBundlesSurviveTheirFiles(t *testing.T) {
	k := key(t, 7)
	data, err := k.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	back, err := ParseKey(data)
	if err != nil || back.Public("x") != k.Public("x") {
		t.Fatalf("got %v, %v", back.Public("x"), err)
	}
	bundle, _ := json.Marshal(Trust{Fleet: "f", Threshold: 1, Keys: []PublicKey{k.Public("x")}})
	if _, err := ParseTrust(bundle); err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]string{
		"more signatures than keys": `{"fleet":"f","threshold":2,"keys":[]}`,
		"no threshold":              `{"fleet":"f","keys":[]}`,
		"a short key":               `{"fleet":"f","threshold":1,"keys":[{"name":"a","key":"aaaa"}]}`,
	} {
		if _, err := ParseTrust([]byte(bad)); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

func FuzzVerify(f *testing.F) {
	k := key(f, 1)
	trust := Trust{Fleet: "testfleet", Threshold: 1, Keys: []PublicKey{k.Public("a")}}
	f.Add(sign(f, sample(), k))
	f.Add([]byte(`{"payloadType":"application/vnd.chandler.order+json","payload":"e30=","signatures":[]}`))
	good := sign(f, sample(), k)
	_, want, _ := Open(good)
	f.Fuzz(func(t *testing.T, envelope []byte) {
		_, digest, err := Verify(envelope, trust, issued)
		if err == nil && digest != want {
			t.Fatalf("an order that was never signed verified: %s", envelope)
		}
	})
}

func FuzzParseTrust(f *testing.F) {
	bundle, _ := json.Marshal(Trust{Fleet: "f", Threshold: 1, Keys: []PublicKey{key(f, 1).Public("x")}})
	f.Add(bundle)
	f.Add([]byte(`{"fleet":"f","threshold":-1,"keys":[{}]}`))
	good := sign(f, sample(), key(f, 9))
	f.Fuzz(func(t *testing.T, data []byte) {
		trust, err := ParseTrust(data)
		if err != nil {
			return
		}
		if _, _, err := Verify(good, trust, issued); err == nil && !strings.Contains(string(data), key(t, 9).Public("").Key) {
			t.Fatalf("a bundle that does not hold the key trusts it: %s", data)
		}
	})
}

func FuzzParseKey(f *testing.F) {
	pem, _ := key(f, 1).Marshal()
	f.Add(pem)
	f.Fuzz(func(t *testing.T, data []byte) {
		if k, err := ParseKey(data); err == nil {
			if _, err := k.Marshal(); err != nil {
				t.Fatal(err)
			}
		}
	})
}
