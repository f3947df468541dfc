package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"chandler/events"
	"chandler/events/access"
	"chandler/events/bus"
	"chandler/events/enrolment"
)

// takingLeaves lets a fleet's broker take leaf nodes.
func takingLeaves(f *realFleet) { f.options.LeafListen = anyAddress }

// hubOf is where a fleet's broker takes them.
func hubOf(f *realFleet) []string {
	scheme := "nats://"
	if f.options.TLS != nil {
		scheme = "tls://"
	}
	return []string{scheme + f.server.broker.leafAddress()}
}

// startLeafOf starts a leaf node of a directory that user add made.
func startLeafOf(t *testing.T, f *realFleet, dir string) *leaf {
	t.Helper()
	o := leafOptions{Identity: dir, Hub: hubOf(f), Listen: anyAddress, Log: discard()}
	if f.options.TLS != nil {
		shown, err := leafFlags{}.certificate(dir)
		if err != nil {
			t.Fatal(err)
		}
		o.TLS, o.CA = shown.config, filepath.Join(dir, "tls", caName)
	}
	l, err := startLeaf(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.close)
	if !l.linked(t.Context(), readyTime) {
		t.Fatal("the leaf node has no lines to the hub")
	}
	return l
}

// agentAt connects as an agent of the fleet to a broker.
func agentAt(t *testing.T, f *realFleet, url string) (*bus.Bus, string) {
	t.Helper()
	made, err := openIdentities(f.at.identity(), services())
	if err != nil {
		t.Fatal(err)
	}
	signing, err := made.agentSigner()
	if err != nil {
		t.Fatal(err)
	}
	seed, key, err := enrolment.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	id := events.AgentID([]byte(key))
	token, err := access.Mint(access.Agent, signing, made.fleet.Accounts[access.Agents], access.User{Name: id, Key: key, Expires: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	options := []nats.Option{nats.UserJWTAndSeed(token, string(seed)), nats.CustomInboxPrefix("_INBOX." + id), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { t.Errorf("refused: %v", err) })}
	if f.options.TLS != nil {
		trusted, err := trustCertificate(filepath.Join(f.at.tls(), caName))
		if err != nil {
			t.Fatal(err)
		}
		options = append(options, nats.Secure(trusted))
	}
	conn, err := nats.Connect(url, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	b, err := bus.New(bus.Options{Conn: conn, Source: events.AgentSource(id), Domain: access.Domain})
	if err != nil {
		t.Fatal(err)
	}
	return b, id
}

func TestASitesLeafNodeIsMadeRunAndRevoked(t *testing.T) {
	f := newRealFleet(t, withTLS(t), takingLeaves)
	dir := filepath.Join(t.TempDir(), "oslo.leaf")
	said := f.run(t, "user", "add", "oslo", "--role", "leaf", "--out", dir, "--tls-name", "127.0.0.1")
	if !strings.Contains(said, "leaf --identity oslo.leaf") {
		t.Errorf("it says %s", said)
	}
	var names []string
	for name := range contents(t, dir) {
		if !strings.HasPrefix(name, "accounts/") {
			names = append(names, name)
		}
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v (%v)", name, info.Mode(), err)
		}
	}
	slices.Sort(names)
	if diff := cmp.Diff([]string{"accounts.conf", "agents.creds", "enrolment.creds", "fleet.json", "operator.jwt", "system.creds", "tls/ca.pem", "tls/server.key", "tls/server.pem"}, names); diff != "" {
		t.Errorf("in the directory: %s", diff)
	}
	l := startLeafOf(t, f, dir)
	agent, id := agentAt(t, f, l.url())
	ctx, cancel := context.WithTimeout(t.Context(), readyTime)
	defer cancel()
	// The hub tells a leaf node who answers there a moment after the line is made.
	through := func(what string, ask func() error) {
		t.Helper()
		for err := ask(); err != nil; err = ask() {
			if !pause(ctx, 20*time.Millisecond) {
				t.Fatalf("%s through the leaf node: %v", what, err)
			}
		}
	}
	through("an agent's question", func() error {
		_, err := bus.Request(ctx, agent, id, events.AgentTrust, events.TrustQuery{})
		return err
	})
	through("the newest offer", func() error {
		answer, err := agent.Conn().RequestWithContext(ctx, "$JS.hub.API.DIRECT.GET.JOBS."+events.OfferStored(id), nil)
		if err == nil && answer.Header.Get("Status") != "404" {
			err = fmt.Errorf("answered %v", answer.Header)
		}
		return err
	})
	if listed := f.run(t, "user", "ls"); !strings.Contains(listed, "leaf") {
		t.Errorf("the list of users: %s", listed)
	}
	f.run(t, "user", "revoke", "oslo")
	for l.server.NumLeafNodes() > 0 {
		if !pause(ctx, 10*time.Millisecond) {
			t.Fatal("the hub still talks to the leaf node that was revoked")
		}
	}
	if l.linked(t.Context(), 3*leafReconnect/2) {
		t.Error("the hub let the revoked leaf node in again")
	}
}

func TestALeafNodeStartsWhileTheHubIsAway(t *testing.T) {
	f := newRealFleet(t, takingLeaves)
	dir := filepath.Join(t.TempDir(), "oslo.leaf")
	f.run(t, "user", "add", "oslo", "--role", "leaf", "--out", dir)
	o := leafOptions{Identity: dir, Hub: []string{"nats://127.0.0.1:1"}, Listen: anyAddress, Log: discard()}
	l, err := startLeaf(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	agentAt(t, f, l.url())
	if l.linked(t.Context(), time.Millisecond) {
		t.Error("it says that it has lines to the hub")
	}
}

func TestALeafNodeIsRefusedWhatItCannotBe(t *testing.T) {
	f := newRealFleet(t, takingLeaves)
	dir := filepath.Join(t.TempDir(), "oslo.leaf")
	f.refuse(t, "chandler up --tls", "user", "add", "bergen", "--role", "leaf", "--out", filepath.Join(t.TempDir(), "x"), "--tls-name", "leaf.example")
	f.refuse(t, "for leaf nodes", "user", "add", "vera", "--role", "viewer", "--tls-name", "leaf.example")
	f.refuse(t, "is for integrators", "user", "add", "oslo", "--role", "leaf", "--events", "job.failed")
	f.run(t, "user", "add", "oslo", "--role", "leaf", "--out", dir)
	f.refuse(t, "is there already", "user", "add", "oslo2", "--role", "leaf", "--out", dir)
	for name, c := range map[string]struct {
		o    leafOptions
		want string
	}{
		"no hub":                        {leafOptions{Identity: dir, Listen: anyAddress}, "no hub"},
		"a hub without a port":          {leafOptions{Identity: dir, Listen: anyAddress, Hub: []string{"tls://hub.example"}}, "host:port"},
		"a hub of another scheme":       {leafOptions{Identity: dir, Listen: anyAddress, Hub: []string{"https://hub.example:443"}}, "tls://host:port"},
		"a password in the address":     {leafOptions{Identity: dir, Listen: anyAddress, Hub: []string{"nats://x:secret@hub.example:7422"}}, "nats://host:port"},
		"one line in clear text":        {leafOptions{Identity: dir, Listen: anyAddress, Hub: []string{"tls://a:7422", "nats://b:7422"}}, "either all"},
		"a directory of something else": {leafOptions{Identity: f.at.identity(), Listen: anyAddress, Hub: []string{"nats://a:7422"}}, "agents.creds"},
	} {
		c.o.Log = discard()
		if l, err := startLeaf(t.Context(), c.o); err == nil {
			l.close()
			t.Errorf("%s: it started", name)
		} else if !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestALeafNodeTalksToNoHubOfAnotherAuthority(t *testing.T) {
	f := newRealFleet(t, withTLS(t), takingLeaves)
	dir := filepath.Join(t.TempDir(), "oslo.leaf")
	f.run(t, "user", "add", "oslo", "--role", "leaf", "--out", dir, "--tls-name", "127.0.0.1")
	for name, o := range map[string]leafOptions{
		"another authority":                   {Hub: hubOf(f), CA: newCertificates(t).caFile()},
		"an authority that nobody knows here": {Hub: hubOf(f)},
	} {
		o.Identity, o.Listen, o.Log = dir, anyAddress, discard()
		l, err := startLeaf(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		if l.linked(t.Context(), 500*time.Millisecond) {
			t.Errorf("%s: it talks to the hub", name)
		}
		l.close()
	}
}
