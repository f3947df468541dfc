package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/calendar"
)

// changing are the calls that change a rollout, or what it heeds; each keeps what it was asked.
func (f *fakeFleet) changing() []bus.Endpoint {
	note := func(verb string, request any) {
		if f.asked == nil {
			f.asked = map[string]any{}
		}
		f.asked[verb] = request
	}
	named := func(verb string, call events.Call[events.Named, events.DeploymentView]) bus.Endpoint {
		return with(f, call, func(n events.Named) (events.DeploymentView, error) {
			note(verb, n)
			return *f.deployment, nil
		})
	}
	return []bus.Endpoint{
		named("approve", events.DeploymentApprove), named("skip", events.DeploymentSkip), named("resume", events.DeploymentResume), named("rollback", events.DeploymentRollback),
		with(f, events.DeploymentPlan, func(r events.PlanRequest) (events.DeploymentView, error) {
			note("plan", r)
			f.deployment.Plan = &r.Plan
			return *f.deployment, nil
		}),
		with(f, events.LimitsSet, func(l events.Limits) (events.Limits, error) {
			note("limits", l)
			f.limits = l
			return l, nil
		}),
		with(f, events.GateSignal, func(s events.Signal) (events.Signal, error) {
			note("signal", s)
			return s, nil
		}),
		with(f, events.CollectionSet, func(c events.Collection) (events.CollectionView, error) {
			note("collection", c)
			f.collection.Collection = c
			f.collection.OutdatedWindows = []string{"hello"}
			return f.collection, nil
		}),
	}
}

// haltedFleet has a rollout of two phases that a gate halted in the first one, signed with what takes it back.
func haltedFleet(t *testing.T) *fakeFleet {
	t.Helper()
	f := newFakeFleet(t)
	f.set(func() {
		f.deployment = liveAt(3)
		f.deployment.Deployment = "hello"
		f.deployment.Life, f.deployment.Why, f.deployment.Released = events.LifeHalted, "7 of 100 machines failed (7%) in phase canary; the gate halts at 5%", 100
		f.deployment.Rollback, f.deployment.RollbackTo = "hello-rollback", "hello@2.10-3/remove"
		f.deployment.Plan = &events.Plan{MaxInFlight: 50, OnHalt: events.OnHaltRollback, Phases: []events.Phase{{Name: "canary", Percent: 1, AdvanceWhen: &events.Advance{Approval: true}}, {Name: "rest", Percent: 100}}}
		f.deployment.Phases = []events.PhaseView{{Name: "canary", Opened: testNow, Size: 100, Says: "halted: 7 of 100 machines failed"}, {Name: "rest"}}
	})
	return f
}

