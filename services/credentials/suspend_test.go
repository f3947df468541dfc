package credentials

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/eventstest"
)

// use is what an agent says of a lease.
func (w *wish) use(g events.LeaseGrant, change ...func(*events.LeaseUse)) {
	w.l.t.Helper()
	w.l.n++ // each is of another moment
	u := events.LeaseUse{Lease: g.Lease, Agent: w.m.id, Hostname: w.m.hostname, Job: g.Job, Access: events.Access{Resource: hello + "/setup.exe", Identity: "network-access-account",
		Account: g.Account, User: g.User, Version: g.Version, When: events.AccessContent, Reason: events.CredentialRejected, Answer: "unknown user name or bad password (1326/0x8007052E)", At: w.l.clock.Now().UTC().Add(time.Duration(w.l.n))}}
	for _, c := range change {
		c(&u)
	}
	own := w.l.bus(events.AgentSource(w.m.id))
	if _, err := bus.Publish(w.l.t.Context(), own, events.CredentialUsed, events.Event[events.LeaseUse]{ID: u.ID(), Subject: w.m.id, Time: u.At, Data: u}); err != nil {
		w.l.t.Fatal(err)
	}
}

// rejected waits until the rejections of an account are as many as expected, and all events are handled.
func (l *lender) rejected(want int) accountRecord {
	l.t.Helper()
	l.handled()
	r := storedAccount(l.t, l.service)
	if len(r.Rejected) != want {
		l.t.Errorf("%d machines are counted, want %d: %+v", len(r.Rejected), want, r.Rejected)
	}
	return r
}

// handled waits until the service has handled all events that are stored.
func (l *lender) handled() {
	l.t.Helper()
	stream, err := l.admin.JetStream().Stream(l.t.Context(), events.StreamEvents)
	if err != nil {
		l.t.Fatal(err)
	}
	last := uint64(0) // what is pending the broker may not have counted yet
	for _, filter := range []string{events.CredentialUsed.Filter(), events.JobFinished.Filter()} {
		m, err := stream.GetLastMsgForSubject(l.t.Context(), filter)
		if err == nil {
			last = max(last, m.Sequence)
		} else if !errors.Is(err, jetstream.ErrMsgNotFound) {
			l.t.Fatal(err)
		}
	}
	l.eventually("all events are handled", func() bool {
		c, err := l.admin.JetStream().Consumer(l.t.Context(), events.StreamEvents, serviceName)
		if err != nil {
			l.t.Fatal(err)
		}
		info := c.CachedInfo()
		return info.AckFloor.Stream >= last && info.NumPending == 0 && info.NumAckPending == 0
	})
}

func TestAnAccountThatSeveralMachinesWereRefusedWithIsLentNoMore(t *testing.T) {
	l := newLender(t)
	l.set("corp-reader")
	var wishes []*wish
	var grants []events.LeaseGrant
	for range rejectionsToSuspend {
		w := l.readWish(l.advanced("")).offer(1)
		g, _ := w.granted()
		wishes, grants = append(wishes, w), append(grants, g)
	}
	for i, w := range wishes[:rejectionsToSuspend-1] {
		w.use(grants[i])
		w.use(grants[i]) // nobody counts twice
	}
	l.rejected(rejectionsToSuspend - 1)
	wishes[0].again().granted() // it is lent on
	last := wishes[rejectionsToSuspend-1]
	last.use(grants[rejectionsToSuspend-1])
	l.rejected(rejectionsToSuspend)

	newcomer := l.readWish(l.advanced("")).offer(1)
	newcomer.denied(events.CredentialRejected, "version 1 of account corp-reader was rejected by 3 machines", "last by "+last.m.hostname, `\\files.example\software\hello\setup.exe`, "chandler account rotate corp-reader")
	wishes[0].again().denied(events.CredentialRejected, "was rejected by 3 machines")
	views, err := ask(l.story, "vera", events.AccountList, events.Nothing{})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range views.Accounts {
		if (v.Suspended != "") != (v.Account == "corp-reader") {
			t.Errorf("listed %+v", v)
		}
	}
	l.log.mu.Lock()
	if logged := l.log.buf.String(); strings.Count(logged, "level=ERROR") != 1 || !strings.Contains(logged, `msg="an account is lent no more"`) {
		t.Error("it is not logged as one error")
	}
	l.log.mu.Unlock()
	told := eventstest.ExpectExactly(t, l.admin, events.AccountSuspended, nil, 1)[0].Data
	if told.Account != "corp-reader" || told.Version != 1 || len(told.Agents) != rejectionsToSuspend || !strings.Contains(told.Why, "rejected by 3 machines") {
		t.Errorf("told %+v", told)
	}
	l.eventually("a metric shows it", func() bool { return testutil.ToFloat64(l.service.metrics.suspended) == 1 })

	if _, err := ask(l.story, "ada", events.AccountRotate, events.AccountRotation{Account: "corp-reader", Secret: []byte("right")}); err != nil {
		t.Fatal(err)
	}
	if g, got := newcomer.again().granted(); g.Version != 2 || got != "right" {
		t.Errorf("granted %+v", g)
	}
	l.eventually("the metric shows it no more", func() bool { return testutil.ToFloat64(l.service.metrics.suspended) == 0 })
	wishes[0].use(grants[0]) // of the former version
	l.rejected(0)
}

