package enrolment_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nkeys"

	"chandler/events"
	"chandler/events/enrolment"
)

const jwt = "eyJ0eXAiOiJKV1QifQ.eyJqdGkiOiJYIn0.c2lnbmF0dXJl"

var digest = strings.Repeat("ab", 32)

func newKey(t testing.TB) (seed []byte, public string) {
	t.Helper()
	seed, public, err := enrolment.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return seed, public
}

func newToken(t testing.TB) enrolment.Token {
	t.Helper()
	seed, _ := newKey(t)
	return enrolment.Token{Servers: []string{"tls://broker.example:4222", "wss://broker.example:443/nats"}, CA: digest, Root: digest, JWT: jwt, Seed: seed}
}

func TestATokenIsReadAsItWasWritten(t *testing.T) {
	for name, change := range map[string]func(*enrolment.Token){
		"with a pinned CA":                 func(*enrolment.Token) {},
		"without a CA":                     func(k *enrolment.Token) { k.CA = "" },
		"with a server on an IPv6 address": func(k *enrolment.Token) { k.Servers = []string{"nats://[2001:db8::1]:4222"} },
	} {
		t.Run(name, func(t *testing.T) {
			want := newToken(t)
			change(&want)
			s, err := want.Encode()
			if err != nil {
				t.Fatal(err)
			}
			if strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") != "" {
				t.Errorf("the token needs quoting: %s", s)
			}
			got, err := enrolment.ParseToken("\n" + s + "\r\n")
			if err != nil {
				t.Fatal(err)
			}
			type plain enrolment.Token // without the methods that withhold the secret
			if diff := cmp.Diff(plain(want), plain(got)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func encoded(v any) string {
	text, _ := json.Marshal(v)
	return "chandler1." + base64.RawURLEncoding.EncodeToString(text)
}

func TestTokensThatAreNotInOrderAreRefused(t *testing.T) {
	good := func() map[string]any {
		return map[string]any{"servers": []string{"nats://a.example"}, "ca": digest, "root": digest, "jwt": jwt, "seed": string(newToken(t).Seed)}
	}
	if _, err := enrolment.ParseToken(encoded(good())); err != nil {
		t.Fatal(err)
	}
	account, err := nkeys.CreateAccount()
	if err != nil {
		t.Fatal(err)
	}
	accountSeed, err := account.Seed()
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]struct {
		key   string
		value any
		says  string
	}{
		"a field that is not known":                 {"more", 1, "newer version"},
		"no server":                                 {"servers", []string{}, "0 servers"},
		"too many servers":                          {"servers", make([]string, 17), "17 servers"},
		"a server that is no URL":                   {"servers", []string{"nats://[::1"}, "not a URL"},
		"a server of another scheme":                {"servers", []string{"http://a.example"}, "scheme"},
		"a server without a scheme":                 {"servers", []string{"a.example:4222"}, "scheme"},
		"a server without a host":                   {"servers", []string{"nats://:4222"}, "host"},
		"a password in a server's URL":              {"servers", []string{"nats://a:b@a.example"}, "password"},
		"a query in a server's URL":                 {"servers", []string{"nats://a.example?x=1"}, "host:port"},
		"two servers in one":                        {"servers", []string{"nats://a.example,b.example"}, "comma"},
		"a very long server":                        {"servers", []string{"nats://" + strings.Repeat("a", 600)}, "not a URL"},
		"a CA hash in capitals":                     {"ca", strings.ToUpper(digest), "CA certificate"},
		"no root":                                   {"root", "", "root keys"},
		"a root that is too short":                  {"root", digest[1:], "root keys"},
		"no JWT":                                    {"jwt", "", "JWT"},
		"a JWT of two parts":                        {"jwt", "a.b", "JWT"},
		"a JWT with a line break":                   {"jwt", "eyJ0\neXAi.eyJqdGki.c2ln", "JWT"},
		"a JWT above the limit":                     {"jwt", "YWFh." + strings.Repeat("YWFh", 1024) + ".YWFh", "JWT"},
		"no seed":                                   {"seed", "", "seed"},
		"a seed that is damaged":                    {"seed", strings.Repeat("SUAA", 14) + "AA", "seed"},
		"the seed of an account":                    {"seed", string(accountSeed), "seed"},
		"a public key in place of the seed":         {"seed", "UAHVPCZKDQ5NLTPWDJCZHVMQWUYSLCQMLXRSMWJ2UX6AYOL2VKYSPFLB", "seed"},
		"a number in place of a string":             {"root", 7, "damaged"},
		"more than eight kibibytes of server names": {"servers", repeated(16, "nats://"+strings.Repeat("a", 480)), "more than 8192"},
	} {
		t.Run(name, func(t *testing.T) {
			token := good()
			token[change.key] = change.value
			_, err := enrolment.ParseToken(encoded(token))
			if err == nil || !strings.Contains(err.Error(), change.says) {
				t.Fatalf("says %v, want %q", err, change.says)
			}
			if strings.Contains(err.Error(), "SUA") || strings.Contains(err.Error(), "a:b") {
				t.Errorf("the error quotes a secret: %v", err)
			}
		})
	}
	whole := encoded(good())
	text, _ := json.Marshal(good())
	for name, s := range map[string]string{
		"nothing":               "",
		"another prefix":        "chandler2." + strings.TrimPrefix(whole, "chandler1."),
		"cut off":               whole[:len(whole)-7],
		"something behind it":   "chandler1." + base64.RawURLEncoding.EncodeToString(append(text, "{}"...)),
		"a space within":        whole[:20] + " " + whole[20:],
		"a list, not an object": encoded([]int{1}),
	} {
		if _, err := enrolment.ParseToken(s); err == nil {
			t.Errorf("%s: it was taken", name)
		}
	}
}

func repeated(n int, s string) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = s
	}
	return out
}

func TestATokenIsNotWrittenThatCouldNotBeRead(t *testing.T) {
	k := newToken(t)
	k.Servers = repeated(16, "nats://"+strings.Repeat("a", 500))
	if _, err := k.Encode(); err == nil || !strings.Contains(err.Error(), "fewer servers") {
		t.Errorf("says %v", err)
	}
	k = newToken(t)
	k.Root = ""
	if _, err := k.Encode(); err == nil {
		t.Error("a token without a root was written")
	}
}

func TestNoVerbAndNoEncoderTellsTheSecretOfAToken(t *testing.T) {
	k := newToken(t)
	public, err := enrolment.PublicKey(k.Seed)
	if err != nil {
		t.Fatal(err)
	}
	var said []string
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t"} {
		said = append(said, fmt.Sprintf(verb, k), fmt.Sprintf(verb, &k), fmt.Sprintf(verb, []enrolment.Token{k}), fmt.Sprintf(verb, struct{ T enrolment.Token }{k}))
	}
	text, err := json.Marshal(map[string]any{"token": k})
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("token", "token", k)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("token", "token", k)
	said = append(said, k.String(), k.GoString(), string(text), log.String())
	for _, s := range said {
		for _, secret := range []string{string(k.Seed), fmt.Sprintf("%x", k.Seed), fmt.Sprint(k.Seed), base64.StdEncoding.EncodeToString(k.Seed), k.JWT} {
			if strings.Contains(strings.ToLower(s), strings.ToLower(strings.Trim(secret, "[]"))) {
				t.Errorf("tells the secret: %s", s)
			}
		}
		if !strings.Contains(s, public) {
			t.Errorf("does not name the token: %s", s)
		}
	}
}

