package integration

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"chandler/agent/cmlog"
	"chandler/events"
	"chandler/events/calendar"
	"chandler/events/eventstest"
	"chandler/events/order"
)

var payload = []byte("what is installed\n")

func TestAPackageIsPublishedDeployedAndInstalledEverywhere(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	machines := []*machine{f.machine("ws1"), f.machine("ws2"), f.machine("ws3")}
	p := f.publish("1.0", payload, "")
	f.everyone(3)
	f.deploy("probe-everywhere", p)
	for _, m := range machines {
		f.want("probe-everywhere", m, events.Succeeded)
		if got := m.ran(); len(got) != 1 {
			t.Errorf("%s ran the program %d times", m.name, len(got))
		}
		if got, err := os.ReadFile(filepath.Join(m.root(), "payload")); err != nil || !bytes.Equal(got, payload) {
			t.Errorf("%s installed %q, %v", m.name, got, err)
		}
		var states []events.State
		for _, s := range f.statuses("probe-everywhere", m) {
			states = append(states, s.State)
		}
		if want := []events.State{events.Accepted, events.Downloading, events.Downloaded, events.Running, events.Succeeded}; !slices.Equal(states, want) {
			t.Errorf("%s went through %v", m.name, states)
		}
	}
	f.check("probe-everywhere", machines...)
	eventstest.ExpectExactly(t, f.owner, events.JobFinished, func(e events.Event[events.JobEnd]) bool { return e.Data.State == events.Succeeded }, 3)
	eventstest.Expect(t, f.owner, events.DeploymentProgressed, func(e events.Event[events.Progress]) bool {
		return e.Data.States[events.Succeeded] == 3 && e.Data.Total == 3
	})
}

func TestTheLogOfARunIsOnTheMachineAndInTheStream(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	m := f.machine("ws1")
	m.write("exit", "3")
	p := f.publish("1.0", payload, "")
	f.everyone(1)
	f.deploy("fails", p)
	row := f.want("fails", m, events.Failed)
	if row.Reason != events.ExitCode {
		t.Fatalf("reason %s", row.Reason)
	}
	last := f.statuses("fails", m)
	end := last[len(last)-1]
	if end.ExitCode == nil || *end.ExitCode != 3 || end.Executor == "" || !strings.Contains(end.Explanation, "exit code 3") {
		t.Fatalf("the failed event explains %+v", end)
	}
	e := eventstest.Expect(t, f.owner, events.JobLogged, func(e events.Event[events.JobLog]) bool { return e.Data.Deployment == "fails" })
	var text []string
	for _, l := range e.Data.Lines {
		text = append(text, l.Text)
	}
	if all := strings.Join(text, "\n"); !strings.Contains(all, "probe is done") || !strings.Contains(all, "exit code 3") {
		t.Fatalf("logged:\n%s", all)
	}
	file, err := os.Open(filepath.Join(m.file.StateDir, "logs", "execmgr.log"))
	must(t, err)
	defer file.Close()
	failures := 0
	for entry, err := range cmlog.Parse(file) {
		must(t, err)
		if entry.Type == cmlog.Error && strings.Contains(entry.Text, "exit_code") {
			failures++
		}
	}
	if failures != 1 {
		t.Fatalf("execmgr.log has %d error lines about the failure", failures)
	}
}

func TestAnAgentThatWasAwayForTheOfferGetsItWhenItIsBack(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	m := f.machine("laptop")
	p := f.publish("1.0", payload, "")
	f.everyone(1)
	m.stop()
	f.deploy("while-away", p)
	f.want("while-away", m, events.Offered)
	m.start()
	f.want("while-away", m, events.Succeeded)
	f.check("while-away", m)
}

func TestAnAgentThatJoinsLaterIsReleasedToo(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	first := f.machine("ws1")
	p := f.publish("1.0", payload, "")
	f.everyone(1)
	f.deploy("grows", p)
	f.want("grows", first, events.Succeeded)
	later := f.machine("ws2")
	f.want("grows", later, events.Succeeded)
	f.check("grows", first, later)
}

