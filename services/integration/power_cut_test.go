package integration

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	light "chandler/agent/fleet"
	"chandler/agent/journal"
	"chandler/events"
	"chandler/events/access"
	"chandler/events/eventstest"
	"chandler/events/trust"
	"chandler/services/integration/faultfs"
)

var powerCuts = flag.Int("power-cuts", 2, "how many seeds the power is cut with, in TestStatusesOutliveAPowerCut")

var powerAgain = flag.Int("power-again", 2, "how often the power is cut in one run of it")

// powerFleet is a fleet whose broker is a process with a store that a power cut can be tried on, and whose agents are light.
type powerFleet struct {
	*fleet
	chance  *rand.Rand
	process *brokerProcess
	store   *faultfs.FS
	careful bool // a cut keeps only what must be durable
	mounts  int
	at      string
	journal *journal.Store
	agents  *light.Fleet
	ids     []string

	mu    sync.Mutex
	acked map[string]events.JobStatus // statuses by id
	count int                         // acknowledgements
	seen  chan struct{}               // closed and replaced with each
}

func newPowerFleet(t *testing.T, seed uint64, agents int) *powerFleet {
	t.Helper()
	faultfs.Need(t)
	maker := eventstest.Secure(t)
	maker.Stop()
	f := &fleet{t: t, dir: t.TempDir(), broker: maker, services: map[string]*running{}, machines: map[string]*machine{}, registry: map[string]*prometheus.Registry{},
		packages: map[string]string{}, log: &logBuffer{}}
	p := &powerFleet{fleet: f, chance: rand.New(rand.NewPCG(seed, 7)), at: filepath.Join(f.dir, "store"), acked: map[string]events.JobStatus{}, seen: make(chan struct{})}
	p.careful = seed%2 == 0
	p.process, f.synced = newBrokerProcess(t, maker, p.at, cutSync), p.at
	t.Cleanup(p.close)
	f.makeTrust()
	p.mount(filepath.Join(f.dir, "disk0"))
	p.process.start()
	eventstest.Provision(t, f.broker.Bus(t, access.Provisioner, string(access.Provisioner)))
	f.admin = f.broker.Bus(t, access.Administrator, "admin")
	f.owner = f.broker.Owner(t)
	f.startServices()
	f.setTrust(f.trust, f.roots...)
	p.startAgents(agents)
	return p
}

func (p *powerFleet) close() {
	p.fleet.close()
	p.process.Kill()
	if err := p.store.Close(); err != nil {
		p.t.Errorf("the broker's store: %v", err)
	}
	if p.t.Failed() {
		p.t.Logf("the broker said:\n%s", tail(p.process.log.String()))
	}
}

// mount puts the broker's store on what a directory holds.
func (p *powerFleet) mount(dir string) {
	p.t.Helper()
	var err error
	p.store, err = faultfs.Mount(faultfs.Options{Dir: dir, At: p.at, NoAutoAlloc: p.chance.IntN(2) == 0})
	must(p.t, err)
	p.mounts++
}

func (p *powerFleet) startAgents(n int) {
	p.t.Helper()
	var err error
	p.journal, err = journal.Open(filepath.Join(p.dir, "journal.db"))
	must(p.t, err)
	o := light.Options{Servers: []string{p.broker.URL()}, Store: p.journal, Trust: func() trust.Bundle { return p.trust }, Observe: p.observe,
		Script:     light.Script{Seed: p.chance.Uint64(), Duration: 200 * time.Millisecond, Spread: 0.7, Failures: 0.1, Content: true, Output: 200},
		CheckEvery: 5 * time.Second, BeaconEvery: 10 * time.Second, ReconnectMax: time.Second, RetryAfter: 500 * time.Millisecond}
	for i := range n {
		id := p.broker.Agent(p.t)
		user := p.broker.User(p.t, access.Agent, id)
		p.ids = append(p.ids, id)
		o.Members = append(o.Members, light.Member{ID: id, Seed: user.Seed, JWT: user.JWT, Facts: events.Facts{ID: id, Hostname: fmt.Sprintf("ws%03d", i), OS: "linux", OSName: "debian",
			OSVersion: "12.7", Arch: "amd64", Addresses: []string{}, Tags: []string{}, ClientKind: events.Advanced}})
	}
	p.agents, err = light.New(o)
	must(p.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.agents.Run(ctx) }()
	p.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
			p.t.Errorf("agents: %v", err)
		}
		must(p.t, p.journal.Close())
	})
	p.everyone(n)
}

