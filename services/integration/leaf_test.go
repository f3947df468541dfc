package integration

import (
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"chandler/events"
	"chandler/events/access"
	"chandler/events/enrolment"
	"chandler/events/eventstest"
	"chandler/services/integration/clustertest"
)

// branch is a site with a leaf node and its one line to the hub.
type branch struct {
	f    *fleet
	leaf *server.Server
	hub  string // where the hub takes leaf nodes, host:port
	line *clustertest.Link
	at   string // where the line begins, host:port
}

// newBranch makes a fleet whose broker takes leaf nodes, and one.
func newBranch(t *testing.T) *branch {
	t.Helper()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	at := free.Addr().(*net.TCPAddr)
	must(t, free.Close())
	broker := eventstest.Secure(t, func(o *server.Options) {
		o.JetStreamDomain = access.Domain
		o.LeafNode.Host, o.LeafNode.Port, o.LeafNode.IsolateLeafnodeInterest = at.IP.String(), at.Port, true
	})
	f := &fleet{t: t, dir: t.TempDir(), broker: broker, services: map[string]*running{}, machines: map[string]*machine{},
		registry: map[string]*prometheus.Registry{}, packages: map[string]string{}, log: &logBuffer{}}
	t.Cleanup(f.close)
	f.admin, f.owner = broker.Bus(t, access.Administrator, "admin"), broker.Owner(t)
	f.makeTrust()
	f.startServices()
	f.setTrust(f.trust, f.roots...)
	s := &branch{f: f, hub: at.String()}
	s.mend()
	s.at = s.line.Addr()
	t.Cleanup(func() { s.line.Close() })
	s.start()
	return s
}

// cut takes the line away, mend brings it back.
func (s *branch) cut() { s.line.Close() }

func (s *branch) mend() {
	s.f.t.Helper()
	var err error
	s.line, err = clustertest.NewLink(s.at, s.hub)
	must(s.f.t, err)
}

// start starts the leaf node as deploy/nats/leaf.conf does, but in clear text.
func (s *branch) start() {
	t, b := s.f.t, s.f.broker
	t.Helper()
	dir := t.TempDir()
	text, err := b.Keys.OperatorJWT(eventstest.FleetName)
	must(t, err)
	operator, err := jwt.DecodeOperatorClaims(text)
	must(t, err)
	resolver, err := server.NewDirAccResolver(filepath.Join(dir, "accounts"), 0, 300*time.Millisecond, server.NoDelete) // asks so often what it missed
	must(t, err)
	for a, text := range b.AccountJWTs() {
		must(t, resolver.Store(b.Account(a), text))
	}
	o := &server.Options{ServerName: "leaf", Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true,
		TrustedOperators: []*jwt.OperatorClaims{operator}, SystemAccount: b.Account(access.System), AccountResolver: resolver}
	o.LeafNode.ReconnectInterval = 100 * time.Millisecond
	seed, key, err := enrolment.NewKey()
	must(t, err)
	for _, a := range access.LeafAccounts() {
		token, err := access.MintLeaf(a, b.Keys.Accounts[a], access.User{Name: "oslo", Key: key})
		must(t, err)
		data, err := access.Credentials(token, seed)
		must(t, err)
		file := filepath.Join(dir, string(a)+".creds")
		must(t, os.WriteFile(file, data, 0o600))
		o.LeafNode.Remotes = append(o.LeafNode.Remotes, &server.RemoteLeafOpts{LocalAccount: b.Account(a), Credentials: file,
			URLs: []*url.URL{{Scheme: "nats-leaf", Host: s.at}}, IgnoreDiscoveredServers: true})
	}
	s.leaf, err = server.NewServer(o)
	must(t, err)
	s.leaf.Start()
	t.Cleanup(func() { s.leaf.Shutdown(); s.leaf.WaitForShutdown() })
	if !s.leaf.ReadyForConnections(eventstest.Patience) {
		t.Fatal("the leaf node did not become ready")
	}
	s.awaitLine()
}

func (s *branch) awaitLine() {
	s.f.t.Helper()
	eventually(s.f.t, "the leaf node has its connections to the hub", func() bool { return s.leaf.NumLeafNodes() == len(access.LeafAccounts()) })
	for account, call := range map[access.Account]events.CallDeclaration{access.Enrolment: events.AgentEnrol.CallDeclaration, access.Agents: events.ExecutionSync.CallDeclaration} {
		eventually(s.f.t, "the leaf node has heard who answers at the hub", func() bool { return s.answered(account, call) })
	}
}

// answered says that the leaf node knows of somebody beyond the line who takes a request.
func (s *branch) answered(account access.Account, call events.CallDeclaration) bool {
	listed, err := s.leaf.Subsz(&server.SubszOptions{Subscriptions: true, Account: s.f.broker.Account(account), Limit: 10_000})
	return err == nil && slices.ContainsFunc(listed.Subs, func(sub server.SubDetail) bool { return sub.Subject == call.Filter() })
}

