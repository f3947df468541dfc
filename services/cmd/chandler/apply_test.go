package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/calendar"
	"chandler/events/order"
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
	f.set(func() {
		f.deployment = &events.DeploymentView{DeploymentNotice: notice, Life: events.LifeActive, Plan: sent.Plan, NotAfter: o.NotAfter}
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
		"the plan alone is not signed": {from: "count: 1,", to: "count: 2,", says: []string{"change deployment hello-everywhere: its plan alone; nothing is signed", `"count":2`}},
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