// observe remembers what the broker acknowledged.
func (p *powerFleet) observe(o light.Observation) {
	if o.What != light.StatusStored {
		return
	}
	s := events.JobStatus{Job: o.Job, Deployment: o.Deployment, Agent: o.Agent, Attempt: o.Attempt, State: o.State, Transition: o.Transition}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.acked[s.StatusID()] = s
	p.count++
	close(p.seen)
	p.seen = make(chan struct{})
}

// acknowledged waits until the broker has acknowledged so many statuses more.
func (p *powerFleet) acknowledged(more int) {
	p.t.Helper()
	p.mu.Lock()
	until := p.count + more
	p.mu.Unlock()
	late := time.After(time.Minute)
	for {
		p.mu.Lock()
		count, seen := p.count, p.seen
		p.mu.Unlock()
		if count >= until {
			return
		}
		select {
		case <-seen:
		case <-late:
			p.t.Fatalf("only %d of %d acknowledgements came", count, until)
		}
	}
}

// cutPower kills the broker and starts it on what its store is after a power cut. It tells what had been acknowledged
// before, and how much of that the store has lost.
func (p *powerFleet) cutPower() (before map[string]events.JobStatus, lost int) {
	p.t.Helper()
	p.mu.Lock()
	before = make(map[string]events.JobStatus, len(p.acked))
	for id, s := range p.acked {
		before[id] = s
	}
	p.mu.Unlock()
	p.process.Kill()
	alone := p.chance.IntN(2) == 0 // else the services are on the same machine, as those of `chandler up`
	if !alone {
		for _, name := range serviceNames {
			p.killService(name)
		}
	}
	dir := filepath.Join(p.dir, fmt.Sprintf("disk%d", p.mounts))
	must(p.t, os.MkdirAll(dir, 0o700))
	live := filepath.Join(dir, "live")
	if p.careful {
		must(p.t, p.store.Cut(live))
	} else {
		must(p.t, p.store.CutKeeping(live, p.chance.Uint64()))
	}
	must(p.t, p.store.Close())
	p.mount(dir)
	p.process.start()
	if !alone {
		p.startServices()
	}
	stored := p.storedStatuses()
	for id := range before {
		if !stored[id] {
			lost++
		}
	}
	return before, lost
}

// storedStatuses are the ids of what STATUS holds.
func (p *powerFleet) storedStatuses() map[string]bool {
	p.t.Helper()
	stored := map[string]bool{}
	read := func() error {
		_, err := p.owner.Replay(p.t.Context(), events.StreamStatus, "chandler.job.>", 1, func(msg jetstream.Msg) error {
			if e, err := typed[events.JobStatus](msg); err == nil {
				stored[e.ID] = true
			}
			return nil
		})
		return err
	}
	var err error
	eventually(p.t, "STATUS is read", func() bool { err = read(); return err == nil })
	return stored
}

// parked is how long a job says that it is retrying before it counts as settled: the broker may have lost its timer,
// and execution then offers it again after the pause that the failure's class prescribes, not the agent's short one.
const parked = 10 * time.Second

// settled waits until every job of these deployments has ended, or waits for its next attempt, by execution's word.
func (p *powerFleet) settled(deployments []string) {
	p.t.Helper()
	for _, d := range deployments {
		var open []string
		ended := func() bool {
			rows, err := ask(p.fleet, events.ExecutionJobs, events.JobQuery{Deployment: d, Limit: 10000})
			if err != nil {
				open = []string{err.Error()}
				return false
			}
			open = nil
			for _, row := range rows.Jobs {
				if !row.State.Terminal() && (row.State != events.Retrying || time.Since(row.Changed) < parked) {
					open = append(open, fmt.Sprintf("%s: %s, attempt %d", row.Agent, row.State, row.Attempt))
				}
			}
			if missing := len(p.ids) - len(rows.Jobs); missing > 0 {
				open = append(open, fmt.Sprintf("%d jobs are not known", missing))
			}
			return len(open) == 0
		}
		p.patiently("all jobs of "+d+" have ended", ended, func() string { return strings.Join(open, "\n") })
	}
}

// patiently waits longer than others do: agents find out by beacons what was lost, and those come once a minute.
func (p *powerFleet) patiently(what string, holds func() bool, why func() string) {
	p.t.Helper()
	tick := time.NewTicker(500 * time.Millisecond) // looking is work for the broker
	defer tick.Stop()
	for deadline := time.Now().Add(3 * time.Minute); time.Now().Before(deadline); <-tick.C {
		if holds() {
			return
		}
	}
	p.t.Fatalf("waited in vain: %s:\n%s", what, why())
}

