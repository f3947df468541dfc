package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/order"
)

const rehearsedHello = `api: chandler/v1
deployment: hello-everywhere
program: hello@2.10-3/install
collection: office
phases:
  - {name: canary, count: 4, advance-when: {succeeded: "50%", for: 2h}, halt-when: {failed: "2"}}
  - {name: rest, percent: 100}
`

// recordedFleet has 40 linux machines of two sites, three of which were put away, and one of another kind.
func recordedFleet(t *testing.T) *fakeFleet {
	t.Helper()
	f := helloFleet(t)
	f.set(func() {
		f.collection.Exclude = nil
		for i := range 41 {
			v := events.AgentView{LastSeen: testNow, Facts: events.Facts{ID: fmt.Sprintf("agent%05d", i), Hostname: fmt.Sprintf("ws-%02d", i), OS: "linux", Site: []string{"oslo", "rome"}[i%2]}}
			switch {
			case i == 40:
				v.Facts.OS = "windows"
			case i >= 37:
				v.LastSeen = testNow.AddDate(0, 0, -30)
			}
			f.agents = append(f.agents, v)
		}
		f.outcomes = map[string]events.OutcomeAnswer{"hello": {Jobs: 100, Succeeded: 100, Seconds: []float64{600, 600, 600}}}
	})
	return f
}

func (f *fakeFleet) rehearse(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	code, stdout, stderr := command(t, f.app, stdin, append([]string{"deployment", "rehearse"}, args...)...)
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	return stdout
}

func rehearsalOf(t *testing.T, encoded string) (r rehearsed) {
	t.Helper()
	if err := json.Unmarshal([]byte(encoded), &r); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestARehearsalOfADocument(t *testing.T) {
	f := recordedFleet(t)
	says := f.rehearse(t, rehearsedHello, "-f", "-")
	for _, want := range []string{"hello-everywhere: hello@2.10-3/install to office, played from 2026-12-01 09:00:00 CET (seed 1)", "canary", "36", "3 machines",
		"it is never there: not heard since 2026-11-01", "succeeded 37", "Programs end as 100 runs of hello/install did of late: 0% fail, half take at most 10m0s.", "Of 41 machines no hours are known."} {
		if !strings.Contains(says, want) {
			t.Errorf("it does not say %q:\n%s", want, says)
		}
	}
	if f.sent() != nil {
		t.Error("something was sent")
	}
	r := rehearsalOf(t, f.rehearse(t, rehearsedHello, "-f", "-", "-o", "json"))
	canary, rest := r.Phases[0], r.Phases[1]
	if canary.Size != 4 || !canary.Opened.Equal(testNow) || !canary.Met.Equal(testNow.Add(10*time.Minute)) || !rest.Opened.Equal(testNow.Add(130*time.Minute)) || rest.Size != 36 || r.Outside != 1 || r.Agents != nil {
		t.Fatalf("%+v", r)
	}
	if stories := rehearsalOf(t, f.rehearse(t, rehearsedHello, "-f", "-", "-o", "json", "--events")).Agents; len(stories) != 40 {
		t.Fatalf("%d stories", len(stories))
	}
	if lines := strings.Count(f.rehearse(t, rehearsedHello, "-f", "-", "-o", "csv", "--events"), "\n"); lines != 41 {
		t.Fatalf("%d lines", lines)
	}
}

func TestARehearsalGoesByWhatIsRecorded(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*fakeFleet)
		args   []string
		want   func(rehearsed) bool
	}{
		"failures halt it": {func(f *fakeFleet) {
			f.outcomes["hello"] = events.OutcomeAnswer{Jobs: 10, Failed: 10, Reasons: map[events.Reason]int64{events.NotDetected: 10}}
		}, nil, func(r rehearsed) bool {
			return len(r.Phases[0].Halts) == 1 && r.Totals["not_released"] == 36 && r.Totals[events.Failed] == 4
		}},
		"somebody who resumes lets nothing go on that does not succeed": {func(f *fakeFleet) {
			f.outcomes["hello"] = events.OutcomeAnswer{Jobs: 10, Failed: 10}
		}, []string{"--resume-after", "3h"}, func(r rehearsed) bool {
			h := r.Phases[0].Halts
			return len(h) == 1 && h[0].Resumed.Equal(h[0].At.Add(3*time.Hour)) && r.Phases[1].Opened.IsZero()
		}},
		"other programs stand in for one that never ran": {func(f *fakeFleet) {
			f.outcomes = map[string]events.OutcomeAnswer{"": {Jobs: 5, Succeeded: 5, Seconds: []float64{60}}}
		}, nil, func(r rehearsed) bool {
			return r.Phases[0].Met.Equal(testNow.Add(time.Minute)) && strings.Contains(strings.Join(r.Supposes, " "), "all programs")
		}},
		"the fleet's limits hold it back": {func(f *fakeFleet) { f.limits.MaxInFlight = 1 }, nil, func(r rehearsed) bool {
			return r.Most == 1 && r.Phases[0].Met.Equal(testNow.Add(20*time.Minute))
		}},
		"machines where the program ran are left alone": {func(f *fakeFleet) {
			f.deployments = []events.DeploymentView{{DeploymentNotice: events.DeploymentNotice{Deployment: "before", Revision: 1, Package: "hello", Version: "2.10-3", Program: "install"}}}
			for i := range 37 {
				f.jobs = append(f.jobs, events.JobRow{Deployment: "before", Revision: 1, Agent: fmt.Sprintf("agent%05d", i), State: events.Succeeded, Changed: testNow})
			}
		}, nil, func(r rehearsed) bool { return r.Totals[events.WillNotRerun] == 37 && r.Totals[events.Succeeded] == 0 }},
		"silence is beside the machines that are put away": {func(f *fakeFleet) {
			f.deployments = []events.DeploymentView{{DeploymentNotice: events.DeploymentNotice{Deployment: "other", Revision: 1}, Progress: &events.Progress{Silent: 41, Total: 41}}}
		}, nil, func(r rehearsed) bool { return r.Totals[events.Offered] == 4 && r.Phases[0].Counts.Silent == 4 }},
		"it begins when it is told to": {func(*fakeFleet) {}, []string{"--from", "+60d", "--for", "2d"}, func(r rehearsed) bool {
			return r.Phases[0].Opened.Equal(testNow.AddDate(0, 0, 60)) && r.Totals[events.Succeeded] == 37
		}},
	} {
		t.Run(name, func(t *testing.T) {
			f := recordedFleet(t)
			f.set(func() { c.change(f) })
			if r := rehearsalOf(t, f.rehearse(t, rehearsedHello, append([]string{"-f", "-", "-o", "json"}, c.args...)...)); !c.want(r) {
				r.Hours, r.Sites = nil, nil
				t.Fatalf("%+v", r)
			}
		})
	}
}

