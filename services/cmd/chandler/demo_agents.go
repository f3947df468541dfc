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
	"chandler/agent/execute/systemrunner"
	"chandler/agent/fetch"
	"chandler/agent/fetch/dpsource"
	"chandler/agent/supervise"
	"chandler/events/order"
)

// newSupervise makes this program able to watch over the runs of the demonstration's agents, as
// `chandler-agent supervise` does for real ones.
func newSupervise() *cobra.Command {
	return &cobra.Command{Use: "supervise DIR", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return supervise.Main(args[0]) }}
}

// demoAgents are real agents in this process; what they run are processes of their own.
type demoAgents struct {
	wg  sync.WaitGroup
	mu  sync.Mutex
	err error
}

func startDemoAgents(ctx context.Context, d *demo) (*demoAgents, error) {
	data, err := os.ReadFile(d.client.Trust)
	if err != nil {
		return nil, err
	}
	trust, err := order.ParseTrust(data)
	if err != nil {
		return nil, err
	}
	list := make([]*agent.Agent, d.agents)
	for i := range list {
		if list[i], err = newDemoAgent(d, fmt.Sprintf("demo-%d", i+1), trust); err != nil {
			return nil, closeAgents(list[:i], err)
		}
	}
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

func newDemoAgent(d *demo, name string, trust order.Trust) (*agent.Agent, error) {
	dir := filepath.Join(d.dir, name)
	root, scripts := filepath.Join(dir, "root"), filepath.Join(dir, "state", "scripts")
	if err := errors.Join(makeDemoRoot(root), os.MkdirAll(scripts, 0o700)); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	env := []string{"DEMO_ROOT=" + root}
	tool := detect.Exec(env)
	source := dpsource.New(dpsource.Options{})
	return agent.New(agent.Options{
		StateDir: filepath.Join(dir, "state"), Servers: []string{d.server.URL}, Trust: trust, Hostname: name, Site: "demo", Environment: env,
		Supervisor: []string{self, "supervise"}, Runner: systemrunner.New(), Sources: map[string]fetch.Source{"http": source, "https": source},
		Kinds:        map[string]detect.Kind{detect.KindScript: detect.Script{Run: tool, Dir: scripts}, detect.KindFile: detect.File{}},
		ReconnectMax: time.Second, Log: slog.New(slog.DiscardHandler),
	})
}
