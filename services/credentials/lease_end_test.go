package credentials

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/eventstest"
)

// heard collects what agents are told on core NATS.
type heard[T any] struct {
	mu  sync.Mutex
	all []T
}

func listen[T any](l *lender, typ events.Type[T]) *heard[T] {
	l.t.Helper()
	h := &heard[T]{}
	b := l.bus("")
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- bus.Listen(ctx, b, typ, "", func(e events.Event[T]) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.all = append(h.all, e.Data)
		})
	}()
	l.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			l.t.Error(err)
		}
	})
	l.eventually("somebody listens", func() bool { return b.Conn().NumSubscriptions() > 0 })
	if err := b.Conn().Flush(); err != nil {
		l.t.Fatal(err)
	}
	return h
}

func (h *heard[T]) got() []T {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.all)
}

// revoked checks that one event and one note tell of the end of a lease.
func (l *lender) revoked(h *heard[events.LeaseWithdrawal], g events.LeaseGrant, by, says string) {
	l.t.Helper()
	l.eventually("the agent is told", func() bool {
		return slices.ContainsFunc(h.got(), func(w events.LeaseWithdrawal) bool {
			return w.Lease == g.Lease && w.Agent == g.Agent && strings.Contains(w.Why, says)
		})
	})
	told := eventstest.ExpectExactly(l.t, l.admin, events.CredentialRevoked, func(e events.Event[events.LeaseNotice]) bool { return e.Data.Lease == g.Lease }, 1)
	if n := told[0].Data; n.By != by || !strings.Contains(n.Why, says) || n.Agent != g.Agent || n.Account != g.Account || n.Job != g.Job {
		l.t.Errorf("told %+v, want by %q: %s", n, by, says)
	}
	if n := len(l.leases(events.LeaseQuery{Lease: g.Lease})); n != 0 {
		l.t.Error("the lease is listed")
	}
}

func (l *lender) leases(q events.LeaseQuery) []events.LeaseNotice {
	l.t.Helper()
	v, err := ask(l.story, "vera", events.LeaseList, q)
	if err != nil {
		l.t.Fatal(err)
	}
	return v.Leases
}

func TestWhatIsLentIsListed(t *testing.T) {
	l := newLender(t)
	l.set("corp-reader")
	m := l.advanced("")
	read, _ := l.readWish(m).offer(1).granted()
	run, _ := l.wish(l.member()).offer(1).granted()
	for name, c := range map[string]struct {
		q    events.LeaseQuery
		want int
	}{
		"all":        {events.LeaseQuery{}, 2},
		"a lease":    {events.LeaseQuery{Lease: run.Lease}, 1},
		"an agent":   {events.LeaseQuery{Agent: m.id}, 1},
		"a job":      {events.LeaseQuery{Job: read.Job}, 1},
		"an account": {events.LeaseQuery{Account: "corp-installer"}, 1},
		"neither":    {events.LeaseQuery{Agent: m.id, Account: "corp-installer"}, 0},
	} {
		if got := l.leases(c.q); len(got) != c.want {
			t.Errorf("%s: %d leases, want %d", name, len(got), c.want)
		}
	}
	if got := l.leases(events.LeaseQuery{Agent: m.id})[0]; got.Lease != read.Lease || got.Resource != hello || got.Account != "corp-reader" || got.Expires == nil || got.Job != read.Job {
		t.Errorf("listed %+v", got)
	}
	for _, q := range []events.LeaseQuery{{Agent: "*"}, {Lease: "a.b"}, {Job: ">"}, {Account: "a b"}} {
		if _, err := ask(l.story, "vera", events.LeaseList, q); !errors.Is(err, bus.ErrBadRequest) {
			t.Errorf("%+v: %v", q, err)
		}
	}
	l.clock.pass(leaseLife)
	if n := len(l.leases(events.LeaseQuery{})); n != 0 {
		t.Errorf("%d leases are listed after their time", n)
	}
}