func TestOnlyTheWordOfWhoeverHoldsTheLeaseCounts(t *testing.T) {
	l := newLender(t)
	l.set("corp-reader")
	w := l.readWish(l.advanced("")).offer(1)
	g, _ := w.granted()
	rogue := l.readWish(l.advanced(""))
	execute := l.wish(l.member()).offer(1)
	run, _ := execute.granted()
	rogue.use(g)                                                                        // another's lease
	w.use(g, func(u *events.LeaseUse) { u.Lease = "invented" })                         // none
	w.use(g, func(u *events.LeaseUse) { u.Version = 2 })                                // another version
	w.use(g, func(u *events.LeaseUse) { u.Account = "corp-installer" })                 // another account
	w.use(g, func(u *events.LeaseUse) { u.Resource = "smb://evil.example/software/x" }) // a host of its own
	w.use(g, func(u *events.LeaseUse) { u.Resource = "not an address" })                //
	w.use(g, func(u *events.LeaseUse) { u.Reason = events.NetworkAccessDenied })        // the account is right
	w.use(g, func(u *events.LeaseUse) { u.Answer = "the account is disabled (1331/0x80070533)" })
	w.use(g, func(u *events.LeaseUse) { u.Reason = "" })                                           // it could read
	execute.use(run, func(u *events.LeaseUse) { u.Account, u.Resource = "corp-installer", hello }) // not to read
	l.rejected(0)
	var installer accountRecord
	if _, err := l.service.accounts.load(t.Context(), "corp-installer", &installer); err != nil || len(installer.Rejected) != 0 {
		t.Errorf("counted %+v, %v", installer.Rejected, err)
	}
	w.use(g)
	if r := l.rejected(1); r.Rejected[0].Agent != w.m.id || r.Rejected[0].Host != w.m.hostname || r.Version != 1 {
		t.Errorf("counted %+v", r.Rejected)
	}
	// A job that ended meanwhile does not make its agent's word late.
	w.finish()
	l.handled()
	another := l.readWish(l.advanced("")).offer(1)
	late, _ := another.granted()
	another.finish()
	l.eventually("the lease is withdrawn", func() bool { return len(l.leases(events.LeaseQuery{Lease: late.Lease})) == 0 })
	another.use(late, func(u *events.LeaseUse) { u.Hostname = strings.Repeat("h", 1000) + "\x1b[31m" })
	if r := l.rejected(2); len(r.Rejected[1].Host) != maxHost {
		t.Errorf("counted %+v", r.Rejected)
	}
}

func TestAnAgentThatSaysTooMuchOfRejectionsIsNotHeardForAWhileAndHindersNobody(t *testing.T) {
	l := newLender(t)
	l.set("corp-reader")
	loud, calm := l.readWish(l.advanced("")).offer(1), l.readWish(l.advanced("")).offer(1)
	g, _ := loud.granted()
	h, _ := calm.granted()
	for range leasesAtOnce {
		loud.use(g, func(u *events.LeaseUse) { u.Lease = "invented" })
	}
	l.handled() // several are handled at a time
	loud.use(g)
	calm.use(h)
	if r := l.rejected(1); len(r.Rejected) == 1 && r.Rejected[0].Agent != calm.m.id {
		t.Errorf("counted %+v", r.Rejected)
	}
	l.clock.pass(leaseEvery)
	loud.use(g)
	l.rejected(2)
}

func FuzzOneLine(f *testing.F) {
	f.Add("access denied (5/0x80070005)", 8)
	f.Add("a\nb\x1b[31m\xff\u202e", 3)
	f.Add("ååååå", 3)
	f.Fuzz(func(t *testing.T, text string, limit int) {
		limit = max(0, min(limit, maxAnswer))
		got := oneLine(text, limit)
		if len(got) > limit || strings.ContainsAny(got, "\n\r\x1b\u202e\ufffd") || oneLine(got, limit) != got {
			t.Errorf("%q becomes %q", text, got)
		}
	})
}
