package credentials

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/eventstest"
	"chandler/events/order"
	"chandler/events/sign"
)

func TestAnInstallationAccountIsLentForAJobThatNamesItAndTheLeaseIsRenewed(t *testing.T) {
	l := newLender(t)
	m := l.member()
	w := l.wish(m).offer(1)
	first, got := w.granted()
	if got != secret || first.Account != "corp-installer" || first.User != `EXAMPLE\corp-installer` || first.Version != 1 || first.Kind != events.SoftwareInstallation {
		t.Errorf("granted %+v", first)
	}
	if life := first.Expires.Sub(l.clock.Now()); life > leaseLife || life < leaseLife-time.Second {
		t.Errorf("lent for %s", life)
	}
	l.clock.pass(3 * time.Minute)
	second, got := w.again().granted()
	if got != secret || second.Lease != first.Lease || second.Expires.Sub(first.Expires).Round(time.Second) != 3*time.Minute {
		t.Errorf("renewed: %+v", second)
	}
	if n := leases(l); n != 1 {
		t.Errorf("%d leases are kept", n)
	}
	told := eventstest.ExpectExactly(t, l.admin, events.CredentialLeased, nil, 2)
	if n := told[1].Data; n.Lease != first.Lease || n.Agent != m.id || n.Job != w.st.Job || n.Account != "corp-installer" || n.Version != 1 || n.Expires == nil {
		t.Errorf("told %+v", n)
	}
	l.clock.pass(leaseLife + time.Second)
	if err := l.service.reviewLeases(t.Context()); err != nil || leases(l) != 0 {
		t.Errorf("%d leases are kept after their time, %v", leases(l), err)
	}
	// The same lease can be granted after it was forgotten, and an attempt that was offered anew as well.
	w.finish()
	w.st.Attempt = 2
	if third, _ := w.again().offer(2).granted(); third.Lease != first.Lease {
		t.Errorf("granted %+v", third)
	}
	l.leaks()
}

func leases(l *lender) (n int) {
	l.t.Helper()
	if err := l.service.leases.each(l.t.Context(), func(jetstream.KeyValueEntry) error { n++; return nil }); err != nil {
		l.t.Fatal(err)
	}
	return n
}