// machines are at the site and know no other broker than the leaf node.
func (s *branch) machines(names ...string) (all []*machine) {
	s.f.t.Helper()
	for _, name := range names {
		all = append(all, s.f.machine(name, func(a *agentFile) { a.Server, a.Domain, a.Beacon = s.leaf.ClientURL(), access.Domain, time.Second }))
	}
	return all
}

// wantAll waits until each machine has done a deployment, and checks that it ran it once.
func (s *branch) wantAll(deployment string, all []*machine) {
	s.f.t.Helper()
	for _, m := range all {
		row := s.f.want(deployment, m, events.Succeeded)
		ran := 0
		for _, run := range m.ran() {
			if strings.HasPrefix(run, row.Job+" ") {
				ran++
			}
		}
		if ran != 1 {
			s.f.t.Errorf("%s ran %s %d times: %v", m.name, deployment, ran, m.ran())
		}
	}
	s.f.check(deployment, all...)
}

func TestASiteBehindALeafNodeCatchesUpWhenItsLineIsBack(t *testing.T) {
	t.Parallel()
	s := newBranch(t)
	f := s.f
	all := s.machines("oslo1", "oslo2", "oslo3")
	p := f.publish("1.0", payload, "")
	f.everyone(len(all))
	f.deploy("connected", p)
	s.wantAll("connected", all)

	all[0].remove("started")
	all[0].write("hold", "")
	f.deploy("running", p)
	f.want("running", all[0], events.Running)
	all[0].awaitFile("started")
	s.cut()
	all[0].remove("hold") // it ends, and nobody can be told
	f.deploy("unheard", p)
	for _, m := range all {
		eventually(t, m.name+" is offered what it cannot hear of", func() bool { _, offered := f.row("unheard", m); return offered })
		if runs := len(m.ran()); runs > 2 {
			t.Fatalf("%s ran what it cannot have heard of: %v", m.name, m.ran())
		}
	}
	s.mend()
	s.awaitLine()
	s.wantAll("running", all)
	s.wantAll("unheard", all)
	s.wantUnnoticed(all)
}

func TestAgentsBehindALeafNodeCatchUpWhenTheHubIsBack(t *testing.T) {
	t.Parallel()
	s := newBranch(t)
	f := s.f
	all := s.machines("oslo1", "oslo2")
	p := f.publish("1.0", payload, "")
	f.everyone(len(all))
	f.deploy("before", p)
	s.wantAll("before", all)

	f.broker.Stop()
	s.cut() // so that the deployment is offered before the site is back
	f.broker.Start()
	f.deploy("meanwhile", p)
	for _, m := range all {
		eventually(t, m.name+" is offered what it cannot hear of", func() bool { _, offered := f.row("meanwhile", m); return offered })
	}
	s.mend()
	s.awaitLine()
	s.wantAll("meanwhile", all)
	s.wantUnnoticed(all)
}

// wantUnnoticed makes sure that the agents did not lose their connections: what they missed they found out by
// themselves.
func (s *branch) wantUnnoticed(all []*machine) {
	s.f.t.Helper()
	for _, m := range all {
		m.stop()
		if connected := strings.Count(m.log(), `msg="broker connected"`); connected != 1 {
			s.f.t.Errorf("%s connected %d times, want once", m.name, connected)
		}
		if looks := m.counted("chandler_inbox_looks_total"); looks < 2 {
			s.f.t.Errorf("%s looked %g times for what it missed", m.name, looks)
		}
	}
}

// TestARevokedAgentIsOutAtTheSiteToo revokes one while it is connected to the leaf node, and one while the line
// is cut.
func TestARevokedAgentIsOutAtTheSiteToo(t *testing.T) {
	t.Parallel()
	s := newBranch(t)
	b := s.f.broker
	connect := func(agent string) (*nats.Conn, error) {
		return nats.Connect(s.leaf.ClientURL(), append(b.User(t, access.Agent, agent).Options(), nats.NoReconnect())...)
	}
	connected, away := b.Agent(t), b.Agent(t)
	conn, err := connect(connected)
	must(t, err)
	defer conn.Close()
	b.Revoke(t, b.User(t, access.Agent, connected))
	revoked := time.Now().Unix()
	eventually(t, "the revoked agent is cut off", conn.IsClosed)
	// Of two statements about an account the broker prefers the newer, to the second.
	eventually(t, "the second is over", func() bool { return time.Now().Unix() > revoked })

	s.cut()
	eventually(t, "the line is cut", func() bool { return s.leaf.NumLeafNodes() == 0 })
	b.Revoke(t, b.User(t, access.Agent, away))
	s.mend()
	s.awaitLine()
	eventually(t, "the other one is let in no more", func() bool {
		conn, err := connect(away)
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
}