func statement(key, token, purpose string) events.EnrolStatement {
	return events.EnrolStatement{Purpose: purpose, Key: key, Token: token, Machine: enrolment.MachineHash("machine"), Facts: events.Facts{ID: events.AgentID([]byte(key)), Hostname: "ws-1"}, Nonce: "n1", Trust: 3}
}

func TestAStatementProvesTheKeyAndTheToken(t *testing.T) {
	agentSeed, agent := newKey(t)
	tokenSeed, token := newKey(t)
	for purpose, token := range map[string]string{"enrol": token, "return": ""} {
		want := statement(agent, token, purpose)
		r, err := enrolment.Sign(want, agentSeed, tokenSeed)
		if err != nil {
			t.Fatal(err)
		}
		got, err := enrolment.Verify(r, purpose)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		other := map[string]string{"enrol": "return", "return": "enrol"}[purpose]
		if _, err := enrolment.Verify(r, other); err == nil || !strings.Contains(err.Error(), "purpose") {
			t.Errorf("a statement to %s serves to %s: %v", purpose, other, err)
		}
	}
}

// signed makes a request of any statement, signed rightly, as somebody with own keys might send it.
func signed(t testing.TB, s any, agentSeed, tokenSeed []byte) events.EnrolRequest {
	t.Helper()
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	r := events.EnrolRequest{Statement: text}
	for seed, out := range map[*[]byte]*[]byte{&agentSeed: &r.Signature, &tokenSeed: &r.TokenSignature} {
		pair, err := nkeys.FromSeed(*seed)
		if err != nil {
			t.Fatal(err)
		}
		if *out, err = pair.Sign(append([]byte("chandler enrolment\xff"), text...)); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

func TestStatementsThatProveNothingAreRefused(t *testing.T) {
	agentSeed, agent := newKey(t)
	tokenSeed, token := newKey(t)
	otherSeed, other := newKey(t)
	good := func() events.EnrolStatement { return statement(agent, token, "enrol") }
	with := func(change func(*events.EnrolStatement)) events.EnrolRequest {
		s := good()
		change(&s)
		return signed(t, s, agentSeed, tokenSeed)
	}
	unprefixed := func() events.EnrolRequest {
		r := signed(t, good(), agentSeed, tokenSeed)
		pair, err := nkeys.FromSeed(agentSeed)
		if err != nil {
			t.Fatal(err)
		}
		if r.Signature, err = pair.Sign(r.Statement); err != nil {
			t.Fatal(err)
		}
		return r
	}
	if _, err := enrolment.Verify(signed(t, good(), agentSeed, tokenSeed), "enrol"); err != nil {
		t.Fatal(err)
	}
	cut := func(change func(*events.EnrolRequest)) events.EnrolRequest {
		r := signed(t, good(), agentSeed, tokenSeed)
		change(&r)
		return r
	}
	for name, c := range map[string]struct {
		request events.EnrolRequest
		says    string
	}{
		"nothing at all":                      {events.EnrolRequest{}, "read"},
		"signed by another key":               {signed(t, good(), otherSeed, tokenSeed), "agent's key"},
		"signed by another token":             {signed(t, good(), agentSeed, otherSeed), "token's key"},
		"without the agent's signature":       {cut(func(r *events.EnrolRequest) { r.Signature = nil }), "agent's key"},
		"without the token's signature":       {cut(func(r *events.EnrolRequest) { r.TokenSignature = nil }), "token's key"},
		"signatures exchanged":                {cut(func(r *events.EnrolRequest) { r.Signature, r.TokenSignature = r.TokenSignature, r.Signature }), "agent's key"},
		"signed as a broker's nonce would be": {unprefixed(), "agent's key"},
		"altered after it was signed": {cut(func(r *events.EnrolRequest) {
			r.Statement = bytes.Replace(r.Statement, []byte("ws-1"), []byte("ws-2"), 1)
		}), "agent's key"},
		"something behind it":                   {cut(func(r *events.EnrolRequest) { r.Statement = append(r.Statement, "{}"...) }), "read"},
		"above the limit":                       {with(func(s *events.EnrolStatement) { s.Facts.Hostname = strings.Repeat("a", 65<<10) }), "more than 65536"},
		"of another purpose":                    {with(func(s *events.EnrolStatement) { s.Purpose = "renew" }), "purpose"},
		"of no purpose":                         {with(func(s *events.EnrolStatement) { s.Purpose = "" }), "purpose"},
		"of another agent's id":                 {with(func(s *events.EnrolStatement) { s.Facts.ID = events.AgentID([]byte(other)) }), "speaks of agent"},
		"of no id":                              {with(func(s *events.EnrolStatement) { s.Facts.ID = "" }), "speaks of agent"},
		"in the name of another key":            {with(func(s *events.EnrolStatement) { s.Key, s.Facts.ID = other, events.AgentID([]byte(other)) }), "agent's key"},
		"of a key that is none":                 {with(func(s *events.EnrolStatement) { s.Key = "*" }), "key"},
		"of a key that stands for none":         {with(func(s *events.EnrolStatement) { s.Key = events.NoKey }), "no key"},
		"of a key with a wrong checksum":        {with(func(s *events.EnrolStatement) { s.Key = "U" + strings.Repeat("A", 55) }), "checksum"},
		"without a token":                       {with(func(s *events.EnrolStatement) { s.Token = "" }), "token"},
		"the token's key for the agent's":       {signed(t, statement(token, token, "enrol"), tokenSeed, tokenSeed), "no key of its own"},
		"a machine that is no hash":             {with(func(s *events.EnrolStatement) { s.Machine = "m" }), "machine"},
		"without a nonce":                       {with(func(s *events.EnrolStatement) { s.Nonce = "" }), "nonce"},
		"with a very long nonce":                {with(func(s *events.EnrolStatement) { s.Nonce = strings.Repeat("n", 129) }), "nonce"},
		"with a negative version of the bundle": {with(func(s *events.EnrolStatement) { s.Trust = -1 }), "negative"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := enrolment.Verify(c.request, "enrol"); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("says %v, want %q", err, c.says)
			}
		})
	}
	if _, err := enrolment.Verify(signed(t, statement(agent, token, "return"), agentSeed, tokenSeed), "return"); err == nil || !strings.Contains(err.Error(), "none is needed") {
		t.Errorf("an agent returns with a token: %v", err)
	}
	if _, err := enrolment.Verify(signed(t, statement(agent, "", "renew"), agentSeed, tokenSeed), "renew"); err == nil {
		t.Error("a statement serves a purpose that is none")
	}
}

