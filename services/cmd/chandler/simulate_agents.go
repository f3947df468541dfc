package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"chandler/agent/fleet"
	"chandler/agent/journal"
	"chandler/events/trust"
)

// simulatedAgents is what a process of agents is told.
type simulatedAgents struct {
	Members  memberMaker    `json:"members"`
	Servers  []string       `json:"servers"`
	Domain   string         `json:"domain,omitempty"` // behind a leaf node
	CA       string         `json:"ca,omitempty"`     // file; empty: clear text
	Dir      string         `json:"dir"`              // of the journal and of what is told at the end
	Trust    trust.Bundle   `json:"trust"`
	Script   fleet.Script   `json:"script"`
	Presence fleet.Presence `json:"presence"`
}

func (s simulatedAgents) journal() string  { return filepath.Join(s.Dir, "journal.db") }
func (s simulatedAgents) evidence() string { return filepath.Join(s.Dir, "evidence.json") }

const (
	// simulatedRetry is when a failed program is tried again: a simulation does not wait as long as machines do.
	simulatedRetry = time.Second
	agentStatsTime = 200 * time.Millisecond
)

// runSimulatedAgents holds up to maxAgentsEach light agents.
func runSimulatedAgents(ctx context.Context, told simulatedAgents, in *inside) error {
	trusted, err := trustCertificate(told.CA)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(told.Dir, 0o700); err != nil {
		return err
	}
	members, err := told.Members.members(ctx)
	if err != nil {
		return err
	}
	store, err := journal.Open(told.journal())
	if err != nil {
		return err
	}
	seen := &evidence{}
	f, err := fleet.New(fleet.Options{Servers: told.Servers, Domain: told.Domain, TLS: trusted, Store: store, Trust: func() trust.Bundle { return told.Trust }, Members: members, Script: told.Script,
		Presence: told.Presence, RetryAfter: simulatedRetry, Observe: seen.observe})
	if err != nil {
		return errors.Join(err, store.Close())
	}
	w := &agentsAtWork{in: in, fleet: f, store: store, seen: seen, evidence: told.evidence()}
	ready := childReady{Journal: fileSystemOf(told.Dir)}
	for _, m := range members {
		one := simulatedMember{ID: m.ID, Away: told.Members.away(m.ID)}
		w.all = append(w.all, m.ID)
		if one.Away {
			w.away = append(w.away, m.ID)
		}
		ready.Members = append(ready.Members, one)
	}
	in.say(childWord{Ready: &ready})
	running, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- f.Run(running) }()
	err = w.obey(running, ended)
	cancel()
	return errors.Join(err, <-ended, store.Close())
}

// agentsAtWork is what a process of agents does when it is told to.
type agentsAtWork struct {
	in       *inside
	fleet    *fleet.Fleet
	store    *journal.Store
	seen     *evidence
	evidence string   // file
	all      []string // agents
	away     []string // those that leave
}

func (w *agentsAtWork) obey(ctx context.Context, ended chan error) error {
	tick := time.NewTicker(agentStatsTime)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-ended:
			ended <- nil
			return errors.Join(errors.New("the agents stopped by themselves"), err)
		case what := <-w.in.commands:
			w.in.answer(what, w.do(what))
		case <-tick.C:
			w.in.say(childWord{Stats: new(w.fleet.Stats())})
		}
	}
}

func (w *agentsAtWork) do(what string) error {
	switch what {
	case doLeave:
		for _, id := range w.away {
			w.fleet.Kill(id)
		}
	case doReturn:
		for _, id := range w.away {
			if err := w.fleet.Start(id); err != nil {
				return err
			}
		}
	case doCut:
		for _, id := range w.all {
			w.fleet.Disconnect(id)
		}
	case doTell:
		return w.tell()
	default:
		return fmt.Errorf("there is no command %q", what)
	}
	return nil
}

// tell writes what this process knows of its agents' work: what the executor ran, what the journals hold, and what the
// broker acknowledged.
func (w *agentsAtWork) tell() error {
	f, err := os.OpenFile(w.evidence, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(w.seen.write(json.NewEncoder(f), w.fleet, w.store), f.Close())
}
