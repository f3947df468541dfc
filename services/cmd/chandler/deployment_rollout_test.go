package main

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chandler/events"
	"chandler/events/calendar"
	"chandler/events/manifest"
	"chandler/events/order"
)

func TestPhasesOnTheCommandLine(t *testing.T) {
	for text, want := range map[string]events.Phase{
		"canary=1%,advance=succeeded:95%;for:24h,halt=failed:5%": {Name: "canary", Percent: 1,
			AdvanceWhen: &events.Advance{Succeeded: &events.Limit{Percent: 95}, For: events.Duration(24 * time.Hour)}, HaltWhen: &events.Halt{Failed: &events.Limit{Percent: 5}}},
		"few=12,advance=approval;event:com.example.passed@hello,halt=silent:20%@4h;failed:3": {Name: "few", Count: 12,
			AdvanceWhen: &events.Advance{Approval: true, Event: &events.ExternalGate{Type: "com.example.passed", Subject: "hello"}},
			HaltWhen:    &events.Halt{Failed: &events.Limit{Count: 3}, Silent: &events.Silence{Share: events.Limit{Percent: 20}, After: events.Duration(4 * time.Hour)}}},
		"pilot=office,max=20,advance=for:2d": {Name: "pilot", Collection: "office", MaxInFlight: 20, AdvanceWhen: &events.Advance{For: events.Duration(48 * time.Hour)}},
	} {
		got, err := parsePhase(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", text, diff)
		}
	}
	for text, says := range map[string]string{
		"canary": "NAME=1%", "canary=x%": "no share", "a=1,max=many": "number of jobs", "a=1,go=now": "advance=", "a=1,advance=95%": "succeeded:95%",
		"a=1,advance=succeeded:many": "neither a share", "a=1,halt=silent:20%": "span", "a=1,halt=late:3": "failed:5%", "a=1,advance=for:soon": "span",
	} {
		if _, err := parsePhase(text); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want %q", text, err, says)
		}
	}
}

func FuzzPhaseFlag(f *testing.F) {
	f.Add("canary=1%,advance=succeeded:95%;for:24h,halt=failed:5%")
	f.Add("few=12,advance=approval;event:a@b,halt=silent:20%@4h,max=3")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := parsePhase(text)
		if err == nil && phaseText(p) == "" {
			t.Fatalf("%q is a phase without words", text)
		}
	})
}

// rollableFleet has a package with a program that another one undoes, and that runs another program first.
func rollableFleet(t *testing.T) *fakeFleet {
	t.Helper()
	f := helloFleet(t)
	run := events.Program{Command: events.Command{Argv: []string{"sh", "hello.sh"}}, Run: events.RunAdministrative}
	install, remove := run, run
	install.RunFirst, remove.Undoes = []string{"prepare"}, "install"
	f.publish(t, events.Manifest{API: manifest.API, Package: "hello", Version: "2.10-3", Programs: map[string]events.Program{"install": install, "remove": remove, "prepare": run}})
	f.set(func() {
		f.collection.Windows = []calendar.Window{{Daily: 1, At: "02:00", For: calendar.Duration(time.Hour), Zone: calendar.ZoneAgent}}
		f.agents = []events.AgentView{{Facts: events.Facts{ID: "agent0001", Hostname: "ws-1", OS: "linux", Zone: "Europe/Oslo"}, LastSeen: testNow}}
	})
	return f
}

