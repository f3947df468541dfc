package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/calendar"
	"chandler/events/order"
	"chandler/services/declared"
)

const officeDocument = `
api: chandler/v1
collection: office
expression: agent.os == "linux"
---
api: chandler/v1
deployment: hello-everywhere
program: hello@2.10-3/install
collection: office
phases:
  - {name: canary, count: 1, advance-when: {succeeded: 100%}, halt-when: {failed: 1}}
  - {name: rest, percent: 100}
`

// declaredFleet has one package, published, and a collection of two machines, as officeDocument declares it.
func declaredFleet(t *testing.T) (f *fakeFleet, file string) {
	t.Helper()
	f = helloFleet(t)
	f.set(func() {
		f.collection = events.CollectionView{Collection: events.Collection{Name: "office", Expression: `agent.os == "linux"`}, Members: []string{"agent0001", "agent0002"}}
		for _, id := range f.collection.Members {
			f.agents = append(f.agents, events.AgentView{Facts: events.Facts{ID: id, Hostname: id, OS: "linux"}, LastSeen: testNow})
		}
	})
	file = filepath.Join(t.TempDir(), "fleet.yaml")
	if err := os.WriteFile(file, []byte(officeDocument), 0o600); err != nil {
		t.Fatal(err)
	}
	return f, file
}

