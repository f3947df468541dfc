package integration

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"chandler/agent"
	"chandler/agent/local"
	"chandler/events"
	"chandler/events/calendar"
	"chandler/events/order"
)

// occurrences lists the numbers of the occurrences of a deployment whose programs ran on a machine, in their order.
func (f *fleet) occurrences(deployment string, m *machine) (numbers []int64) {
	f.t.Helper()
	for _, s := range f.statuses(deployment, m) {
		if s.State == events.Running && !slices.Contains(numbers, s.Occurrence) {
			numbers = append(numbers, s.Occurrence)
		}
	}
	return numbers
}

// wantOccurrence waits until an occurrence, or one after it, is the newest that execution knows, and has succeeded.
func (f *fleet) wantOccurrence(deployment string, m *machine, number int64) {
	f.t.Helper()
	eventually(f.t, "an occurrence has succeeded", func() bool {
		row, ok := f.row(deployment, m)
		return ok && row.Occurrence >= number && row.State == events.Succeeded
	})
}

// TestSeveralAssignmentsOpenAnOccurrenceEach has a machine whose clock comes near the next full minute while it is off, and
// then is off for three minutes by its clock.
func TestSeveralAssignmentsOpenAnOccurrenceEach(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	m := f.machine("ws1")
	p := f.publishTold("scan", "1.0", "", telling("run", "scanned", ""))
	f.everyone(1)
	signed := time.Now()
	f.deploy("scans", p, f.bound(p, "run"), func(o *order.Order) {
		o.Assignments = []order.Assignment{{ASAP: true}, {Cron: "* * * * *"}}
	})
	f.wantOccurrence("scans", m, 1)

	m.stop()
	m.file.Ahead = time.Until(time.Now().Truncate(time.Minute).Add(time.Minute)) - 2*time.Second
	m.start()
	eventually(t, "an occurrence by cron ran", func() bool { return len(f.occurrences("scans", m)) >= 2 })
	got := f.occurrences("scans", m)
	if got[0] != 1 || got[1] <= signed.Unix() || got[1]%60 != 0 {
		t.Fatalf("occurrences %d of what was signed at %s", got, signed)
	}
	f.wantOccurrence("scans", m, got[1])

	m.stop()
	off := time.Now().Add(m.file.Ahead)
	m.file.Ahead += 3 * time.Minute
	newest := time.Now().Add(m.file.Ahead).Truncate(time.Minute)
	m.start()
	f.wantOccurrence("scans", m, newest.Unix())
	got = f.occurrences("scans", m)
	if slices.ContainsFunc(got, func(n int64) bool { return n > off.Unix() && n < newest.Unix() }) {
		t.Fatalf("occurrences %d: of those from %s on only that of %s was to run", got, off, newest)
	}
	if told := m.told(); len(told) != len(got) {
		t.Fatalf("%d programs ran in occurrences %d", len(told), got)
	}
	_, err := ask(f, events.DeploymentRemove, events.Named{Name: "scans"}) // the machine would go on
	refusedWith(t, err, "stop it first")
}

// newSocket is a place where an agent can listen to local users: its address must be short.
func newSocket(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "chandler")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "agent.sock")
}

