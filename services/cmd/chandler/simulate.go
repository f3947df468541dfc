package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"chandler/agent/fleet"
)

// simulation is one run of many light agents against a broker and services in processes of their own.
type simulation struct {
	*app
	simulateFlags
	run     string    // in the names of everything that this run makes
	out     io.Writer // for people
	err     io.Writer
	started time.Time

	giveUp context.CancelCauseFunc // ends the simulation: one of its processes is gone

	client   *client
	secret   string          // the token, of which --token names the file
	broker   *child          // nil: it runs elsewhere, and the services too
	services *child          //
	told     simulatedServer // what these two were told
	leaves   []*child        // leaf nodes
	sites    []string        // their URLs
	agents   []*child        // up to maxAgentsEach agents each
	evidence []string        // files in which the same processes write what they saw
	members  []simulatedMember
	meters   *meters
	scenario scenario
	names    []string    // of the deployments whose jobs are judged
	lost     string      // a deployment that services forgot; empty: none
	warm     fleet.Stats // before the orders were sent
	result   simulated
}

func newSimulate(a *app) *cobra.Command {
	var f simulateFlags
	cmd := &cobra.Command{
		Use: "simulate", Short: "Run thousands of light agents against a broker and services, and measure", Args: cobra.NoArgs,
		Long: `Starts a broker, every service, and processes of light agents: each with a connection, an identity and a journal
of its own, speaking as real agents do; only their programs are a play (see --duration, --failures, --exec fork).
Deploys to them, waits until every job has ended, and tells how long it took, what it cost and whether anything was lost
or done twice. Everything ends with the command, and nothing is left behind.

What is measured is compared with what the same broker stores of equally large messages when nothing else happens
(raw). Times are those at which the broker stored the messages. Where the journals are decides much: --dir chooses
the file system, which the result names.

Something may happen meanwhile (--scenario):
` + scenarioHelp() + `In all but the first, starts of programs are spread over some seconds (starts_spread_s), and figures are added:
  stop       started_before_stop and started_after_stop (programs), never_offered (jobs); stop_answer_s, and in seconds since
             the stop was asked for: stop_to_last_start_p99_s and _max_s, of the programs that started after it
  restart    down_s (of the broker), and in seconds since it was back: reconnected_s (every agent), synced_s (and execution
             had answered it; syncs_later answers were to ask again later), caught_up_s (every job had ended, and was folded)
  reconnect  the same without down_s, since the connections were cut
  restore    the same since the new services were up; backup_s and backup_bytes, restore_s (making the data), back_s (from the
             loss until all was as before it), ran_since_backup (agents that ran what services no longer know),
             reached_s (a deployment after that)

With --leaves, agents are connected to leaf nodes, each a process on an address of its own (127.0.0.2 and so on), whose CPU and
memory are told apart from the broker's (leaf_cpu_us_per_job, leaf_rss_bytes_per_agent).

With --token, it is the broker and the services of the context that are measured, as far as they can be seen from here.
Agents enrol there for real, and they, the package, collections and deployments named simulate-… stay there.

Exit code: 0 only if every job ended and nothing was lost or done twice; with stop, only if nothing started 2 seconds after it.`,
		Example: `  chandler simulate --agents 2000 --exec fork
  chandler simulate --agents 10000 --duration 2s --spread 0.5 --failures 0.02 -o json
  chandler simulate --agents 10000 --scenario stop -o json
  chandler simulate --agents 30000 --leaves 2
  chandler --context staging simulate --agents 1000 --token simulate.token`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := a.only(formTable, formJSON, formYAML); err != nil {
				return err
			}
			if err := f.validate(a.context != ""); err != nil {
				return err
			}
			return newSimulation(a, cmd, f).simulate(cmd)
		},
	}
	f.register(a, cmd)
	cmd.AddCommand(newChild("broker", runSimulatedBroker), newChild("leaf", runSimulatedLeaf), newChild("services", runSimulatedServices), newChild("agents", runSimulatedAgents))
	return cmd
}

