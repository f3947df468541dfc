package nats_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
	"chandler/events/access"
	"chandler/events/bus"
)

const (
	speaking = 32  // agents that tell statuses at the same time, each the next one when the last is stored
	statuses = 500 // that each of them tells
)

// BenchmarkStoring measures what the boundary between the accounts costs: statuses of agents, each acknowledged
// by the stream, without authentication, from a user of the account that has the stream, and from agents in
// their own.
func BenchmarkStoring(b *testing.B) {
	f := newFleet(b, speaking)
	rounds := map[string][]cost{}
	for b.Loop() {
		for _, name := range senders() {
			rounds[name] = append(rounds[name], storing(b, f, name, statuses))
		}
	}
	report(b, "status", rounds, senders()...)
}

// senders are who tells statuses, by how they come to the stream.
func senders() []string { return []string{"no-accounts", "one-account", "two-accounts"} }

func storing(t testing.TB, f *fleet, sender string, each int) cost {
	t.Helper()
	broker := f.start(t, way{Accounts: sender != "no-accounts"})
	defer broker.stop()
	broker.provision(t)
	conns := make([]*nats.Conn, speaking)
	for i, a := range f.agents {
		if sender == "one-account" {
			a = f.neighbour(t, a.name)
		}
		conn, err := broker.connect(a)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conns[i] = conn
	}
	before, started := broker.usage(t), time.Now()
	err := together(speaking, func(i int) error { return tell(t, conns[i], f.agents[i].name, each) })
	took := time.Since(started)
	if err != nil {
		t.Fatal(err)
	}
	return broker.usage(t).since(before, speaking*each, took)
}

// tell stores an agent's statuses one after the other.
func tell(t testing.TB, conn *nats.Conn, agent string, n int) error {
	js, err := jetstream.New(conn)
	if err != nil {
		return err
	}
	kind, ok := events.StatusType(events.Running)
	if !ok {
		return fmt.Errorf("state %s has no type", events.Running)
	}
	status, ok := kind.Example.(events.JobStatus)
	if !ok {
		return fmt.Errorf("the example of %s is a %T", kind.Name, kind.Example)
	}
	status.Agent, status.Job = agent, events.JobID(status.Deployment, status.Revision, agent, 0, "")
	for i := range n {
		status.Transition = uint32(i + 1)
		m, err := bus.Message(kind, events.Event[events.JobStatus]{ID: status.StatusID(), Source: events.AgentSource(agent), Subject: agent, Time: status.At, Data: status})
		if err != nil {
			return err
		}
		if _, err := js.PublishMsg(t.Context(), m); err != nil {
			return fmt.Errorf("status %d of agent %s: %w", i+1, agent, err)
		}
	}
	return nil
}

// provision makes the streams.
func (b *broker) provision(t testing.TB) {
	t.Helper()
	conn, err := b.connect(b.fleet.user(t, access.Provisioner, string(access.Provisioner)))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	out, err := bus.New(bus.Options{Conn: conn})
	if err != nil {
		t.Fatal(err)
	}
	if err := out.Provision(t.Context(), bus.Topology{}); err != nil {
		t.Fatal(err)
	}
}

func TestStatusesAreStoredInEachOfTheWaysThatAreMeasured(t *testing.T) {
	f := newFleet(t, speaking)
	for _, sender := range senders() {
		t.Run(sender, func(t *testing.T) {
			if c := storing(t, f, sender, 2); c.perSecond <= 0 {
				t.Errorf("measured %+v", c)
			}
		})
	}
}