func TestLeasesThatAreDenied(t *testing.T) {
	l := newLender(t)
	l.account("corp-reader", events.NetworkAccess, secret)
	l.account("domain-token", events.ClientTokenDomain, secret)
	other := l.member()
	plain := l.token("plain", 0, func(r *events.TokenRequest) { r.Conferred.ClientKind = "" })
	for name, c := range map[string]struct {
		// prepare makes the good wish a bad one; it is offered before, where it does not say otherwise.
		prepare func(*wish)
		reason  events.Reason // "": credential_denied
		says    string
	}{
		"another agent's job": {func(w *wish) {
			w.st.Job = events.JobID(w.order.Deployment, 1, other.id, 0, "")
		}, "", "is not one of deployment"},
		"another agent's name": {func(w *wish) { w.st.Agent = other.id }, "", "speaks of agent"},
		"another agent's key":  {func(w *wish) { w.seed = other.seed }, "", "not signed by the agent's enrolled key"},
		"an occurrence that the order does not know": {func(w *wish) {
			w.st.Occurrence = 7
			w.st.Job = events.JobID(w.order.Deployment, 1, w.m.id, 7, "")
		}, "", "is not one of deployment"},
		"a made-up user's job, after the deployment's has ended": {func(w *wish) {
			w.speak(events.Failed)
			w.forUser("mallory")
		}, "", "did not open job"},
		"a made-up user's job that the agent tells of after the end": {func(w *wish) {
			w.finish()
			w.forUser("mallory").speak(events.Accepted)
		}, "", "did not open job"},
		"a user's job of which the agent told, and that has ended": {func(w *wish) {
			opener := *w
			w.forUser("alice").speak(events.Accepted)
			opener.speak(events.Succeeded)
			w.speak(events.Succeeded)
		}, "", "has ended"},
		"a job that its agent has ended":       {func(w *wish) { w.speak(events.Succeeded) }, "", "has ended"},
		"a job that its agent has refused":     {func(w *wish) { w.speak(events.Rejected) }, "", "has ended"},
		"a job that execution counts as ended": {func(w *wish) { w.finish() }, "", "has ended"},
		"a deployment that was stopped":        {func(w *wish) { w.withdraw() }, "", "was stopped"},
		"an attempt that was not offered":      {func(w *wish) { w.st.Attempt = 2 }, "", "was not offered"},
		"a deployment that was offered to others": {func(w *wish) {
			w.order.Deployment += "x"
			w.st.Job = events.JobID(w.order.Deployment, 1, w.m.id, 0, "")
		}, "", "was not offered to agent"},
		"another order of the deployment":         {func(w *wish) { w.order.Program = "remove" }, "", "was not offered to agent"},
		"an order that names no account":          {func(w *wish) { w.order.InstallationAccount = "" }, "", "does not name account"},
		"an order that names another account":     {func(w *wish) { w.order.InstallationAccount = "corp-other" }, "", "does not name account"},
		"an order whose program is the user's":    {func(w *wish) { w.order.Run = events.RunUser }, "", "logged-on user"},
		"an account that is not there":            {func(w *wish) { w.order.InstallationAccount, w.st.Account = "absent", "absent" }, "", "there is no account absent"},
		"a network access account as installer":   {func(w *wish) { w.order.InstallationAccount, w.st.Account = "corp-reader", "corp-reader" }, events.AccountRefused, "must not run programs"},
		"the domain's token account as installer": {func(w *wish) { w.order.InstallationAccount, w.st.Account = "domain-token", "domain-token" }, events.AccountRefused, "must not run programs"},
		"any network access account":              {func(w *wish) { w.st.Account, w.st.Kind = "", events.NetworkAccess }, events.AccountRefused, "must not run programs"},
		"the domain's account by a plain member":  {func(w *wish) { w.st.Account, w.st.Kind = "", events.ClientTokenDomain }, "", "only domain controllers"},
		"an order that nobody signed":             {func(w *wish) { w.envelope = unsigned(t, w.order) }, "", "valid signatures"},
		"an order that a stranger signed":         {func(w *wish) { w.by = keysOf(t, 1)[0] }, "", "none of them trusted"},
		"an order that was changed after it was signed": {func(w *wish) {
			w.st.Order = w.digest()
			w.envelope = forged(t, w.sealed())
		}, "", "does not fit the order"},
		"an order of another fleet": {func(w *wish) { w.order.Fleet = "elsewhere" }, "", "fleet"},
		"an order that has expired": {func(w *wish) {
			w.order.Issued, w.order.NotAfter = w.order.Issued.Add(-time.Hour), w.order.Issued.Add(-30*time.Minute)
		}, "", "valid until"},
		"another order than the statement's": {func(w *wish) {
			w.st.Order = events.DigestOf([]byte("x"))
		}, "", "speaks of order"},
		"a request of an hour ago":        {func(w *wish) { w.st.At = w.st.At.Add(-time.Hour) }, "", "sent again, or the clock"},
		"a request of the future":         {func(w *wish) { w.st.At = w.st.At.Add(6 * time.Minute) }, "", "sent again, or the clock"},
		"an answer to a key that is none": {func(w *wish) { w.st.Key = []byte("short") }, "", "key of the request"},
		"a revoked agent":                 {func(w *wish) { change1(l.fleet, events.AgentRevoke, w.m) }, "", "revoked"},
		"an archived agent":               {func(w *wish) { change1(l.fleet, events.AgentArchive, w.m) }, "", "archived"},
		"an advanced client": {func(w *wish) {
			if _, err := ask(l.story, "ada", events.AgentSetKind, events.SetKindRequest{Agents: []string{w.m.id}, Kind: events.Advanced}); err != nil {
				t.Fatal(err)
			}
		}, "", "advanced client"},
		"a client that nobody said to be legacy": {func(w *wish) {
			w.m = l.machine("self-styled")
			w.m.want(w.m.enrol(plain), "")
			w.seed, w.st.Agent, w.st.Job = w.m.seed, w.m.id, events.JobID(w.order.Deployment, 1, w.m.id, 0, "")
			w.offer(1)
		}, "", "nobody said that"},
	} {
		t.Run(name, func(t *testing.T) {
			w := l.wish(l.member()).offer(1)
			if _, got := w.granted(); got != secret {
				t.Fatal("the wish is a bad one from the beginning")
			}
			w.st.Order = ""
			before := leases(l)
			c.prepare(w.again())
			a, err := w.ask()
			if err != nil || !a.Denied || a.Grant != nil {
				t.Fatalf("answer %+v, %v", a, err)
			}
			want := c.reason
			if want == "" {
				want = events.CredentialDenied
			}
			if a.Reason != want || !strings.Contains(a.Why, c.says) {
				t.Errorf("denied as %s: %s; want %s: %s", a.Reason, a.Why, want, c.says)
			}
			eventstest.ExpectExactly(t, l.admin, events.LeaseDenied, func(e events.Event[events.LeaseNotice]) bool {
				return e.Data.Agent == w.m.id && e.Data.Reason == want && e.Data.Why == a.Why && e.Data.Lease == ""
			}, 1)
			if leases(l) != before {
				t.Error("the denied lease is kept")
			}
		})
	}
	l.leaks()
}

