package lease

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nkeys"

	"chandler/events"
	"chandler/events/enrolment"
	"chandler/events/order"
)

const secret = "Pl4nted-s3cret-5be1"

var now = time.Date(2026, 12, 1, 8, 0, 0, 0, time.UTC)

// enrolled is an agent's key.
func enrolled(t testing.TB) (public string, sign func([]byte) ([]byte, error)) {
	t.Helper()
	seed, public, err := enrolment.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	pair, err := nkeys.FromSeed(seed)
	if err != nil {
		t.Fatal(err)
	}
	return public, pair.Sign
}

func newKey(t testing.TB) *Key {
	t.Helper()
	k, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func statement(public string, k *Key) events.LeaseStatement {
	agent := events.AgentID([]byte(public))
	return events.LeaseStatement{Agent: agent, Job: events.JobID("hello", 1, agent, 0, ""), Attempt: 1, Order: events.DigestOf([]byte("o")), Account: "corp-installer",
		Purpose: events.LeaseToExecute, Key: k.Public(), Nonce: "n1", At: now}
}

func grant(s events.LeaseStatement) events.LeaseGrant {
	return events.LeaseGrant{Lease: ID(s.Job, "corp-installer", s.Resource, s.Purpose), Agent: s.Agent, Job: s.Job, Account: "corp-installer", Kind: events.SoftwareInstallation,
		User: `EXAMPLE\installer`, Version: 3, Resource: s.Resource, Purpose: s.Purpose, Expires: now.Add(10 * time.Minute)}
}

func TestARequestIsReadAsItWasSigned(t *testing.T) {
	public, sign := enrolled(t)
	for name, change := range map[string]func(*events.LeaseStatement){
		"for an account":        func(*events.LeaseStatement) {},
		"for a kind of account": func(s *events.LeaseStatement) { s.Account, s.Kind = "", events.ClientTokenDomain },
		"for a resource": func(s *events.LeaseStatement) {
			s.Purpose, s.Resource = events.LeaseToRead, "smb://files.example/software/a b"
		},
		"for a test": func(s *events.LeaseStatement) {
			s.Purpose, s.Resource, s.Job, s.Order, s.Test = events.LeaseToTest, "smb://files.example/software", "", "", "t1"
		},
		"for a job of one user":  func(s *events.LeaseStatement) { s.User, s.Occurrence = `EXAMPLE\ålice`, 1_764_576_000 },
		"in another time's zone": func(s *events.LeaseStatement) { s.At = now.In(time.FixedZone("x", 3600)) },
	} {
		t.Run(name, func(t *testing.T) {
			want := statement(public, newKey(t))
			change(&want)
			r, err := Sign(want, []byte("order"), sign)
			if err != nil {
				t.Fatal(err)
			}
			got, err := Verify(r, public)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestRequestsThatProveNothingAreRefused(t *testing.T) {
	public, sign := enrolled(t)
	_, otherSign := enrolled(t)
	other, _ := enrolled(t)
	with := func(change func(*events.LeaseStatement)) events.LeaseRequest {
		s := statement(public, newKey(t))
		change(&s)
		text, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		signature, err := sign(signed(text))
		if err != nil {
			t.Fatal(err)
		}
		return events.LeaseRequest{Statement: text, Signature: signature, Order: []byte("o")}
	}
	trial := func(change func(*events.LeaseStatement)) events.LeaseRequest {
		return with(func(s *events.LeaseStatement) {
			s.Purpose, s.Resource, s.Job, s.Order, s.Test = events.LeaseToTest, "smb://h/x", "", "", "t1"
			change(s)
		})
	}
	good := func() events.LeaseRequest { return with(func(*events.LeaseStatement) {}) }
	after := func(change func(*events.LeaseRequest)) events.LeaseRequest {
		r := good()
		change(&r)
		return r
	}
	resign := func(sign func([]byte) ([]byte, error), prefix string) events.LeaseRequest {
		return after(func(r *events.LeaseRequest) {
			var err error
			if r.Signature, err = sign(append([]byte(prefix), r.Statement...)); err != nil {
				t.Fatal(err)
			}
		})
	}
	if _, err := Verify(good(), public); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		request events.LeaseRequest
		says    string
	}{
		"nothing":                    {events.LeaseRequest{}, "cannot be read"},
		"signed by another key":      {resign(otherSign, signedPrefix), "enrolled key"},
		"signed as a broker's nonce": {resign(sign, ""), "enrolled key"},
		"signed as an enrolment":     {resign(sign, "chandler enrolment\xff"), "enrolled key"},
		"not signed":                 {after(func(r *events.LeaseRequest) { r.Signature = nil }), "enrolled key"},
		"altered": {after(func(r *events.LeaseRequest) {
			r.Statement = bytes.Replace(r.Statement, []byte("corp-"), []byte("xorp-"), 1)
		}), "enrolled key"},
		"something behind it":              {after(func(r *events.LeaseRequest) { r.Statement = append(r.Statement, "{}"...) }), "cannot be read"},
		"a statement above the limit":      {after(func(r *events.LeaseRequest) { r.Statement = make([]byte, maxStatement+1) }), "at most"},
		"an order above the limit":         {after(func(r *events.LeaseRequest) { r.Order = make([]byte, order.MaxSize+1) }), "at most"},
		"of another agent":                 {with(func(s *events.LeaseStatement) { s.Agent = events.AgentID([]byte(other)) }), "speaks of agent"},
		"of an agent that is all":          {with(func(s *events.LeaseStatement) { s.Agent = "*" }), "agent id"},
		"of a job that is all":             {with(func(s *events.LeaseStatement) { s.Job = ">" }), "job"},
		"of no order":                      {with(func(s *events.LeaseStatement) { s.Order = "" }), "order"},
		"of no attempt":                    {with(func(s *events.LeaseStatement) { s.Attempt = 0 }), "attempt"},
		"for neither account nor kind":     {with(func(s *events.LeaseStatement) { s.Account = "" }), "account or a kind"},
		"for an account and a kind":        {with(func(s *events.LeaseStatement) { s.Kind = events.NetworkAccess }), "account or a kind"},
		"for an account that is no token":  {with(func(s *events.LeaseStatement) { s.Account = "a.b" }), "account"},
		"for a kind that is no token":      {with(func(s *events.LeaseStatement) { s.Account, s.Kind = "", "A B" }), "kind"},
		"for another purpose":              {with(func(s *events.LeaseStatement) { s.Purpose = "run" }), "purpose"},
		"to execute at a resource":         {with(func(s *events.LeaseStatement) { s.Resource = "smb://h/x" }), "resource"},
		"to read nothing":                  {with(func(s *events.LeaseStatement) { s.Purpose = events.LeaseToRead }), "resource"},
		"to read something of two lines":   {with(func(s *events.LeaseStatement) { s.Purpose, s.Resource = events.LeaseToRead, "a\nb" }), "one line"},
		"for a user with a very long name": {with(func(s *events.LeaseStatement) { s.User = strings.Repeat("u", 257) }), "user"},
		"for a job and a test":             {with(func(s *events.LeaseStatement) { s.Test = "t1" }), "names a test"},
		"for a test without a name":        {trial(func(s *events.LeaseStatement) { s.Test = "" }), "test"},
		"for a test of a job":              {trial(func(s *events.LeaseStatement) { s.Job = "j" }), "no job"},
		"for a test by an order":           {trial(func(s *events.LeaseStatement) { s.Order = events.DigestOf(nil) }), "no job"},
		"for a test of a job's user":       {trial(func(s *events.LeaseStatement) { s.User = "alice" }), "no job"},
		"for a test of an occurrence":      {trial(func(s *events.LeaseStatement) { s.Occurrence = 1 }), "no job"},
		"for a second test":                {trial(func(s *events.LeaseStatement) { s.Attempt = 2 }), "once"},
		"for a test of any account":        {trial(func(s *events.LeaseStatement) { s.Account, s.Kind = "", events.NetworkAccess }), "by its name"},
		"for a test of nothing":            {trial(func(s *events.LeaseStatement) { s.Resource = "" }), "name a resource"},
		"without a key":                    {with(func(s *events.LeaseStatement) { s.Key = nil }), "key"},
		"with a very long key":             {with(func(s *events.LeaseStatement) { s.Key = make([]byte, maxKey+1) }), "key"},
		"without a nonce":                  {with(func(s *events.LeaseStatement) { s.Nonce = "" }), "nonce"},
		"with a very long nonce":           {with(func(s *events.LeaseStatement) { s.Nonce = strings.Repeat("n", 129) }), "nonce"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Verify(c.request, public); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("says %v, want %q", err, c.says)
			}
		})
	}
	for _, key := range []string{"", "*", events.NoKey, public[:55] + "A"} {
		if _, err := Verify(good(), key); err == nil {
			t.Errorf("key %q is taken", key)
		}
	}
	s := statement(public, newKey(t))
	s.Purpose = ""
	if _, err := Sign(s, nil, sign); err == nil {
		t.Error("what would be refused was signed")
	}
}

func TestARequestIsGoodForAsLongAsClocksMayDiffer(t *testing.T) {
	for off, ok := range map[time.Duration]bool{0: true, ClockTolerance: true, -ClockTolerance: true, ClockTolerance + time.Second: false, -ClockTolerance - time.Second: false} {
		if err := Timely(events.LeaseStatement{At: now}, now.Add(off)); (err == nil) != ok {
			t.Errorf("%s later: %v", off, err)
		}
	}
}

func TestASecretIsOpenedByWhomItWasSealedForAlone(t *testing.T) {
	public, _ := enrolled(t)
	k := newKey(t)
	s := statement(public, k)
	g, err := Seal(s, grant(s), []byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := k.Open(s, g, now); err != nil || string(got) != secret {
		t.Fatalf("opened %q, %v", got, err)
	}
	if bytes.Contains(g.Sealed, []byte(secret)) || strings.Contains(fmt.Sprintf("%+v", g), secret) {
		t.Error("the secret is readable")
	}
	if _, err := newKey(t).Open(s, g, now); err == nil {
		t.Error("another key opens it")
	}
	for name, change := range map[string]func(*events.LeaseStatement, *events.LeaseGrant){
		"another job":                        func(_ *events.LeaseStatement, g *events.LeaseGrant) { g.Job = "other" },
		"another job that was asked for":     func(s *events.LeaseStatement, g *events.LeaseGrant) { s.Job, g.Job = "other", "other" },
		"another agent":                      func(_ *events.LeaseStatement, g *events.LeaseGrant) { g.Agent = "aaaaaaaa" },
		"another agent that asked":           func(s *events.LeaseStatement, g *events.LeaseGrant) { s.Agent, g.Agent = "aaaaaaaa", "aaaaaaaa" },
		"another attempt":                    func(s *events.LeaseStatement, _ *events.LeaseGrant) { s.Attempt = 2 },
		"another request":                    func(s *events.LeaseStatement, _ *events.LeaseGrant) { s.Nonce = "n2" },
		"another account":                    func(_ *events.LeaseStatement, g *events.LeaseGrant) { g.Account = "other" },
		"another account that was asked for": func(s *events.LeaseStatement, g *events.LeaseGrant) { s.Account, g.Account = "other", "other" },
		"another kind":                       func(_ *events.LeaseStatement, g *events.LeaseGrant) { g.Kind = events.NetworkAccess },
		"another user":                       func(_ *events.LeaseStatement, g *events.LeaseGrant) { g.User = "root" },
		"another way to prove it":            func(_ *events.LeaseStatement, g *events.LeaseGrant) { g.Method = events.ByBearer },
		"another test":                       func(s *events.LeaseStatement, _ *events.LeaseGrant) { s.Test = "t2" },
		"another version":                    func(_ *events.LeaseStatement, g *events.LeaseGrant) { g.Version++ },
		"another lease":                      func(_ *events.LeaseStatement, g *events.LeaseGrant) { g.Lease = "other" },
		"another resource":                   func(_ *events.LeaseStatement, g *events.LeaseGrant) { g.Resource = "smb://h/x" },
		"another resource that was asked for": func(s *events.LeaseStatement, g *events.LeaseGrant) {
			s.Resource, g.Resource = "smb://h/x", "smb://h/x"
		},
		"another purpose": func(_ *events.LeaseStatement, g *events.LeaseGrant) { g.Purpose = events.LeaseToRead },
		"another purpose that was asked for": func(s *events.LeaseStatement, g *events.LeaseGrant) {
			s.Purpose, g.Purpose = events.LeaseToRead, events.LeaseToRead
		},
		"a longer time":     func(_ *events.LeaseStatement, g *events.LeaseGrant) { g.Expires = g.Expires.Add(time.Second) },
		"nothing sealed":    func(_ *events.LeaseStatement, g *events.LeaseGrant) { g.Sealed = nil },
		"something altered": func(_ *events.LeaseStatement, g *events.LeaseGrant) { g.Sealed[len(g.Sealed)-1] ^= 1 },
		"something cut off": func(_ *events.LeaseStatement, g *events.LeaseGrant) { g.Sealed = g.Sealed[:40] },
		"too much":          func(_ *events.LeaseStatement, g *events.LeaseGrant) { g.Sealed = make([]byte, maxSealed+1) },
	} {
		s, g := s, g
		g.Sealed = bytes.Clone(g.Sealed)
		change(&s, &g)
		if got, err := k.Open(s, g, now); err == nil || got != nil || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: opened %q, %v", name, got, err)
		}
	}
	for _, at := range []time.Time{g.Expires, g.Expires.Add(time.Hour)} {
		if _, err := k.Open(s, g, at); err == nil || !strings.Contains(err.Error(), "expired") {
			t.Errorf("at %s: %v", at, err)
		}
	}
}

func TestNothingIsSealedThatCouldNotBeOpened(t *testing.T) {
	public, _ := enrolled(t)
	s := statement(public, newKey(t))
	bad := s
	bad.Key = []byte("short")
	unnamed := grant(s)
	unnamed.User = ""
	colourful, painted, strange, named := grant(s), grant(s), grant(s), grant(s)
	strange.Method, named.User, named.Method = "kerberos", "", events.ByPassword
	colourful.User, painted.Kind = "alice\x1b[31m", "soft\nware"
	for name, c := range map[string]struct {
		s      events.LeaseStatement
		g      events.LeaseGrant
		secret []byte
	}{
		"an empty secret":                           {s, grant(s), nil},
		"a secret too long":                         {s, grant(s), make([]byte, MaxSecret+1)},
		"for a key that is none":                    {bad, grant(s), []byte(secret)},
		"for nobody":                                {s, unnamed, []byte(secret)},
		"for a user whose name disturbs a terminal": {s, colourful, []byte(secret)},
		"for a way to prove it that nobody knows":   {s, strange, []byte(secret)},
		"for a password of nobody":                  {s, named, []byte(secret)},
		"for a kind whose name is two lines":        {s, painted, []byte(secret)},
		"what was not asked for":                    {s, events.LeaseGrant{}, []byte(secret)},
	} {
		if g, err := Seal(c.s, c.g, c.secret); err == nil || len(g.Sealed) > 0 {
			t.Errorf("%s: sealed", name)
		}
	}
}

func TestATokenOrACertificateNeedsNoUser(t *testing.T) {
	public, _ := enrolled(t)
	k := newKey(t)
	s := statement(public, k)
	for _, method := range []string{events.ByBearer, events.ByClientCertificate} {
		g := grant(s)
		g.User, g.Method = "", method
		sealed, err := Seal(s, g, []byte(secret))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := k.Open(s, sealed, now); err != nil || string(got) != secret {
			t.Errorf("%s: opened %q, %v", method, got, err)
		}
	}
}

func FuzzVerify(f *testing.F) {
	public, sign := enrolled(f)
	r, err := Sign(statement(public, newKey(f)), []byte("o"), sign)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(r.Statement, r.Signature, r.Order)
	f.Add([]byte(`{"agent":"*","attempt":-1,"key":"AA=="}`), []byte{}, []byte{})
	f.Add([]byte("null"), []byte(nil), []byte(nil))
	f.Add([]byte(`{"agent":"aaaaaaaa","purpose":"test","test":"t1","attempt":1,"account":"a","resource":"smb://h/x"}`), []byte{}, []byte{})
	f.Fuzz(func(t *testing.T, text, signature, envelope []byte) {
		got, err := Verify(events.LeaseRequest{Statement: text, Signature: signature, Order: envelope}, public)
		if err == nil && !bytes.Equal(text, r.Statement) {
			t.Errorf("a request that nobody signed was taken: %+v", got)
		}
	})
}

func FuzzOpen(f *testing.F) {
	public, _ := enrolled(f)
	k := newKey(f)
	s := statement(public, k)
	good, err := Seal(s, grant(s), []byte(secret))
	if err != nil {
		f.Fatal(err)
	}
	text, err := json.Marshal(good)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"sealed":"AAAA"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var g events.LeaseGrant
		if json.Unmarshal(text, &g) != nil {
			return
		}
		got, err := k.Open(s, g, now)
		if err != nil {
			return
		}
		good.Expires, g.Expires = good.Expires.UTC(), g.Expires.UTC()
		if diff := cmp.Diff(good, g); diff != "" || string(got) != secret {
			t.Errorf("opened %q of %s", got, diff)
		}
	})
}
