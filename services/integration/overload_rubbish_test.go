package integration

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	light "chandler/agent/fleet"
	"chandler/events"
	"chandler/events/access"
	"chandler/events/bus"
	"chandler/services/checker"
)

// flood is one client that says again and again what it may, as fast as the broker takes it.
type flood struct {
	conn *nats.Conn
	name string
	sent int
}

func (f *fleet) floodOf(role access.Role, name string) *flood {
	f.t.Helper()
	return &flood{conn: f.broker.Connect(f.t, role, name), name: name}
}

// say publishes so many messages and waits until the broker has taken them.
func (d *flood) say(n int, what func(i int) (*nats.Msg, error)) error {
	for range n {
		m, err := what(d.sent)
		if err != nil {
			return err
		}
		if err := d.conn.PublishMsg(m); err != nil {
			return err
		}
		d.sent++
	}
	return d.conn.FlushTimeout(time.Minute)
}

// spoken is what an agent says, as bus makes it, under an id that no other has.
func spoken[T any](i int, t events.Type[T], agent string, data T) (*nats.Msg, error) {
	return bus.Message(t, events.Event[T]{ID: events.DeriveID("invented", agent, fmt.Sprint(i)), Source: events.AgentSource(agent), Subject: agent, Time: time.Now(), Data: data})
}

// malformed is what no reader can take, of every kind in turn.
func malformed(agent string) func(i int) (*nats.Msg, error) {
	subjects := []string{events.JobRunning.Subject(agent), events.JobSucceeded.Subject(agent), events.JobLogged.Subject(agent), events.AgentReported.Subject(agent),
		events.CredentialUsed.Subject(agent), events.Heartbeat.Subject(agent)}
	return func(i int) (*nats.Msg, error) {
		m := nats.NewMsg(subjects[i%len(subjects)])
		m.Data = []byte(strings.Repeat("rubbish ", i%100))
		if i%2 == 0 {
			m.Header.Set("ce-specversion", "1.0")
			m.Header.Set("ce-type", events.JobSucceeded.Name)
			m.Header.Set("ce-source", events.AgentSource(agent))
		}
		return m, nil
	}
}

// invented is what every reader can take and none of which is true: a user more with each status, other facts with each report,
// another run of the agent with each heartbeat.
func invented(agent string, o events.JobRow, digest string) func(i int) (*nats.Msg, error) {
	return func(i int) (*nats.Msg, error) {
		now := time.Now().UTC()
		switch i % 4 {
		case 0, 1:
			user := fmt.Sprintf("user-%d", i)
			return spoken(i, events.JobRunning, agent, events.JobStatus{Job: events.JobID(o.Deployment, o.Revision, agent, o.Occurrence, user), Deployment: o.Deployment, Revision: o.Revision, Order: digest,
				Agent: agent, User: user, Occurrence: o.Occurrence, Attempt: 1, Transition: 1, State: events.Running, At: now})
		case 2:
			return spoken(i, events.AgentReported, agent, events.AgentReport{At: now, Facts: events.Facts{ID: agent, Hostname: fmt.Sprintf("host-%d", i), OS: "linux", Addresses: []string{}, Tags: []string{}, Site: "elsewhere", ClientKind: events.Advanced}})
		}
		return spoken(i, events.Heartbeat, agent, events.HeartbeatNote{Agent: agent, Version: "0.1.0", At: now, Instance: fmt.Sprintf("%016d", i)})
	}
}

// asking is a call, made without waiting for what is answered.
func asking[Req, Resp any](t *testing.T, call events.Call[Req, Resp], key, name string, req Req) func(int) (*nats.Msg, error) {
	t.Helper()
	body, err := json.Marshal(req)
	must(t, err)
	return func(i int) (*nats.Msg, error) {
		return &nats.Msg{Subject: call.Subject(key, name), Reply: fmt.Sprintf("_INBOX.%s.flood.%d", name, i), Data: body}, nil
	}
}