// accept makes what was sent the deployment that is there, as scheduling would.
func (f *fakeFleet) accept(t *testing.T) {
	t.Helper()
	sent := f.sent()
	o, digest, err := order.Open(sent.Envelope)
	if err != nil {
		t.Fatal(err)
	}
	notice := events.DeploymentNotice{Deployment: o.Deployment, Revision: o.Revision, Order: digest, Package: o.Package, Version: o.Version, Program: o.Program, Collection: o.Collection, At: testNow}
	told := events.DeploymentOrder{DeploymentNotice: notice, Envelope: sent.Envelope, Include: sent.Include, Exclude: sent.Exclude, Plan: sent.Plan}
	scheduling, err := bus.New(bus.Options{Conn: f.bus.Conn(), Source: events.ServiceSource("scheduling")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bus.Publish(t.Context(), scheduling, events.DeploymentCreated, events.Event[events.DeploymentOrder]{ID: digest, Subject: o.Deployment, Time: testNow, Data: told}); err != nil {
		t.Fatal(err)
	}
	back, to := "", ""
	if sent.Rollback != nil {
		r, _, err := order.Open(sent.Rollback)
		if err != nil {
			t.Fatal(err)
		}
		back, to = r.Deployment, r.Package+"@"+r.Version+"/"+r.Program
	}
	f.set(func() {
		f.deployment = &events.DeploymentView{DeploymentNotice: notice, Life: events.LifeActive, Plan: sent.Plan, NotAfter: o.NotAfter, Rollback: back, RollbackTo: to}
		f.deployments = []events.DeploymentView{*f.deployment}
		f.received = nil
	})
}

func TestApplyMakesWhatIsDeclaredAndThenChangesNothing(t *testing.T) {
	f, file := declaredFleet(t)
	code, stdout, stderr := command(t, f.app, "", "apply", "-f", file)
	if code != 0 || f.sent() == nil {
		t.Fatalf("exit code %d: %s%s", code, stdout, stderr)
	}
	for _, says := range []string{"create deployment hello-everywhere: 2 machines now", "phase canary: 1 machine now", "phase rest: 1 machine now", "deployment hello-everywhere, revision 1, is active"} {
		if !strings.Contains(stdout, says) {
			t.Errorf("it does not say %q: %s", says, stdout)
		}
	}
	if f.sent().Plan == nil || len(f.sent().Plan.Phases) != 2 {
		t.Errorf("plan %+v", f.sent().Plan)
	}
	f.accept(t)
	code, stdout, stderr = command(t, f.app, "", "apply", "-f", file)
	if code != 0 || stdout != "" || !strings.Contains(stderr, "nothing changes") || f.sent() != nil {
		t.Errorf("applied again: exit code %d, sent %v: %s%s", code, f.sent() != nil, stdout, stderr)
	}
	if code, stdout, stderr = command(t, f.app, "", "diff", "-f", file); code != 0 {
		t.Errorf("diff: exit code %d: %s%s", code, stdout, stderr)
	}
}

func TestAnExportAppliedChangesNothing(t *testing.T) {
	f, file := declaredFleet(t)
	if code, _, stderr := command(t, f.app, "", "apply", "-f", file); code != 0 {
		t.Fatal(stderr)
	}
	f.accept(t)
	dir := filepath.Join(t.TempDir(), "fleet")
	if code, _, stderr := command(t, f.app, "", "export", "--directory", dir); code != 0 {
		t.Fatal(stderr)
	}
	for _, name := range []string{"packages/hello@2.10-3.yaml", "collections/office.yaml", "deployments/hello-everywhere.yaml"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
	if code, stdout, stderr := command(t, f.app, "", "diff", "-f", dir); code != 0 {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
	if code, _, stderr := command(t, f.app, "", "export", "--directory", dir); code != 1 || !strings.Contains(stderr, "is there already") {
		t.Errorf("exported over it: exit code %d: %s", code, stderr)
	}
}

func TestWhatApplyWouldChange(t *testing.T) {
	for name, c := range map[string]struct {
		from, to string // in the document
		change   func(*fakeFleet)
		args     []string
		says     []string
		signs    bool
	}{
		"the plan alone is not signed": {from: "count: 1,", to: "count: 2,", says: []string{"change deployment hello-everywhere: its plan alone; nothing is signed\n  - phases[canary].count: 1\n  + phases[canary].count: 2\n"}},
		"the program's rerun is":       {from: "collection: office\nphases", to: "collection: office\nrerun: always\nphases", says: []string{"revision 1 is replaced", "- rerun: if-failed", "+ rerun: always"}, signs: true},
		"so is a changed target":       {from: `"linux"`, to: `"linux" && true`, says: []string{"change collection office", "change deployment hello-everywhere", `+ expression: agent.os == "linux" && true`}, signs: true},
		"and a maintenance window": {change: func(f *fakeFleet) {
			f.collection.Windows = []calendar.Window{{Daily: 1, At: "02:00", For: calendar.Duration(3 * 60 * 60 * 1e9)}}
		}, from: "---", to: "windows: [{daily: 1, at: \"02:00\", for: 3h}]\n---", says: []string{"change deployment hello-everywhere", "+ windows: "}, signs: true},
		"what nobody declares, with --prune": {change: func(f *fakeFleet) {
			f.deployments = append(f.deployments, events.DeploymentView{DeploymentNotice: events.DeploymentNotice{Deployment: "old"}}, events.DeploymentView{DeploymentNotice: events.DeploymentNotice{Deployment: "hello-everywhere-rollback"}})
		}, args: []string{"--prune"}, says: []string{"remove deployment old"}},
	} {
		t.Run(name, func(t *testing.T) {
			f, file := declaredFleet(t)
			if code, _, stderr := command(t, f.app, "", "apply", "-f", file); code != 0 {
				t.Fatal(stderr)
			}
			f.accept(t)
			if c.change != nil {
				f.set(func() { c.change(f) })
			}
			if err := os.WriteFile(file, []byte(strings.Replace(officeDocument, c.from, c.to, 1)), 0o600); err != nil {
				t.Fatal(err)
			}
			code, stdout, stderr := command(t, f.app, "", append([]string{"diff", "-f", file}, c.args...)...)
			for _, says := range c.says {
				if code != 1 || !strings.Contains(stdout, says) {
					t.Errorf("exit code %d, it does not say %q: %s%s", code, says, stdout, stderr)
				}
			}
			if strings.Contains(stdout, "rollback") {
				t.Errorf("what takes a deployment back belongs to it: %s", stdout)
			}
			if strings.Contains(stdout, "revision 1 is replaced") != c.signs {
				t.Errorf("signs %v: %s", !c.signs, stdout)
			}
			if f.sent() != nil {
				t.Error("diff sent something")
			}
		})
	}
}

// wholeDocument says everything that a document can of a collection and a deployment.
const wholeDocument = `
api: chandler/v1
collection: office
expression: |
  agent.os == "linux"
  && agent.site != "lab"
include: [ws-1]
exclude: [agent0002]
windows:
  - {name: night, daily: 1, at: "02:00", for: 4h, zone: agent}
  - {nth: last tue, plus: 3, at: "22:00", for: 6h, zone: Europe/Oslo, until: "2030-01-01"}
comment: "the office: all of it"
---
api: chandler/v1
deployment: hello-everywhere
program: hello@2.10-3/install
collection: office
available: 2026-12-02T08:00
zone: agent
assignments: [{at: asap}, {at: logon}, {cron: "0 2 * * SAT"}]
deadline: 2026-12-05T08:00:30
expires: 2027-01-01T00:00:00+01:00
grace: 30m
jitter: 90s
rerun: if-succeeded
restart-outside: true
validity: 120d
phases:
  - {name: canary, percent: 0.5, advance-when: {succeeded: 95%, for: 24h, approval: true, event: {type: com.example.passed, subject: "hello: world"}}, halt-when: {failed: 5, silent: {share: 20%, after: 4h}}}
  - {name: pilot, collection: office, max-in-flight: 7, advance-when: {approval: true}}
  - {name: rest, percent: 100}
max-in-flight: 5000
max-in-flight-per-site: 50
on-halt: rollback
rollback: hello@2.10-3/prepare
---
api: chandler/v1
limits: {max-in-flight: 5000, max-in-flight-per-site: 200, retries-per-minute: 60}
`

func TestWhateverIsDeclaredIsThereAfterwardsAndExportedAsIt(t *testing.T) {
	f := rollableFleet(t)
	file := filepath.Join(t.TempDir(), "fleet.yaml")
	if err := os.WriteFile(file, []byte(wholeDocument), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, round := range []string{"it is made", "it is there"} {
		stdout, stderr := must(t, f, "", "apply", "-f", file)
		if there := strings.Contains(stderr, "nothing changes"); there != (round == "it is there") {
			t.Fatalf("%s: %s%s", round, stdout, stderr)
		}
		if round == "it is made" {
			f.accept(t)
		}
	}
	dir := filepath.Join(t.TempDir(), "exported")
	if _, stderr := must(t, f, "", "export", "--directory", dir); strings.Contains(stderr, "WARNING") {
		t.Error(stderr)
	}
	if code, stdout, stderr := command(t, f.app, "", "diff", "-f", dir); code != 0 {
		t.Errorf("exported it differs: %s%s", stdout, stderr)
	}
	for from, says := range map[string]string{
		"rollback: hello@2.10-3/prepare|rollback: uninstall":                                  "- rollback: hello@2.10-3/prepare\n  + rollback: hello@2.10-3/remove\n",
		"zone: agent\nassignments|zone: UTC\nassignments":                                     "- zone: agent\n  + zone: UTC\n",
		"name: night, daily: 1|name: night, daily: 2, from: \"2026-12-01\"":                   "+ windows[office].windows: {name: night, at: \"02:00\", daily: 2, for: 4h, from: 2026-12-01, zone: agent}\n  phase",
		"{name: pilot, collection: office, max-in-flight: 7|{name: pilot, collection: office": "- phases[pilot].max-in-flight: 7\n",
		"jitter: 90s|jitter: 91s":                                                             "jitter: 1m31s",
		"retries-per-minute: 60|retries-per-minute: 61":                                       "change limits",
	} {
		from, to, _ := strings.Cut(from, "|")
		if err := os.WriteFile(file, []byte(strings.Replace(wholeDocument, from, to, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		if code, stdout, stderr := command(t, f.app, "", "diff", "-f", file); code != 1 || !strings.Contains(stdout, says) {
			t.Errorf("%s: exit code %d, it does not say %q: %s%s", to, code, says, stdout, stderr)
		}
	}
}

func TestAnExportSaysWhatApplyWouldSignAnew(t *testing.T) {
	f, file := declaredFleet(t)
	must(t, f, "", "apply", "-f", file)
	f.accept(t)
	f.set(func() { f.collection.Expression = "true" })
	if _, stderr := must(t, f, "", "export"); !strings.Contains(stderr, "deployment hello-everywhere was signed with another expression than there is now: apply signs it anew") {
		t.Errorf("it says %s", stderr)
	}
}

func TestWhatWasStoppedOrTakenBackIsNotDeployedAnewByItsDocument(t *testing.T) {
	for says, end := range map[string]func(*events.DeploymentView){
		"was stopped": func(v *events.DeploymentView) { v.Life = events.LifeStopped },
		"was taken back by hello-everywhere-rollback": func(v *events.DeploymentView) {
			v.RolledBack, v.Rollback = true, "hello-everywhere-rollback"
		},
	} {
		for from, differs := range map[string]bool{"": false, "count: 1|count: 2": true, "collection: office\nphases|collection: office\nrerun: always\nphases": true} {
			t.Run(says+" "+from, func(t *testing.T) {
				f, file := declaredFleet(t)
				must(t, f, "", "apply", "-f", file)
				f.accept(t)
				f.set(func() { end(f.deployment) })
				from, to, _ := strings.Cut(from, "|")
				if err := os.WriteFile(file, []byte(strings.Replace(officeDocument, from, to, 1)), 0o600); err != nil {
					t.Fatal(err)
				}
				code, stdout, stderr := command(t, f.app, "", "apply", "-f", file)
				if f.sent() != nil || f.asked["plan"] != nil || (code != 0) != differs || !strings.Contains(stderr, says) || !strings.Contains(stderr, "say --again") {
					t.Errorf("exit code %d, sent %v: %s%s", code, f.sent() != nil, stdout, stderr)
				}
				code, stdout, _ = command(t, f.app, "", "diff", "-f", file)
				if (code == 1) != differs || strings.Contains(stdout, "refuse deployment hello-everywhere: "+says) != differs {
					t.Errorf("diff: exit code %d: %s", code, stdout)
				}
				if stdout, stderr = must(t, f, "", "apply", "-f", file, "--again"); f.sent() == nil {
					t.Errorf("with --again nothing was sent: %s%s", stdout, stderr)
				}
			})
		}
	}
}

func TestAnExportLeavesOutWhatWasTakenBackAndSaysSo(t *testing.T) {
	f, file := declaredFleet(t)
	must(t, f, "", "apply", "-f", file)
	f.accept(t)
	f.set(func() { f.deployments[0].RolledBack, f.deployments[0].Rollback = true, "hello-everywhere-rollback" })
	stdout, _ := must(t, f, "", "export")
	if !strings.Contains(stdout, "# deployment hello-everywhere was taken back by hello-everywhere-rollback: left out\n") || strings.Contains(stdout, "\ndeployment:") {
		t.Error(stdout)
	}
	if set, err := declared.Parse("exported", []byte(stdout)); err != nil || len(set.Deployments) != 0 || len(set.Collections) != 1 {
		t.Errorf("it is read again as %+v, %v", set, err)
	}
}

func TestOnlyWindowsThatHoldMachinesOfTheTargetAreSignedAnew(t *testing.T) {
	machines := []events.Facts{{ID: "agent0001", OS: "linux"}, {ID: "agent0002", OS: "linux"}}
	for name, c := range map[string]struct {
		window order.Windows
		holds  bool
	}{
		"a collection with one of them":        {order.Windows{Collection: "x", Expression: `agent.id == "agent0002"`}, true},
		"one that lists one of them":           {order.Windows{Collection: "x", Include: []string{"agent0001"}}, true},
		"one of other machines":                {order.Windows{Collection: "x", Expression: `agent.os == "windows"`}, false},
		"one that excludes them":               {order.Windows{Collection: "x", Expression: "true", Exclude: []string{"agent0001", "agent0002"}}, false},
		"one that cannot be evaluated on them": {order.Windows{Collection: "x", Expression: `agent.tags[7] == "x"`}, true},
	} {
		t.Run(name, func(t *testing.T) {
			if got := holdsAny(c.window, machines); got != c.holds {
				t.Errorf("it says %v", got)
			}
		})
	}
}

func TestAWindowOfOtherMachinesSignsNothingAnew(t *testing.T) {
	f, file := declaredFleet(t)
	other := strings.ReplaceAll("---\napi: chandler/v1\ncollection: lab\nexpression: EXPRESSION\nwindows: [{daily: 1, at: \"03:00\", for: 3h}]\n---\napi: chandler/v1\ndeployment", "EXPRESSION", `agent.os == "windows"`)
	must(t, f, "", "apply", "-f", file)
	f.accept(t)
	for expression, signs := range map[string]bool{`agent.os == "windows"`: false, `agent.id == "agent0002"`: true} {
		text := strings.Replace(officeDocument, "---\napi: chandler/v1\ndeployment", strings.Replace(other, `agent.os == "windows"`, expression, 1), 1)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, stdout, stderr := command(t, f.app, "", "diff", "-f", file)
		if !strings.Contains(stdout, "create collection lab") || strings.Contains(stdout, "revision 1 is replaced") != signs {
			t.Errorf("%s: %s%s", expression, stdout, stderr)
		}
	}
}

func TestValuesThatDifferAreShownWhereTheyDo(t *testing.T) {
	type object = map[string]any
	phase := func(name string, n int) object { return object{"name": name, "max_in_flight": n} }
	for name, c := range map[string]struct {
		was, is object
		want    []fieldChange
	}{
		"the same":                {object{"a": 1, "b": []int{1}}, object{"a": 1, "b": []int{1}}, nil},
		"a text":                  {object{"a": "b"}, object{"a": "c"}, []fieldChange{{"a", "b", "c"}}},
		"what is nothing":         {object{"a": 0, "b": []int{}}, object{"a": 2}, []fieldChange{{"a", "", "2"}, {"b", "", ""}}},
		"a key below another":     {object{"a": object{"b": 1, "c": 2}}, object{"a": object{"b": 1, "c": 3}}, []fieldChange{{"a.c", "2", "3"}}},
		"an entry of a name":      {object{"p": []object{phase("x", 1), phase("y", 2)}}, object{"p": []object{phase("x", 1), phase("y", 3)}}, []fieldChange{{"p[y].max-in-flight", "2", "3"}}},
		"one more, and one less":  {object{"p": []object{phase("x", 1), phase("y", 2)}}, object{"p": []object{phase("x", 1), phase("z", 2)}}, []fieldChange{{"p[y]", "{name: y, max-in-flight: 2}", ""}, {"p[z]", "", "{name: z, max-in-flight: 2}"}}},
		"another order":           {object{"p": []object{phase("x", 1), phase("y", 2)}}, object{"p": []object{phase("y", 2), phase("x", 1)}}, []fieldChange{{"p", "x, y", "y, x"}}},
		"entries without names":   {object{"p": []object{{"at": "a: b"}}}, object{"p": []object{{"at": 1}}}, []fieldChange{{"p", `{at: "a: b"}`, ""}, {"p", "", "{at: 1}"}}},
		"texts":                   {object{"p": []string{"a", "b"}}, object{"p": []string{"b", "c"}}, []fieldChange{{"p", "a", ""}, {"p", "", "c"}}},
		"texts, in another order": {object{"p": []string{"a", "b"}}, object{"p": []string{"b", "a"}}, []fieldChange{{"p", "[a, b]", "[b, a]"}}},
		"a name twice":            {object{"p": []object{phase("x", 1), phase("x", 2)}}, object{"p": []object{phase("x", 1)}}, []fieldChange{{"p", "{name: x, max-in-flight: 2}", ""}}},
		"what is left out":        {object{"by": "ada"}, object{"by": "ola"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := differing(c.was, c.is, "by")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestMistakesInDocumentsAreQuotedBeforeAnythingIsChanged(t *testing.T) {
	f, _ := declaredFleet(t)
	for name, c := range map[string]struct{ document, says string }{
		"an unknown key":                  {"api: chandler/v1\ncollection: office\nexpresion: \"true\"\n", "did you mean expression?"},
		"a program that is not there":     {strings.Replace(officeDocument, "/install", "/instal", 1), "install, remove"},
		"a package that is not published": {strings.Replace(officeDocument, "hello@2.10-3", "goodbye@1", 1), "fleet.yaml:7:"},
		"an agent that is not there":      {"api: chandler/v1\ncollection: office\ninclude: [ws-9]\n", "ws-9"},
		"a package without a path":        {"api: chandler/v1\npackage: goodbye\nversion: \"1\"\n", "no path leads to it"},
		"another digest":                  {"api: chandler/v1\npackage: hello\nversion: \"2.10-3\"\nmanifest: " + events.DigestOf(nil) + "\n", "what is published has manifest"},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "fleet.yaml")
			if err := os.WriteFile(file, []byte(c.document), 0o600); err != nil {
				t.Fatal(err)
			}
			code, _, stderr := command(t, f.app, "", "apply", "-f", file)
			if code != 1 || !strings.Contains(stderr, c.says) || f.sent() != nil {
				t.Errorf("exit code %d, %q is missing: %s", code, c.says, stderr)
			}
		})
	}
}

func TestDocumentsOfADirectoryAreFoundAndPackagesStandForThemselves(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"b.yaml": "api: chandler/v1\ncollection: b\nexpression: \"true\"\n", "below/a.yml": "api: chandler/v1\ncollection: a\nexpression: \"true\"\n",
		"hello/package.yaml": "api: chandler/v1\npackage: hello\nversion: \"1\"\n", "hello/values.yaml": "anything: else\n",
		".git/c.yaml": "no: document\n", "README.md": "text",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	set, err := readSet(nil, dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(set.Collections) != 2 || len(set.Packages) != 1 || set.Packages[0].Path != filepath.Join(dir, "hello") {
		t.Errorf("%+v", set)
	}
}