func TestMachinesWithoutAnAccountAreForeseenToFail(t *testing.T) {
	f := recordedFleet(t)
	f.publish(t, events.Manifest{API: "chandler/v1", Package: "hello", Version: "2.10-3", Programs: map[string]events.Program{"install": {Command: events.Command{Argv: []string{"sh", "hello.sh"}},
		Run: events.RunAdministrative, References: []events.Reference{{URL: "smb://files.example.com/apps/data"}}}}})
	r := rehearsalOf(t, f.rehearse(t, rehearsedHello, "-f", "-", "-o", "json"))
	if r.Identity[events.NetworkAccessAccountMissing] != 40 || len(r.Phases[0].Halts) != 1 || r.Totals[events.Failed] != 4 {
		t.Fatalf("%v, %v, %v", r.Identity, r.Phases[0].Halts, r.Totals)
	}
}

func TestALiveDeploymentIsRehearsed(t *testing.T) {
	f := recordedFleet(t)
	if code, _, stderr := command(t, f.app, "", createHello...); code != 0 {
		t.Fatal(stderr)
	}
	o, digest, err := order.Open(f.sent().Envelope)
	if err != nil {
		t.Fatal(err)
	}
	told := events.DeploymentOrder{Envelope: f.sent().Envelope, DeploymentNotice: events.DeploymentNotice{Deployment: o.Deployment, Revision: o.Revision, Order: digest, Package: o.Package, Version: o.Version,
		Program: o.Program, Collection: o.Collection, By: "ada", At: testNow}}
	scheduling, err := bus.New(bus.Options{Conn: f.bus.Conn(), Source: events.ServiceSource("scheduling")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bus.Publish(t.Context(), scheduling, events.DeploymentCreated, events.Event[events.DeploymentOrder]{ID: told.Order, Subject: told.Deployment, Time: testNow, Data: told}); err != nil {
		t.Fatal(err)
	}
	f.set(func() {
		f.deployment = &events.DeploymentView{DeploymentNotice: told.DeploymentNotice, Life: events.LifeActive,
			Plan: &events.Plan{Phases: []events.Phase{{Name: "few", Count: 2, AdvanceWhen: &events.Advance{Approval: true}}, {Name: "rest", Percent: 100}}}}
	})
	r := rehearsalOf(t, f.rehearse(t, "", "hello-everywhere", "-o", "json", "--approve-after", "5h"))
	if r.Phases[0].Size != 2 || !r.Phases[1].Opened.Equal(testNow.Add(5*time.Hour)) || r.Totals[events.Succeeded] != 37 {
		t.Fatalf("%+v", r.Phases)
	}
}

func TestARehearsalSaysWhatIsWrong(t *testing.T) {
	f := recordedFleet(t)
	for name, c := range map[string]struct {
		stdin string
		args  []string
		says  string
	}{
		"neither a name nor a document":    {"", nil, "name a live deployment"},
		"both":                             {"", []string{"hello", "-f", "-"}, "name a live deployment"},
		"no time":                          {rehearsedHello, []string{"-f", "-", "--for", "0d"}, "--for"},
		"a program that is not there":      {strings.Replace(rehearsedHello, "/install", "/instal", 1), []string{"-f", "-"}, "instal"},
		"a phase without a gate":           {strings.Replace(rehearsedHello, `advance-when: {succeeded: "50%", for: 2h}, `, "", 1), []string{"-f", "-"}, "advance-when"},
		"a deployment that there is not":   {"", []string{"goodbye"}, "not"},
		"a patience that cannot be read":   {rehearsedHello, []string{"-f", "-", "--resume-after", "soon"}, "--resume-after"},
		"a form that this does not answer": {rehearsedHello, []string{"-f", "-", "-o", "name"}, "-o name"},
	} {
		t.Run(name, func(t *testing.T) {
			if code, _, stderr := command(t, f.app, c.stdin, append([]string{"deployment", "rehearse"}, c.args...)...); code == 0 || !strings.Contains(stderr, c.says) {
				t.Fatalf("exit code %d: %s", code, stderr)
			}
		})
	}
}