func TestALeaseThatAPersonRevokedIsNotGivenAgainBeforeItWouldHaveExpired(t *testing.T) {
	l := newLender(t)
	l.set("corp-reader")
	h := listen(l, events.LeaseWithdrawn)
	w, untouched := l.readWish(l.advanced("")).offer(1), l.readWish(l.advanced("")).offer(1)
	g, _ := w.granted()
	other, _ := untouched.granted()
	if _, err := ask(l.story, "ada", events.LeaseRevoke, events.LeaseQuery{}); !errors.Is(err, bus.ErrBadRequest) {
		t.Errorf("nothing chosen: %v", err)
	}
	v, err := ask(l.story, "ada", events.LeaseRevoke, events.LeaseQuery{Agent: w.m.id})
	if err != nil || len(v.Leases) != 1 || v.Leases[0].Lease != g.Lease {
		t.Fatalf("revoked %+v, %v", v, err)
	}
	l.revoked(h, g, "ada", "administrator revoked")
	if v, err := ask(l.story, "ada", events.LeaseRevoke, events.LeaseQuery{Agent: w.m.id}); err != nil || len(v.Leases) != 0 {
		t.Errorf("once more: %+v, %v", v, err)
	}
	w.again().denied(events.CredentialDenied, "ada revoked this lease", g.Expires.UTC().Format(time.RFC3339))
	if err := l.service.reviewLeases(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.again().denied(events.CredentialDenied, "ada revoked this lease")
	if again, _ := untouched.again().granted(); again.Lease != other.Lease {
		t.Errorf("granted %+v", again)
	}
	l.clock.pass(leaseLife + time.Second)
	if again, _ := w.again().granted(); again.Lease != g.Lease {
		t.Errorf("granted %+v", again)
	}
}

func TestALeaseEndsWithTheAttemptThatItIsFor(t *testing.T) {
	l := newLender(t)
	l.set("corp-reader")
	h := listen(l, events.LeaseWithdrawn)
	w, lives := l.readWish(l.advanced("")).offer(1), l.readWish(l.advanced("")).offer(1)
	g, _ := w.granted()
	still, _ := lives.granted()
	w.finish()
	l.revoked(h, g, "", "attempt 1 of the job has ended: failed")
	w.again().denied(events.CredentialDenied, "has ended")
	// The next attempt has the same lease anew, and word of the former one's end does not take it.
	w.again().offer(2).st.Attempt = 2
	second, _ := w.granted()
	if second.Lease != g.Lease {
		t.Errorf("granted %+v", second)
	}
	w.finish()
	publish(l, events.JobFinished, lives.m.id, events.JobEnd{JobStatus: lives.status(events.Succeeded)})
	l.revoked(h, still, "", "succeeded")
	if got := l.leases(events.LeaseQuery{Lease: second.Lease}); len(got) != 1 || got[0].Attempt != 2 {
		t.Errorf("listed %+v", got)
	}
}

func TestALeaseEndsWithItsAgentOrAccount(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(*lender, *machine) error
		says string
	}{
		"the agent is revoked":  {func(l *lender, m *machine) error { change1(l.fleet, events.AgentRevoke, m); return nil }, "revoked"},
		"the agent is archived": {func(l *lender, m *machine) error { change1(l.fleet, events.AgentArchive, m); return nil }, "archived"},
		"the account is removed": {func(l *lender, _ *machine) error {
			_, err := ask(l.story, "ada", events.AccountRemove, events.Named{Name: "corp-reader"})
			return err
		}, "was removed"},
		"the account is set again": {func(l *lender, _ *machine) error { l.set("corp-reader"); return nil }, "another secret"},
		"the account is rotated": {func(l *lender, _ *machine) error {
			_, err := ask(l.story, "ada", events.AccountRotate, events.AccountRotation{Account: "corp-reader", Secret: []byte("next")})
			return err
		}, "another secret"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLender(t)
			l.set("corp-reader")
			l.set("bystander", reaching("smb://files.example/other"))
			h := listen(l, events.LeaseWithdrawn)
			g, _ := l.readWish(l.advanced("")).offer(1).granted()
			other := l.readWish(l.advanced(""))
			other.order.Resources, other.st.Resource = []string{"smb://files.example/other/x"}, "smb://files.example/other/x"
			kept, _ := other.offer(1).granted()
			if err := c.end(l, &machine{f: l.fleet, id: g.Agent}); err != nil {
				t.Fatal(err)
			}
			l.revoked(h, g, "", c.says)
			if n := len(l.leases(events.LeaseQuery{Lease: kept.Lease})); n != 1 {
				t.Error("another's lease ended with it")
			}
		})
	}
}

func TestALeaseThatRunsOutIsToldOfOnce(t *testing.T) {
	l := newLender(t)
	l.set("corp-reader")
	g, _ := l.readWish(l.advanced("")).offer(1).granted()
	for range 3 {
		if err := l.service.reviewLeases(t.Context()); err != nil {
			t.Fatal(err)
		}
		l.clock.pass(leaseLife)
	}
	told := eventstest.ExpectExactly(t, l.admin, events.CredentialExpired, nil, 1)
	if n := told[0].Data; n.Lease != g.Lease || n.Account != "corp-reader" || !told[0].Time.Equal(g.Expires) {
		t.Errorf("told %+v at %s", n, told[0].Time)
	}
	eventstest.ExpectExactly(t, l.admin, events.CredentialRevoked, nil, 0)
	if n := leases(l); n != 0 {
		t.Errorf("%d leases are kept", n)
	}
}

