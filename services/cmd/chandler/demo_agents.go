package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"chandler/agent"
	"chandler/agent/detect"
	"chandler/agent/enrol"
	"chandler/agent/execute"
	"chandler/agent/execute/systemrunner"
	"chandler/agent/fetch"
	"chandler/agent/fetch/dpsource"
	"chandler/agent/identity"
	"chandler/agent/supervise"
	"chandler/events/enrolment"
)

// newSupervise makes this program able to watch over the runs of the demonstration's agents, as
// `chandler-agent supervise` does for real ones.
func newSupervise() *cobra.Command {
	return &cobra.Command{Use: "supervise DIR", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return supervise.Main(args[0], nil) }}
}

// demoAgents are real agents in this process; what they run are processes of their own.
type demoAgents struct {
	wg  sync.WaitGroup
	mu  sync.Mutex
	err error
}

// startDemoAgents makes a token as token create does, and lets every agent enrol with it.
func startDemoAgents(ctx context.Context, d *demo) (*demoAgents, error) {
	secret, _, err := d.makeToken(ctx, d.client, "demo", tokenFlags{uses: d.agents, expires: "1h", site: "demo"})
	if err != nil {
		return nil, err
	}
	token, err := enrolment.ParseToken(secret)
	if err != nil {
		return nil, err
	}
	list := make([]*agent.Agent, d.agents)
	for i := range list {
		if list[i], err = newDemoAgent(ctx, d, fmt.Sprintf("demo-%d", i+1), token); err != nil {
			return nil, closeAgents(list[:i], err)
		}
	}
	d.step("token made; %s enrolled with it, each with a key and an identity of its own", plural(d.agents, "agent has", "agents have"))
	all := &demoAgents{}
	for _, a := range list {
		all.wg.Go(func() {
			err := a.Run(ctx)
			all.mu.Lock()
			defer all.mu.Unlock()
			all.err = errors.Join(all.err, err)
		})
	}
	return all, nil
}

// closeAgents gives up those that were made before one could not be.
func closeAgents(made []*agent.Agent, why error) error {
	for _, a := range made {
		a.Close()
	}
	return why
}

func (all *demoAgents) wait() error {
	all.wg.Wait()
	return all.err
}

func newDemoAgent(ctx context.Context, d *demo, name string, token enrolment.Token) (*agent.Agent, error) {
	dir := filepath.Join(d.dir, name)
	state, root := filepath.Join(dir, "state"), filepath.Join(dir, "root")
	scripts := filepath.Join(state, "scripts")
	if err := errors.Join(makeDemoRoot(root), os.MkdirAll(scripts, 0o700)); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	env := []string{"DEMO_ROOT=" + root}
	tool := detect.Exec(env)
	o := agent.Options{
		StateDir: state, Hostname: name, Environment: env, Supervisor: []string{self, "supervise"}, Runners: map[string]execute.Runner{identity.System.Runner(): systemrunner.New()},
		Kinds:        map[string]detect.Kind{detect.KindScript: detect.Script{Run: tool, Dir: scripts}, detect.KindFile: detect.File{}},
		ReconnectMax: time.Second, Log: slog.New(slog.DiscardHandler),
	}
	if o.Enrolment, err = enrolDemoAgent(ctx, o, token); err != nil {
		return nil, fmt.Errorf("enrol %s: %w", name, err)
	}
	trusted, err := o.Enrolment.TLS()
	if err != nil {
		return nil, err
	}
	source := dpsource.New(dpsource.Options{TLS: trusted})
	o.Sources = map[string]fetch.Source{"http": source, "https": source}
	return agent.New(o)
}

// enrolDemoAgent does what chandler-agent install does. All agents here are on one machine, as clones would be:
// a fleet keeps those apart by their keys.
func enrolDemoAgent(ctx context.Context, o agent.Options, token enrolment.Token) (*enrol.Keeper, error) {
	keeper, err := enrol.New(enrol.Options{Dir: o.StateDir, Log: o.Log})
	if err != nil {
		return nil, err
	}
	facts, machine, err := agent.ReadFacts(ctx, o)
	if err != nil {
		return nil, err
	}
	if err := keeper.BindMachine(machine); err != nil {
		return nil, err
	}
	facts.ID = keeper.ID()
	return keeper, keeper.Enrol(ctx, token, facts)
}