func TestADeploymentIsSignedWithAllThatRunsAndWhatTakesItBack(t *testing.T) {
	f := rollableFleet(t)
	args := append(createHello, "--with-rollback", "uninstall", "--phase", "canary=1%,advance=succeeded:95%", "--phase", "rest=100%", "--max-in-flight", "50",
		"--at", "asap", "--at", "cron:0 2 * * SAT", "--at", "2026-12-05T08:00", "--zone", "agent", "--grace", "30m", "--jitter", "1h", "--restart-outside")
	code, _, stderr := command(t, f.app, "", args...)
	if code != 0 {
		t.Fatal(stderr)
	}
	for _, says := range []string{"runs first: hello@2.10-3/prepare (run administrative)", "taken back by: hello@2.10-3/remove, where revision 1 ran",
		"phase canary: 1%; goes on with 95% succeeded: 1 machine now", "phase rest: 100%: 0 machines now", "WARNING: deployment hello-everywhere: on 1 machine (such as ws-1) it will fail as maintenance_window_never_fits"} {
		if !strings.Contains(stderr, says) {
			t.Errorf("it does not say %q: %s", says, stderr)
		}
	}
	trusted := f.signer(t).trust
	o, _, err := order.Verify(f.sent().Envelope, trusted, testNow)
	if err != nil {
		t.Fatal(err)
	}
	if len(o.Assignments) != 3 || o.Zone != calendar.ZoneAgent || !o.Standing() || len(o.First) != 1 || len(o.Windows) != 1 || !o.RestartOutside || o.Grace != events.Duration(30*time.Minute) {
		t.Errorf("order %+v", o)
	}
	back, _, err := order.Verify(f.sent().Rollback, trusted, testNow)
	if err != nil {
		t.Fatal(err)
	}
	want := &order.Rolls{Deployment: "hello-everywhere", Revision: 1, Package: "hello", Version: "2.10-3", Program: "install"}
	if diff := cmp.Diff(want, back.Rolls); diff != "" || back.Deployment != "hello-everywhere-rollback" || back.Program != "remove" || back.Rerun != order.RerunAlways || back.Expression != o.Expression {
		t.Errorf("%s %+v", diff, back)
	}
	if f.sent().Plan.MaxInFlight != 50 || len(f.sent().Plan.Phases) != 2 {
		t.Errorf("plan %+v", f.sent().Plan)
	}
}

func TestASignedAgainDeploymentKeepsItsPlanAndWhatTakesItBack(t *testing.T) {
	f := rollableFleet(t)
	if code, _, stderr := command(t, f.app, "", append(createHello, "--with-rollback", "uninstall", "--max-in-flight", "50")...); code != 0 {
		t.Fatal(stderr)
	}
	first := f.sent()
	f.accept(t)
	f.set(func() {
		f.deployment.Rollback, f.deployment.RollbackTo = "hello-everywhere-rollback", "hello@2.10-3/prepare"
		f.collection.Windows = nil
		f.collection.Expression = "true"
	})
	code, _, stderr := command(t, f.app, "", "deployment", "resign", "hello-everywhere", "--yes")
	if code != 0 {
		t.Fatal(stderr)
	}
	if diff := cmp.Diff(first.Plan, f.sent().Plan); diff != "" {
		t.Error(diff)
	}
	trusted := f.signer(t).trust
	o, _, err := order.Verify(f.sent().Envelope, trusted, testNow)
	if err != nil || o.Revision != 2 || len(o.Windows) != 0 || len(o.First) != 1 || o.Expression != "true" {
		t.Errorf("%+v, %v", o, err)
	}
	back, _, err := order.Verify(f.sent().Rollback, trusted, testNow)
	if err != nil || back.Rolls == nil || back.Rolls.Revision != 2 || back.Expression != "true" || back.Program != "prepare" { // as it was, not as it would be chosen now
		t.Errorf("%+v, %v", back, err)
	}
}

func TestARolledBackPairIsAskedForAndNotSigned(t *testing.T) {
	f := rollableFleet(t)
	f.set(func() {
		f.deployment = liveAt(3)
		f.deployment.Rollback, f.deployment.RolledBack = "hello-rollback", true
	})
	code, _, stderr := command(t, f.app, "", "deployment", "rollback", "hello", "--yes")
	if code != 1 || !strings.Contains(stderr, "is being taken back already, by hello-rollback") || f.sent() != nil {
		t.Errorf("exit code %d: %s", code, stderr)
	}
}