// unsigned is an order that nobody signed.
func unsigned(t *testing.T, o order.Order) []byte {
	t.Helper()
	envelope, err := order.Sign(o)
	if err != nil {
		t.Fatal(err)
	}
	return envelope
}

// forged replaces the payload under the signatures.
func forged(t *testing.T, envelope []byte) []byte {
	t.Helper()
	var e map[string]any
	if err := json.Unmarshal(envelope, &e); err != nil {
		t.Fatal(err)
	}
	payload, _, err := sign.Open(envelope, order.PayloadType, order.MaxSize)
	if err != nil {
		t.Fatal(err)
	}
	e["payload"] = bytes.Replace(payload, []byte(`"install"`), []byte(`"remove"`), 1)
	out, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestARequestThatIsSentAgainIsRefusedByEveryReplica(t *testing.T) {
	l := newLender(t)
	another := l.replica()
	w := l.wish(l.member()).offer(1)
	r := w.request()
	first, err := l.service.lease(t.Context(), w.m.id, r)
	if err != nil || first.Grant == nil {
		t.Fatalf("answer %+v, %v", first, err)
	}
	for name, replica := range map[string]*Service{"the same": l.service, "another": another} {
		a, err := replica.lease(t.Context(), w.m.id, r)
		if err != nil || !a.Denied || !strings.Contains(a.Why, "sent again") {
			t.Errorf("%s replica: %+v, %v", name, a, err)
		}
	}
	eventstest.ExpectExactly(t, l.admin, events.CredentialLeased, nil, 1)
	// In another's name it is of no use either.
	thief := l.member()
	if a, err := l.service.lease(t.Context(), thief.id, r); err != nil || !a.Denied {
		t.Errorf("another agent: %+v, %v", a, err)
	}
	if _, err := l.service.lease(t.Context(), w.m.id, events.LeaseRequest{Statement: []byte("{}")}); !errors.Is(err, bus.ErrBadRequest) {
		t.Errorf("nothing: %v", err)
	}
}

func TestAnAgentThatAsksTooOftenIsNotHeardForAWhile(t *testing.T) {
	l := newLender(t)
	w := l.wish(l.member())
	w.st.Account = "absent" // denied at once
	for range leasesAtOnce {
		if a, err := w.again().ask(); err != nil || !a.Denied {
			t.Fatalf("answer %+v, %v", a, err)
		}
	}
	if _, err := w.again().ask(); !errors.Is(err, bus.ErrUnavailable) {
		t.Errorf("one more: %v", err)
	}
	l.clock.pass(leaseEvery)
	if a, err := w.again().ask(); err != nil || !a.Denied {
		t.Errorf("after a while: %+v, %v", a, err)
	}
}

func TestOnlyDomainControllersGetTheDomainsOneTokenAccount(t *testing.T) {
	l := newLender(t)
	dc := l.controller()
	denied := func(w *wish, says string) {
		t.Helper()
		a, err := w.ask()
		if err != nil || !a.Denied || !strings.Contains(a.Why, says) {
			t.Errorf("answer %+v, %v; want %s", a, err, says)
		}
	}
	denied(l.domainWish(dc).offer(1), "there is no account of kind client-token-domain")
	l.account("domain-token", events.ClientTokenDomain, secret)
	if g, got := l.domainWish(dc).offer(1).granted(); g.Account != "domain-token" || got != secret {
		t.Errorf("granted %+v", g)
	}
	for range 2 {
		denied(l.domainWish(l.member()).offer(1), "only domain controllers")
	}
	second := events.AccountRequest{Account: "second-token", Kind: events.ClientTokenDomain, User: "x", Secret: []byte(secret)}
	if _, err := ask(l.story, "ada", events.AccountSetCall, second); !errors.Is(err, bus.ErrConflict) || !strings.Contains(err.Error(), "domain-token") {
		t.Errorf("a second one: %v", err)
	}
	// Two that were set at the same moment are both kept, and neither is lent.
	sealed, err := l.service.sealer.Seal(t.Context(), "second-token", 1, []byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	r := accountRecord{outbox: outbox{Told: true}, Sealed: sealed, AccountNotice: events.AccountNotice{Account: "second-token", Kind: events.ClientTokenDomain, User: "x", Version: 1}}
	if err := l.service.accounts.save(t.Context(), "second-token", r, 0); err != nil {
		t.Fatal(err)
	}
	denied(l.domainWish(dc).offer(1), "domain-token, second-token")
	if _, err := ask(l.story, "ada", events.AccountRemove, events.Named{Name: "second-token"}); err != nil {
		t.Fatal(err)
	}
	l.domainWish(dc).offer(1).granted()
}

func TestTwoControllersGetTheSecretOfTheVersionTheyAreToldWhileItRotates(t *testing.T) {
	l := newLender(t)
	const rotations = 8
	secretOf := func(version int) string { return fmt.Sprintf("%s-%d", secret, version) }
	l.account("domain-token", events.ClientTokenDomain, secretOf(1))
	wishes := []*wish{l.domainWish(l.controller()).offer(1), l.domainWish(l.controller()).offer(1)}
	var requests [2][]events.LeaseRequest
	var statements [2][]events.LeaseStatement
	for i, w := range wishes {
		for range 2 * rotations {
			requests[i], statements[i] = append(requests[i], w.again().request()), append(statements[i], w.st)
		}
	}
	var asking sync.WaitGroup
	for i, w := range wishes {
		asking.Go(func() {
			newest := 0
			for n, r := range requests[i] {
				a, err := bus.Request(t.Context(), l.admin, w.m.id, events.CredentialLease, r)
				if err != nil || a.Grant == nil {
					t.Errorf("answer %+v, %v", a, err)
					return
				}
				got, err := w.key.Open(statements[i][n], *a.Grant, l.clock.Now())
				if err != nil || string(got) != secretOf(a.Grant.Version) || a.Grant.Version < newest {
					t.Errorf("version %d after %d opens to %q, %v", a.Grant.Version, newest, got, err)
				}
				newest = a.Grant.Version
			}
		})
	}
	for version := 2; version <= rotations; version++ {
		if set := l.account("domain-token", events.ClientTokenDomain, secretOf(version)); set.Version != version {
			t.Errorf("set version %d, want %d", set.Version, version)
		}
	}
	asking.Wait()
	if g, got := wishes[0].again().granted(); g.Version != rotations || got != secretOf(rotations) {
		t.Errorf("afterwards version %d", g.Version)
	}
	l.leaks()
}

func TestAKeyThatWasTakenFromTheBundleSignsNoOrderThatLendsAnAccount(t *testing.T) {
	l := newLender(t)
	w := l.wish(l.member()).offer(1)
	w.granted()
	if _, err := ask(l.story, "ada", events.TrustSet, events.TrustRequest{Bundle: l.trusting(2, keysOf(t, 1)[0])}); err != nil {
		t.Fatal(err)
	}
	if a, err := w.again().ask(); err != nil || !a.Denied || !strings.Contains(a.Why, "none of them trusted") {
		t.Errorf("answer %+v, %v", a, err)
	}
}

func TestAFleetWithoutIdentitiesLendsNothing(t *testing.T) {
	l := newLender(t)
	plain := newStory(t)
	r := plain.running()
	w := l.wish(l.member())
	a, err := r.lease(t.Context(), w.m.id, w.request())
	if err != nil || !a.Denied || !strings.Contains(a.Why, "no identities") {
		t.Errorf("answer %+v, %v", a, err)
	}
	if a, err := l.service.lease(t.Context(), agent, w.request()); err != nil || !a.Denied || !strings.Contains(a.Why, "ever enrolled") {
		t.Errorf("a stranger: %+v, %v", a, err)
	}
}

func TestAnInstallationAccountRunsOnlyWhatItsCollectionsAndDomainAllow(t *testing.T) {
	l := newLender(t)
	l.reserve(forCollections("servers"), inDomain("example"))
	m := l.machine("ws-example")
	m.domain = "EXAMPLE"
	m.want(m.enrol(l.members), "")
	l.wish(m).offer(1).denied(events.CredentialDenied, "for deployments to servers only")
	w := l.wish(m)
	w.order.Collection = "servers"
	if _, got := w.offer(1).granted(); got != secret {
		t.Errorf("got %q", got)
	}
	stranger := l.wish(l.member())
	stranger.order.Collection = "servers"
	stranger.offer(1).denied(events.CredentialDenied, "for machines of domain example only")
}

func TestAJobForOneUserIsLentAnAccountByTheOfferOfItsDeployment(t *testing.T) {
	l := newLender(t)
	w := l.wish(l.member()).offer(1)
	opener := *w
	w.forUser("alice")
	if _, got := w.granted(); got != secret {
		t.Errorf("got %q", got)
	}
	// The deployment's own job ends with its time, while alice's program still runs.
	w.speak(events.Accepted)
	opener.speak(events.Succeeded)
	opener.finish()
	if _, got := w.again().granted(); got != secret {
		t.Errorf("got %q", got)
	}
	// A user whose job was not opened before has none, until an administrator has it tried again.
	late := *w
	late.again().forUser("bob")
	late.denied(events.CredentialDenied, "did not open job")
	late.again().offer(1)
	if _, got := late.granted(); got != secret {
		t.Errorf("got %q", got)
	}
}
