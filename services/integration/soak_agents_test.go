package integration

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/nats-io/nats.go"

	"chandler/events"
	"chandler/events/access"
	"chandler/services/integration/clustertest"
)

func agentFaults() []fault {
	return []fault{
		{name: "agents killed", weight: 3, place: atAgents, to: 5 * time.Second, do: agentsKilled},
		{name: "agents disconnected", weight: 2, place: atAgents, do: agentsDisconnected},
		{name: "site cut off", weight: 2, place: atAgents, from: 500 * time.Millisecond, to: 30 * time.Second, do: siteCutOff},
		{name: "site on a bad line", weight: 2, place: atAgents, from: time.Second, to: 30 * time.Second, do: siteOnABadLine},
		{name: "rubbish published", weight: 1, place: atAgents, do: rubbishPublished},
	}
}

func (r *rig) anySite(random *rand.Rand) *lightSite { return r.sites[random.IntN(len(r.sites))] }

// agentsKilled kills up to half the agents of a site and starts them again.
func agentsKilled(r *rig, random *rand.Rand) (string, func() error, error) {
	s := r.anySite(random)
	var ids []string
	for _, i := range random.Perm(len(s.ids))[:1+random.IntN(len(s.ids)/2)] {
		ids = append(ids, s.ids[i])
		s.fleet.Kill(s.ids[i])
	}
	return fmt.Sprintf("%d of %s", len(ids), s.name), func() error {
		var all []error
		for _, id := range ids {
			all = append(all, s.fleet.Start(id))
		}
		return errors.Join(all...)
	}, nil
}

// agentsDisconnected breaks most connections of all sites at once.
func agentsDisconnected(r *rig, random *rand.Rand) (string, func() error, error) {
	share := 0.5 + random.Float64()/2
	for _, s := range r.sites {
		for _, l := range s.links {
			l.Cut(share)
		}
	}
	return fmt.Sprintf("%.0f%% of all", 100*share), func() error { return nil }, nil
}

func siteCutOff(r *rig, random *rand.Rand) (string, func() error, error) {
	s, weather, how := r.anySite(random), clustertest.Stalled, "packets are lost"
	if random.IntN(2) == 0 {
		weather, how = clustertest.Weather{Refused: true}, "connections are refused"
	}
	s.set(weather)
	return s.name + ": " + how, func() error { s.set(clustertest.Weather{}); return nil }, nil
}

func siteOnABadLine(r *rig, random *rand.Rand) (string, func() error, error) {
	s := r.anySite(random)
	way := clustertest.Way{Delay: time.Duration(10+random.IntN(500)) * time.Millisecond, Loss: 0.3 * random.Float64(), Rate: 20_000 + random.IntN(200_000)}
	s.set(clustertest.Weather{Forth: way, Back: way})
	return fmt.Sprintf("%s: %s, %.0f%% lost, %d KB/s", s.name, way.Delay, 100*way.Loss, way.Rate/1000), func() error { s.set(clustertest.Weather{}); return nil }, nil
}

func (s *lightSite) set(w clustertest.Weather) {
	for _, l := range s.links {
		l.Set(w)
	}
}

// rubbish is what one burst of it holds, in messages.
const rubbish = 2000

// rubbishPublished has one enrolled agent, that is in no collection, say as fast as it can what no agent says.
func rubbishPublished(r *rig, random *rand.Rand) (string, func() error, error) {
	id := r.rogue
	conn, err := nats.Connect(r.clientURLs(), r.broker.User(r.t, access.Agent, id).Options()...)
	if err != nil {
		return "no broker lets it in", func() error { return nil }, nil //nolint:nilerr // brokers may be away
	}
	defer conn.Close()
	subjects := []string{events.JobSucceeded.Subject(id), events.JobRunning.Subject(id), events.JobLogged.Subject(id), events.AgentReported.Subject(id)}
	sent := 0
	for range rubbish {
		m := nats.NewMsg(subjects[random.IntN(len(subjects))])
		m.Data = make([]byte, random.IntN(2000))
		for i := range m.Data {
			m.Data[i] = byte(random.Uint32())
		}
		if random.IntN(2) == 0 {
			m.Header.Set("ce-specversion", "1.0")
			m.Header.Set("ce-type", events.JobSucceeded.Name)
			m.Header.Set("ce-source", events.AgentSource(id))
		}
		if conn.PublishMsg(m) == nil {
			sent++
		}
	}
	_ = conn.FlushTimeout(5 * time.Second) // what did not arrive is no loss
	return fmt.Sprintf("%d messages", sent), func() error { return nil }, nil
}