func TestADeploymentWithoutAPairIsTakenBackByASignature(t *testing.T) {
	f := rollableFleet(t)
	if code, _, stderr := command(t, f.app, "", createHello...); code != 0 {
		t.Fatal(stderr)
	}
	f.accept(t)
	code, _, stderr := command(t, f.app, "", "deployment", "rollback", "hello-everywhere", "--yes")
	if code != 0 {
		t.Fatal(stderr)
	}
	if !strings.Contains(stderr, "hello@2.10-3/install of deployment hello-everywhere, where revision 1 of it ran") {
		t.Errorf("it does not say what it takes back: %s", stderr)
	}
	o, _, err := order.Verify(f.sent().Envelope, f.signer(t).trust, testNow)
	if err != nil || o.Deployment != "hello-everywhere-rollback" || o.Rolls == nil || o.Rolls.Revision != 1 || o.Program != "remove" {
		t.Errorf("%+v, %v", o, err)
	}
}

func TestARolloutIsShownWithItsNumbers(t *testing.T) {
	a := testApp(nil)
	plan := &events.Plan{MaxInFlight: 50, Phases: []events.Phase{
		{Name: "canary", Percent: 1, AdvanceWhen: &events.Advance{Succeeded: &events.Limit{Percent: 95}}, HaltWhen: &events.Halt{Failed: &events.Limit{Percent: 5}}}, {Name: "rest", Percent: 100}}}
	view := events.DeploymentView{Plan: plan, Life: events.LifeHalted, DeploymentNotice: events.DeploymentNotice{Why: "7 of 100 machines failed"}, Phases: []events.PhaseView{
		{Name: "canary", Opened: testNow, Size: 100, Released: 101, Joined: 1, Counts: events.WaveCounts{Succeeded: 80, Failed: 7, Silent: 3}, Says: "80 of 100 machines succeeded (80%), the gate opens at 95%"}, {Name: "rest"}}}
	var text strings.Builder
	if err := writeDetail(&text, formTable, nil, "", a.phaseFields(view)); err != nil {
		t.Fatal(err)
	}
	for _, says := range []string{"100 machines · 101 released · 1 joined later · 80 succeeded · 7 failed · 3 silent", "the gate opens at 95%", "1%; goes on with 95% succeeded; halts at 5% failed", "not open yet", "at most 50 jobs in flight"} {
		if !strings.Contains(text.String(), says) {
			t.Errorf("it does not say %q:\n%s", says, text.String())
		}
	}
	if line := a.watchLine(view); !strings.Contains(line, "phase canary (1 of 2): 80 of 100 machines succeeded, 7 failed") || !strings.Contains(line, "halted: 7 of 100 machines failed") {
		t.Errorf("watch says %s", line)
	}
	if done, outcome := watchOutcome(view); !done || outcome != exitStopped {
		t.Errorf("a halted rollout is watched on: %v, %v", done, outcome)
	}
	view.Progress = &events.Progress{Total: 100, States: map[events.State]int64{events.Running: 1}}
	if done, _ := watchOutcome(view); done {
		t.Error("a halted rollout is not watched while its programs run")
	}
}

func TestWindowsOfACollectionAreShownWhereTheyOpen(t *testing.T) {
	f := rollableFleet(t)
	f.set(func() { f.collection.Members = []string{"agent0001"} })
	code, stdout, stderr := command(t, f.app, "", "collection", "windows", "office", "--next", "2", "--agent", "ws-1")
	for _, says := range []string{"every day, 02:00 for 1h, each machine's own time", "Wed 2026-12-02 02:00 CET to 03:00 CET", "Thu 2026-12-03 02:00 CET"} {
		if code != 0 || !strings.Contains(stdout, says) {
			t.Errorf("exit code %d, it does not say %q: %s%s", code, says, stdout, stderr)
		}
	}
	for says, args := range map[string][]string{"whose?": {"--zone", "agent"}, "unknown zone": {"--zone", "europe/oslo"}, "it must last": {"--add", `{daily: 1, at: "02:00", for: 1m}`}, "--next": {"--next", "-1"}} {
		if code, _, stderr := command(t, f.app, "", append([]string{"collection", "windows", "office"}, args...)...); code != 1 || !strings.Contains(stderr, says) {
			t.Errorf("%v: exit code %d: %s, want %q", args, code, stderr, says)
		}
	}
}
