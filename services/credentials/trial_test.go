package credentials

import (
	"errors"
	"strings"
	"testing"
	"time"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/eventstest"
)

// asked begins a test as an administrator does, and gives the note that the agent hears.
func (l *lender) asked(m *machine, account, resource string) (note events.AccountTestNote, result func() (events.AccountTestResult, error)) {
	l.t.Helper()
	h := listen(l, events.AccountTestAsked)
	type outcome struct {
		r   events.AccountTestResult
		err error
	}
	ended := make(chan outcome, 1)
	go func() {
		r, err := bus.Request(l.t.Context(), l.admin, "ada", events.AccountTest, events.AccountTestRequest{Account: account, Resource: resource, Agent: m.id})
		ended <- outcome{r, err}
	}()
	l.eventually("the agent is asked", func() bool { return len(h.got()) == 1 })
	return h.got()[0], func() (events.AccountTestResult, error) {
		o := <-ended
		return o.r, o.err
	}
}

// testWish is the agent's request for the account of a test.
func (l *lender) testWish(m *machine, note events.AccountTestNote) *wish {
	l.t.Helper()
	w := l.wish(m)
	w.st.Job, w.st.Account, w.st.Purpose, w.st.Resource, w.st.Test = "", note.Account, events.LeaseToTest, note.Resource, note.Test
	w.tests = true
	return w
}

func (l *lender) answer(m *machine, r events.AccountTestReport) error {
	l.t.Helper()
	_, err := bus.Request(l.t.Context(), l.admin, m.id, events.AccountTestAnswer, r)
	return err
}

func TestAnAccountIsTriedOnceByAnAgentAndTheAnswerIsToldByAnyReplica(t *testing.T) {
	l := newLender(t)
	l.running() // requests go to either
	l.set("corp-reader", forCollections("servers"), inDomain("other"))
	m := l.advanced("")
	h := listen(l, events.LeaseWithdrawn)
	note, result := l.asked(m, "corp-reader", `\\FILES.example\software\hello`)
	if note.Agent != m.id || note.Account != "corp-reader" || note.Resource != hello || note.By != "ada" || note.Test == "" || note.Until.Sub(l.clock.Now()) > testLife {
		t.Fatalf("asked %+v", note)
	}
	w := l.testWish(m, note)
	g, got := w.granted()
	if got != secret || g.Purpose != events.LeaseToTest || g.Account != "corp-reader" || g.Job != "" || g.Resource != hello || g.Expires.After(note.Until) {
		t.Errorf("granted %+v", g)
	}
	w.again().denied(events.CredentialDenied, "a test is one try")
	const answer = "access denied (5/0x80070005)"
	said := events.Access{Resource: "smb://evil.example/x", Identity: "system", Account: "another", User: "root", Version: 9, When: events.AccessContent, Reason: events.NetworkAccessDenied, Answer: answer + "\x1b[31m\n"}
	if err := l.answer(m, events.AccountTestReport{Test: note.Test, Access: said}); err != nil {
		t.Fatal(err)
	}
	r, err := result()
	if a := r.Access; err != nil || a.Reason != events.NetworkAccessDenied || !strings.HasPrefix(a.Answer, answer) || strings.ContainsAny(a.Answer, "\x1b\n") || a.Resource != hello || a.Account != "corp-reader" ||
		a.User != `EXAMPLE\corp-reader` || a.Version != 1 || a.When != events.AccessTest || a.Identity != "network-access-account" || a.At.IsZero() {
		t.Errorf("answered %+v, %v", r, err)
	}
	if err := l.answer(m, events.AccountTestReport{Test: note.Test}); !errors.Is(err, bus.ErrConflict) {
		t.Errorf("a second answer: %v", err)
	}
	l.revoked(h, g, "", "the test is done")
	leased := eventstest.ExpectExactly(t, l.admin, events.CredentialLeased, nil, 1)
	if n := leased[0].Data; n.Purpose != events.LeaseToTest || n.By != "ada" || n.Resource != hello || n.Job != "" {
		t.Errorf("told %+v", n)
	}
	eventstest.ExpectExactly(t, l.admin, events.CredentialRequested, nil, 2)
	l.clock.pass(leaseLife)
	if err := l.service.reviewLeases(t.Context()); err != nil || leases(l) != 0 {
		t.Errorf("%d leases and tests are kept, %v", leases(l), err)
	}
	l.leaks()
}

