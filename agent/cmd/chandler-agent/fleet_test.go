package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/enrolment"
	"chandler/events/eventstest"
	"chandler/events/sign"
	"chandler/events/trust"
)

// fleet is a broker that takes everybody, with an enrolment service.
type fleet struct {
	broker *eventstest.Server
	token  string
	asked  chan string               // verbs
	answer func(*events.EnrolAnswer) // changes what is answered; nil: nothing
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	account, err := nkeys.CreateAccount()
	if err != nil {
		t.Fatal(err)
	}
	root, err := sign.NewKey(bytes.Repeat([]byte{1}, 32))
	if err != nil {
		t.Fatal(err)
	}
	bundle := trust.Bundle{Fleet: "test", Version: 1, Threshold: 1, Keys: []sign.PublicKey{root.Public().Named("ada")}, Roots: trust.Roots{Threshold: 1, Keys: []sign.PublicKey{root.Public().Named("root")}}}
	envelope, err := trust.Sign(bundle, root)
	if err != nil {
		t.Fatal(err)
	}
	f := &fleet{broker: eventstest.Broker(t), asked: make(chan string, 64)}
	seed, _, err := enrolment.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	if f.token, err = (enrolment.Token{Servers: []string{f.broker.URL()}, Root: bundle.Roots.Fingerprint(), JWT: "YQ.YQ.YQ", Seed: seed}).Encode(); err != nil {
		t.Fatal(err)
	}
	state := func(verb string) func(context.Context, string, events.EnrolRequest) (events.EnrolAnswer, error) {
		return func(_ context.Context, agent string, r events.EnrolRequest) (events.EnrolAnswer, error) {
			s, err := enrolment.Verify(r, verb)
			if err != nil {
				return events.EnrolAnswer{}, bus.BadRequest(err)
			}
			f.asked <- verb
			c := jwt.NewUserClaims(s.Key)
			c.Name, c.Expires = agent, time.Now().Add(24*time.Hour).Unix()
			text, err := c.Encode(account)
			a := events.EnrolAnswer{Nonce: s.Nonce, Agent: agent, JWT: text, Bundles: [][]byte{envelope}}
			if f.answer != nil {
				f.answer(&a)
			}
			return a, err
		}
	}
	b := eventstest.Bus(t, f.broker, events.ServiceSource("credentials"))
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	before := f.broker.Broker().NumSubscriptions()
	go func() {
		done <- b.Serve(ctx, "credentials", "0.0.1", bus.Answer(events.AgentEnrol, state(events.AgentEnrol.Verb)), bus.Answer(events.AgentReturn, state(events.AgentReturn.Verb)))
	}()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for f.broker.Broker().NumSubscriptions() < before+5 { // two endpoints, three of NATS micro
		<-tick.C
	}
	return f
}

// refuse makes the enrolment service refuse; "": no longer.
func (f *fleet) refuse(r events.EnrolRefusal) {
	f.answer = nil
	if r != "" {
		f.answer = func(a *events.EnrolAnswer) { *a = events.EnrolAnswer{Nonce: a.Nonce, Refused: r} }
	}
}

// verbs are what was asked since the last time.
func (f *fleet) verbs() (all []string) {
	for {
		select {
		case v := <-f.asked:
			all = append(all, v)
		default:
			return all
		}
	}
}

// tokenFile writes the token.
func (f *fleet) tokenFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte(f.token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
