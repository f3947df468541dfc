package integration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	light "chandler/agent/fleet"
	"chandler/agent/journal"
	"chandler/events"
	"chandler/events/access"
	"chandler/events/bus"
	"chandler/events/eventstest"
	"chandler/events/trust"
	"chandler/services/checker"
	"chandler/services/integration/clustertest"
)

// rig is a fleet on a cluster: three brokers that keep everything three times, two replicas of scheduling and of execution, all
// of them processes; content, credentials and the light agents are in this process. What goes to a broker goes through links.
type rig struct {
	*fleet   // its broker has ended: it made the identities, and its address is a link to any of the cluster's
	size     soakSize
	cluster  *clustertest.Cluster
	replicas []*replicaProcess
	sites    []*lightSite
	store    *journal.Store
	links    []*clustertest.Link
	disks    []disk // of the brokers
	rogue    string // an agent that is in no site

	mu   sync.Mutex
	acks []checker.Ack // statuses that the broker acknowledged
}

// lightSite is a part of the agents, with links of its own.
type lightSite struct {
	name  string
	links []*clustertest.Link
	ids   []string
	fleet *light.Fleet
}

// soakSize is how large a rig is.
type soakSize struct {
	sites, agents int // agents of a site
	script        light.Script
	syncAlways    bool    // brokers write each message to the disk before they acknowledge it
	intensity     float64 // of the time that faults may last at most; 0: as short as they may
}

// newRig starts everything and waits until all agents are known; it ends with the test.
func newRig(t *testing.T, size soakSize) *rig {
	t.Helper()
	r := &rig{size: size}
	r.fleet = &fleet{t: t} // for what is called until there is one
	r.fleet = clusteredFleet(t, r)
	must(t, r.cluster.Start())
	must(t, r.whole())
	r.admin = r.openBus(access.Administrator, "admin")
	r.owner = r.broker.Owner(t)
	r.provision()
	for _, name := range []string{"content", "credentials"} {
		r.startServiceAt(name, r.clientURLs())
	}
	for _, name := range []string{"scheduling", "execution"} {
		for _, number := range []string{"1", "2"} {
			p := r.replica(name, number)
			r.replicas = append(r.replicas, p)
			must(t, p.Start())
		}
	}
	r.setTrust(r.trust, r.roots...)
	r.startAgents()
	return r
}

// clusteredFleet is a fleet as bareFleet makes it, but for its broker: that one makes the identities and ends, and a
// cluster for the same users is made, which is not started yet.
func clusteredFleet(t *testing.T, r *rig) *fleet {
	t.Helper()
	maker := eventstest.Secure(t)
	maker.Stop()
	operator, err := maker.Keys.OperatorJWT(eventstest.FleetName)
	must(t, err)
	identity := clustertest.Identity{Operator: operator, System: maker.Account(access.System), Accounts: map[string]string{}}
	for account, text := range maker.AccountJWTs() {
		identity.Accounts[maker.Account(account)] = text
	}
	dir := t.TempDir()
	command, err := ofCluster("broker")
	must(t, err)
	r.cluster, err = clustertest.New(clustertest.Options{Dir: dir, Command: command, Identity: identity, MaxPayload: events.MaxPayload, SyncAlways: r.size.syncAlways,
		StoreDir: func(name string) string { return r.mountDisk(dir, name) }})
	must(t, err)
	t.Cleanup(r.close)
	front, err := clustertest.NewLink(strings.TrimPrefix(maker.URL(), "nats://"), r.clientAddresses()...)
	must(t, err)
	r.links = append(r.links, front)
	f := &fleet{t: t, dir: dir, broker: maker, services: map[string]*running{}, machines: map[string]*machine{}, registry: map[string]*prometheus.Registry{},
		packages: map[string]string{}, log: &logBuffer{}}
	t.Cleanup(f.close)
	f.makeTrust()
	return f
}

func (r *rig) clientAddresses() (all []string) {
	for _, n := range r.cluster.Nodes {
		all = append(all, n.Client)
	}
	return all
}

func (r *rig) clientURLs() string {
	return "nats://" + strings.Join(r.clientAddresses(), ",nats://")
}

// linksToBrokers makes a link to each broker.
func (r *rig) linksToBrokers() (all []*clustertest.Link) {
	r.t.Helper()
	for _, at := range r.clientAddresses() {
		l, err := clustertest.NewLink("", at)
		must(r.t, err)
		r.links = append(r.links, l)
		all = append(all, l)
	}
	return all
}

func urlsOf(links []*clustertest.Link) string {
	var urls []string
	for _, l := range links {
		urls = append(urls, "nats://"+l.Addr())
	}
	return strings.Join(urls, ",")
}