func TestNobodyElseTakesPartInATest(t *testing.T) {
	l := newLender(t)
	l.set("corp-reader")
	m, rogue := l.advanced(""), l.advanced("")
	note, result := l.asked(m, "corp-reader", hello)
	for name, c := range map[string]struct {
		m      *machine
		change func(*events.LeaseStatement)
	}{
		"another agent":              {rogue, func(*events.LeaseStatement) {}},
		"another test":               {m, func(st *events.LeaseStatement) { st.Test = "invented" }},
		"another account":            {m, func(st *events.LeaseStatement) { st.Account = "corp-installer" }},
		"another resource":           {m, func(st *events.LeaseStatement) { st.Resource = "smb://files.example/software" }},
		"another spelling and place": {m, func(st *events.LeaseStatement) { st.Resource = hello + "/.." }},
	} {
		w := l.testWish(c.m, note)
		c.change(&w.st)
		if a, err := w.ask(); err != nil || !a.Denied || a.Reason != events.CredentialDenied || !strings.Contains(a.Why, "nobody asked agent") {
			t.Errorf("%s: %+v, %v", name, a, err)
		}
	}
	if err := l.answer(rogue, events.AccountTestReport{Test: note.Test}); !errors.Is(err, bus.ErrNotFound) {
		t.Errorf("another agent answers: %v", err)
	}
	if err := l.answer(m, events.AccountTestReport{Test: "*"}); !errors.Is(err, bus.ErrBadRequest) {
		t.Errorf("of all tests: %v", err)
	}
	// An agent that was lent nothing may say why it cannot try, in words that this version does not know.
	if err := l.answer(m, events.AccountTestReport{Test: note.Test, Access: events.Access{Reason: "moon_phase", Answer: strings.Repeat("x", 10*maxAnswer)}}); err != nil {
		t.Fatal(err)
	}
	if r, err := result(); err != nil || r.Access.Reason != events.OtherReason || len(r.Access.Answer) != maxAnswer || r.Access.Version != 0 {
		t.Errorf("answered %+v, %v", r, err)
	}
	l.testWish(m, note).denied(events.CredentialDenied, "the test is over")
	eventstest.ExpectExactly(t, l.admin, events.CredentialLeased, nil, 0)
	// Too late is too late.
	late, _ := l.asked(m, "corp-reader", hello)
	l.clock.pass(testLife)
	l.testWish(m, late).denied(events.CredentialDenied, "the test is over")
	if err := l.answer(m, events.AccountTestReport{Test: late.Test}); !errors.Is(err, bus.ErrConflict) {
		t.Errorf("a late answer: %v", err)
	}
}

