package enrol_test

import (
	"context"
	"testing"
	"time"

	"chandler/events"
	"chandler/events/access"
	"chandler/events/bus"
	"chandler/events/enrolment"
	"chandler/events/eventstest"
)

// realFleet is a fleet on a broker with the accounts and permissions of real ones.
func realFleet(t *testing.T) (*fleet, *eventstest.SecureBroker) {
	t.Helper()
	s := eventstest.Secure(t)
	f := &fleet{t: t, broker: s.Server, clock: &clock{at: time.Now()}, asked: map[string]int{}}
	seed, _, err := enrolment.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	f.publish(bundle(1, "a"), "a")
	f.token = enrolment.Token{Servers: []string{s.URL()}, Root: bundle(1, "a").Roots.Fingerprint(), JWT: s.User(t, access.Enrolling, "enrol").JWT, Seed: seed}
	f.service = s.Bus(t, access.Service("credentials"), "credentials")
	identify := func(verb, key string, have int) (events.EnrolAnswer, error) {
		a := f.refusal(verb, have)
		var err error
		if a.Refused == "" {
			a.JWT, err = access.Mint(access.Agent, s.Keys.Roles[access.Agent], s.Account(access.Agents), access.User{Name: events.AgentID([]byte(key)), Key: key, Expires: time.Now().Add(life)})
		}
		return a, err
	}
	keys := map[string]string{}
	state := func(verb string) func(context.Context, string, events.EnrolRequest) (events.EnrolAnswer, error) {
		return func(_ context.Context, caller string, r events.EnrolRequest) (events.EnrolAnswer, error) {
			st, err := enrolment.Verify(r, verb)
			if err != nil {
				return events.EnrolAnswer{}, bus.BadRequest(err)
			}
			f.set(func() { keys[caller] = st.Key })
			a, err := identify(verb, st.Key, st.Trust)
			a.Nonce = st.Nonce
			return a, err
		}
	}
	renew := func(_ context.Context, caller string, r events.RenewRequest) (events.EnrolAnswer, error) {
		f.mu.Lock()
		key := keys[caller]
		f.mu.Unlock()
		return identify("renew", key, r.Trust)
	}
	f.answerWith(bus.Answer(events.AgentEnrol, state("enrol")), bus.Answer(events.AgentReturn, state("return")), bus.Answer(events.AgentRenew, renew), bus.Answer(events.AgentTrust, f.newer))
	return f, s
}

func TestTheWholeLifeOfAnAgentUnderRealPermissions(t *testing.T) {
	f, s := realFleet(t)
	a := f.machine(t)
	eventually(t, "it enrols", func() bool { return a.Enrol(t.Context(), f.token, events.Facts{Hostname: "ws-1"}) == nil })
	a.run()
	eventually(t, "it is connected and has asked for bundles", func() bool { return a.conn.IsConnected() && f.count(trustVerb) == 1 })
	f.publish(bundle(2, "a"), "a")
	f.announce(2)
	eventually(t, "it follows what is announced", func() bool { return a.Trust().Version == 2 })

	f.clock.advance(13 * time.Hour)
	a.Wake()
	eventually(t, "it renews and shows it", func() bool { return f.count(renewVerb) == 1 && a.conn.Stats().Reconnects == 1 && a.conn.IsConnected() })

	f.set(func() { f.refuse = &events.EnrolAnswer{Refused: events.RefusedRevoked} })
	s.Revoke(t, eventstest.User{Role: access.Agent, Key: a.PublicKey()})
	eventually(t, "it is thrown out, and knows why", func() bool { return !a.conn.IsConnected() && a.State().Refused == events.RefusedRevoked })
	if a.log.has("ermissions violation") {
		t.Error("the broker refused something that an agent does")
	}
}
