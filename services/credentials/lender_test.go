package credentials

import (
	"fmt"
	"testing"

	"github.com/nats-io/nkeys"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/lease"
	"chandler/events/order"
	"chandler/events/sign"
	"chandler/events/trust"
)

// lender is a fleet whose service has accounts to lend, and execution to speak of jobs.
type lender struct {
	*fleet
	deployer  sign.Key
	execution *bus.Bus
	service   *Service
	members   token // plain legacy clients
	n         int
}

func newLender(t testing.TB) *lender {
	l := &lender{fleet: newFleet(t), deployer: keysOf(t, 1)[0]}
	l.service = l.running()
	if _, err := ask(l.story, "ada", events.TrustSet, events.TrustRequest{Bundle: l.trusting(1, l.deployer)}); err != nil {
		t.Fatal(err)
	}
	l.members = l.token("members", 0, func(r *events.TokenRequest) { r.Conferred.ClientKind = events.Legacy })
	l.execution = l.bus(events.ServiceSource("execution"))
	l.account("corp-installer", events.SoftwareInstallation, secret)
	return l
}

// trusting is the bundle of a version by which a deployer's key signs orders.
func (l *lender) trusting(version int, deployer sign.Key) []byte {
	l.t.Helper()
	b := trust.Bundle{Fleet: "example", Version: version, Threshold: 1, Keys: named([]sign.Key{deployer}), Roots: trust.Roots{Threshold: 2, Keys: named(l.roots)}, Issued: l.clock.Now()}
	envelope, err := trust.Sign(b, l.roots[0], l.roots[1])
	if err != nil {
		l.t.Fatal(err)
	}
	return envelope
}

