package integration

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"chandler/agent"
	"chandler/agent/detect"
	"chandler/agent/enrol"
	"chandler/agent/execute"
	"chandler/agent/execute/systemrunner"
	"chandler/agent/fetch"
	"chandler/agent/fetch/dpsource"
	"chandler/agent/identity"
	"chandler/agent/supervise"
	"chandler/events"
	"chandler/events/enrolment"
)

// TestMain lets this binary be an agent, a supervisor and a service too.
func TestMain(m *testing.M) {
	switch args := os.Args[1:]; {
	case len(args) == 2 && args[0] == "supervise":
		exit(supervise.Main(args[1], nil))
	case len(args) == 2 && args[0] == "agent":
		exit(runAgent(args[1]))
	case len(args) == 3 && args[0] == "service":
		exit(runService(args[1], args[2]))
	case len(args) == 2 && args[0] == "broker":
		exit(runBroker(args[1]))
	case len(args) == 3 && args[0] == "cluster":
		exit(runOfCluster(args[1], args[2]))
	}
	// Stories mostly wait, each on a broker of its own, so more of them fit than there are processors.
	if err := flag.Set("test.parallel", "6"); err != nil {
		exit(err)
	}
	os.Exit(m.Run())
}

// interrupted is done when somebody asks this process to end.
func interrupted() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), os.Interrupt)
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// metricsFile is where an agent that ends in order leaves its metrics.
const metricsFile = "metrics.prom"

// agentFile is what an agent's process is told.
type agentFile struct {
	StateDir, Root, Server, Hostname, Site string
	Tags                                   []string
	Token                                  string // to enrol with at the first start
	CacheSize, Bandwidth                   int64
	Beacon                                 time.Duration
	RetryAfter                             time.Duration
	Ahead                                  time.Duration // by which its clock is
	LocalSocket                            string
	Domain                                 string // behind a leaf node
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
	reg := prometheus.NewRegistry()
	ctx, stop := interrupted()
	defer stop()
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	keeper, err := enrolled(ctx, f, log)
	if err != nil {
		return err
	}
	a, err := agent.New(agent.Options{
		Registerer: reg, Enrolment: keeper,
		StateDir: f.StateDir, Servers: []string{f.Server}, Hostname: f.Hostname, Site: f.Site, Tags: f.Tags, Environment: env,
		Supervisor: []string{self, "supervise"}, Runners: map[string]execute.Runner{identity.System.Runner(): systemrunner.New()}, Sources: map[string]fetch.Source{"http": dp},
		Kinds:     map[string]detect.Kind{detect.KindFile: detect.File{}, detect.KindScript: detect.Script{Run: detect.Exec(env), Dir: scripts}},
		CacheSize: f.CacheSize, Bandwidth: f.Bandwidth, RetryAfter: f.RetryAfter,
		CheckEvery: 2 * time.Second, BeaconEvery: f.Beacon, ReconnectMax: 500 * time.Millisecond,
		Clock:       func() time.Time { return time.Now().Add(f.Ahead) },
		LocalSocket: f.LocalSocket, Domain: f.Domain,
		Log: log,
	})
	if err != nil {
		return err
	}
	err = a.Run(ctx)
	return errors.Join(err, prometheus.WriteToTextfile(filepath.Join(f.StateDir, metricsFile), reg))
}

// enrolled is the machine's identity, which its first start asks for by the token.
func enrolled(ctx context.Context, f agentFile, log *slog.Logger) (*enrol.Keeper, error) {
	keeper, err := enrol.New(enrol.Options{Dir: f.StateDir, Servers: []string{f.Server}, TrustDelay: 100 * time.Millisecond, Log: log})
	if err != nil || keeper.Enrolled() {
		return keeper, err
	}
	token, err := enrolment.ParseToken(f.Token)
	if err != nil {
		return nil, err
	}
	return keeper, keeper.Enrol(ctx, token, events.Facts{ID: keeper.ID(), Hostname: f.Hostname})
}
