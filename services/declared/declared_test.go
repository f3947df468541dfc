package declared

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"chandler/events"
	"chandler/events/calendar"
	"chandler/events/order"
)

var (
	byValue = cmp.Options{cmp.Comparer(calendar.Moment.Equal), cmpopts.IgnoreUnexported(Package{}, Collection{}, Deployment{}, Limits{}), cmpopts.IgnoreTypes(place{}), cmpopts.EquateEmpty()}
	issued  = time.Date(2026, 11, 1, 8, 0, 0, 0, time.UTC)
)

const everything = `
api: chandler/v1
package: hello
version: "2.10-3"
path: hello_2.10-3_amd64.deb
run: administrative
---
api: chandler/v1
collection: workstations
expression: agent.os == "linux"
include: [ws-0412]
exclude: [ws-0413]
windows:
  - {weekly: [sat], at: "02:00", for: 4h, zone: agent}
comment: the office
---
api: chandler/v1
deployment: hello-everywhere
program: hello@2.10-3/install
collection: workstations
available: 2026-12-01T08:00
zone: agent
assignments: [{at: asap}, {cron: "0 2 * * SAT"}, {at: logon}]
deadline: 2026-12-05T08:00
expires: 2027-01-01T00:00
grace: 30m
jitter: 1h
rerun: never
ignore-windows: true
validity: 120d
phases:
  - {name: canary, percent: 0.5, advance-when: {succeeded: 95%, for: 24h}, halt-when: {failed: 5, silent: {share: 20%, after: 4h}}}
  - {name: pilot, collection: pilot, advance-when: {approval: true, event: {type: com.example.passed, subject: hello}}}
  - {name: rest, percent: 100, max-in-flight: 2000}
max-in-flight: 5000
max-in-flight-per-site: 50
on-halt: rollback
rollback: uninstall
---
api: chandler/v1
limits: {max-in-flight: 5000, retries-per-minute: 100}
`

func moment(t *testing.T, s string) *calendar.Moment {
	t.Helper()
	m, err := calendar.ParseMoment(s)
	if err != nil {
		t.Fatal(err)
	}
	return &m
}

func TestDocumentsAreReadAsTheyAreMeant(t *testing.T) {
	got, err := Parse("fleet.yaml", []byte(everything))
	if err != nil {
		t.Fatal(err)
	}
	want := Set{
		Packages: []Package{{API: API, Package: "hello", Version: "2.10-3", Path: "hello_2.10-3_amd64.deb", Run: events.RunAdministrative}},
		Collections: []Collection{{API: API, Collection: "workstations", Expression: `agent.os == "linux"`, Include: []string{"ws-0412"}, Exclude: []string{"ws-0413"},
			Windows: []calendar.Window{{Weekly: []string{"sat"}, At: "02:00", For: calendar.Duration(4 * time.Hour), Zone: calendar.ZoneAgent}}, Comment: "the office"}},
		Deployments: []Deployment{{API: API, Deployment: "hello-everywhere", Program: "hello@2.10-3/install", Collection: "workstations", Available: moment(t, "2026-12-01T08:00"),
			Zone: calendar.ZoneAgent, Assignments: []Assignment{{At: AtASAP}, {Cron: "0 2 * * SAT"}, {At: AtLogon}}, Deadline: moment(t, "2026-12-05T08:00"), Expires: moment(t, "2027-01-01T00:00"),
			Grace: events.Duration(30 * time.Minute), Jitter: events.Duration(time.Hour), Rerun: order.RerunNever, IgnoreWindows: true, Validity: Span(120 * 24 * time.Hour),
			Plan: events.Plan{Phases: []events.Phase{
				{Name: "canary", Percent: 0.5, AdvanceWhen: &events.Advance{Succeeded: &events.Limit{Percent: 95}, For: events.Duration(24 * time.Hour)},
					HaltWhen: &events.Halt{Failed: &events.Limit{Count: 5}, Silent: &events.Silence{Share: events.Limit{Percent: 20}, After: events.Duration(4 * time.Hour)}}},
				{Name: "pilot", Collection: "pilot", AdvanceWhen: &events.Advance{Approval: true, Event: &events.ExternalGate{Type: "com.example.passed", Subject: "hello"}}},
				{Name: "rest", Percent: 100, MaxInFlight: 2000},
			}, MaxInFlight: 5000, MaxInFlightPerSite: 50, OnHalt: events.OnHaltRollback}, Rollback: RollbackUninstall}},
		Limits: &Limits{API: API, Limits: FleetLimits{MaxInFlight: 5000, RetriesPerMinute: 100}},
	}
	if diff := cmp.Diff(want, got, byValue); diff != "" {
		t.Fatal(diff)
	}
}