// wantAll waits until all statuses are stored again.
func (p *powerFleet) wantAll(before map[string]events.JobStatus) {
	p.t.Helper()
	var missing []string
	p.patiently("every status that was acknowledged is stored", func() bool {
		stored := p.storedStatuses()
		missing = nil
		for id, s := range before {
			if !stored[id] {
				missing = append(missing, fmt.Sprintf("%s %s: %s, attempt %d, transition %d", s.Agent, s.Deployment, s.State, s.Attempt, s.Transition))
			}
		}
		slices.Sort(missing)
		return len(missing) == 0
	}, func() string {
		return fmt.Sprintf("%d of %d are missing:\n%s", len(missing), len(before), strings.Join(missing[:min(len(missing), 20)], "\n"))
	})
}

// wantAgreement holds execution, the journals and the executors' own record against each other.
func (p *powerFleet) wantAgreement(deployments []string) {
	p.t.Helper()
	type attempt struct {
		job    string
		number int
	}
	ran := map[attempt]int{}
	for _, r := range p.agents.Runs() {
		a := attempt{r.Job, r.Attempt}
		if ran[a]++; ran[a] > 1 {
			p.t.Errorf("%s ran attempt %d of %s %d times", r.Agent, r.Attempt, r.Deployment, ran[a])
		}
	}
	journals := map[string]journal.Job{}
	must(p.t, light.Journals(p.journal, func(_ string, j journal.Job) error {
		journals[j.Offer.Job] = j
		return nil
	}))
	for _, d := range deployments {
		for _, row := range mustAsk(p.fleet, events.ExecutionJobs, events.JobQuery{Deployment: d, Limit: 10000}).Jobs {
			j, ok := journals[row.Job]
			if !ok || j.Last.State != row.State || j.Last.Attempt != row.Attempt {
				p.t.Errorf("%s of %s: execution has %s in attempt %d, the journal %s in %d", d, row.Agent, row.State, row.Attempt, j.Last.State, j.Last.Attempt)
			}
			if n := ran[attempt{row.Job, row.Attempt}]; n != 1 {
				p.t.Errorf("%s of %s ended as %s in attempt %d, which ran %d times", d, row.Agent, row.State, row.Attempt, n)
			}
		}
	}
}

// TestStatusesOutliveAPowerCut cuts the power of the broker while agents report as fast as they can, twice. What was
// acknowledged and not synced is lost, and comes back from the agents; nothing runs twice.
func TestStatusesOutliveAPowerCut(t *testing.T) {
	if raceDetector {
		t.Skip("the plain run cuts the power: it must come before the broker syncs, for which two cores are too slow with the race detector")
	}
	t.Parallel()
	for seed := range uint64(*powerCuts) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			p := newPowerFleet(t, seed, 30)
			pkg := p.publish("1.0", payload, "")
			var deployments []string
			sum := 0
			for range *powerAgain {
				for range 6 {
					name := fmt.Sprintf("d%d", len(deployments))
					p.deploy(name, pkg)
					deployments = append(deployments, name)
				}
				p.acknowledged(50 + p.chance.IntN(600))
				before, lost := p.cutPower()
				t.Logf("of %d acknowledged statuses %d were lost", len(before), lost)
				sum += lost
				p.wantAll(before)
			}
			if sum == 0 && p.careful {
				t.Error("nothing was lost: the test shows nothing")
			}
			p.settled(deployments)
			p.wantAll(p.acknowledgedSoFar())
			p.wantAgreement(deployments)
		})
	}
}

func (p *powerFleet) acknowledgedSoFar() map[string]events.JobStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make(map[string]events.JobStatus, len(p.acked))
	for id, s := range p.acked {
		all[id] = s
	}
	return all
}

// TestAcknowledgedDeploymentsOutliveAPowerCut cuts the power while an administrator creates deployments: those that
// scheduling said it has must be there afterwards.
func TestAcknowledgedDeploymentsOutliveAPowerCut(t *testing.T) {
	t.Parallel()
	p := newPowerFleet(t, 0, 2)
	pkg := p.publish("1.0", payload, "")
	const deployments = 10
	for n := range deployments {
		p.deploy(fmt.Sprintf("d%d", n), pkg)
	}
	p.cutPower()
	var lost []string
	for n := range deployments {
		name := fmt.Sprintf("d%d", n)
		if _, err := ask(p.fleet, events.DeploymentShow, events.Named{Name: name}); err != nil {
			lost = append(lost, fmt.Sprintf("%s: %v", name, err))
		}
	}
	if len(lost) > 0 {
		t.Errorf("of %d deployments %d are lost: %s", deployments, len(lost), strings.Join(lost, "; "))
	}
}
