package credentials

import (
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/enrolment"
	"chandler/events/eventstest"
)

func TestAMachineEnrolsOnceAndRenewsAndReturns(t *testing.T) {
	f := newFleet(t)
	r := f.ready()
	k := f.token("office", 1)
	m := f.machine("ws-1")
	a := m.enrol(k)
	want := events.Conferred{Tags: []string{"office"}, Site: "oslo", ClientKind: events.Advanced}
	if a.Conferred == nil || a.Nonce != "n-"+m.id || len(a.Bundles) != 1 || !a.Expires.After(f.clock.Now().Add(23*time.Hour)) {
		t.Fatalf("answer %+v", a)
	}
	if diff := cmp.Diff(want, *a.Conferred); diff != "" {
		t.Error(diff)
	}
	m.trust = 1
	if again := m.enrol(k); len(again.Bundles) != 0 || again.Refused != "" {
		t.Errorf("again: %+v", again)
	}
	if n := f.used("office"); n != 1 {
		t.Errorf("the token was used %d times", n)
	}
	other := f.machine("ws-2")
	other.want(other.enrol(k), events.RefusedSpent)
	refusals(other, events.RefusedSpent, 1)
	told(m, events.AgentEnrolled, 1)
	told(other, events.AgentEnrolled, 0)

	f.clock.pass(20 * time.Hour)
	if a := m.renew(); a.Refused != "" || !a.Expires.After(f.clock.Now().Add(23*time.Hour)) {
		t.Errorf("renewed: %+v", a)
	}
	f.clock.pass(21 * 24 * time.Hour)
	if a := m.comeBack(); a.Refused != "" {
		t.Errorf("returned after three weeks: %+v", a)
	}
	v := m.view()
	if v.State != events.EnrolmentActive || v.Trust != 1 || v.Hostname != "ws-1" || v.Token != "office" || !v.Renewed.Equal(f.clock.Now()) {
		t.Errorf("listed %+v", v)
	}
	stranger := f.machine("ws-3")
	stranger.want(stranger.comeBack(), events.RefusedUnknown)
	stranger.want(stranger.renew(), events.RefusedUnknown)
	// What is owed was paid, and nothing waits.
	f.eventually("settled", func() bool {
		return r.reconcileEnrolments(t.Context()) == nil && len(r.mirror.debts()) == 0 && len(r.mirror.allTokens()[0].Pending) == 0
	})
}

func TestAMachineIsRefusedWithItsReason(t *testing.T) {
	f := newFleet(t)
	f.ready()
	k := f.token("office", 0)
	short := f.token("short", 0, func(r *events.TokenRequest) { r.Expires = f.clock.Now().Add(time.Hour) })
	removed := f.token("removed", 0)
	if _, err := ask(f.story, "ada", events.TokenRemove, events.Named{Name: "removed"}); err != nil {
		t.Fatal(err)
	}
	f.clock.pass(2 * time.Hour)
	m := f.machine("ws-1")
	m.want(m.enrol(newToken(t)), events.RefusedToken)
	m.want(m.enrol(short), events.RefusedExpired)
	m.want(m.enrol(removed), events.RefusedToken)
	forged := m.sign(k)
	forged.TokenSignature = m.sign(short).TokenSignature
	for _, c := range []events.Call[events.EnrolRequest, events.EnrolAnswer]{events.AgentEnrol, events.AgentReturn} { // the wrong purpose, too
		a, err := ask(f.story, m.id, c, forged)
		m.want(m.answer(a, err), events.RefusedProof)
	}
	// Somebody else's statement gives nothing to whoever sends it.
	thief := f.machine("thief")
	a, err := ask(f.story, thief.id, events.AgentEnrol, m.sign(k))
	thief.want(thief.answer(a, err), events.RefusedProof)
	if _, err := bus.Request(t.Context(), f.admin, "*", events.AgentEnrol, m.sign(k)); err == nil {
		t.Error("asked in everybody's name")
	}

	m.want(m.enrol(k), "")
	copied := m.clone()
	copied.want(copied.enrol(k), events.RefusedMachine)
	copied.want(copied.comeBack(), events.RefusedMachine)
	copied.want(copied.renew(), events.RefusedMachine)
	copied.hash = "" // it says nothing of itself any more
	copied.want(copied.renew(), events.RefusedMachine)
	refusals(m, events.RefusedMachine, 2) // one for each token: enrolled with k, and without
	if n := f.used("office"); n != 1 {
		t.Errorf("the token was used %d times", n)
	}
	if n := f.used("short"); n != 0 {
		t.Errorf("the expired token was used %d times", n)
	}
}