func TestWhatIsWrittenIsReadAgain(t *testing.T) {
	want, err := Parse("fleet.yaml", []byte(everything))
	if err != nil {
		t.Fatal(err)
	}
	text, err := WriteAll(want.Packages[0], want.Collections[0], want.Deployments[0], *want.Limits)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse("written.yaml", text)
	if err != nil {
		t.Fatalf("%v:\n%s", err, text)
	}
	if diff := cmp.Diff(want, got, byValue); diff != "" {
		t.Fatalf("%s\n%s", diff, text)
	}
	if strings.Contains(string(text), "0s") {
		t.Errorf("durations are not short:\n%s", text)
	}
}

func TestADeploymentIsTheDocumentOfItsOrder(t *testing.T) {
	all, err := Parse("fleet.yaml", []byte(everything))
	if err != nil {
		t.Fatal(err)
	}
	d := all.Deployments[0]
	o, err := d.Order(issued)
	if err != nil {
		t.Fatal(err)
	}
	again, err := OfOrder(o, &d.Plan, d.Rollback).Order(issued)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(o, again, byValue); diff != "" {
		t.Error(diff)
	}
	if len(o.Assignments) != 4 || o.Deadline() == nil || !o.NotAfter.Equal(issued.Add(120*24*time.Hour)) {
		t.Errorf("%d assignments, deadline %v, valid until %s", len(o.Assignments), o.Deadline(), o.NotAfter)
	}
}

func TestWhatIsLeftOutIsTheCommonCase(t *testing.T) {
	for name, c := range map[string]struct {
		more string
		want []order.Assignment
	}{
		"nothing is as soon as possible":              {"", []order.Assignment{{ASAP: true}}},
		"required too":                                {"purpose: required", []order.Assignment{{ASAP: true}}},
		"a deadline alone is not":                     {"deadline: 2026-12-05T08:00:00Z", []order.Assignment{{At: moment(t, "2026-12-05T08:00:00Z")}}},
		"what is only available starts by no machine": {"purpose: available", nil},
	} {
		t.Run(name, func(t *testing.T) {
			all, err := Parse("d.yaml", []byte("api: chandler/v1\ndeployment: d\nprogram: p@1/i\ncollection: c\n"+c.more+"\n"))
			if err != nil {
				t.Fatal(err)
			}
			o, err := all.Deployments[0].Order(issued)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, o.Assignments, byValue); diff != "" {
				t.Error(diff)
			}
			if o.Rerun != order.RerunIfFailed || !o.NotAfter.Equal(issued.Add(order.DefaultValidity)) {
				t.Errorf("rerun %s, valid until %s", o.Rerun, o.NotAfter)
			}
		})
	}
}

