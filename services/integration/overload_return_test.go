package integration

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	light "chandler/agent/fleet"
	"chandler/events/access"
	"chandler/services/execution"
)

// TestAllAgentsComeBackAtOnceAndFindTheirWayByThemselves breaks every connection at once, again and again, while work is under
// way and the only replica of execution answers one agent at a time and tells the others to come later.
func TestAllAgentsComeBackAtOnceAndFindTheirWayByThemselves(t *testing.T) {
	t.Parallel()
	f := bareFleet(t, asDeployed)
	for _, name := range []string{"content", "scheduling", "credentials"} {
		f.startService(name)
	}
	f.startBusyExecution()
	f.setTrust(f.trust, f.roots...)
	const agents = 500
	c := newMultitude(f, agents, light.Script{Seed: 1, Duration: 200 * time.Millisecond, Spread: 1}, nil)
	p := f.publish("1.0", payload, "")
	var names []string
	for i := range 2 {
		names = append(names, fmt.Sprintf("broken-%d", i))
		c.toAll(names[i], p)
		broken := c.site.fleet.Stats().Reconnects
		c.link.Cut(1)
		eventually(t, "all are back", func() bool {
			return c.site.fleet.Stats().Reconnects-broken >= agents*9/10 && c.site.fleet.Connected() == agents
		})
	}
	c.allSucceeded(names...)
	// How many are told to come later depends on how they are spread; that they are is for execution's own tests.
	t.Logf("%v answers were to come later", f.counted("execution", "chandler_execution_sync_total", `result="busy"`))
	if n := f.counted("execution", "chandler_execution_sync_total", `result="ok"`); n < agents {
		t.Errorf("%v agents were answered", n)
	}
}

// startBusyExecution starts execution as a replica that answers one agent at a time.
func (f *fleet) startBusyExecution() {
	f.t.Helper()
	reg := prometheus.NewRegistry()
	s, err := execution.New(execution.Options{Bus: f.broker.Bus(f.t, access.Service("execution"), "execution"), Registerer: reg, Syncs: 1})
	must(f.t, err)
	f.registry["execution"] = reg
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	f.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			f.t.Errorf("execution: %v", err)
		}
	})
}
