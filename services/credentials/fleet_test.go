package credentials

import (
	"crypto/rand"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"

	"chandler/events"
	"chandler/events/enrolment"
	"chandler/events/eventstest"
	"chandler/events/sign"
	"chandler/events/trust"
)

// fleet is a story whose service makes identities.
type fleet struct {
	*story
	clock   *clock
	account string // of the agents
	signer  nkeys.KeyPair
	roots   []sign.Key
}

// clock is moved by hand.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

const bearer = "identity.of.whoever-enrols"

func newFleet(t testing.TB) *fleet {
	// The clock begins with an hour: what is told once an hour is told once, whenever the test runs.
	f := &fleet{story: newStory(t), clock: &clock{now: time.Now().Truncate(time.Hour)}, roots: keysOf(t, 2)}
	var err error
	if f.signer, err = nkeys.CreateAccount(); err != nil {
		t.Fatal(err)
	}
	account, err := nkeys.CreateAccount()
	if err != nil {
		t.Fatal(err)
	}
	if f.account, err = account.PublicKey(); err != nil {
		t.Fatal(err)
	}
	f.options = func(o *Options) {
		o.AgentSigner, o.AgentsAccount, o.EnrolmentJWT, o.Now = f.signer, f.account, bearer, f.clock.Now
	}
	return f
}

// ready runs a replica of a fleet that has a trust bundle.
func (f *fleet) ready() *Service {
	f.t.Helper()
	r := f.running()
	if _, err := ask(f.story, "ada", events.TrustSet, events.TrustRequest{Bundle: f.bundle(1)}); err != nil {
		f.t.Fatal(err)
	}
	return r
}

func keysOf(t testing.TB, n int) []sign.Key {
	t.Helper()
	keys := make([]sign.Key, n)
	for i := range keys {
		seed := make([]byte, 32)
		_, _ = rand.Read(seed) // never fails
		var err error
		if keys[i], err = sign.NewKey(seed); err != nil {
			t.Fatal(err)
		}
	}
	return keys
}

func named(keys []sign.Key) (all []sign.PublicKey) {
	for i, k := range keys {
		all = append(all, k.Public().Named(fmt.Sprintf("key-%d", i)))
	}
	return all
}

// bundle of a version, of the fleet's roots and signed by signers (none: by the roots).
func (f *fleet) bundle(version int, signers ...sign.Key) []byte {
	f.t.Helper()
	return f.bundleOf(version, f.roots, signers...)
}

func (f *fleet) bundleOf(version int, roots []sign.Key, signers ...sign.Key) []byte {
	f.t.Helper()
	b := trust.Bundle{Fleet: "example", Version: version, Threshold: 1, Keys: named(keysOf(f.t, 1)),
		Roots: trust.Roots{Threshold: len(roots), Keys: named(roots)}, Issued: f.clock.Now()}
	if len(signers) == 0 {
		signers = roots
	}
	var all []sign.Signer
	for _, k := range signers {
		all = append(all, k)
	}
	envelope, err := trust.Sign(b, all...)
	if err != nil {
		f.t.Fatal(err)
	}
	return envelope
}

// token is the secret half of an enrolment token.
type token struct {
	key  string
	seed []byte
}

func newToken(t testing.TB) token {
	t.Helper()
	seed, key, err := enrolment.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return token{key, seed}
}

func (f *fleet) request(k token, name string, uses int) events.TokenRequest {
	return events.TokenRequest{Token: k.key, Name: name, Uses: uses, Expires: f.clock.Now().Add(24 * time.Hour),
		Conferred: events.Conferred{Tags: []string{"office"}, Site: "oslo", ClientKind: events.Advanced}}
}

// token makes one in the service.
func (f *fleet) token(name string, uses int, change ...func(*events.TokenRequest)) token {
	f.t.Helper()
	k := newToken(f.t)
	r := f.request(k, name, uses)
	for _, c := range change {
		c(&r)
	}
	v, err := ask(f.story, "ada", events.TokenCreate, r)
	if err != nil || v.EnrolmentJWT != bearer || v.By != "ada" {
		f.t.Fatalf("create token: %+v, %v", v, err)
	}
	return k
}

func (f *fleet) used(name string) int {
	f.t.Helper()
	all, err := ask(f.story, "ada", events.TokenList, events.Nothing{})
	if err != nil {
		f.t.Fatal(err)
	}
	i := slices.IndexFunc(all.Tokens, func(v events.TokenView) bool { return v.Name == name })
	if i < 0 {
		f.t.Fatalf("there is no token %s", name)
	}
	return all.Tokens[i].Used
}

// machine is one that wants to be an agent.
type machine struct {
	f        *fleet
	id, key  string
	seed     []byte
	hash     string
	hostname string
	domain   string
	trust    int
}

