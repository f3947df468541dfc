package integration

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"chandler/events"
	"chandler/events/calendar"
	"chandler/events/order"
)

// TestAProgramIsNeverLeftOutOfSight kills the agent while the program runs, takes away everything it could
// ask (cache, content, broker), and starts it: it must follow the program, not start it once more.
func TestAProgramIsNeverLeftOutOfSight(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	m := f.machine("ws1")
	m.write("hold", "")
	p := f.publish("1.0", payload, "")
	f.everyone(1)
	f.deploy("followed", p)
	f.want("followed", m, events.Running)
	m.awaitFile("started")
	m.kill()
	f.stopService("content")
	must(t, os.RemoveAll(filepath.Join(m.file.StateDir, "cache")))
	m.start()
	// The agent is reached by a kill although it cannot ask anybody about the program.
	mustAsk(f, events.ExecutionStop, events.StopRequest{Deployment: "followed", Kill: true})
	f.want("followed", m, events.Cancelled)
	f.check("followed", m)
	if ran := m.ran(); len(ran) != 1 {
		t.Fatalf("ran %v", ran)
	}
}

func TestAStopEndsJobsThatWaitForTheirNextAttemptOrTheirTime(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	m := f.machine("ws1")
	m.file.RetryAfter = time.Hour
	m.stop()
	m.start()
	m.write("exit", "82")
	p := f.publish("1.0", payload, "    return-codes: {82: retry}\n")
	f.everyone(1)
	later := time.Now().Add(time.Hour)
	f.deploy("retrying", p)
	f.deploy("scheduled", p, func(o *order.Order) { o.Assignments = []order.Assignment{{At: new(calendar.At(later))}} })
	f.want("retrying", m, events.Retrying)
	f.want("scheduled", m, events.Waiting)
	for _, d := range []string{"retrying", "scheduled"} {
		mustAsk(f, events.ExecutionStop, events.StopRequest{Deployment: d})
		if row := f.want(d, m, events.Cancelled); row.Reason != events.DeploymentStopped {
			t.Errorf("%s: reason %s", d, row.Reason)
		}
		f.check(d, m)
		if n := len(f.statuses(d, m)); n > 8 {
			t.Errorf("%s: %d statuses: the agent went round and round", d, n)
		}
	}
}

func TestAProgramThatIsWatchedNoLongerKeepsItsFilesAndFreesItsSlot(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	m := f.machine("ws1")
	m.write("hold", "")
	p := f.publish("1.0", payload, "    max-run-time: 1s\n    on-timeout: stop-monitoring\n")
	f.everyone(1)
	f.deploy("unwatched", p)
	if row := f.want("unwatched", m, events.Failed); row.Reason != events.RunTimeExceeded {
		t.Fatalf("reason %s", row.Reason)
	}
	if found, _ := filepath.Glob(filepath.Join(m.file.StateDir, "runs", "*", "content", "payload")); len(found) != 1 {
		t.Fatalf("the running program's content is gone: %v", found)
	}
	m.remove("hold")
	f.deploy("next", p)
	f.want("next", m, events.Succeeded)
	f.check("next", m)
}

func TestAFreezeThatComesWhileContentIsLaidOutStillHolds(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	m := f.machine("ws1")
	p := f.publish("1.0", make([]byte, 64<<20), "")
	f.everyone(1)
	deadline := time.Now().Add(8 * time.Second)
	f.deploy("laid-out", p, func(o *order.Order) { o.Assignments = []order.Assignment{{At: new(calendar.At(deadline))}} })
	eventually(t, "content is laid out", func() bool {
		found, _ := filepath.Glob(filepath.Join(m.file.StateDir, "runs", "*", "content"))
		return len(found) == 1
	})
	mustAsk(f, events.ExecutionFreeze, events.Freeze{Scope: "fleet"})
	eventually(t, "the job has seen the freeze, or had started before", func() bool {
		return slices.ContainsFunc(f.statuses("laid-out", m), func(s events.JobStatus) bool {
			return s.WaitingFor == events.WaitFreeze || s.State == events.Running
		})
	})
	mustAsk(f, events.ExecutionUnfreeze, events.Named{Name: "fleet"})
	f.want("laid-out", m, events.Succeeded)
	f.check("laid-out", m)
}

func TestAJobThatWaitsForARestartIsNotRunAgainByAnything(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	m := f.machine("ws1")
	m.write("exit", "10")
	p := f.publish("1.0", payload, "    return-codes: {10: soft-reboot}\n")
	f.everyone(1)
	f.deploy("restart", p)
	f.want("restart", m, events.RebootPending)
	m.kill()
	m.start()
	m.awaitRunning()
	// The machine has not restarted: the job still waits, a stop counts it with the running ones, and a
	// soft restart lets others go on, but for what builds on the same package.
	mustAsk(f, events.ExecutionStop, events.StopRequest{Deployment: "restart"})
	if got := mustAsk(f, events.ExecutionStopped, events.StopQuery{Deployment: "restart"}); got.Running != 1 || got.Stopped != 0 {
		t.Fatalf("counted %+v", got)
	}
	m.remove("exit")
	f.deploy("dependent", p)
	f.wantWaiting("dependent", m, events.WaitReboot)
	f.deploy("other", f.publishProgram(t, "other", `{command: ["true"], run: administrative}`))
	f.want("other", m, events.Succeeded)
	f.want("restart", m, events.RebootPending)
	if ran := m.ran(); len(ran) != 1 {
		t.Fatalf("ran %v", ran)
	}
}