func TestALocalUserStartsWhatIsAvailable(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	socket := newSocket(t)
	m := f.machine("ws1", func(a *agentFile) { a.LocalSocket = socket })
	p := f.publishTold("tool", "1.0", "category: Tools\n", telling("install", "tool", ""))
	f.everyone(1)
	f.deploy("tool-for-all", p, func(o *order.Order) { o.Assignments = nil })
	f.wantWaiting("tool-for-all", m, events.WaitAssignment)
	if said := f.newest("tool-for-all", m).Explanation; !strings.Contains(said, "chandler-agent install tool-for-all") {
		t.Errorf("the job says %q", said)
	}
	var items []local.Item
	var err error
	eventually(t, "the machine's users can see it", func() bool {
		items, err = local.List(t.Context(), socket)
		return err == nil && len(items) > 0
	})
	if len(items) != 1 || items[0].Deployment != "tool-for-all" || items[0].Package != "tool" || items[0].Category != "Tools" {
		t.Fatalf("available: %+v", items)
	}
	if _, err := local.Start(t.Context(), socket, "game"); err == nil || !strings.Contains(err.Error(), `nothing is available here by the name "game"`) {
		t.Errorf("asked for what is not there: %v", err)
	}
	m.wantTold()

	for runs, name := range []string{"tool", "tool-for-all"} {
		words, err := local.Start(t.Context(), socket, name)
		if err != nil {
			t.Fatalf("start %s: %v", name, err)
		}
		job := words[strings.LastIndex(words, " ")+1:]
		eventually(t, words, func() bool {
			rows := mustAsk(f, events.ExecutionJobs, events.JobQuery{Job: job})
			return len(rows.Jobs) == 1 && rows.Jobs[0].State == events.Succeeded
		})
		if got := m.told(); len(got) != runs+1 {
			t.Fatalf("after start %d the program ran %d times", runs+1, len(got))
		}
	}
	f.freezeFleet()
	eventually(t, "the machine has heard of the freeze", func() bool {
		said, err := agent.ReadStatus(m.file.StateDir)
		return err == nil && len(said.Freezes) == 1
	})
	if _, err := local.Start(t.Context(), socket, "tool"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a freeze holds also what a user asked for", func() bool {
		row, ok := f.row("tool-for-all", m)
		return ok && row.Occurrence > 0 && row.WaitingFor == events.WaitFreeze
	})
	f.stopDeployment("tool-for-all")
	f.want("tool-for-all", m, events.Cancelled)
	if _, err := local.Start(t.Context(), socket, "tool"); err == nil {
		t.Error("a user started what was stopped")
	}
	if got := m.told(); len(got) != 2 {
		t.Errorf("the program ran %d times", len(got))
	}
	asked := slices.ContainsFunc(f.statuses("tool-for-all", m), func(s events.JobStatus) bool {
		return s.State == events.Running && strings.Contains(s.Explanation, "started by local user")
	})
	if !asked {
		t.Error("no status says that a user started the program")
	}
}

// windowed makes a collection of one machine with a maintenance window.
func (f *fleet) windowed(m *machine, w calendar.Window) order.Windows {
	f.t.Helper()
	c := mustAsk(f, events.CollectionSet, events.Collection{Name: "windows-" + m.name, Expression: `agent.hostname == "` + m.name + `"`, Windows: []calendar.Window{w}})
	return order.Windows{Collection: c.Name, Expression: c.Expression, Windows: c.Windows}
}

