package clustertest

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"chandler/events/access"
)

// TestMain lets this binary be a broker too.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "broker" {
		if err := RunBroker(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// started is a cluster that is whole, and a connection of a user who may use JetStream.
func started(t *testing.T) (*Cluster, jetstream.JetStream) {
	t.Helper()
	keys, err := access.NewKeys()
	must(t, err)
	operator, err := keys.OperatorJWT("test")
	must(t, err)
	texts, err := keys.AccountJWTs("test")
	must(t, err)
	identity := Identity{Operator: operator, Accounts: map[string]string{}}
	for account, text := range texts {
		public, err := keys.Accounts[account].PublicKey()
		must(t, err)
		identity.Accounts[public] = text
		if account == access.System {
			identity.System = public
		}
	}
	self, err := os.Executable()
	must(t, err)
	c, err := New(Options{Dir: t.TempDir(), Command: []string{self, "broker"}, Identity: identity, MaxPayload: 1 << 20})
	must(t, err)
	t.Cleanup(c.Close)
	must(t, c.Start())
	whole(t, c)
	return c, connect(t, c, keys)
}

func whole(t *testing.T, c *Cluster) {
	t.Helper()
	eventually(t, "the cluster is whole", func() error { return c.Whole(t.Context()) })
}

func eventually(t *testing.T, what string, holds func() error) {
	t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	var err error
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); <-tick.C {
		if err = holds(); err == nil {
			return
		}
	}
	t.Fatalf("waited two minutes in vain: %s: %v", what, err)
}

func connect(t *testing.T, c *Cluster, keys access.Keys) jetstream.JetStream {
	t.Helper()
	options, err := ownerOptions(keys)
	must(t, err)
	var urls []string
	for _, n := range c.Nodes {
		urls = append(urls, "nats://"+n.Client)
	}
	o := nats.GetDefaultOptions()
	o.Servers, o.MaxReconnect, o.ReconnectWait = urls, -1, 50*time.Millisecond
	for _, set := range options {
		must(t, set(&o))
	}
	conn, err := o.Connect()
	must(t, err)
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	must(t, err)
	return js
}

// publish stores a message, as soon as the cluster takes it.
func publish(t *testing.T, js jetstream.JetStream, id string) {
	t.Helper()
	eventually(t, id+" is stored", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		_, err := js.Publish(ctx, "kept.x", []byte(id), jetstream.WithMsgID(id))
		return err
	})
}

func TestAClusterKeepsWhatItTookWhateverHappensToOneBroker(t *testing.T) {
	c, js := started(t)
	eventually(t, "a stream is made", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, err := js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{Name: "KEPT", Subjects: []string{"kept.>"}, Replicas: 3})
		return err
	})
	broken := []struct {
		name     string
		do, undo func(n *Node) error
	}{
		{name: "killed", do: func(n *Node) error { n.Kill(); return nil }, undo: (*Node).Start},
		{name: "paused", do: (*Node).Pause, undo: (*Node).Resume},
		{name: "stopped", do: func(n *Node) error { n.Stop(20 * time.Second); return nil }, undo: (*Node).Start},
		{name: "partitioned", do: func(*Node) error { c.Apart(0, Stalled); return nil }, undo: func(*Node) error { c.Apart(0, Weather{}); return nil }},
		{name: "emptied", do: func(n *Node) error { n.Kill(); return os.RemoveAll(n.StoreDir) }, undo: (*Node).Start},
	}
	for i, b := range broken {
		must(t, b.do(c.Nodes[0]))
		publish(t, js, b.name)
		must(t, b.undo(c.Nodes[0]))
		whole(t, c)
		s, err := js.Stream(t.Context(), "KEPT")
		must(t, err)
		if got := s.CachedInfo().State.Msgs; got != uint64(i+1) {
			t.Fatalf("after the broker was %s, %d messages are there, want %d", b.name, got, i+1)
		}
	}
}

// ownerOptions are those of a user who may do everything in the fleet's account.
func ownerOptions(keys access.Keys) ([]nats.Option, error) {
	user, err := nkeys.CreateUser()
	if err != nil {
		return nil, err
	}
	public, err := user.PublicKey()
	if err != nil {
		return nil, err
	}
	seed, err := user.Seed()
	if err != nil {
		return nil, err
	}
	token, err := jwt.NewUserClaims(public).Encode(keys.Accounts[access.Fleet])
	return []nats.Option{nats.UserJWTAndSeed(token, string(seed))}, err
}