func TestNothingIsSignedThatWouldBeRefused(t *testing.T) {
	agentSeed, agent := newKey(t)
	tokenSeed, token := newKey(t)
	for name, c := range map[string]struct {
		statement        events.EnrolStatement
		agentKey, tokKey []byte
	}{
		"with another agent's key":  {statement(agent, token, "enrol"), tokenSeed, tokenSeed},
		"with another token's key":  {statement(agent, token, "enrol"), agentSeed, agentSeed},
		"without the token's key":   {statement(agent, token, "enrol"), agentSeed, nil},
		"without a token":           {statement(agent, "", "enrol"), agentSeed, tokenSeed},
		"a return that has a token": {statement(agent, token, "return"), agentSeed, tokenSeed},
	} {
		if _, err := enrolment.Sign(c.statement, c.agentKey, c.tokKey); err == nil {
			t.Errorf("%s: it was signed", name)
		}
	}
}

func TestAMachineIsKnownByItsHashAlone(t *testing.T) {
	if h := enrolment.MachineHash(""); h != "" {
		t.Errorf("no machine has hash %q", h)
	}
	a, b := enrolment.MachineHash("a"), enrolment.MachineHash("b")
	if a == b || events.ValidDigest(a) != nil || a != enrolment.MachineHash("a") {
		t.Errorf("hashes %q and %q", a, b)
	}
}