func TestAnEndThatCouldNotBeToldIsToldAtTheNextLook(t *testing.T) {
	l := newLender(t)
	l.set("corp-reader")
	g, _ := l.readWish(l.advanced("")).offer(1).granted()
	// As a crash leaves it: marked, and not told.
	if _, err := change(t.Context(), l.service.leases, g.Lease, func(r leaseRecord, _ bool) (leaseRecord, error) {
		r.Withdrawn = &withdrawal{By: "ada", Why: "an administrator revoked it", At: l.clock.Now().UTC()}
		r.owe()
		return r, nil
	}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := l.service.reviewLeases(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	eventstest.ExpectExactly(t, l.admin, events.CredentialRevoked, nil, 1)
}

func TestARotationKeepsTheFormerSecretForThoseWhoHaveIt(t *testing.T) {
	l := newLender(t)
	l.set("corp-reader", forCollections("all"), inDomain("example"))
	old, fresh := l.readWish(l.advanced("example")).offer(1), l.readWish(l.advanced("example")).offer(1)
	first, _ := old.granted()
	const next = "n3xt-" + secret
	const keep = time.Hour
	set, err := ask(l.story, "ada", events.AccountRotate, events.AccountRotation{Account: "corp-reader", Secret: []byte(next), KeepOld: events.Duration(keep)})
	if err != nil || set.Version != 2 || set.KeepUntil == nil || set.User != `EXAMPLE\corp-reader` || set.Domain != "example" || len(set.Collections) != 1 || len(set.Resources) != 1 {
		t.Fatalf("rotated to %+v, %v", set, err)
	}
	if g, got := old.again().granted(); g.Version != 1 || got != secret || g.Lease != first.Lease {
		t.Errorf("whoever has the former version is lent %+v", g)
	}
	if g, got := fresh.granted(); g.Version != 2 || got != next {
		t.Errorf("whoever asks anew is lent %+v", g)
	}
	if err := l.service.reviewLeases(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventstest.ExpectExactly(t, l.admin, events.CredentialRevoked, nil, 0)
	for range 9 { // it lives on by the former version, up to the end of that
		l.clock.pass(6 * time.Minute)
		g, got := old.again().granted()
		if g.Version != 1 || got != secret || g.Expires.After(*set.KeepUntil) {
			t.Fatalf("renewed %+v, which the former version outlives", g)
		}
	}
	l.clock.pass(set.KeepUntil.Sub(l.clock.Now()))
	if g, got := old.again().granted(); g.Version != 2 || got != next || g.Lease != first.Lease {
		t.Errorf("afterwards it is lent %+v", g)
	}
	if failed, unusable := l.service.reconcileAccounts(t.Context()); failed != nil || unusable != nil {
		t.Fatal(failed, unusable)
	}
	r := storedAccount(t, l.service)
	if r.Former != nil || r.KeepUntil != nil || r.Version != 2 || len(r.Collections) != 1 {
		t.Errorf("kept %+v", r.AccountNotice)
	}
	eventstest.ExpectExactly(t, l.admin, events.AccountSet, func(e events.Event[events.AccountNotice]) bool { return e.Data.Account == "corp-reader" }, 2)
	l.leaks()
}

func TestASecondRotationEndsWhatTheFirstKept(t *testing.T) {
	l := newLender(t)
	l.set("corp-reader")
	h := listen(l, events.LeaseWithdrawn)
	w := l.readWish(l.advanced("")).offer(1)
	g, _ := w.granted()
	for _, next := range []string{"second", "third"} {
		if _, err := ask(l.story, "ada", events.AccountRotate, events.AccountRotation{Account: "corp-reader", Secret: []byte(next), KeepOld: events.Duration(time.Hour)}); err != nil {
			t.Fatal(err)
		}
	}
	l.revoked(h, g, "", "another secret")
	if g, got := w.again().granted(); g.Version != 3 || got != "third" {
		t.Errorf("granted %+v", g)
	}
	for name, c := range map[string]struct {
		r    events.AccountRotation
		want error
	}{
		"an account that is not there": {events.AccountRotation{Account: "absent", Secret: []byte("x")}, bus.ErrNotFound},
		"no secret":                    {events.AccountRotation{Account: "corp-reader"}, bus.ErrBadRequest},
		"every account":                {events.AccountRotation{Account: "*", Secret: []byte("x")}, bus.ErrBadRequest},
		"for ever":                     {events.AccountRotation{Account: "corp-reader", Secret: []byte("x"), KeepOld: events.Duration(maxKeep + time.Second)}, bus.ErrBadRequest},
	} {
		if _, err := ask(l.story, "ada", events.AccountRotate, c.r); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