// TestClientsThatSayRubbishAtFullSpeedHinderNobody has two enrolled agents, a viewer and an agent that asks say all that the broker
// lets them, while others work.
func TestClientsThatSayRubbishAtFullSpeedHinderNobody(t *testing.T) {
	f := bareFleet(t, asDeployed)
	f.startServices()
	f.setTrust(f.trust, f.roots...)
	c := newMultitude(f, 32, light.Script{}, nil)
	p := f.publish("1.0", payload, "")
	c.toAll("first", p)
	c.allSucceeded("first")
	e, err := checker.Collect(t.Context(), f.owner, "owner", []string{"first"})
	must(t, err)
	stray, liar, asker := f.broker.Agent(t), f.broker.Agent(t), f.broker.Agent(t)
	viewer := f.broker.User(t, access.Viewer, "viewer")
	before := heap()

	// A dead letter takes longer than a status, and of the liar's jobs some are to be beyond what is kept of one agent.
	bursts, strays, lies, asks := 6, 400, 1500, 1500
	if raceDetector { // everything takes many times as long
		bursts, strays, asks = 4, 50, 300
		lies = 4096*2/bursts + 100
	}
	var floods sync.WaitGroup
	begun := make(chan struct{}, 4)
	say := func(d *flood, burst int, what func(int) (*nats.Msg, error)) {
		floods.Go(func() {
			for i := range bursts {
				if err := d.say(burst, what); err != nil {
					t.Errorf("%s is not heard: %v", d.name, err)
				}
				if i == 0 {
					begun <- struct{}{}
				}
			}
		})
	}
	say(f.floodOf(access.Agent, stray), strays, malformed(stray))
	say(f.floodOf(access.Agent, liar), lies, invented(liar, e.Jobs[0], e.Offers[0].Order))
	say(f.floodOf(access.Agent, asker), asks, asking(t, events.ExecutionSync, "", asker, events.SyncRequest{OfferFormat: events.OfferFormat}))
	say(f.floodOf(access.Viewer, viewer.Name), asks, asking(t, events.ExecutionJobs, viewer.Key, viewer.Name, events.JobQuery{}))
	for range cap(begun) {
		<-begun
	}
	// Others meanwhile: what they ask and do stands behind what is there already, and no longer.
	newcomer := f.broker.Bus(t, access.Agent, f.broker.Agent(t))
	f.reports(newcomer, "newcomer")
	c.toAll("meanwhile", p)
	c.succeeded("meanwhile")
	eventually(t, "a machine that joined is known", func() bool {
		return len(mustAsk(f, events.AgentList, events.AgentQuery{Name: "newcomer"}).Agents) == 1
	})
	floods.Wait()

	readers := map[string]string{"scheduling": events.StreamEvents}
	for _, id := range []string{stray, liar} {
		readers[fmt.Sprintf("execution-%d", events.Partition(id, events.Partitions))] = events.StreamStatus
	}
	for name, stream := range readers {
		eventually(t, name+" has settled all that was said", func() bool { return waiting(f.consumer(stream, name)) == 0 })
	}
	for name, s := range f.services {
		if n := s.conn.Stats().Reconnects; n != 0 {
			t.Errorf("the broker cut %s off %d times", name, n)
		}
	}
	eventually(t, "memory is given back", func() bool { return heap()-before < 96*mib }) // the broker forgets what it has read after a while
	// Of what one agent says no more than a bounded part is kept, whatever it is.
	if n := f.counted("execution", "chandler_execution_folded_total", `result="over_limit"`); n < float64(bursts*lies/2-4096) {
		t.Errorf("only %v of the liar's jobs were left out", n)
	}
	if n := len(f.kept("KV_"+events.BucketAgents, "$KV."+events.BucketAgents+"."+liar)); n != 1 {
		t.Errorf("%d records of the liar are kept", n)
	}
	c.toAll("afterwards", p)
	c.allSucceeded("meanwhile", "afterwards")
}

// TestOneAgentsLargestMessagesCutNoServiceOff has an agent say what is as large as a stream takes, on everything that services read.
func TestOneAgentsLargestMessagesCutNoServiceOff(t *testing.T) {
	t.Parallel()
	f := bareFleet(t, asDeployed)
	f.startServices()
	f.setTrust(f.trust, f.roots...)
	id := f.broker.Agent(t)
	d, large := f.floodOf(access.Agent, id), make([]byte, mib-1024)
	readers := map[string]string{"scheduling": events.StreamEvents, "credentials": events.StreamEvents, fmt.Sprintf("execution-%d", events.Partition(id, events.Partitions)): events.StreamStatus}
	subjects := []string{events.AgentReported.Subject(id), events.CredentialUsed.Subject(id), events.JobRunning.Subject(id)}
	const each = 50
	must(t, d.say(each*len(subjects), func(i int) (*nats.Msg, error) {
		return &nats.Msg{Subject: subjects[i%len(subjects)], Data: large, Header: nats.Header{"ce-type": {events.JobRunning.Name}}}, nil
	}))
	eventually(t, "all of it is put aside", func() bool {
		return sum(f.kept(events.StreamDeadLetter, events.DeadLetterSubject("*"))) >= uint64(each*len(subjects))
	})
	for name, stream := range readers {
		eventually(t, name+" has settled it", func() bool { return waiting(f.consumer(stream, name)) == 0 })
	}
	for name, s := range f.services {
		if n := s.conn.Stats().Reconnects; n != 0 {
			t.Errorf("the broker cut %s off %d times", name, n)
		}
	}
}

// reports tells the facts of an agent.
func (f *fleet) reports(b *bus.Bus, hostname string) {
	f.t.Helper()
	id := strings.TrimPrefix(b.Source(), events.AgentSource(""))
	_, err := bus.Publish(f.t.Context(), b, events.AgentReported, events.Event[events.AgentReport]{ID: events.DeriveID("facts", id), Subject: id, Time: time.Now(),
		Data: events.AgentReport{At: time.Now().UTC(), Facts: events.Facts{ID: id, Hostname: hostname, OS: "linux", Addresses: []string{}, Tags: []string{}, Site: "elsewhere", ClientKind: events.Advanced}}})
	must(f.t, err)
}