func TestProgramsStartInMaintenanceWindows(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	socket := newSocket(t)
	open, soon, short := f.machine("open"), f.machine("soon"), f.machine("short")
	closed := f.machine("closed", func(a *agentFile) { a.LocalSocket = socket })
	f.everyone(4)
	p := f.publish("1.0", payload, "    max-run-time: 1h\n")
	now := time.Now().UTC().Truncate(time.Second)
	opens, later := now.Add(6*time.Second), now.Add(24*time.Hour)
	hours := func(h int) calendar.Duration { return calendar.Duration(time.Duration(h) * time.Hour) }
	windows := []order.Windows{
		f.windowed(closed, calendar.Window{Once: calendar.At(later), For: hours(4)}),
		f.windowed(open, calendar.Window{Once: calendar.At(now.Add(-time.Hour)), For: hours(4)}),
		f.windowed(short, calendar.Window{Daily: 1, At: "02:00", For: calendar.Duration(30 * time.Minute)}),
		f.windowed(soon, calendar.Window{Once: calendar.At(opens), For: hours(4)}),
	}
	f.deploy("nightly", p, func(o *order.Order) { o.Windows, o.NotAfter = windows, now.Add(48*time.Hour) })

	f.wantEnd("nightly", short, events.Failed, events.WindowNeverFits, "may run for 1h0m0s", "longest maintenance window of this machine to come is 30m0s")
	f.want("nightly", open, events.Succeeded)
	f.wantWaiting("nightly", closed, events.WaitMaintenanceWindow)
	if said := f.newest("nightly", closed).Explanation; !strings.Contains(said, later.Format("2006-01-02T15:04:05")) {
		t.Errorf("which window is waited for is told as %q", said)
	}
	fetched := slices.ContainsFunc(f.statuses("nightly", closed), func(s events.JobStatus) bool { return s.State == events.Downloaded })
	if !fetched {
		t.Error("content was not fetched outside of the window")
	}
	f.want("nightly", soon, events.Succeeded)
	for _, s := range f.statuses("nightly", soon) {
		if s.State == events.Running && s.At.Before(opens) {
			t.Errorf("started at %s, before the window opened at %s", s.At, opens)
		}
	}
	for _, m := range []*machine{short, closed} {
		if ran := m.ran(); ran != nil {
			t.Errorf("%s ran %q outside of its windows", m.name, ran)
		}
	}

	f.deploy("brief", p, func(o *order.Order) { o.Windows, o.Expires = windows, new(calendar.At(now.Add(12*time.Hour))) })
	f.wantEnd("brief", closed, events.Failed, events.WindowNeverFits, "opens at "+later.Format("2006-01-02T15:04:05"), "when the deployment has ended")
	f.deploy("urgent", p, func(o *order.Order) { o.Windows, o.NotAfter, o.IgnoreWindows = windows, now.Add(48*time.Hour), true })
	f.want("urgent", closed, events.Succeeded)
	f.want("urgent", short, events.Succeeded)
	if _, err := local.Start(t.Context(), socket, "nightly"); err != nil { // who sits before the machine knows best when
		t.Fatal(err)
	}
	f.want("nightly", closed, events.Succeeded)
	f.check("nightly", open, soon)
	f.check("urgent", closed, short)
}

func TestARolloutOfWhatRecursGoesOnByItsOccurrences(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	m := placed("scans", f.machine("ws1"), f.machine("ws2"), f.machine("ws3"))
	p := f.publishTold("scan", "1.0", "", telling("run", "scanned", ""), telling("undo", "undone", "    undoes: run\n"))
	f.everyone(3)
	m[1].write("exit-scanned", "4")
	request := f.sign("scans", p, f.bound(p, "run"), func(o *order.Order) {
		o.Assignments = []order.Assignment{{ASAP: true}, {Cron: "0 0 1 1 *"}}
	})
	one := events.Limit{Count: 1}
	request.Plan = &events.Plan{OnHalt: events.OnHaltRollback, Phases: []events.Phase{
		{Name: "canary", Count: 1, AdvanceWhen: &events.Advance{Succeeded: &one}},
		{Name: "pilot", Count: 2, AdvanceWhen: &events.Advance{Succeeded: &one}, HaltWhen: &events.Halt{Failed: &one}},
		{Name: "rest", Percent: 100}}}
	request.Rollback = f.sign("scans-rollback", p, f.bound(p, "undo"), func(o *order.Order) {
		o.Rolls = &order.Rolls{Deployment: "scans", Revision: 1, Package: "scan", Version: "1.0", Program: "run"}
	}).Envelope
	mustAsk(f, events.DeploymentCreate, request)
	f.want("scans", m[0], events.Succeeded)
	f.want("scans", m[1], events.Failed)
	f.wantLife("scans", events.LifeHalted)
	for _, m := range m[:2] {
		f.want("scans-rollback", m, events.Succeeded)
		m.wantTold("scanned", "undone")
	}
	if row, ok := f.row("scans", m[2]); ok {
		t.Errorf("a machine of the phase that never opened has %+v", row)
	}
}
