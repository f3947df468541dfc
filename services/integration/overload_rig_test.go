package integration

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	light "chandler/agent/fleet"
	"chandler/agent/journal"
	"chandler/events"
	"chandler/events/access"
	"chandler/events/order"
	"chandler/events/trust"
	"chandler/services/checker"
	"chandler/services/integration/clustertest"
)

const mib = 1 << 20

// multitude is light agents of a fleet, on a link of their own to its broker.
type multitude struct {
	*rig
	site *lightSite
	link *clustertest.Link
}

// honest is where a multitude's agents are, and the collection of them.
const honest = "honest"

// newMultitude starts so many agents and waits until all are known; they end with the test. of chooses among identities; nil: any.
func newMultitude(f *fleet, n int, script light.Script, of func(id string) bool) *multitude {
	t := f.t
	t.Helper()
	link, err := clustertest.NewLink("", strings.TrimPrefix(f.broker.URL(), "nats://"))
	must(t, err)
	t.Cleanup(link.Close)
	store, err := journal.Open(filepath.Join(f.dir, "journal.db"))
	must(t, err)
	c := &multitude{rig: &rig{fleet: f, store: store}, site: &lightSite{name: honest}, link: link}
	c.sites = []*lightSite{c.site}
	o := light.Options{Servers: []string{"nats://" + link.Addr()}, Store: store, Trust: func() trust.Bundle { return f.trust }, Script: script, ReconnectMax: time.Second, RetryAfter: 300 * time.Millisecond,
		CheckEvery: 2 * time.Second, BeaconEvery: 5 * time.Second, Observe: c.observe}
	for len(o.Members) < n {
		id := f.broker.Agent(t)
		if of != nil && !of(id) {
			continue
		}
		user := f.broker.User(t, access.Agent, id)
		c.site.ids = append(c.site.ids, id)
		o.Members = append(o.Members, light.Member{ID: id, Seed: user.Seed, JWT: user.JWT, Facts: events.Facts{ID: id, Hostname: fmt.Sprintf("ws-%03d", len(o.Members)), OS: "linux", OSName: "debian",
			OSVersion: "12.7", Arch: "amd64", Addresses: []string{}, Site: honest, Tags: []string{}, ClientKind: events.Advanced}})
	}
	c.site.fleet, err = light.New(o)
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := c.site.fleet.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("agents: %v", err)
		}
	})
	t.Cleanup(func() {
		cancel()
		running.Wait()
		must(t, store.Close())
	})
	mustAsk(f, events.CollectionSet, events.Collection{Name: honest, Expression: c.site.expression()})
	eventually(t, "all agents are known", func() bool {
		return len(mustAsk(f, events.CollectionShow, events.Named{Name: honest}).Members) == n
	})
	return c
}

// toAll deploys to the multitude.
func (c *multitude) toAll(name string, p events.PackageInfo) {
	c.t.Helper()
	c.deploy(name, p, func(o *order.Order) { o.Collection, o.Expression = c.site.name, c.site.expression() })
}

// succeeded waits until all agents have done a deployment and execution knows it.
func (c *multitude) succeeded(deployment string) {
	c.t.Helper()
	eventually(c.t, deployment+" has succeeded everywhere", func() bool {
		p, err := ask(c.rig.fleet, events.ExecutionProgress, events.Named{Name: deployment})
		return err == nil && len(p.States) == 1 && p.States[events.Succeeded] == int64(len(c.site.ids))
	})
}

// allSucceeded waits until all agents have done these deployments, and holds all witnesses against each other: nothing is lost
// and nothing ran twice.
func (c *multitude) allSucceeded(deployments ...string) {
	c.t.Helper()
	for _, name := range deployments {
		c.succeeded(name)
	}
	err := c.look("the witnesses agree", doubts, func() error {
		e, err := c.evidence(deployments)
		if err != nil {
			return err
		}
		e.Slack = 0 // all are of one clock
		if found := checker.Check(e); len(found) > 0 {
			return errors.New(checker.Report(found, 3))
		}
		return nil
	}, anyError)
	must(c.t, err)
}

// asDeployed are the broker's limits on connections of deploy/nats, which concern who does not read.
func asDeployed(o *server.Options) { o.MaxPending, o.WriteDeadline = 16*mib, 10*time.Second }

// heap is what this process keeps, in bytes: the broker, the services that are no processes of their own, and the agents.
func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // what was being swept
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// consumer is what the broker knows of a reader.
func (f *fleet) consumer(stream, name string) *jetstream.ConsumerInfo {
	f.t.Helper()
	c, err := f.owner.JetStream().Consumer(f.t.Context(), stream, name)
	must(f.t, err)
	return c.CachedInfo()
}

// waiting is what a reader has still to settle.
func waiting(i *jetstream.ConsumerInfo) uint64 { return i.NumPending + uint64(i.NumAckPending) }

// kept is what a stream holds on the subjects that match.
func (f *fleet) kept(stream, subjects string) (perSubject map[string]uint64) {
	f.t.Helper()
	s, err := f.owner.JetStream().Stream(f.t.Context(), stream)
	must(f.t, err)
	info, err := s.Info(f.t.Context(), jetstream.WithSubjectFilter(subjects))
	must(f.t, err)
	return info.State.Subjects
}

func sum(perSubject map[string]uint64) (n uint64) {
	for _, more := range perSubject {
		n += more
	}
	return n
}