// openBus opens a bus that notices soon when its broker stands still.
func (r *rig) openBus(role access.Role, name string) *bus.Bus {
	r.t.Helper()
	conn := r.broker.Connect(r.t, role, name, nats.PingInterval(time.Second), nats.MaxPingsOutstanding(2), nats.ReconnectBufSize(-1))
	b, err := bus.New(bus.Options{Conn: conn, Key: r.broker.User(r.t, role, name).Key, CheckPublished: true})
	must(r.t, err)
	return b
}

func (r *rig) provision() {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 3*time.Minute)
	defer cancel()
	must(r.t, r.openBus(access.Provisioner, string(access.Provisioner)).Provision(ctx, bus.Topology{Replicas: len(r.cluster.Nodes)}))
}

// startAgents makes the sites and waits until all their agents are known.
func (r *rig) startAgents() {
	r.t.Helper()
	var err error
	r.store, err = journal.Open(filepath.Join(r.dir, "journal.db"))
	must(r.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	r.t.Cleanup(func() {
		cancel()
		running.Wait()
		if err := r.store.Close(); err != nil {
			r.t.Errorf("close the journal: %v", err)
		}
	})
	for i := range r.size.sites {
		s := r.newSite(fmt.Sprintf("site-%d", i+1))
		r.sites = append(r.sites, s)
		running.Go(func() {
			if err := s.fleet.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
				r.t.Errorf("agents of %s: %v", s.name, err)
			}
		})
	}
	r.rogue = r.broker.Agent(r.t)
	r.everyone(r.size.sites * r.size.agents)
}

func (r *rig) newSite(name string) *lightSite {
	r.t.Helper()
	s := &lightSite{name: name, links: r.linksToBrokers()}
	o := light.Options{Servers: strings.Split(urlsOf(s.links), ","), Store: r.store, Trust: func() trust.Bundle { return r.trust }, Script: r.size.script,
		CheckEvery: 5 * time.Second, BeaconEvery: 10 * time.Second, ReconnectMax: time.Second, RetryAfter: 300 * time.Millisecond, Observe: r.observe}
	for i := range r.size.agents {
		id := r.broker.Agent(r.t)
		user := r.broker.User(r.t, access.Agent, id)
		s.ids = append(s.ids, id)
		o.Members = append(o.Members, light.Member{ID: id, Seed: user.Seed, JWT: user.JWT, Facts: events.Facts{ID: id, Hostname: fmt.Sprintf("%s-%03d", name, i), OS: "linux", OSName: "debian",
			OSVersion: "12.7", Arch: "amd64", Addresses: []string{}, Site: name, Tags: []string{}, ClientKind: events.Advanced}})
	}
	var err error
	s.fleet, err = light.New(o)
	must(r.t, err)
	return s
}

// output is where a process writes.
func (r *rig) output(name string) io.Writer {
	r.t.Helper()
	file, err := os.OpenFile(filepath.Join(r.dir, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	must(r.t, err)
	r.t.Cleanup(func() { file.Close() })
	return file
}

// close ends the processes and the links.
func (r *rig) close() {
	for _, p := range r.replicas {
		if r.t.Failed() {
			p.Dump(5 * time.Second)
		}
		p.Kill()
	}
	r.cluster.Close()
	for _, l := range r.links {
		l.Close()
	}
	if r.fleet != nil && r.t.Failed() {
		r.keepLogs()
	}
}

// keepLogs puts what the processes wrote with the test's artifacts.
func (r *rig) keepLogs() {
	for _, pattern := range []string{"*.log", filepath.Join("*", "*.log")} {
		files, _ := filepath.Glob(filepath.Join(r.dir, pattern))
		for _, from := range files {
			data, err := os.ReadFile(from)
			if err != nil {
				continue
			}
			to := filepath.Join(r.t.ArtifactDir(), filepath.Base(from))
			if err := os.WriteFile(to, bytes.ToValidUTF8(data, nil), 0o600); err == nil {
				r.t.Logf("log kept (with -artifacts): %s", to)
			}
		}
	}
}

// look waits until something holds. An error that is not passing ends it at once.
func (r *rig) look(what string, most time.Duration, holds func() error, passing func(error) bool) error {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	var err error
	for deadline := time.Now().Add(most); time.Now().Before(deadline); <-tick.C {
		if err = holds(); err == nil || !passing(err) {
			return err
		}
	}
	return fmt.Errorf("waited %s in vain until %s: %w", most, what, err)
}

// anyError passes.
func anyError(error) bool { return true }