func (f *fleet) machine(hostname string) *machine {
	f.t.Helper()
	seed, key, err := enrolment.NewKey()
	if err != nil {
		f.t.Fatal(err)
	}
	return &machine{f: f, id: events.AgentID([]byte(key)), key: key, seed: seed, hash: enrolment.MachineHash(key), hostname: hostname}
}

// clone is another machine with a copy of the state.
func (m *machine) clone() *machine {
	c := *m
	c.hash = enrolment.MachineHash("another machine")
	return &c
}

func (m *machine) statement(purpose string) events.EnrolStatement {
	return events.EnrolStatement{Purpose: purpose, Key: m.key, Machine: m.hash, Facts: events.Facts{ID: m.id, Hostname: m.hostname, Domain: m.domain, OS: "linux"}, Nonce: "n-" + m.id, Trust: m.trust}
}

func (m *machine) sign(k token) events.EnrolRequest {
	m.f.t.Helper()
	st := m.statement("enrol")
	st.Token = k.key
	r, err := enrolment.Sign(st, m.seed, k.seed)
	if err != nil {
		m.f.t.Fatal(err)
	}
	return r
}

func (m *machine) enrol(k token) events.EnrolAnswer {
	m.f.t.Helper()
	return m.answer(ask(m.f.story, m.id, events.AgentEnrol, m.sign(k)))
}

func (m *machine) comeBack() events.EnrolAnswer {
	m.f.t.Helper()
	r, err := enrolment.Sign(m.statement("return"), m.seed, nil)
	if err != nil {
		m.f.t.Fatal(err)
	}
	return m.answer(ask(m.f.story, m.id, events.AgentReturn, r))
}

func (m *machine) renew() events.EnrolAnswer {
	m.f.t.Helper()
	return m.answer(ask(m.f.story, m.id, events.AgentRenew, events.RenewRequest{Machine: m.hash, Trust: m.trust}))
}

// answer checks what holds for every answer.
func (m *machine) answer(a events.EnrolAnswer, err error) events.EnrolAnswer {
	m.f.t.Helper()
	if err != nil {
		m.f.t.Fatal(err)
	}
	if (a.Refused == "") != (a.JWT != "") || a.Agent != m.id || a.Refused != "" && (a.Why == "" || len(a.Bundles) > 0) {
		m.f.t.Fatalf("answer %+v", a)
	}
	if a.JWT == "" {
		return a
	}
	c, err := jwt.DecodeUserClaims(a.JWT)
	if err != nil || c.Name != m.id || c.Subject != m.key || c.IssuerAccount != m.f.account {
		m.f.t.Fatalf("identity %+v, %v", c, err)
	}
	return a
}

func (m *machine) want(a events.EnrolAnswer, refused events.EnrolRefusal) {
	m.f.t.Helper()
	if a.Refused != refused {
		m.f.t.Fatalf("%s: refused %q (%s), want %q", m.hostname, a.Refused, a.Why, refused)
	}
}

// view of one agent, as people see it.
func (m *machine) view() events.EnrolmentView {
	m.f.t.Helper()
	v, err := ask(m.f.story, "ada", events.EnrolmentList, events.EnrolmentQuery{Agents: []string{m.id}})
	if err != nil || len(v.Enrolments) != 1 {
		m.f.t.Fatalf("listed %+v, %v", v, err)
	}
	return v.Enrolments[0]
}

func change1(f *fleet, c events.Call[events.AgentsRequest, events.AgentsAnswer], m *machine) events.AgentsAnswer {
	f.t.Helper()
	a, err := ask(f.story, "ada", c, events.AgentsRequest{Agents: []string{m.id}, Why: "a test"})
	if err != nil {
		f.t.Fatal(err)
	}
	return a
}

// told checks how many events of a kind tell of a machine, and that the last names who did it.
func told(m *machine, t events.Type[events.EnrolmentNotice], n int) {
	m.f.t.Helper()
	found := eventstest.ExpectExactly(m.f.t, m.f.admin, t, func(e events.Event[events.EnrolmentNotice]) bool { return e.Data.Agent == m.id }, n)
	if n > 0 && (found[n-1].Subject != m.id || found[n-1].Data.Key != m.key) {
		m.f.t.Errorf("told %+v", found[n-1])
	}
}

// refusals checks how many refusals of an agent are stored, of one reason.
func refusals(m *machine, why events.EnrolRefusal, n int) {
	m.f.t.Helper()
	eventstest.ExpectExactly(m.f.t, m.f.admin, events.EnrolmentRefused, func(e events.Event[events.EnrolmentRefusalNotice]) bool {
		return e.Data.Agent == m.id && e.Data.Refused == why && e.Data.Why != ""
	}, n)
}