func TestAnAgentThatIsNotToReturnIsToldWhy(t *testing.T) {
	f := newFleet(t)
	f.ready()
	k := f.token("office", 0)
	m := f.machine("ws-1")
	m.enrol(k)

	f.clock.pass(92 * 24 * time.Hour)
	m.want(m.comeBack(), events.RefusedLapsed)
	m.want(m.enrol(f.token("fresh", 0)), events.RefusedLapsed)
	if v := m.view(); v.State != events.EnrolmentLapsed {
		t.Errorf("state %s", v.State)
	}
	if a := change1(f, events.AgentApprove, m); len(a.Changed) != 1 || a.Changed[0].State != events.EnrolmentActive || a.Changed[0].By != "ada" || a.Changed[0].Why != "a test" {
		t.Errorf("approved: %+v", a)
	}
	f.clock.pass(89 * 24 * time.Hour)
	m.want(m.comeBack(), "")
	change1(f, events.AgentArchive, m)
	m.want(m.comeBack(), events.RefusedArchived)
	m.want(m.renew(), events.RefusedArchived)
	change1(f, events.AgentApprove, m)
	m.want(m.comeBack(), "")
	change1(f, events.AgentRevoke, m)
	for range 2 {
		m.want(m.comeBack(), events.RefusedRevoked)
		m.want(m.enrol(f.token("more", 0)), events.RefusedRevoked)
		m.want(m.renew(), events.RefusedRevoked)
		for _, c := range []events.Call[events.AgentsRequest, events.AgentsAnswer]{events.AgentApprove, events.AgentArchive, events.AgentRevoke} {
			if a := change1(f, c, m); len(a.Changed) != 0 || len(a.Unchanged) != 1 {
				t.Errorf("%s after it was revoked: %+v", c.Verb, a)
			}
		}
		if _, err := ask(f.story, "ada", events.TokenRemove, events.Named{Name: "more"}); err != nil {
			t.Fatal(err)
		}
		f.clock.pass(time.Hour)
	}
	told(m, events.AgentEnrolled, 1)
	told(m, events.AgentApproved, 2)
	told(m, events.AgentArchived, 1)
	told(m, events.AgentRevoked, 1)
}

func TestAMachineWaitsForApproval(t *testing.T) {
	f := newFleet(t)
	f.ready()
	k := f.token("ask-first", 2, func(r *events.TokenRequest) { r.Approval = true })
	m := f.machine("ws-1")
	m.want(m.enrol(k), events.RefusedPending)
	m.want(m.enrol(k), events.RefusedPending)
	m.want(m.comeBack(), events.RefusedPending)
	told(m, events.AgentPending, 1)
	refusals(m, events.RefusedPending, 0)
	waiting, err := ask(f.story, "ada", events.EnrolmentList, events.EnrolmentQuery{State: events.EnrolmentPending})
	if err != nil || len(waiting.Enrolments) != 1 || waiting.Enrolments[0].Agent != m.id || f.used("ask-first") != 1 {
		t.Fatalf("waiting: %+v, %v", waiting, err)
	}
	change1(f, events.AgentApprove, m)
	m.want(m.comeBack(), "")
	told(m, events.AgentEnrolled, 0)
	told(m, events.AgentApproved, 1)
}

func TestATokenLetsInExactlyAsManyAsItMayHoweverManyAskAtOnce(t *testing.T) {
	f := newFleet(t)
	f.ready()
	f.running() // a second replica
	k := f.token("office", 10)
	var mu sync.Mutex
	results := map[events.EnrolRefusal]int{}
	var all sync.WaitGroup
	for range 50 {
		m := f.machine("same-name")
		all.Go(func() {
			for range 2 { // and each asks twice
				a, err := ask(f.story, m.id, events.AgentEnrol, m.sign(k))
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				results[a.Refused]++
				mu.Unlock()
			}
		})
	}
	all.Wait()
	if diff := cmp.Diff(map[events.EnrolRefusal]int{"": 20, events.RefusedSpent: 80}, results); diff != "" {
		t.Error(diff)
	}
	if n := f.used("office"); n != 10 {
		t.Errorf("the token was used %d times", n)
	}
	eventstest.ExpectExactly(t, f.admin, events.AgentEnrolled, nil, 10)
}