func TestMistakesQuoteTheLine(t *testing.T) {
	const deployment = "api: chandler/v1\ndeployment: d\nprogram: p@1/i\ncollection: c\n"
	for name, c := range map[string]struct{ text, want string }{
		"an unknown key":               {deployment + "reruns: never", "f.yaml:5:1: unknown key \"reruns\": did you mean rerun?\n    5 | reruns: never"},
		"an unknown key of the plan":   {deployment + "max-inflight: 4", "did you mean max-in-flight"},
		"an unknown key of a phase":    {deployment + "phases: [{name: a, percnt: 5}]", "did you mean percent"},
		"a key twice":                  {deployment + "collection: e", "f.yaml:5:1"},
		"a version that is a number":   {"api: chandler/v1\npackage: p\nversion: 2.10", "f.yaml:3:10: version: 2.10 is a number to YAML, which may change it: write  version: \"2.10\"\n    3 | version: 2.10"},
		"text where a list is":         {"api: chandler/v1\ncollection: c\ninclude: a", "include: write a list of texts"},
		"a number where text is":       {"api: chandler/v1\ncollection: c\nexpression: 1.0", "is a number to YAML"},
		"an anchor":                    {"api: chandler/v1\ncollection: &c c\nexpression: \"true\"", "anchors"},
		"two kinds":                    {"api: chandler/v1\npackage: p\ndeployment: d", "exactly one of"},
		"no kind":                      {"api: chandler/v1", "none of them"},
		"a list":                       {"- a", "exactly one of"},
		"another API":                  {"api: chandler/v2\ncollection: c", "api: chandler/v1"},
		"a name twice":                 {deployment + "---\n" + deployment, "f.yaml:7:13: deployment: d is declared twice"},
		"limits twice":                 {"api: chandler/v1\nlimits: {}\n---\napi: chandler/v1\nlimits: {}", "declared twice"},
		"negative limits":              {"api: chandler/v1\nlimits: {max-in-flight: -1}", "negative"},
		"nobody":                       {"api: chandler/v1\ncollection: c", "reach nobody"},
		"an expression that is none":   {"api: chandler/v1\ncollection: c\nexpression: agent.os ==", "f.yaml:3:13"},
		"a window that never opens":    {"api: chandler/v1\ncollection: c\nexpression: \"true\"\nwindows:\n  - {monthly: 30, every: 12, from: 2026-02-01, at: \"02:00\", for: 4h}", "f.yaml:5:"},
		"a program without a version":  {"api: chandler/v1\ndeployment: d\nprogram: p/i\ncollection: c", "package@version/program"},
		"a zone that is none":          {deployment + "zone: europe/oslo", "did you mean Europe/Oslo"},
		"a cron that never fires":      {deployment + "assignments: [{cron: \"0 0 30 2 *\"}]", "f.yaml:5:"},
		"an assignment of both":        {deployment + "assignments: [{at: asap, cron: \"0 0 * * *\"}]", "either at"},
		"a time that is none":          {deployment + "assignments: [{at: tomorrow}]", "2026-12-01T08:00"},
		"available with a deadline":    {deployment + "purpose: available\ndeadline: 2026-12-05T08:00:00Z", "no deadline"},
		"another purpose":              {deployment + "purpose: optional", "required or available"},
		"a wrong phase among several":  {deployment + "phases:\n  - {name: a, percent: 5, advance-when: {succeeded: 5%}}\n  - {name: b, percent: 3}\n", "f.yaml:7:"},
		"a share that is none":         {deployment + "phases: [{name: a, percent: 5, halt-when: {failed: 105%}}]", "f.yaml:5:"},
		"rolling back what is not":     {deployment + "on-halt: rollback", "rollback: uninstall"},
		"a rollback that is none":      {deployment + "rollback: remove", "uninstall, or a program"},
		"a span that is none":          {deployment + "validity: long", "90d"},
		"an assignment twice":          {deployment + "assignments: [{at: asap}, {at: logon}, {at: asap}]", "f.yaml:5:14: assignments: assignment 3, as soon as possible, is there twice"},
		"too many with the deadline":   {deployment + "deadline: 2026-12-05T08:00:00Z\nassignments:\n" + strings.Repeat("  - {at: asap}\n", 15), "assignments: 16 assignments: at most 15"},
		"an end before its beginning":  {deployment + "available: 2026-12-05T08:00\nexpires: 2026-12-04T08:00", "f.yaml:6:10: expires: lies before available"},
		"an end before its deadline":   {deployment + "deadline: 2026-12-05T08:00\nexpires: 2026-12-04T08:00", "before the deadline"},
		"too long a jitter":            {deployment + "jitter: 10000h", "at most 60d"},
		"run without a file":           {"api: chandler/v1\npackage: p\nversion: \"1\"\nrun: user", "path leads to"},
		"a digest that is none":        {"api: chandler/v1\npackage: p\nversion: \"1\"\nmanifest: abc", "f.yaml:4:11"},
		"what is no YAML":              {"api: [", "f.yaml:1:"},
		"an empty entry of a list":     {"api: chandler/v1\ncollection: c\ninclude: [a, ]\nexclude:\n  -\n", "f.yaml:"},
		"a file that is too large":     {strings.Repeat("#", 2<<20), "more than"},
		"lists within lists":           {"a: " + strings.Repeat("[", 5000), "too many lists"},
		"a rerun that is none":         {deployment + "rerun: sometimes", "if-failed"},
		"a collection that is no name": {"api: chandler/v1\ncollection: a b", "f.yaml:2:13"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse("f.yaml", []byte(c.text))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("error %v, want %q", err, c.want)
			}
		})
	}
}

func TestTheReadMesDocumentsAreSome(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(text), "### A rollout, and the fleet as code")
	_, after, _ = strings.Cut(after, "```yaml\n")
	document, _, ok := strings.Cut(after, "```")
	if !ok {
		t.Fatal("there is no document in that section")
	}
	all, err := Parse("README.md", []byte(document))
	if err != nil || len(all.Collections) != 1 || len(all.Deployments) != 1 || all.Limits == nil {
		t.Fatalf("%+v, %v", all, err)
	}
}

func FuzzDocuments(f *testing.F) {
	f.Add(everything)
	f.Add("api: chandler/v1\nlimits: {}\n")
	f.Add("api: chandler/v1\ndeployment: d\nprogram: p@1/i\ncollection: c\npurpose: available\n")
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 8<<10 {
			return
		}
		all, err := Parse("f.yaml", []byte(text))
		if err != nil {
			return
		}
		var documents []any
		for _, p := range all.Packages {
			documents = append(documents, p)
		}
		for _, c := range all.Collections {
			documents = append(documents, c)
		}
		for _, d := range all.Deployments {
			documents = append(documents, d)
			if _, err := d.Order(issued); err != nil {
				t.Fatalf("a checked document has no order: %v", err)
			}
		}
		if all.Limits != nil {
			documents = append(documents, *all.Limits)
		}
		written, err := WriteAll(documents...)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse("again.yaml", written)
		if err != nil {
			t.Fatalf("%v\n%s", err, written)
		}
		if diff := cmp.Diff(all, again, byValue); diff != "" {
			t.Fatalf("%s\n%s", diff, written)
		}
	})
}
