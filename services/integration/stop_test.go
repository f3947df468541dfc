package integration

import (
	"testing"
	"time"

	"chandler/events"
	"chandler/events/calendar"
	"chandler/events/order"
)

// TestAStopReachesJobsInEveryState has one job in each state a stop can meet, stops, and counts.
func TestAStopReachesJobsInEveryState(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	big := make([]byte, 8<<20)
	done, failed := f.machine("done"), f.machine("failed")
	running, waiting := f.machine("running"), f.machine("waiting")
	fetching := f.machine("fetching", func(a *agentFile) { a.Bandwidth = 256 << 10 })
	away := f.machine("away")
	all := []*machine{done, failed, running, waiting, fetching, away}
	p := f.publish("1.0", big, "")
	f.everyone(len(all))
	failed.write("exit", "1")
	running.write("hold", "")
	away.stop()
	mustAsk(f, events.ExecutionFreeze, events.Freeze{Scope: "site", Name: "frozen", Why: "so that a job waits"})
	waiting.stop()
	waiting.file.Site = "frozen"
	waiting.start()

	f.deploy("halted", p)
	f.want("halted", done, events.Succeeded)
	f.want("halted", failed, events.Failed)
	f.want("halted", running, events.Running)
	f.want("halted", waiting, events.Waiting)
	f.want("halted", fetching, events.Downloading)
	f.want("halted", away, events.Offered)
	running.awaitFile("started")

	// A stop works without scheduling.
	f.stopService("scheduling")
	mustAsk(f, events.ExecutionStop, events.StopRequest{Deployment: "halted", Why: "test"})
	var counted events.StopAnswer
	eventually(t, "the stop has reached everyone it can", func() bool {
		counted = mustAsk(f, events.ExecutionStopped, events.StopQuery{Deployment: "halted"})
		return counted.Stopped == 2
	})
	if counted.Running != 1 || counted.Unreachable != 1 || counted.Ended != 2 || counted.MayStart == nil {
		t.Fatalf("counted %+v", counted)
	}
	f.startService("scheduling")

	mustAsk(f, events.ExecutionUnfreeze, events.Named{Name: "site-frozen"})
	away.start()
	running.remove("hold")
	f.want("halted", running, events.Succeeded)
	for _, m := range []*machine{waiting, fetching, away} {
		if row := f.want("halted", m, events.Cancelled); row.Reason != events.DeploymentStopped {
			t.Errorf("%s: reason %s", m.name, row.Reason)
		}
		if ran := m.ran(); ran != nil {
			t.Errorf("%s started the program after the stop: %v", m.name, ran)
		}
	}
	f.check("halted", all...)
	final := mustAsk(f, events.ExecutionStopped, events.StopQuery{Deployment: "halted"})
	if final.Stopped != 3 || final.Running != 0 || final.Unreachable != 0 || final.Ended != 3 {
		t.Fatalf("counted in the end %+v", final)
	}
}

func TestAStopThatKillsEndsRunningPrograms(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	m := f.machine("ws1")
	m.write("hold", "")
	p := f.publish("1.0", payload, "")
	f.everyone(1)
	f.deploy("killed", p)
	f.want("killed", m, events.Running)
	m.awaitFile("started")
	mustAsk(f, events.ExecutionStop, events.StopRequest{Deployment: "killed", Kill: true})
	f.want("killed", m, events.Cancelled)
	f.check("killed", m)
}

func TestAFreezeHoldsStartsUntilItIsLifted(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	m := f.machine("ws1")
	p := f.publish("1.0", payload, "")
	f.everyone(1)
	f.stopService("scheduling")
	mustAsk(f, events.ExecutionFreeze, events.Freeze{Scope: "fleet", Why: "change freeze"})
	f.startService("scheduling")
	f.deploy("frozen", p)
	if row := f.want("frozen", m, events.Waiting); row.WaitingFor != events.WaitFreeze {
		t.Fatalf("waits for %s", row.WaitingFor)
	}
	m.kill() // a freeze outlives the agent, also without a broker
	f.broker.Stop()
	m.start()
	m.awaitRunning() // and has taken up its jobs again
	if ran := m.ran(); ran != nil {
		t.Fatalf("ran %v while frozen", ran)
	}
	f.broker.Start()
	mustAsk(f, events.ExecutionUnfreeze, events.Named{Name: "fleet"})
	f.want("frozen", m, events.Succeeded)
	f.check("frozen", m)
}

func TestAPausedDeploymentReleasesNobody(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	first := f.machine("ws1")
	p := f.publish("1.0", payload, "")
	f.everyone(1)
	f.deploy("paused", p)
	f.want("paused", first, events.Succeeded)
	mustAsk(f, events.DeploymentPause, events.Named{Name: "paused"})
	later := f.machine("ws2")
	f.everyone(2)
	// What reaches the newcomer by another deployment shows that scheduling has looked at it.
	f.deploy("not-paused", p)
	f.want("not-paused", later, events.Succeeded)
	if row, ok := f.row("paused", later); ok {
		t.Fatalf("released while paused: %+v", row)
	}
	why := mustAsk(f, events.Why, events.WhyRequest{Agent: later.id, Deployment: "paused"})
	if a := why.Answers[0]; !a.Member || a.Released || a.Life != events.LifePaused {
		t.Fatalf("scheduling says %+v", a)
	}
	mustAsk(f, events.DeploymentResume, events.Named{Name: "paused"})
	f.want("paused", later, events.Succeeded)
	f.check("paused", first, later)
}

func TestAnExpiredDeploymentStartsNothing(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	m := f.machine("ws1")
	p := f.publish("1.0", payload, "")
	f.everyone(1)
	expires := time.Now().Add(3 * time.Second)
	mustAsk(f, events.ExecutionFreeze, events.Freeze{Scope: "fleet"})
	f.deploy("short", p, func(o *order.Order) { o.Expires = new(calendar.At(expires)) })
	f.want("short", m, events.Waiting)
	eventually(t, "the deployment has expired", func() bool {
		return mustAsk(f, events.DeploymentShow, events.Named{Name: "short"}).Life == events.LifeExpired
	})
	mustAsk(f, events.ExecutionUnfreeze, events.Named{Name: "fleet"})
	f.want("short", m, events.Expired)
	if ran := m.ran(); ran != nil {
		t.Fatalf("ran %v after it had expired", ran)
	}
	f.check("short", m)
}