func TestTestsThatCannotBeMade(t *testing.T) {
	l := newLender(t)
	l.set("corp-reader")
	l.account("domain-token", events.ClientTokenDomain, secret)
	m, gone := l.advanced(""), l.advanced("")
	change1(l.fleet, events.AgentRevoke, gone)
	h := listen(l, events.AccountTestAsked)
	for name, c := range map[string]struct {
		r    events.AccountTestRequest
		want error
		says string
	}{
		"an account that is not there":  {events.AccountTestRequest{Account: "absent", Resource: hello, Agent: m.id}, bus.ErrNotFound, "no account absent"},
		"the domain's token account":    {events.AccountTestRequest{Account: "domain-token", Resource: hello, Agent: m.id}, bus.ErrBadRequest, "nothing to test"},
		"something that is no address":  {events.AccountTestRequest{Account: "corp-reader", Resource: "x", Agent: m.id}, bus.ErrBadRequest, "resource"},
		"every agent":                   {events.AccountTestRequest{Account: "corp-reader", Resource: hello, Agent: "*"}, bus.ErrBadRequest, "agent id"},
		"an agent that is not there":    {events.AccountTestRequest{Account: "corp-reader", Resource: hello, Agent: agent}, bus.ErrConflict, "ever enrolled"},
		"an agent that was revoked":     {events.AccountTestRequest{Account: "corp-reader", Resource: hello, Agent: gone.id}, bus.ErrConflict, "revoked"},
		"the machine's own disk":        {events.AccountTestRequest{Account: "corp-installer", Resource: "file:///etc/shadow", Agent: m.id}, bus.ErrBadRequest, "on the machine itself"},
		"a secret shown to any host":    {events.AccountTestRequest{Account: "corp-installer", Resource: "https://evil.example/x", Agent: m.id}, bus.ErrBadRequest, "names no resources"},
		"a secret shown to any server":  {events.AccountTestRequest{Account: "corp-installer", Resource: "smb://evil.example/x", Agent: m.id}, bus.ErrBadRequest, "names no resources"},
		"an account name that is a joy": {events.AccountTestRequest{Account: "a.>", Resource: hello, Agent: m.id}, bus.ErrBadRequest, "name"},
	} {
		if _, err := ask(l.story, "ada", events.AccountTest, c.r); !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	r, err := ask(l.story, "ada", events.AccountTest, events.AccountTestRequest{Account: "corp-reader", Resource: "smb://files.example/other", Agent: m.id})
	if err != nil || r.Access.Reason != events.CredentialDenied || !strings.Contains(r.Access.Answer, "does not cover") || r.Access.User == "" {
		t.Errorf("a resource that the account does not cover: %+v, %v", r, err)
	}
	if n := len(h.got()); n != 0 {
		t.Errorf("%d agents were asked", n)
	}
}

func TestAnInstallationAccountIsTriedWhereItMayReach(t *testing.T) {
	l := newLender(t)
	l.reserve(reaching("smb://files.example/software"))
	m := l.member()
	note, result := l.asked(m, "corp-installer", hello)
	if _, got := l.testWish(m, note).granted(); got != secret {
		t.Errorf("got %q", got)
	}
	if err := l.answer(m, events.AccountTestReport{Test: note.Test}); err != nil {
		t.Fatal(err)
	}
	if r, err := result(); err != nil || r.Access.Identity != "installation-account" || r.Access.Reason != "" || r.Access.Version != 2 {
		t.Errorf("answered %+v, %v", r, err)
	}
}

func TestAnAgentThatDoesNotAnswerIsToldOf(t *testing.T) {
	l := newLender(t)
	l.set("corp-reader")
	m := l.advanced("")
	short := l.replica()
	short.testWait = 2 * testPoll
	r := events.AccountTestRequest{Account: "corp-reader", Resource: hello, Agent: m.id}
	if _, err := short.accountTest(t.Context(), "ada", r); !errors.Is(err, bus.ErrUnavailable) || !strings.Contains(err.Error(), "was not heard within 500ms") {
		t.Errorf("an agent that is off: %v", err)
	}
	short.testWait = 30 * time.Second
	h := listen(l, events.AccountTestAsked)
	ended := make(chan error, 1)
	go func() {
		_, err := short.accountTest(t.Context(), "ada", r)
		ended <- err
	}()
	l.eventually("the agent is asked", func() bool { return len(h.got()) == 1 })
	l.testWish(m, h.got()[0]).granted()
	// What it would say in the end.
	var held testRecord
	if _, err := l.service.leases.load(t.Context(), testKeys+h.got()[0].Test, &held); err != nil {
		t.Fatal(err)
	}
	if err := unanswered(held, testWait); !strings.Contains(err.Error(), "took the account and did not say within 25s what") {
		t.Error(err)
	}
	if err := l.answer(m, events.AccountTestReport{Test: h.got()[0].Test}); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
