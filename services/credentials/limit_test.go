package credentials

import (
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nkeys"
	"github.com/prometheus/client_golang/prometheus"

	"chandler/events"
	"chandler/events/eventstest"
)

func TestAnAgentThatAsksTooOftenIsToldToWait(t *testing.T) {
	f := newFleet(t)
	f.ready()
	k := f.token("office", 0)
	m, calm := f.machine("ws-1"), f.machine("ws-2")
	for range asksAtOnce {
		m.want(m.enrol(k), "")
	}
	for _, answer := range []events.EnrolAnswer{m.enrol(k), m.comeBack(), m.renew()} {
		m.want(answer, events.RefusedLater)
		if answer.Later <= 0 || time.Duration(answer.Later) > askEvery {
			t.Errorf("ask again after %s", time.Duration(answer.Later))
		}
	}
	refusals(m, events.RefusedLater, 0)
	// Whoever asks in its name without its key uses up nothing.
	for range 3 * asksAtOnce {
		a, err := ask(f.story, calm.id, events.AgentReturn, events.EnrolRequest{Statement: []byte("{}")})
		calm.want(calm.answer(a, err), events.RefusedProof)
	}
	calm.want(calm.enrol(k), "")
	refusals(calm, events.RefusedProof, 1)
	f.clock.pass(askEvery)
	m.want(m.renew(), "")
	m.want(m.renew(), events.RefusedLater)
}

func TestAFloodOfMadeUpAgentsFillsNothing(t *testing.T) {
	l, now := newLimits(), time.Now()
	for i := range 4 * remembered {
		if err := l.asks("agent"+strconv.Itoa(i), now); err != nil {
			t.Fatalf("agent %d asks for the first time: %v", i, err)
		}
	}
	if n := len(l.agents.young) + len(l.agents.old); n > 2*remembered {
		t.Errorf("%d agents are kept in mind", n)
	}
	stored := 0
	for i := range 4 * remembered {
		if l.tellRefusal(strconv.Itoa(i), now) {
			stored++
		}
	}
	if stored != refusalsAtOnce || len(l.told.young)+len(l.told.old) > 2*remembered {
		t.Errorf("%d refusals are stored", stored)
	}
	if l.tellRefusal("0", now.Add(time.Hour)) {
		t.Error("a refusal is stored twice")
	}
	if !l.tellRefusal("new", now.Add(time.Hour)) {
		t.Error("no refusal is stored an hour later")
	}
	joined := 0
	for range 2 * joinsAtOnce {
		if crowd(l.joins, now) == nil {
			joined++
		}
	}
	if joined != joinsAtOnce {
		t.Errorf("%d machines joined at once", joined)
	}
	late := map[time.Duration]bool{}
	for range 10 {
		refused, ok := errors.AsType[*refusal](crowd(l.joins, now))
		if !ok || refused.reason != events.RefusedLater || refused.later < moment/2 || refused.later > moment {
			t.Fatalf("refused %+v", refused)
		}
		late[refused.later] = true
	}
	if len(late) < 2 {
		t.Error("all are told to come back at the same time")
	}
}

func TestWhatWasUsedRecentlyIsKept(t *testing.T) {
	r := recent[int]{limit: 10}
	r.put("kept", 1)
	for i := range 100 {
		r.put(fmt.Sprint(i), i)
		if v, ok := r.get("kept"); !ok || v != 1 {
			t.Fatalf("forgotten after %d others", i)
		}
	}
	if _, ok := r.get("0"); ok || len(r.young)+len(r.old) > 20 {
		t.Errorf("%d are kept", len(r.young)+len(r.old))
	}
}

func TestRefusalsAreStoredOnceAnHour(t *testing.T) {
	f := newFleet(t)
	f.ready()
	m := f.machine("ws-1")
	k := newToken(t)
	for range 3 {
		m.want(m.enrol(k), events.RefusedToken)
	}
	refusals(m, events.RefusedToken, 1)
	f.clock.pass(time.Hour)
	m.want(m.enrol(k), events.RefusedToken)
	refusals(m, events.RefusedToken, 2)
}

func TestOptionsThatMakeNoSense(t *testing.T) {
	s := newStory(t)
	b := s.bus(events.ServiceSource(serviceName))
	account, err := nkeys.CreateAccount()
	if err != nil {
		t.Fatal(err)
	}
	public, err := account.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	half, err := nkeys.FromPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	user, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Options){
		"no bus":                          func(o *Options) { o.Bus = nil },
		"somebody else's bus":             func(o *Options) { o.Bus = s.admin },
		"no account":                      func(o *Options) { o.AgentsAccount = "" },
		"an account that is none":         func(o *Options) { o.AgentsAccount = "AAAA" },
		"no enrolment identity":           func(o *Options) { o.EnrolmentJWT = "" },
		"no signing key":                  func(o *Options) { o.AgentSigner = nil },
		"a signing key without a secret":  func(o *Options) { o.AgentSigner = half },
		"a user's key to sign with":       func(o *Options) { o.AgentSigner = user },
		"identities for ever":             func(o *Options) { o.JWTLife = 1000 * time.Hour },
		"identities for no time at all":   func(o *Options) { o.JWTLife = time.Millisecond },
		"a negative grace":                func(o *Options) { o.Grace = -1 },
		"announcements without an end":    func(o *Options) { o.AnnounceEvery = -1 },
		"a look that never comes to rest": func(o *Options) { o.Tick = -1 },
	} {
		o := Options{Bus: b, Dir: s.dir, Log: s.log.logger(), Registerer: prometheus.NewRegistry(), AgentSigner: account, AgentsAccount: public, EnrolmentJWT: bearer}
		change(&o)
		if _, err := New(o); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	eventstest.ExpectExactly(t, s.admin, events.TrustChanged, nil, 0)
}

func TestAFloodOfRefusedMachinesHidesNoDenialOfALease(t *testing.T) {
	l := newLender(t)
	now := l.clock.Now()
	for i := range 2 * refusalsAtOnce {
		l.service.limits.tellRefusal(strconv.Itoa(i), now)
	}
	w := l.wish(l.member()) // which nobody offered
	w.denied(events.CredentialDenied, "was not offered")
	w.again().denied(events.CredentialDenied, "was not offered") // told once an hour
	limits := newLimits()
	for i := range 4 * remembered {
		limits.tellDenial(strconv.Itoa(i))
	}
	if n := len(limits.denied.young) + len(limits.denied.old); n > 2*remembered {
		t.Errorf("%d denials are kept in mind", n)
	}
}
