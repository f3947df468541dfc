package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"chandler/agent/fleet"
)

// scenario is what happens while the jobs of a simulation are under way.
type scenario struct {
	name, does string
	// spreadPer is the time over which starts of programs are spread, for each agent, and spreadLeast the shortest: something
	// must be under way when the scenario strikes.
	spreadPer, spreadLeast time.Duration
	own                    bool // it needs a broker of its own
	// play is called when the orders are sent, and follows the jobs to their end.
	play func(s *simulation, ctx, running context.Context, raw *rawBroker) error
}

const (
	scenarioInstall   = "install"
	scenarioStop      = "stop"
	scenarioRestart   = "restart"
	scenarioReconnect = "reconnect"
	scenarioRestore   = "restore"
)

func scenarios() []scenario {
	return []scenario{
		{name: scenarioInstall, does: "nothing more: every job is carried out", play: (*simulation).install},
		{name: scenarioStop, does: "all deployments are stopped while programs start", spreadPer: 4 * time.Millisecond, spreadLeast: 4 * time.Second, play: (*simulation).stopAmid},
		{name: scenarioRestart, does: "the broker is killed (--graceful: ended in order) and started again", spreadPer: time.Millisecond, spreadLeast: 2 * time.Second, own: true, play: (*simulation).restartAmid},
		{name: scenarioReconnect, does: "every agent loses its connection at the same moment", spreadPer: time.Millisecond, spreadLeast: 2 * time.Second, play: (*simulation).reconnectAmid},
		{name: scenarioRestore, does: "a backup is taken, more is deployed, the broker's data is lost, and a new broker is restored from the backup", spreadPer: time.Millisecond, spreadLeast: 2 * time.Second,
			own: true, play: (*simulation).restoreAmid},
	}
}

func scenarioNames() (names []string) {
	for _, one := range scenarios() {
		names = append(names, one.name)
	}
	return names
}

// scenarioNamed is false for one that does not exist.
func scenarioNamed(name string) (scenario, bool) {
	for _, one := range scenarios() {
		if one.name == name {
			return one, true
		}
	}
	return scenario{}, false
}

// scenarioHelp tells of each, for people.
func scenarioHelp() string {
	var text strings.Builder
	for _, one := range scenarios() {
		fmt.Fprintf(&text, "  %-10s %s\n", one.name, one.does)
	}
	return text.String()
}

// over is the time over which the starts of so many agents' programs are spread.
func (c scenario) over(agents int) time.Duration {
	return max(c.spreadLeast, time.Duration(agents)*c.spreadPer).Round(time.Second)
}

// jitter is that time as deployments have it.
func (s *simulation) jitter() string {
	if d := s.scenario.over(s.size); d > 0 {
		return d.String()
	}
	return ""
}

// returned tells how a fleet came back; times in seconds since the moment from which it could.
type returned struct {
	Down      float64 `json:"down_s,omitempty"` // the broker was away for so long before
	Connected float64 `json:"reconnected_s"`    // every agent was connected again
	Synced    float64 `json:"synced_s"`         // and execution had answered each what is outstanding
	Later     int64   `json:"syncs_later"`      // answers that an agent is to ask again later
	CaughtUp  float64 `json:"caught_up_s"`      // every job had ended, and that was folded
}

func (r *returned) fields() []field {
	if r == nil {
		return nil
	}
	all := []field{{"Back", fmt.Sprintf("every agent connected after %.1f s, answered by execution after %.1f s (%s to ask again later); all jobs ended after %.1f s",
		r.Connected, r.Synced, plural(int(r.Later), "answer was", "answers were"), r.CaughtUp)}}
	if r.Down > 0 {
		all = append([]field{{"Broker away", fmt.Sprintf("%.1f s before that", r.Down)}}, all...)
	}
	return all
}

func (s *simulation) install(ctx, running context.Context, _ *rawBroker) error {
	return s.followAll(ctx, running, s.names)
}

// reconnectAmid cuts every connection at once.
func (s *simulation) reconnectAmid(ctx, running context.Context, _ *rawBroker) error {
	before, err := s.awaitWork(running, underWay)
	if err != nil {
		return err
	}
	s.result.returned = &returned{}
	cut := s.now()
	if err := doAll(ctx, s.agents, doCut); err != nil {
		return err
	}
	s.step("every connection was cut")
	return s.comeBack(ctx, running, before, cut, true)
}

// comeBack follows everybody back and every job to its end. since is the moment from which they could come. lost says that
// each agent lost its connection.
func (s *simulation) comeBack(ctx, running context.Context, before fleet.Stats, since time.Time, lost bool) error {
	if err := s.awaitBack(running, before, since, lost); err != nil {
		return err
	}
	if err := s.followAll(ctx, running, s.names); err != nil {
		return err
	}
	s.result.CaughtUp = s.since(since)
	return nil
}

func (s *simulation) since(t time.Time) float64 { return s.now().Sub(t).Seconds() }

// underWay is the share of the jobs whose program has started when a scenario strikes.
const underWay = 0.1

// awaitWork waits until every job is with its agent, and a share of the programs has started. It gives what the agents say
// then.
func (s *simulation) awaitWork(ctx context.Context, share float64) (fleet.Stats, error) {
	jobs := len(s.members) * len(s.names)
	for {
		now := s.stats()
		if now.Offers-s.warm.Offers >= int64(jobs) && float64(now.Started-s.warm.Started) >= share*float64(jobs) {
			s.step("%s of %s programs have started", count(now.Started-s.warm.Started), count(jobs))
			return now, nil
		}
		if !pause(ctx, agentStatsTime/4) {
			return now, fmt.Errorf("%d of %d jobs reached their agents: %w", now.Offers-s.warm.Offers, jobs, context.Cause(ctx))
		}
	}
}

// awaitBack waits until every agent is connected and up to date again.
func (s *simulation) awaitBack(ctx context.Context, before fleet.Stats, since time.Time, lost bool) error {
	r, all := s.result.returned, before.Connected
	for {
		now := s.stats()
		connected := now.Connected >= all && (!lost || now.Reconnects >= before.Reconnects+int64(all))
		if connected && r.Connected == 0 {
			r.Connected = s.since(since)
			s.step("%s are connected again, after %.1f s", plural(now.Connected, "agent", "agents"), r.Connected)
		}
		if connected && now.Current >= all {
			r.Synced, r.Later = s.since(since), now.SyncsLater-before.SyncsLater
			s.step("execution has answered each of them, after %.1f s; %s to ask again later", r.Synced, plural(int(r.Later), "answer was", "answers were"))
			return nil
		}
		if !pause(ctx, agentStatsTime/4) {
			return errors.Join(fmt.Errorf("%d of %d agents came back, %d of them are up to date: %w", now.Connected, all, now.Current, context.Cause(ctx)))
		}
	}
}