func TestAnAgentKilledWhileFetchingGoesOnWhereItWas(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	big := make([]byte, 12<<20)
	_, err := rand.Read(big)
	must(t, err)
	m := f.machine("slow-line", func(a *agentFile) { a.Bandwidth = 4 << 20 })
	p := f.publish("1.0", big, "")
	f.everyone(1)
	f.deploy("big", p)
	f.want("big", m, events.Downloading)
	partial := filepath.Join(m.file.StateDir, "cache", "partial")
	eventually(t, "a block of the content is there", func() bool {
		files, err := os.ReadDir(partial)
		if err != nil || len(files) == 0 {
			return false
		}
		info, err := files[0].Info()
		return err == nil && info.Size() > 5<<20
	})
	m.kill()
	m.start()
	f.want("big", m, events.Succeeded)
	if got, err := os.ReadFile(filepath.Join(m.root(), "payload")); err != nil || !bytes.Equal(got, big) {
		t.Fatalf("installed %d bytes, %v", len(got), err)
	}
	statuses := f.statuses("big", m)
	for _, s := range statuses {
		if s.State == events.Downloaded && s.Bytes >= int64(len(big)) {
			t.Errorf("%d bytes were fetched after the restart: nothing was resumed", s.Bytes)
		}
	}
	f.check("big", m)
}

func TestAnAgentKilledWhileTheProgramRunsTellsItsOutcome(t *testing.T) {
	t.Parallel()
	for name, inTime := range map[string]bool{"the program ends while the agent is away": true, "the program ends after the agent is back": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t)
			m := f.machine("ws1")
			m.write("hold", "")
			p := f.publish("1.0", payload, "")
			f.everyone(1)
			f.deploy("holds", p)
			f.want("holds", m, events.Running)
			m.awaitFile("started")
			m.kill()
			if inTime {
				m.remove("hold")
				eventually(t, "the supervisor has written the outcome", func() bool {
					found, _ := filepath.Glob(filepath.Join(m.file.StateDir, "runs", "*", "outcome.json"))
					return len(found) == 1
				})
				m.start()
			} else {
				m.start()
				m.remove("hold")
			}
			f.want("holds", m, events.Succeeded)
			f.check("holds", m)
			if got := m.ran(); len(got) != 1 {
				t.Fatalf("ran %v", got)
			}
		})
	}
}

func TestAProgramThatOutlivesAgentAndSupervisorIsWaitedForAndItsOutcomeUnknown(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	m := f.machine("ws1")
	m.write("hold", "")
	f.everyone(1)
	f.deploy("orphaned", f.publish("1.0", payload, ""))
	f.want("orphaned", m, events.Running)
	m.awaitFile("started")
	records, err := filepath.Glob(filepath.Join(m.file.StateDir, "runs", "*", "started"))
	if err != nil || len(records) != 1 {
		t.Fatalf("runs with a started program: %v, %v", records, err)
	}
	data, err := os.ReadFile(records[0])
	must(t, err)
	var began struct {
		PID int `json:"supervisor_pid"`
	}
	must(t, json.Unmarshal(data, &began))
	m.kill()
	supervisor, err := os.FindProcess(began.PID)
	must(t, err)
	must(t, supervisor.Kill())
	m.start()
	eventually(t, "the agent says that the program goes on", func() bool {
		log, err := os.ReadFile(filepath.Join(m.file.StateDir, "logs", "execmgr.log"))
		return err == nil && strings.Contains(string(log), "its supervisor is gone; its end is awaited")
	})
	if row := f.want("orphaned", m, events.Running); row.State != events.Running {
		t.Fatalf("it is %s", row.State)
	}
	m.remove("hold")
	if row := f.want("orphaned", m, events.Failed); row.Reason != events.OutcomeUnknown {
		t.Fatalf("it failed for %s", row.Reason)
	}
	if got := m.ran(); len(got) != 1 {
		t.Fatalf("ran %v", got)
	}
}

func TestAnAgentKilledBeforeReportingReportsAfterwards(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	m := f.machine("ws1")
	m.write("hold", "")
	p := f.publish("1.0", payload, "")
	f.everyone(1)
	f.deploy("unreported", p)
	f.want("unreported", m, events.Running)
	m.awaitFile("started")
	f.broker.Stop()
	m.remove("hold")
	eventually(t, "the run is over and cleaned up", func() bool {
		left, _ := filepath.Glob(filepath.Join(m.file.StateDir, "runs", "*"))
		return len(left) == 0
	})
	m.kill()
	f.broker.Start()
	m.start()
	f.want("unreported", m, events.Succeeded)
	f.check("unreported", m)
}

func TestTheBrokerIsRestartedWithJobsUnderWay(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	machines := []*machine{f.machine("ws1"), f.machine("ws2"), f.machine("ws3")}
	machines[0].write("hold", "")
	p := f.publish("1.0", payload, "")
	f.everyone(3)
	f.deploy("stormy", p)
	machines[0].awaitFile("started")
	f.broker.Restart()
	machines[0].remove("hold")
	for _, m := range machines {
		f.want("stormy", m, events.Succeeded)
	}
	f.check("stormy", machines...)
	f.deploy("after-the-storm", p)
	for _, m := range machines {
		f.want("after-the-storm", m, events.Succeeded)
	}
	f.check("after-the-storm", machines...)
}