func (l *lender) account(name string, kind events.AccountKind, secret string) events.AccountNotice {
	l.t.Helper()
	r := events.AccountRequest{Account: name, Kind: kind, User: `EXAMPLE\` + name, Secret: []byte(secret)}
	if kind == events.NetworkAccess {
		r.Resources = []string{"smb://files.example/software/*"}
	}
	set, err := ask(l.story, "ada", events.AccountSetCall, r)
	if err != nil {
		l.t.Fatal(err)
	}
	return set
}

func (l *lender) member() *machine {
	l.t.Helper()
	l.n++
	m := l.machine(fmt.Sprintf("ws-%d", l.n))
	m.want(m.enrol(l.members), "")
	return m
}

func (l *lender) controller() *machine {
	l.t.Helper()
	m := l.member()
	yes := true
	if _, err := ask(l.story, "ada", events.AgentSetKind, events.SetKindRequest{Agents: []string{m.id}, Kind: events.Legacy, DomainController: &yes, Why: "it is one"}); err != nil {
		l.t.Fatal(err)
	}
	return m
}

// wish is a request for a lease in the making: a good one, until a test changes it.
type wish struct {
	l     *lender
	m     *machine
	order order.Order
	by    sign.Key // who signs the order
	st    events.LeaseStatement
	key   *lease.Key
	seed  []byte // whose key signs the request
	// envelope, if it is set, is enclosed instead of the order.
	envelope []byte
	tests    bool // for a test, which has no order
}

// wish of a machine for the account that a new order names, which nobody offered yet.
func (l *lender) wish(m *machine) *wish {
	l.t.Helper()
	l.n++
	key, err := lease.NewKey()
	if err != nil {
		l.t.Fatal(err)
	}
	now := l.clock.Now().UTC()
	w := &wish{l: l, m: m, by: l.deployer, key: key, seed: m.seed, order: order.Order{
		Fleet: "example", Deployment: fmt.Sprintf("hello-%d", l.n), Revision: 1, Package: "hello", Version: "1.0", Manifest: events.DigestOf([]byte("m")), Program: "install",
		Run: events.RunAdministrative, InstallationAccount: "corp-installer", Collection: "all", Expression: "true", Assignments: []order.Assignment{{ASAP: true}},
		Rerun: order.RerunNever, Issued: now, NotAfter: now.Add(order.DefaultValidity)}}
	w.st = events.LeaseStatement{Agent: m.id, Job: events.JobID(w.order.Deployment, 1, m.id, 0, ""), Attempt: 1, Account: "corp-installer", Purpose: events.LeaseToExecute,
		Key: key.Public(), Nonce: fmt.Sprintf("n%d", l.n), At: now}
	return w
}

// reserve sets the installation account again.
func (l *lender) reserve(change ...func(*events.AccountRequest)) {
	l.t.Helper()
	l.set("corp-installer", append([]func(*events.AccountRequest){func(r *events.AccountRequest) { r.Kind, r.Resources = events.SoftwareInstallation, nil }}, change...)...)
}

// forUser makes the wished job the one that the agent opens for a user.
func (w *wish) forUser(name string) *wish {
	w.st.User = name
	w.st.Job = events.JobID(w.order.Deployment, w.order.Revision, w.m.id, w.st.Occurrence, name)
	return w
}

// domainWish is for the domain's copy of the client token account.
func (l *lender) domainWish(m *machine) *wish {
	l.t.Helper()
	w := l.wish(m)
	w.order.InstallationAccount, w.st.Account, w.st.Kind = "", "", events.ClientTokenDomain
	return w
}

func (w *wish) sealed() []byte {
	w.l.t.Helper()
	if w.envelope != nil {
		return w.envelope
	}
	envelope, err := order.Sign(w.order, w.by)
	if err != nil {
		w.l.t.Fatal(err)
	}
	return envelope
}

func (w *wish) digest() string {
	w.l.t.Helper()
	_, digest, err := order.Open(w.sealed())
	if err != nil {
		w.l.t.Fatal(err)
	}
	return digest
}

// request signs what is wished.
func (w *wish) request() events.LeaseRequest {
	w.l.t.Helper()
	enclosed := []byte(nil)
	if !w.tests {
		enclosed = w.sealed()
		if w.st.Order == "" {
			w.st.Order = w.digest()
		}
	}
	r, err := lease.Sign(w.st, enclosed, func(message []byte) ([]byte, error) {
		pair, err := nkeys.FromSeed(w.seed)
		if err != nil {
			return nil, err
		}
		return pair.Sign(message)
	})
	if err != nil {
		w.l.t.Fatal(err)
	}
	return r
}

func (w *wish) ask() (events.LeaseAnswer, error) {
	w.l.t.Helper()
	return bus.Request(w.l.t.Context(), w.l.admin, w.m.id, events.CredentialLease, w.request())
}

// again is another request for the same.
func (w *wish) again() *wish {
	w.l.n++
	w.st.Nonce, w.st.At = fmt.Sprintf("n%d", w.l.n), w.l.clock.Now().UTC()
	return w
}

// granted asks and opens the answer.
func (w *wish) granted() (events.LeaseGrant, string) {
	w.l.t.Helper()
	a, err := w.ask()
	if err != nil || a.Denied || a.Grant == nil {
		w.l.t.Fatalf("answer %+v, %v", a, err)
	}
	got, err := w.key.Open(w.st, *a.Grant, w.l.clock.Now())
	if err != nil {
		w.l.t.Fatal(err)
	}
	return *a.Grant, string(got)
}

// offer is what execution says to the machine.
func (w *wish) offer(attempt int) *wish {
	w.l.t.Helper()
	publish(w.l, events.JobOffered, w.m.id, events.JobOffer{Format: events.OfferFormat, Agent: w.m.id, Job: w.st.Job, Deployment: w.order.Deployment, Revision: w.order.Revision,
		Order: w.digest(), Occurrence: w.st.Occurrence, User: w.st.User, Attempt: attempt})
	return w
}

func (w *wish) status(state events.State) events.JobStatus {
	transition := uint32(3)
	if state == events.Accepted {
		transition = 1
	}
	return events.JobStatus{Job: w.st.Job, Deployment: w.order.Deployment, Revision: w.order.Revision, Order: w.digest(), Agent: w.m.id, User: w.st.User, Attempt: 1, Transition: transition, State: state, At: w.l.clock.Now().UTC()}
}

func publish[T any](l *lender, t events.Type[T], agent string, data T) {
	l.t.Helper()
	l.n++
	if _, err := bus.Publish(l.t.Context(), l.execution, t, events.Event[T]{ID: events.DeriveID("test", fmt.Sprint(l.n)), Subject: agent, Time: l.clock.Now(), Data: data}); err != nil {
		l.t.Fatal(err)
	}
}

func (w *wish) withdraw() {
	publish(w.l, events.JobCancelRequested, w.m.id, events.CancelRequest{Agent: w.m.id, Deployment: w.order.Deployment, Revision: w.order.Revision, By: "ada"})
}

func (w *wish) finish() {
	publish(w.l, events.JobFinished, w.m.id, events.JobEnd{JobStatus: w.status(events.Failed)})
}

// speak ends the job as the agent itself does.
func (w *wish) speak(state events.State) {
	w.l.t.Helper()
	t, _ := events.StatusType(state)
	own := w.l.bus(events.AgentSource(w.m.id))
	status := w.status(state)
	if _, err := bus.Publish(w.l.t.Context(), own, t, events.Event[events.JobStatus]{ID: status.StatusID(), Subject: w.m.id, Time: status.At, Data: status}); err != nil {
		w.l.t.Fatal(err)
	}
}
