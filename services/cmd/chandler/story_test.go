package main

import (
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"chandler/events"
	"chandler/events/bus"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"chandler": main})
}

// TestStories runs testdata/script/*.txtar: each against a broker and all services of its own, with the
// real command as a process. Their own commands: "agent ID HOST SITE" lets an agent report, "enrol HOST
// TOKENFILE" lets a machine enrol, "failed DEPLOYMENT ID" lets an agent say that its job failed, "eventually PATTERN COMMAND…" repeats a chandler command until
// its output matches.
func TestStories(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup:               func(env *testscript.Env) error { return storyServer(env) },
		Cmds:                map[string]func(*testscript.TestScript, bool, []string){"agent": reportAgent, "enrol": enrolMachine, "failed": reportFailure, "eventually": eventually},
	})
}

func storyServer(env *testscript.Env) error {
	const anyPort = "127.0.0.1:0"
	at := place{filepath.Join(env.WorkDir, ".server")}
	if err := os.MkdirAll(at.data, 0o700); err != nil {
		return err
	}
	if _, err := ensureIdentities(at, at.administrator()); err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	s, err := startServer(env.T().(testing.TB).Context(), serverOptions{Data: at.data, Identity: at.identity(), Listen: anyPort, HTTP: anyPort, Metrics: anyPort, Services: services(), Replicas: 1, Log: log})
	if err != nil {
		return err
	}
	env.Defer(func() {
		if err := s.close(); err != nil {
			env.T().Log("the server stopped with: ", err)
		}
	})
	home := filepath.Join(env.WorkDir, ".config")
	env.Setenv("XDG_CONFIG_HOME", home)
	env.Setenv("SERVER", s.URL)
	env.Setenv("TZ", "UTC")
	a := newApp()
	a.getenv = func(name string) string { return map[string]string{"XDG_CONFIG_HOME": home}[name] }
	_, err = a.writeContext(s.URL, "", at, at.administrator())
	return err
}

// reportAgent lets an agent tell its facts, as a machine would: agent ID HOST SITE.
func reportAgent(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: agent ID HOST SITE")
	}
	id := args[0]
	b := asAgent(ts, id)
	defer b.Conn().Close()
	report := events.AgentReport{At: time.Now(), Facts: events.Facts{ID: id, Hostname: args[1], Site: args[2], OS: "linux", OSName: "debian", OSVersion: "12", Arch: "amd64",
		Addresses: []string{}, Tags: []string{}, ClientKind: events.Advanced, Version: "0.1.0", OfferFormat: events.OfferFormat, Zone: "UTC"}}
	_, err := bus.Publish(context.Background(), b, events.AgentReported, events.Event[events.AgentReport]{ID: events.DeriveID("report", id), Subject: id, Data: report})
	ts.Check(err)
}

// reportFailure lets an agent say that its first attempt failed: failed DEPLOYMENT ID.
func reportFailure(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: failed DEPLOYMENT ID")
	}
	deployment, id := args[0], args[1]
	at := place{filepath.Join(ts.Getenv("WORK"), ".server")}
	c, err := dial(connection{Server: ts.Getenv("SERVER"), Credentials: filepath.Join(at.administrator(), adminCreds)}, readyTime)
	ts.Check(err)
	defer c.bus.Conn().Close()
	view, err := ask(context.Background(), c, events.DeploymentShow, events.Named{Name: deployment})
	ts.Check(err)
	b := asAgent(ts, id)
	defer b.Conn().Close()
	s := events.JobStatus{Job: events.JobID(deployment, view.Revision, id, 0, ""), Deployment: deployment, Revision: view.Revision, Order: view.Order, Agent: id,
		Attempt: 1, Transition: 1, State: events.Failed, Reason: events.ExitCode, At: time.Now()}
	_, err = bus.Publish(context.Background(), b, events.JobFailed, events.Event[events.JobStatus]{ID: s.StatusID(), Subject: id, Time: s.At, Data: s})
	ts.Check(err)
}

// eventually repeats until the standard output matches: services work by events, so what they say follows
// what was done a moment later.
func eventually(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: eventually PATTERN COMMAND…")
	}
	pattern := regexp.MustCompile(args[0])
	deadline := time.Now().Add(20 * time.Second)
	for {
		err := ts.Exec(args[1], args[2:]...)
		if err == nil && pattern.MatchString(ts.ReadFile("stdout")) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%v never said %s; at last: %v\n%s%s", args[1:], args[0], err, ts.ReadFile("stdout"), ts.ReadFile("stderr"))
		}
	}
}