func newSimulation(a *app, cmd *cobra.Command, f simulateFlags) *simulation {
	if !cmd.Flags().Changed("seed") {
		f.seed = rand.Uint64()
	}
	s := &simulation{app: a, simulateFlags: f, run: fmt.Sprintf("%06x", f.seed&0xffffff), out: cmd.OutOrStdout(), err: cmd.ErrOrStderr(), started: a.now()}
	if f.token != "" { // where a run with the same seed may have been before
		s.run = randomName()
	}
	s.scenario, _ = scenarioNamed(f.scenarioName)
	if a.output != formTable {
		s.out = cmd.ErrOrStderr()
	}
	return s
}

// simulate sees to it that nothing is left behind.
func (s *simulation) simulate(cmd *cobra.Command) (err error) {
	made, err := s.makeDirectory()
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, s.stop())
		if made && !s.keep {
			err = errors.Join(err, os.RemoveAll(s.dir))
		} else {
			note(s.err, "the broker's data and the agents' journals are in %s", s.dir)
		}
	}()
	ctx, cancel := context.WithCancelCause(cmd.Context())
	defer cancel(nil)
	s.giveUp = cancel
	if err := s.play(ctx); err != nil {
		if cmd.Context().Err() != nil {
			return errors.New("interrupted: every process is stopped, and there is no result")
		}
		if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
			err = errors.Join(err, cause)
		}
		return err
	}
	return s.tellResult(cmd)
}

// makeDirectory makes the directory of everything. made says that it was not there before.
func (s *simulation) makeDirectory() (made bool, err error) {
	if s.profile != "" {
		if s.profile, err = filepath.Abs(s.profile); err == nil {
			err = os.MkdirAll(s.profile, 0o700)
		}
		if err != nil {
			return false, fmt.Errorf("--cpuprofile: %w", err)
		}
	}
	if s.dir == "" {
		if s.dir, err = os.MkdirTemp("", "chandler-simulate-"); err != nil {
			return false, fmt.Errorf("make a directory for the simulation: %w", err)
		}
		return true, nil
	}
	if s.dir, err = filepath.Abs(s.dir); err != nil {
		return false, err
	}
	entries, err := os.ReadDir(s.dir)
	switch {
	case err == nil && len(entries) > 0:
		return false, fmt.Errorf("--dir %s is not empty: say a new directory", s.dir)
	case err == nil:
		return true, nil
	case !errors.Is(err, os.ErrNotExist):
		return false, fmt.Errorf("--dir: %w", err)
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return false, fmt.Errorf("--dir: %w", err)
	}
	return true, nil
}

// play is the whole simulation, down to the result.
func (s *simulation) play(ctx context.Context) error {
	if err := s.reach(ctx); err != nil {
		return err
	}
	raw, err := s.openRaw(ctx)
	if err != nil {
		return err
	}
	defer raw.close()
	if err := s.prepare(ctx); err != nil {
		return err
	}
	if err := raw.prime(ctx); err != nil {
		return err
	}
	if err := s.startLeaves(ctx); err != nil {
		return err
	}
	if s.meters, err = s.newMeters(); err != nil {
		return err
	}
	if err := s.startAgents(ctx); err != nil {
		return err
	}
	if err := s.meters.add(s.agents); err != nil {
		return err
	}
	if err := s.warmUp(ctx, raw); err != nil {
		return err
	}
	if err := doAll(ctx, s.agents, doLeave); err != nil {
		return err
	}
	before, err := raw.measure(ctx)
	if err != nil {
		return err
	}
	if err := s.measured(ctx, raw); err != nil {
		return err
	}
	after, err := raw.measure(ctx)
	if err != nil {
		return err
	}
	s.compare((before + after) / 2)
	return s.examine(ctx, raw)
}

// stop ends every process: agents first, then what they are connected to.
func (s *simulation) stop() error {
	if s.client != nil {
		s.client.bus.Conn().Close()
	}
	return errors.Join(stopAll(s.agents), stopAll(s.leaves), s.services.stop(), s.broker.stop())
}

// step tells one thing that happened, with the seconds since the start.
func (s *simulation) step(format string, args ...any) {
	fmt.Fprintf(s.out, "%6.1fs  %s\n", s.now().Sub(s.started).Seconds(), printable(fmt.Sprintf(format, args...)))
}
