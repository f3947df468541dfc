package credentials

import (
	"testing"

	"github.com/nats-io/nats.go"

	"chandler/events"
	"chandler/events/access"
	"chandler/events/bus"
	"chandler/events/eventstest"
)

// TestTheServiceWorksWithTheRightsOfItsRole goes the whole way over a broker with real permissions: the
// service as service-credentials, people and machines as what they are.
func TestTheServiceWorksWithTheRightsOfItsRole(t *testing.T) {
	broker := eventstest.Secure(t)
	f := newFleet(t)
	f.story = &story{t: t, broker: broker.Server, log: &lines{}, dir: t.TempDir(), admin: broker.Bus(t, access.Administrator, "ada")}
	f.account, f.signer = broker.Account(access.Agents), broker.Keys.Roles[access.Agent]
	o := Options{Bus: broker.Bus(t, access.Service(serviceName), serviceName), Dir: f.dir, Log: f.log.logger(), AgentSigner: f.signer, AgentsAccount: f.account,
		EnrolmentJWT: broker.User(t, access.Enrolling, "enrolling").JWT, Now: f.clock.Now}
	r := f.replicaOf(o)
	f.run(r)
	f.eventually("healthy", func() bool { return r.Healthy(t.Context()) == nil })
	deployer := keysOf(t, 1)[0]
	l := &lender{fleet: f, deployer: deployer, service: r}
	if _, err := f.set(l.trusting(1, deployer)); err != nil {
		t.Fatal(err)
	}
	if _, err := ask(f.story, "ada", events.AccountSetCall, reader()); err != nil {
		t.Fatal(err)
	}
	k := newToken(t)
	if _, err := ask(f.story, "ada", events.TokenCreate, f.request(k, "office", 1)); err != nil {
		t.Fatal(err)
	}
	m := f.machine("ws-1")
	enrolling := broker.Bus(t, access.Enrolling, "enrolling")
	a, err := bus.Request(t.Context(), enrolling, m.id, events.AgentEnrol, m.sign(k))
	m.want(m.answer(a, err), "")

	// The identity is good for the broker.
	proof := eventstest.User{Role: access.Agent, Name: m.id, Key: m.key, JWT: a.JWT, Seed: m.seed}
	conn, err := nats.Connect(broker.URL(), proof.Options()...)
	if err != nil {
		t.Fatalf("connect as the agent: %v", err)
	}
	t.Cleanup(conn.Close)
	own, err := bus.New(bus.Options{Conn: conn, Source: events.AgentSource(m.id), CheckPublished: true})
	if err != nil {
		t.Fatal(err)
	}
	a, err = bus.Request(t.Context(), own, m.id, events.AgentRenew, events.RenewRequest{Machine: m.hash})
	m.want(m.answer(a, err), "")
	if got, err := bus.Request(t.Context(), own, m.id, events.AgentTrust, events.TrustQuery{}); err != nil || len(got.Bundles) != 1 {
		t.Errorf("trust: %+v, %v", got, err)
	}
	l.execution = broker.Bus(t, access.Service("execution"), "execution")
	lendsWithItsRights(l, m, own)
	viewer := broker.Bus(t, access.Viewer, "eve")
	if got, err := bus.Request(t.Context(), viewer, "eve", events.EnrolmentList, events.EnrolmentQuery{}); err != nil || len(got.Enrolments) != 1 {
		t.Errorf("a viewer lists %+v, %v", got, err)
	}
	user := events.UserNotice{User: "eve", Role: string(access.Viewer), Key: broker.User(t, access.Viewer, "eve").Key}
	if _, err := ask(f.story, "ada", events.UserAdd, user); err != nil {
		t.Error(err)
	}
	if _, err := ask(f.story, "ada", events.AccountList, events.Nothing{}); err != nil {
		t.Error(err)
	}
	change1(f, events.AgentRevoke, m)
	a, err = bus.Request(t.Context(), enrolling, m.id, events.AgentEnrol, m.sign(k))
	m.want(m.answer(a, err), events.RefusedRevoked)
	f.admin = broker.Owner(t)
	for _, e := range []events.Type[events.EnrolmentNotice]{events.AgentEnrolled, events.AgentRevoked} {
		told(m, e, 1)
	}
	refusals(m, events.RefusedRevoked, 1)
	if err := r.reconcileEnrolments(t.Context()); err != nil {
		t.Errorf("settling: %v", err)
	}
	if err := r.Healthy(t.Context()); err != nil {
		t.Error(err)
	}
}

// lendsWithItsRights looks jobs up, lends an account for one, and forgets the lease.
func lendsWithItsRights(l *lender, m *machine, own *bus.Bus) {
	l.t.Helper()
	yes := true
	if _, err := ask(l.story, "ada", events.AgentSetKind, events.SetKindRequest{Agents: []string{m.id}, Kind: events.Legacy, DomainController: &yes}); err != nil {
		l.t.Fatal(err)
	}
	l.account("domain-token", events.ClientTokenDomain, secret)
	w := l.domainWish(m).offer(1)
	asks := func() events.LeaseAnswer {
		l.t.Helper()
		a, err := bus.Request(l.t.Context(), own, m.id, events.CredentialLease, w.again().request())
		if err != nil {
			l.t.Fatal(err)
		}
		return a
	}
	a := asks()
	if a.Grant == nil {
		l.t.Fatalf("answer %+v", a)
	}
	if got, err := w.key.Open(w.st, *a.Grant, l.clock.Now()); err != nil || string(got) != secret {
		l.t.Errorf("opened %q, %v", got, err)
	}
	w.finish()
	if a := asks(); !a.Denied || a.Reason != events.CredentialDenied {
		l.t.Errorf("of a job that has ended: %+v", a)
	}
	l.clock.pass(2 * leaseLife)
	if err := l.service.reviewLeases(l.t.Context()); err != nil || leases(l) != 0 {
		l.t.Errorf("%d leases are kept, %v", leases(l), err)
	}
}
