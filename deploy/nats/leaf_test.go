package nats_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"chandler/events"
	"chandler/events/access"
	"chandler/events/enrolment"
)

// leafConfig is the deployed configuration of a leaf node, with the fleet's files and a hub.
func (f *fleet) leafConfig(t *testing.T, hub string) string {
	t.Helper()
	seed, key, err := enrolment.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	var accounts []byte
	for _, a := range access.LeafAccounts() {
		token, err := access.MintLeaf(a, f.keys.Accounts[a], access.User{Name: "oslo", Key: key})
		if err != nil {
			t.Fatal(err)
		}
		data, err := access.Credentials(token, seed)
		if err != nil {
			t.Fatal(err)
		}
		f.write(t, string(a)+".creds", data)
		accounts = fmt.Appendf(accounts, "%s: %q\n", strings.ToUpper(string(a)), f.public[a])
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "accounts.conf"), accounts, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(dir, "accounts"), os.DirFS(filepath.Join(f.dir, "accounts"))); err != nil {
		t.Fatal(err)
	}
	chain, err := os.ReadFile(filepath.Join(f.dir, "server.pem"))
	if err != nil {
		t.Fatal(err)
	}
	f.write(t, "hub-ca.pem", chain) // its authority is in there
	data, err := os.ReadFile("leaf.conf")
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "leaf.conf")
	text := strings.NewReplacer("/etc/nats/", f.dir+"/", "/var/lib/nats", dir, "hub.example:7422", hub).Replace(string(data))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return config
}

// run runs a broker of a configuration file on free ports, in this process.
func run(t *testing.T, config string, change func(*natsserver.Options)) *natsserver.Server {
	t.Helper()
	o, err := natsserver.ProcessConfigFile(config)
	if err != nil {
		t.Fatal(err)
	}
	o.Host, o.Port, o.HTTPPort, o.NoSigs, o.NoLog = "127.0.0.1", natsserver.RANDOM_PORT, 0, true, true
	change(o)
	s, err := natsserver.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(patience) {
		t.Fatal("the broker did not become ready")
	}
	return s
}

func TestAnAgentBehindTheDeployedLeafNodeReachesTheDeployedHub(t *testing.T) {
	f := newFleet(t, 1)
	hub := run(t, f.config(t, t.TempDir()), func(o *natsserver.Options) { o.LeafNode.Host, o.LeafNode.Port = "127.0.0.1", natsserver.RANDOM_PORT })
	v, err := hub.Varz(nil)
	if err != nil {
		t.Fatal(err)
	}
	leaf := run(t, f.leafConfig(t, net.JoinHostPort("127.0.0.1", fmt.Sprint(v.LeafNode.Port))), func(*natsserver.Options) {})
	for deadline := time.After(patience); leaf.NumLeafNodes() < len(access.LeafAccounts()); {
		select {
		case <-deadline:
			t.Fatalf("the leaf node has %d lines to the hub", leaf.NumLeafNodes())
		case <-time.After(10 * time.Millisecond):
		}
	}
	connect := func(s *natsserver.Server, u user) *nats.Conn {
		conn, err := (&broker{fleet: f, url: s.ClientURL()}).connect(u)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(conn.Close)
		return conn
	}
	owner := connect(hub, f.user(t, access.Service("execution"), "execution"))
	asked, err := owner.SubscribeSync(events.ExecutionSync.Filter())
	if err != nil {
		t.Fatal(err)
	}
	if err := owner.Flush(); err != nil {
		t.Fatal(err)
	}
	me := f.agents[0]
	agent := connect(leaf, me)
	answered := make(chan error, 1)
	go func() {
		ask := func() (*nats.Msg, error) {
			return agent.Request(events.ExecutionSync.Subject("", me.name), []byte("?"), patience)
		}
		answer, err := ask()
		for deadline := time.After(patience); errors.Is(err, nats.ErrNoResponders); answer, err = ask() {
			select { // the hub tells the leaf node a moment later that somebody answers there
			case <-deadline:
				answered <- err
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
		if err == nil && string(answer.Data) != "!" {
			err = fmt.Errorf("the answer is %q", answer.Data)
		}
		answered <- err
	}()
	m, err := asked.NextMsg(patience)
	if err != nil {
		t.Fatalf("the question did not reach the hub: %v", err)
	}
	if err := m.Respond([]byte("!")); err != nil {
		t.Fatal(err)
	}
	if err := <-answered; err != nil {
		t.Error(err)
	}
	if err := owner.Flush(); err != nil {
		t.Fatal(err)
	}
	if more, _, err := asked.Pending(); err != nil || more > 0 {
		t.Errorf("the question came %d times more (%v)", more, err)
	}
	if _, err := agent.TLSConnectionState(); err != nil {
		t.Errorf("the agent speaks to the leaf node: %v", err)
	}
}

func TestTheHubTakesLeafNodesOverTLSAndNamesItsDomain(t *testing.T) {
	o := deployed(t, newFleet(t, 0))
	if o.JetStreamDomain != access.Domain {
		t.Errorf("the domain is %q, and agents' permissions name %q", o.JetStreamDomain, access.Domain)
	}
	if l := o.LeafNode; l.TLSConfig == nil || l.TLSConfig.MinVersion != tls.VersionTLS13 || !l.IsolateLeafnodeInterest || l.TLSTimeout != 10 {
		t.Errorf("leaf nodes: TLS %+v, isolated %t, a handshake may take %g s", l.TLSConfig, l.IsolateLeafnodeInterest, l.TLSTimeout)
	}
}

func TestTheDeployedLeafNodeKeepsNoStreamsAndHasNoLinesButThoseOfItsAccounts(t *testing.T) {
	f := newFleet(t, 0)
	o, err := natsserver.ProcessConfigFile(f.leafConfig(t, "hub.example:7422"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.AccountResolver.Close)
	if o.JetStream || len(o.LeafNode.Remotes) != len(access.LeafAccounts()) || o.LeafNode.Port != 0 {
		t.Errorf("JetStream %t, %d lines, takes leaf nodes at %d", o.JetStream, len(o.LeafNode.Remotes), o.LeafNode.Port)
	}
	for i, a := range access.LeafAccounts() {
		if r := o.LeafNode.Remotes[i]; r.LocalAccount != f.public[a] || r.TLSConfig == nil || r.TLSConfig.RootCAs == nil || r.URLs[0].Scheme != "tls" || !r.IgnoreDiscoveredServers {
			t.Errorf("the line of account %s is %+v", a, r)
		}
	}
	if o.TLSConfig == nil || o.TLSConfig.MinVersion != tls.VersionTLS13 || len(o.TrustedOperators) != 1 || o.HTTPHost != "127.0.0.1" {
		t.Errorf("TLS %+v, %d operators, monitoring on %q", o.TLSConfig, len(o.TrustedOperators), o.HTTPHost)
	}
}