func FuzzParseToken(f *testing.F) {
	s, err := newToken(f).Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(s)
	f.Add("chandler1.e30")
	f.Fuzz(func(t *testing.T, s string) {
		k, err := enrolment.ParseToken(s)
		if err != nil || len(s) > 2<<10 { // JSON escapes may make it longer than it was, and too long
			return
		}
		again, err := k.Encode()
		if err != nil {
			t.Fatalf("a token that was read cannot be written: %v", err)
		}
		if _, err := enrolment.ParseToken(again); err != nil {
			t.Fatalf("a token that was written cannot be read: %v", err)
		}
	})
}

func FuzzVerify(f *testing.F) {
	agentSeed, agent := newKey(f)
	tokenSeed, token := newKey(f)
	good := signed(f, statement(agent, token, "enrol"), agentSeed, tokenSeed)
	f.Add(good.Statement, good.Signature, good.TokenSignature)
	f.Add([]byte("{}"), []byte{}, []byte{})
	f.Fuzz(func(t *testing.T, text, signature, tokenSignature []byte) {
		s, err := enrolment.Verify(events.EnrolRequest{Statement: text, Signature: signature, TokenSignature: tokenSignature}, "enrol")
		if err != nil {
			return
		}
		if s.Facts.ID != events.AgentID([]byte(s.Key)) || s.Token == "" {
			t.Errorf("verified %+v", s)
		}
		if s.Key == agent && !bytes.Equal(text, good.Statement) {
			t.Errorf("another statement has the agent's signature: %s", text)
		}
	})
}