func TestWhatAnAdministratorSaysOfARolloutIsAskedFor(t *testing.T) {
	plan := haltedFleet(t).deployment.Plan
	more := *plan
	more.MaxInFlight = 70
	once := events.Plan{MaxInFlight: 50, OnHalt: events.OnHaltRollback, Phases: []events.Phase{{Name: "all", Percent: 100}}}
	for name, c := range map[string]struct {
		stdin string
		args  []string
		verb  string
		want  any
		says  string
	}{
		"an approval":             {"", []string{"approve", "hello", "--why", "tested"}, "approve", events.Named{Name: "hello", Why: "tested"}, "deployment hello is approved"},
		"a halted one goes on":    {"", []string{"resume", "hello", "--why", "known"}, "resume", events.Named{Name: "hello", Why: "known"}, "deployment hello goes on"},
		"a gate is skipped":       {"", []string{"skip", "hello", "--yes", "--why", "urgent"}, "skip", events.Named{Name: "hello", Why: "urgent"}, "the gate of phase canary is skipped"},
		"a gate is not skipped":   {"", []string{"skip", "hello"}, "skip", nil, "This opens phase rest whatever the gate of canary says (halted: 7 of 100 machines failed)"},
		"a signed pair":           {"", []string{"rollback", "hello", "--yes", "--why", "bad"}, "rollback", events.Named{Name: "hello", Why: "bad"}, "deployment hello is taken back by hello-rollback"},
		"a pair, without a yes":   {"", []string{"rollback", "hello"}, "rollback", nil, "of 100 machines released"},
		"a limit alone":           {"", []string{"plan", "hello", "--max-in-flight", "70"}, "plan", events.PlanRequest{Deployment: "hello", Plan: more}, "at most 70 jobs in flight"},
		"phases, and limits stay": {"", []string{"plan", "hello", "--phase", "all=100%"}, "plan", events.PlanRequest{Deployment: "hello", Plan: once}, "at most 50 jobs in flight"},
		"a plan as it is read":    {"phases: [{name: all, percent: 100}]\n", []string{"plan", "hello", "-f", "-", "--dry-run"}, "plan", nil, "all: 100%"},
		"a whole plan":            {"phases: [{name: all, percent: 100}]\n", []string{"plan", "hello", "-f", "-"}, "plan", events.PlanRequest{Deployment: "hello", Plan: events.Plan{Phases: once.Phases}}, "hello"},
		"a plan with a mistake":   {"phases: [{name: all, percnt: 100}]\n", []string{"plan", "hello", "-f", "-"}, "plan", nil, "did you mean percent"},
		"phases that add nobody":  {"", []string{"plan", "hello", "--phase", "a=5%,advance=approval", "--phase", "b=4%"}, "plan", nil, "adds nobody"},
		"what it is":              {"", []string{"show", "hello"}, "show", nil, "hello@2.10-3/remove signed with it as hello-rollback"},
	} {
		t.Run(name, func(t *testing.T) {
			f := haltedFleet(t)
			code, stdout, stderr := command(t, f.app, c.stdin, append([]string{"deployment"}, c.args...)...)
			if !strings.Contains(stdout+stderr, c.says) {
				t.Errorf("exit code %d, it does not say %q: %s%s", code, c.says, stdout, stderr)
			}
			f.set(func() {
				if diff := cmp.Diff(c.want, f.asked[c.verb]); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

func TestARolloutWhoseLastPhaseIsOpenHasNothingToSkip(t *testing.T) {
	f := haltedFleet(t)
	f.set(func() { f.deployment.Phases[1].Opened = testNow })
	if code, _, stderr := command(t, f.app, "", "deployment", "skip", "hello", "--yes"); code != 1 || !strings.Contains(stderr, "no phase that is still to open") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
}

func TestLimitsThatAreNotNamedStay(t *testing.T) {
	f := newFakeFleet(t)
	f.set(func() { f.limits = events.Limits{MaxInFlight: 500, RetriesPerMinute: 60} })
	stdout, _ := must(t, f, "", "limits", "set", "--max-in-flight-per-site", "20", "--retries-per-minute", "0")
	f.set(func() {
		if diff := cmp.Diff(events.Limits{MaxInFlight: 500, MaxInFlightPerSite: 20}, f.asked["limits"]); diff != "" {
			t.Error(diff)
		}
	})
	if !strings.Contains(stdout, "600") { // the default
		t.Errorf("it says %s", stdout)
	}
	for says, args := range map[string][]string{"say which limit": nil, "negative": {"--max-in-flight", "-1"}} {
		if code, _, stderr := command(t, f.app, "", append([]string{"limits", "set"}, args...)...); code != 1 || !strings.Contains(stderr, says) {
			t.Errorf("%v: exit code %d: %s", args, code, stderr)
		}
	}
}

func TestASignalIsTold(t *testing.T) {
	f := newFakeFleet(t)
	must(t, f, "", "signal", "com.example.smoketest.passed", "hello", "--text", "all green")
	f.set(func() {
		if diff := cmp.Diff(events.Signal{Type: "com.example.smoketest.passed", Subject: "hello", Text: "all green"}, f.asked["signal"]); diff != "" {
			t.Error(diff)
		}
	})
	for says, args := range map[string][]string{"not told by hand": {events.TypePrefix + "job.succeeded.v1", "hello"}, "TYPE must have": {"", "hello"}, "SUBJECT must have": {"a", strings.Repeat("x", 201)}} {
		if code, _, stderr := command(t, f.app, "", append([]string{"signal"}, args...)...); code != 1 || !strings.Contains(stderr, says) {
			t.Errorf("%v: exit code %d: %s", args, code, stderr)
		}
	}
}

func TestWindowsAreSetAddedAndCleared(t *testing.T) {
	night := calendar.Window{Daily: 1, At: "02:00", For: calendar.Duration(3 * time.Hour)}
	saturday := calendar.Window{Weekly: []string{"sat"}, At: "02:00", For: calendar.Duration(4 * time.Hour), Zone: calendar.ZoneAgent}
	file := filepath.Join(t.TempDir(), "windows.yaml")
	if err := os.WriteFile(file, []byte("windows: [{weekly: [sat], at: \"02:00\", for: 4h, zone: agent}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		args []string
		want []calendar.Window
		says string
	}{
		"one more":                   {[]string{"--add", `{weekly: [sat], at: "02:00", for: 4h, zone: agent}`}, []calendar.Window{night, saturday}, "every Saturday, 02:00 for 4h"},
		"others, by a file":          {[]string{"--set", file}, []calendar.Window{saturday}, "every Saturday"},
		"none":                       {[]string{"--clear"}, nil, "none: its machines start programs at any time"},
		"when they open in a zone":   {[]string{"--zone", "Europe/Oslo", "--add", `{once: 2026-12-24T22:00, for: 1h, zone: Europe/Oslo}`}, []calendar.Window{night, {Once: *momentOf(t, "2026-12-24T22:00"), For: calendar.Duration(time.Hour), Zone: "Europe/Oslo"}}, "Wed 2026-12-02 03:00 CET to 06:00 CET"},
		"an unknown key":             {[]string{"--add", `{dayly: 1, at: "02:00", for: 4h}`}, nil, "--add:1:2: unknown key \"dayly\": did you mean daily?"},
		"what YAML takes for others": {[]string{"--add", `{monthly: 1.0, at: "02:00", for: 4h}`}, nil, "is a number to YAML"},
		"two at once":                {[]string{"--add", "{daily: 1, at: \"02:00\", for: 4h}\n---\n{daily: 1, at: \"02:00\", for: 4h}"}, nil, "name one"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFakeFleet(t)
			f.set(func() {
				f.collection = events.CollectionView{Collection: events.Collection{Name: "office", Expression: "true", Windows: []calendar.Window{night}}}
			})
			code, stdout, stderr := command(t, f.app, "", append([]string{"collection", "windows", "office"}, c.args...)...)
			if !strings.Contains(stdout+stderr, c.says) {
				t.Errorf("exit code %d, it does not say %q: %s%s", code, c.says, stdout, stderr)
			}
			f.set(func() {
				set, asked := f.asked["collection"].(events.Collection)
				if asked != (code == 0) {
					t.Fatalf("exit code %d, set %v", code, asked)
				}
				if diff := cmp.Diff(c.want, set.Windows, cmp.Comparer(calendar.Moment.Equal)); diff != "" || asked && set.Expression != "true" {
					t.Error(diff, set)
				}
				if asked && !strings.Contains(stderr, "keep the maintenance windows that were signed with them: hello") {
					t.Errorf("it does not say what keeps the old ones: %s", stderr)
				}
			})
		})
	}
}

func momentOf(t *testing.T, text string) *calendar.Moment {
	t.Helper()
	m, err := calendar.ParseMoment(text)
	if err != nil {
		t.Fatal(err)
	}
	return &m
}
