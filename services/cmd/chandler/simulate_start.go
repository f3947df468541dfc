package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"chandler/agent/fleet"
	"chandler/events"
	"chandler/events/access"
	"chandler/events/enrolment"
	"chandler/services/content/publish"
)

const (
	simulatedPackage = "chandler-simulated"
	simulatedProgram = "install"
	// simulatedAnswer is how long each answer may take: the machine is busy.
	simulatedAnswer = time.Minute
	// flapEvery is how often the connections break of agents that flap.
	flapEvery = 3 * time.Second
)

// server is what the broker and the services of this simulation are.
func (s *simulation) server() (told simulatedServer, err error) {
	told = simulatedServer{Data: filepath.Join(s.dir, "server"), Identities: !s.noIdentities, TLS: !s.noTLS}
	if told.Listen, err = freeAddress(); err == nil && s.leafNodes > 0 {
		told.LeafListen, err = freeAddress()
	}
	return told, err
}

// reach brings up a broker and services of its own, or connects to those of the context.
func (s *simulation) reach(ctx context.Context) (err error) {
	if s.token != "" {
		return s.reachOther()
	}
	if s.told, err = s.server(); err != nil {
		return err
	}
	at := place{s.told.Data}
	if err := os.MkdirAll(at.data, 0o700); err != nil {
		return err
	}
	if _, err := ensureIdentities(at, at.administrator()); err != nil {
		return err
	}
	shown, err := s.told.shown()
	if err != nil {
		return err
	}
	url, err := s.startBroker(ctx)
	if err != nil {
		return err
	}
	s.told.Broker = []string{url}
	if err := s.startServices(ctx); err != nil {
		return err
	}
	fleetOf, err := readFleet(at.identity())
	if err != nil {
		return err
	}
	where := connection{Name: "simulate", Server: url, Caller: defaultCaller, Fleet: fleetOf.Fleet, CA: shown.ca, Administrator: at.administrator()}
	if s.told.Identities {
		where.Credentials = filepath.Join(at.administrator(), adminCreds)
	}
	if s.client, err = dial(where, simulatedAnswer); err != nil {
		return err
	}
	s.step("broker and services are up: %s", url)
	_, err = s.beginTrust(ctx, s.client, trustPlan{dir: filepath.Join(s.dir, "trust"), fleet: fleetOf.Fleet, roots: 1, rootsNeeded: 1, deployersNeeded: 1, name: "simulate", now: s.now()})
	return err
}

// reachOther connects as the context's user.
func (s *simulation) reachOther() error {
	secret, err := os.ReadFile(s.token)
	if err != nil {
		return fmt.Errorf("--token: %w", err)
	}
	s.secret = strings.TrimSpace(string(secret))
	if _, err := enrolment.ParseToken(s.secret); err != nil {
		return fmt.Errorf("--token %s: %w", s.token, err)
	}
	where, err := s.current()
	if err != nil {
		return err
	}
	if s.client, err = dial(where, simulatedAnswer); err != nil {
		return err
	}
	s.step("connected to %s", where.Server)
	return nil
}

// start starts a child and waits until it is up. One that ends by itself later ends the simulation.
func start[T any](ctx context.Context, s *simulation, name, kind string, told T) (*child, childReady, error) {
	c, err := startChild(name, kind, childTold[T]{Name: strings.ReplaceAll(strings.TrimPrefix(name, "the "), " ", "-"), Profile: s.profile, Told: told}, s.err)
	if err != nil {
		return nil, childReady{}, err
	}
	ready, err := c.ready(ctx)
	if err != nil {
		return nil, ready, errors.Join(err, c.stop())
	}
	go func() {
		<-c.done
		if !c.expected.Load() {
			s.giveUp(c.ended())
		}
	}()
	return c, ready, nil
}

// startBroker starts the broker, at the same addresses each time.
func (s *simulation) startBroker(ctx context.Context) (url string, err error) {
	var ready childReady
	s.broker, ready, err = start(ctx, s, "the broker", "broker", s.told)
	return ready.URL, err
}

func (s *simulation) startServices(ctx context.Context) (err error) {
	s.services, _, err = start(ctx, s, "the services", "services", s.told)
	return err
}

// signer opens the key that signs what is deployed.
func (s *simulation) signer(ctx context.Context) (signer, error) {
	return s.app.signer(ctx, s.client, s.asked)
}

func (s *simulation) name(what string) string { return "simulate-" + s.run + what }

func (s *simulation) hosts() string { return "sim-" + s.run + "-" }