func TestACrashBetweenTokenAndAgentNeitherLosesNorDoublesAUse(t *testing.T) {
	f := newFleet(t)
	r := f.ready()
	k := f.token("office", 2)
	m, gone := f.machine("ws-1"), f.machine("ws-2")
	if err := r.mirror.refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, crashed := range []*machine{m, gone} {
		if _, _, err := r.take(t.Context(), "office", k.key, crashed.id, f.clock.Now()); err != nil {
			t.Fatal(err)
		}
	}
	third := f.machine("ws-3")
	third.want(third.enrol(k), events.RefusedSpent)
	f.running() // the crashed one comes back
	m.want(m.enrol(k), "")
	if n := f.used("office"); n != 2 {
		t.Errorf("used %d times while one use waits for its machine", n)
	}
	f.clock.pass(useLife + time.Minute) // the other machine never asks again
	if err := r.reconcileEnrolments(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := f.used("office"); n != 1 {
		t.Errorf("used %d times after a use was given back", n)
	}
	third.want(third.enrol(k), "")
	if n := f.used("office"); n != 2 {
		t.Errorf("used %d times", n)
	}

	// A replica that lagged counts a use of an agent that was settled: it is given back at once.
	big := f.token("big", 5)
	m2 := f.machine("ws-4")
	m2.want(m2.enrol(big), "")
	if err := r.reconcileEnrolments(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.take(t.Context(), "big", big.key, m2.id, f.clock.Now()); err != nil {
		t.Fatal(err)
	}
	if err := r.reconcileEnrolments(t.Context()); err != nil { // unless the running replica was faster
		t.Fatal(err)
	}
	if n := f.used("big"); n != 1 {
		t.Errorf("used %d times after the second use was given back", n)
	}
}

func TestAServiceThatIsNotSetUpSaysWhatIsMissing(t *testing.T) {
	f := newFleet(t)
	r := f.running()
	k := f.token("office", 1)
	m := f.machine("ws-1")
	a := m.enrol(k)
	m.want(a, events.RefusedNotSetUp)
	if !strings.Contains(a.Why, "chandler trust init") || r.Healthy(t.Context()) != nil {
		t.Errorf("%q, healthy: %v", a.Why, r.Healthy(t.Context()))
	}
	if n := f.used("office"); n != 0 {
		t.Errorf("the token was used %d times", n)
	}
	refusals(m, events.RefusedNotSetUp, 0)

	plain := newStory(t)
	plain.running()
	f.story = plain
	m.want(m.enrol(k), events.RefusedNotSetUp)
	if _, err := ask(plain, "ada", events.TokenCreate, f.request(k, "office", 1)); err == nil {
		t.Error("a token was made that lets nobody in")
	}
}

func TestWhatAMachineSaysOfItselfIsBounded(t *testing.T) {
	f := newFleet(t)
	f.ready()
	m := f.machine("ws\x1b[31m\n" + strings.Repeat("ø", 400))
	m.want(m.enrol(f.token("office", 1)), "")
	v := m.view()
	if len(v.Hostname) > maxFact || strings.ContainsAny(v.Hostname, "\x1b\n") || !strings.HasPrefix(v.Hostname, "ws[31mø") || v.Facts.Hostname != v.Hostname {
		t.Errorf("hostname %q", v.Hostname)
	}
}

func FuzzEnrolRequest(f *testing.F) {
	seed, key, err := enrolment.NewKey()
	if err != nil {
		f.Fatal(err)
	}
	st := events.EnrolStatement{Purpose: "return", Key: key, Facts: events.Facts{ID: events.AgentID([]byte(key)), Tags: []string{"a"}}, Nonce: "n"}
	good, err := enrolment.Sign(st, seed, nil)
	if err != nil {
		f.Fatal(err)
	}
	body, err := json.Marshal(good)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(body, st.Facts.ID)
	f.Add([]byte(`{"statement":"e30=","signature":"","token_signature":"AAAA"}`), agent)
	f.Add([]byte(`{"statement":null}`), "")
	s := &Service{limits: newLimits(), now: time.Now}
	f.Fuzz(func(t *testing.T, body []byte, caller string) {
		var r events.EnrolRequest
		if json.Unmarshal(body, &r) != nil {
			return
		}
		for _, purpose := range []string{"enrol", "return"} {
			st, err := s.prove(purpose, caller, r)
			if err == nil && (caller != events.AgentID([]byte(st.Key)) || purpose != st.Purpose) {
				t.Errorf("proved %+v", st)
			}
		}
	})
}

func FuzzFacts(f *testing.F) {
	f.Add([]byte(`{"hostname":"ws-1","tags":["a"],"addresses":["::1"]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var facts events.Facts
		if json.Unmarshal(data, &facts) != nil {
			return
		}
		once := bounded(facts)
		if diff := cmp.Diff(once, bounded(once)); diff != "" {
			t.Error(diff)
		}
		facts.ID = ""
		text, err := json.Marshal(bounded(facts))
		if err != nil || len(text) > 64<<10 {
			t.Errorf("%d bytes, %v", len(text), err)
		}
	})
}
