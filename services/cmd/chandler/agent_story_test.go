package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"
	"github.com/rogpeppe/go-internal/testscript"

	"chandler/agent/enrol"
	"chandler/events"
	"chandler/events/access"
	"chandler/events/bus"
	"chandler/events/enrolment"
)

// asAgent connects to a story's broker as an agent with an identity, however it came by it.
func asAgent(ts *testscript.TestScript, id string) *bus.Bus {
	at := place{filepath.Join(ts.Getenv("WORK"), ".server")}
	identities, err := openIdentities(at.identity(), services())
	ts.Check(err)
	signing, err := identities.agentSigner()
	ts.Check(err)
	seed, public, err := enrolment.NewKey()
	ts.Check(err)
	claims := jwt.NewUserClaims(public) // not by package access, which takes no id but that of the key
	claims.Name, claims.IssuerAccount = id, identities.fleet.Accounts[access.Agents]
	claims.SetScoped(true)
	token, err := claims.Encode(signing)
	ts.Check(err)
	nc, err := nats.Connect(ts.Getenv("SERVER"), nats.UserJWTAndSeed(token, string(seed)), nats.CustomInboxPrefix("_INBOX."+id))
	ts.Check(err)
	b, err := bus.New(bus.Options{Conn: nc, Source: events.AgentSource(id)})
	ts.Check(err)
	return b
}

// enrolMachine lets a machine enrol: enrol HOST TOKENFILE. Where it has to wait for approval that is no failure; with
// "!" it must be refused. AGENT_HOST is then its id, with _ for -.
func enrolMachine(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: enrol HOST TOKENFILE")
	}
	text, err := os.ReadFile(ts.MkAbs(args[1]))
	ts.Check(err)
	token, err := enrolment.ParseToken(string(text))
	ts.Check(err)
	keeper, err := enrol.New(enrol.Options{Dir: filepath.Join(ts.Getenv("WORK"), ".machines", args[0])})
	ts.Check(err)
	ts.Check(keeper.BindMachine("machine of " + args[0]))
	ctx, cancel := context.WithTimeout(context.Background(), readyTime)
	defer cancel()
	err = keeper.Enrol(ctx, token, events.Facts{ID: keeper.ID(), Hostname: args[0], OS: "linux", OSName: "debian", OSVersion: "12", Arch: "amd64", Addresses: []string{}, Tags: []string{}, Version: "0.1.0"})
	if refused, ok := errors.AsType[*enrol.RefusedError](err); ok && refused.Refused == events.RefusedPending {
		err = nil
	}
	switch {
	case neg && err == nil:
		ts.Fatalf("%s has enrolled", args[0])
	case !neg:
		ts.Check(err)
	}
	ts.Setenv("AGENT_"+strings.ReplaceAll(args[0], "-", "_"), keeper.ID())
}