func TestAFailureOfAPassingKindIsTriedAgain(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	m := f.machine("ws1")
	m.write("exit", "1618") // cut to a byte by the shell, so the program maps it
	p := f.publish("1.0", payload, "    return-codes: {82: retry}\n")
	f.everyone(1)
	f.deploy("busy", p)
	eventually(t, "the first attempt found the installer busy", func() bool {
		return slices.ContainsFunc(f.statuses("busy", m), func(s events.JobStatus) bool { return s.State == events.Retrying })
	})
	m.remove("exit")
	row := f.want("busy", m, events.Succeeded)
	if row.Attempt < 2 {
		t.Fatalf("succeeded in attempt %d", row.Attempt)
	}
	f.check("busy", m)
}

func TestAnAdministratorRetriesWhatFailed(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	good, bad := f.machine("good"), f.machine("bad")
	bad.write("exit", "5")
	p := f.publish("1.0", payload, "")
	f.everyone(2)
	f.deploy("partly", p)
	f.want("partly", good, events.Succeeded)
	f.want("partly", bad, events.Failed)
	bad.remove("exit")
	if got := mustAsk(f, events.ExecutionRetry, events.Named{Name: "partly"}); got.Offered != 1 {
		t.Fatalf("retried %d jobs", got.Offered)
	}
	eventually(t, "the retried job succeeded", func() bool {
		row, ok := f.row("partly", bad)
		return ok && row.State == events.Succeeded && row.Attempt == 2
	})
	if len(good.ran()) != 1 || len(bad.ran()) != 2 {
		t.Fatalf("good ran %d times, bad %d times", len(good.ran()), len(bad.ran()))
	}
	f.check("partly", good, bad)
	history := mustAsk(f, events.ExecutionHistory, events.HistoryQuery{Agent: bad.id})
	if len(history.Jobs) != 2 || history.Jobs[0].State != events.Failed || history.Jobs[1].State != events.Succeeded {
		t.Fatalf("history %+v", history.Jobs)
	}
}

func TestADeadlineIsWaitedForWithTheContentAlreadyThere(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	m := f.machine("ws1")
	p := f.publish("1.0", payload, "")
	f.everyone(1)
	deadline := time.Now().Add(4 * time.Second)
	f.deploy("later", p, func(o *order.Order) { o.Assignments = []order.Assignment{{At: new(calendar.At(deadline))}} })
	row := f.want("later", m, events.Waiting)
	if row.WaitingFor != events.WaitAssignment || len(m.ran()) != 0 {
		t.Fatalf("waits for %s, ran %v", row.WaitingFor, m.ran())
	}
	f.want("later", m, events.Succeeded)
	var downloaded, running time.Time
	for _, s := range f.statuses("later", m) {
		switch s.State {
		case events.Downloaded:
			downloaded = s.At
		case events.Running:
			running = s.At
		}
	}
	if !downloaded.Before(deadline) || running.Before(deadline) {
		t.Fatalf("downloaded %s, ran %s, deadline %s", downloaded, running, deadline)
	}
	f.check("later", m)
}

func TestAProgramThatExceedsItsTimeIsEndedWithAllItsChildren(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	m := f.machine("ws1")
	m.write("hold", "")
	p := f.publish("1.0", payload, "    max-run-time: 1s\n")
	f.everyone(1)
	f.deploy("hangs", p)
	if row := f.want("hangs", m, events.Failed); row.Reason != events.RunTimeExceeded {
		t.Fatalf("reason %s", row.Reason)
	}
	f.check("hangs", m)
}

func TestDetectionHasTheLastWord(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	m := f.machine("ws1")
	f.everyone(1)
	never := f.publish("1.0", payload, "    detect: [{script: 'true'}]\n")
	f.deploy("not-detected", never)
	if row := f.want("not-detected", m, events.Failed); row.Reason != events.NotDetected {
		t.Fatalf("reason %s", row.Reason)
	}
	unknown := f.publish("1.1", payload, "    detect: [{script: 'exit 1'}]\n")
	f.deploy("unknown", unknown)
	if row := f.want("unknown", m, events.Failed); row.Reason != events.DetectionUnknown {
		t.Fatalf("reason %s", row.Reason)
	}
	there := f.publish("1.2", payload, "    detect: [{script: 'echo here'}]\n")
	before := len(m.ran())
	f.deploy("already", there)
	if row := f.want("already", m, events.Succeeded); row.Reason != events.AlreadyInstalled || len(m.ran()) != before {
		t.Fatalf("reason %s, ran %d times more", row.Reason, len(m.ran())-before)
	}
	f.check("already", m)
}