// prepare publishes the package and makes the collection of all agents.
func (s *simulation) prepare(ctx context.Context) error {
	dir := filepath.Join(s.dir, "package")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	text := "api: chandler/v1\npackage: " + simulatedPackage + "\nversion: \"" + s.run + "\"\nfiles: [nothing.txt]\nprograms:\n  " + simulatedProgram + ":\n    shell: sh\n    command: \"true\"\n    run: administrative\n"
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "package.yaml"), []byte(text), 0o600), os.WriteFile(filepath.Join(dir, "nothing.txt"), []byte("nothing\n"), 0o600)); err != nil {
		return err
	}
	signer, err := s.signer(ctx)
	if err != nil {
		return err
	}
	plan, err := publish.Read(ctx, dir, publish.Options{Now: s.now, Seal: signer.seal})
	if err != nil {
		return err
	}
	web, err := s.client.web()
	if err != nil {
		return err
	}
	if _, err := publish.Upload(ctx, plan, contentServer{s.client}, web, func(int64, int64) {}); err != nil {
		return err
	}
	_, err = ask(ctx, s.client, events.CollectionSet, events.Collection{Name: s.name(""), Expression: fmt.Sprintf("agent.hostname.startsWith(%q)", s.hosts())})
	return err
}

// startAgents starts the processes of agents and waits until every agent has told its facts.
func (s *simulation) startAgents(ctx context.Context) error {
	ctx, stop := context.WithTimeoutCause(ctx, s.within, errors.New("connecting took longer than --timeout"))
	defer stop()
	told, err := s.agentsTold(ctx)
	if err != nil {
		return err
	}
	begun, each := s.now(), s.agentsEach()
	for first := 1; first <= s.size; first += each {
		told.Members.First, told.Members.Count = first, min(each, s.size-first+1)
		number := len(s.agents) + 1
		if len(s.sites) > 0 {
			told.Servers, told.Domain = []string{s.sites[number%len(s.sites)]}, access.Domain
		}
		told.Dir = filepath.Join(s.dir, fmt.Sprintf("agents-%d", number))
		told.Members.Dir = filepath.Join(told.Dir, "enrolled")
		c, ready, err := start(ctx, s, fmt.Sprintf("agents %d", number), "agents", told)
		if err != nil {
			return err
		}
		s.agents, s.evidence = append(s.agents, c), append(s.evidence, told.evidence())
		s.members = append(s.members, ready.Members...)
		s.result.FileSystem = ready.Journal
	}
	if err := s.awaitAgents(ctx); err != nil {
		return err
	}
	s.result.ConnectSeconds = s.now().Sub(begun).Seconds()
	return nil
}

// agentsTold is what every process of agents is told alike.
func (s *simulation) agentsTold(ctx context.Context) (simulatedAgents, error) {
	told := simulatedAgents{
		Members: memberMaker{Prefix: s.hosts(), Seed: s.seed, Offline: s.offline, Token: s.secret}, Servers: strings.Split(s.client.Server, ","), CA: s.client.CA,
		Script:   fleet.Script{Seed: s.seed, Duration: s.duration, Spread: s.spread, Failures: s.failures, Output: s.outputBytes, Content: s.content, Fork: s.exec == execFork},
		Presence: fleet.Presence{Seed: s.seed, Flap: s.flap, FlapEvery: flapEvery},
	}
	var err error
	if told.Trust, err = s.followTrust(ctx, s.client); err != nil || s.secret != "" || s.noIdentities {
		return told, err
	}
	at := place{s.told.Data}
	key, err := identities{dir: at.identity()}.agentSigner()
	if err != nil {
		return told, err
	}
	defer key.Wipe()
	seed, err := key.Seed()
	if err != nil {
		return told, err
	}
	of, err := readFleet(at.identity())
	told.Members.SigningKey, told.Members.Account = string(seed), of.Accounts[access.Agents]
	return told, err
}

// awaitAgents waits until scheduling knows the facts of all, and execution has answered each: before that, no agent starts a
// program.
func (s *simulation) awaitAgents(ctx context.Context) error {
	shown := -1
	for {
		view, err := ask(ctx, s.client, events.CollectionShow, events.Named{Name: s.name("")})
		if err == nil && len(view.Members) >= len(s.members) && s.stats().Current >= len(s.members) {
			s.step("%s are connected and up to date", plural(len(view.Members), "agent", "agents"))
			return nil
		}
		if connected := s.connected(); connected != shown {
			shown = connected
			s.step("%s of %s agents are connected", count(connected), count(len(s.members)))
		}
		if !pause(ctx, time.Second/2) {
			return errors.Join(fmt.Errorf("%d of %d agents told their facts, and execution answered %d: %w", len(view.Members), len(s.members), s.stats().Current, context.Cause(ctx)), err)
		}
	}
}

func (s *simulation) connected() int { return s.stats().Connected }

// stats are what the processes of agents said last, together.
func (s *simulation) stats() (all fleet.Stats) {
	for _, c := range s.agents {
		c.mu.Lock()
		one := c.stats
		c.mu.Unlock()
		all.Connected += one.Connected
		all.Current += one.Current
		all.Offers += one.Offers
		all.Started += one.Started
		all.Reconnects += one.Reconnects
		all.Syncs += one.Syncs
		all.SyncsLater += one.SyncsLater
		all.SyncsFailed += one.SyncsFailed
		all.Dropped += one.Dropped
	}
	return all
}

// present are the agents that stay.
func (s *simulation) present() (ids []string) {
	for _, m := range s.members {
		if !m.Away {
			ids = append(ids, m.ID)
		}
	}
	return ids
}
