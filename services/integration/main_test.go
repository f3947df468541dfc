package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"testing"
	"time"

	"chandler/agent"
	"chandler/agent/detect"
	"chandler/agent/execute/systemrunner"
	"chandler/agent/fetch"
	"chandler/agent/fetch/dpsource"
	"chandler/agent/supervise"
	"chandler/events/order"
)

// TestMain lets this binary be an agent and a supervisor too.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 {
		switch os.Args[1] {
		case "supervise":
			exit(supervise.Main(os.Args[2]))
		case "agent":
			exit(runAgent(os.Args[2]))
		}
	}
	os.Exit(m.Run())
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// agentFile is what an agent's process is told.
type agentFile struct {
	StateDir, Root, Server, Hostname, Site string
	Tags                                   []string
	Trust                                  order.Trust
	CacheSize, Bandwidth                   int64
	Beacon                                 time.Duration
}

// runAgent is an agent's process: the real one, with short intervals.
func runAgent(file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var f agentFile
	if err := json.Unmarshal(data, &f); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	scripts := filepath.Join(f.StateDir, "scripts")
	if err := os.MkdirAll(scripts, 0o700); err != nil {
		return err
	}
	env := []string{"ROOT=" + f.Root}
	dp := dpsource.New(dpsource.Options{})
	a, err := agent.New(agent.Options{
		StateDir: f.StateDir, Servers: []string{f.Server}, Trust: f.Trust, Hostname: f.Hostname, Site: f.Site, Tags: f.Tags, Environment: env,
		Supervisor: []string{self, "supervise"}, Runner: systemrunner.New(), Sources: map[string]fetch.Source{"http": dp},
		Kinds:     map[string]detect.Kind{detect.KindFile: detect.File{}, detect.KindScript: detect.Script{Run: detect.Exec(env), Dir: scripts}},
		CacheSize: f.CacheSize, Bandwidth: f.Bandwidth, RetryAfter: 300 * time.Millisecond,
		CheckEvery: 2 * time.Second, BeaconEvery: f.Beacon, ReconnectMax: 500 * time.Millisecond,
		Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	return a.Run(ctx)
}
