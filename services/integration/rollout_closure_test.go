package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"chandler/agent/journal"
	"chandler/events"
	"chandler/events/closure"
	"chandler/events/order"
)

// telling is a program that adds a word to $ROOT/told and its package's content to $ROOT/contents, waits while
// $ROOT/hold-WORD is there, and exits with what $ROOT/exit-WORD says. more are further lines of it.
func telling(program, word, more string) string {
	return fmt.Sprintf(`  %s:
    shell: sh
    command: |
      echo %[2]s >> "$ROOT/told"
      cat content >> "$ROOT/contents"
      while [ -e "$ROOT/hold-%[2]s" ]; do sleep 0.02; done
      exit "$(cat "$ROOT/exit-%[2]s" 2>/dev/null || echo 0)"
    run: administrative
%[3]s`, program, word, more)
}

// publishTold publishes a package of programs, whose content says which package it is; head are further lines of its own.
func (f *fleet) publishTold(name, version, head string, programs ...string) events.PackageInfo {
	f.t.Helper()
	dir := filepath.Join(f.t.TempDir(), name)
	must(f.t, os.MkdirAll(dir, 0o700))
	text := fmt.Sprintf("api: chandler/v1\npackage: %s\nversion: %q\n%sprograms:\n%s", name, version, head, strings.Join(programs, ""))
	must(f.t, os.WriteFile(filepath.Join(dir, "package.yaml"), []byte(text), 0o600))
	must(f.t, os.WriteFile(filepath.Join(dir, "content"), []byte(name+"@"+version+"\n"), 0o600))
	return f.publishDir(dir, time.Now)
}

// bound makes an order that of a program, with all that comes before it: what the administrator's tool signs.
func (f *fleet) bound(p events.PackageInfo, program string) func(*order.Order) {
	f.t.Helper()
	all := mustAsk(f, events.ContentList, events.Nothing{}).Packages
	steps, err := closure.Steps(p.Manifest, program, func(name, version string) (events.Manifest, string, bool) {
		i := slices.IndexFunc(all, func(q events.PackageInfo) bool { return q.Manifest.Package == name && q.Manifest.Version == version })
		if i < 0 {
			return events.Manifest{}, "", false
		}
		return all[i].Manifest, all[i].Digest, true
	})
	must(f.t, err)
	return func(o *order.Order) { o.Program, o.First = program, steps }
}

// only makes an order one for the machines of a collection.
func only(c events.Collection) func(*order.Order) {
	return func(o *order.Order) { o.Collection, o.Expression = c.Name, c.Expression }
}

// collection makes a collection of the machines that satisfy an expression.
func (f *fleet) collection(name, expression string) events.Collection {
	f.t.Helper()
	return mustAsk(f, events.CollectionSet, events.Collection{Name: name, Expression: expression}).Collection
}

// told lists the words of the programs that ran on the machine.
func (m *machine) told() []string { return m.lines("told") }

func (m *machine) lines(name string) []string {
	data, err := os.ReadFile(filepath.Join(m.root(), name))
	if err != nil {
		return nil
	}
	return strings.Fields(string(data))
}

func (m *machine) wantTold(words ...string) {
	m.t.Helper()
	if got := m.told(); !slices.Equal(got, words) {
		m.t.Fatalf("on %s ran %q, not %q", m.name, got, words)
	}
}

// newest is the last status of a machine's job of a deployment.
func (f *fleet) newest(deployment string, m *machine) events.JobStatus {
	f.t.Helper()
	all := f.statuses(deployment, m)
	if len(all) == 0 {
		f.t.Fatalf("%s told nothing of %s", m.name, deployment)
	}
	return all[len(all)-1]
}

// wantEnd waits for the end of a machine's job, for that reason and with these words.
func (f *fleet) wantEnd(deployment string, m *machine, state events.State, reason events.Reason, words ...string) {
	f.t.Helper()
	if row := f.want(deployment, m, state); row.Reason != reason {
		f.t.Fatalf("%s's job of %s is %s for %s, not for %s", m.name, deployment, state, row.Reason, reason)
	}
	said := f.newest(deployment, m).Explanation
	for _, w := range words {
		if !strings.Contains(said, w) {
			f.t.Fatalf("%s's job of %s says %q, not %q", m.name, deployment, said, w)
		}
	}
}

// stopDeployment stops a deployment for good.
func (f *fleet) stopDeployment(name string) {
	f.t.Helper()
	mustAsk(f, events.ExecutionStop, events.StopRequest{Deployment: name})
	f.wantLife(name, events.LifeStopped)
}

// restart is a restart of the machine, which differs from one of the agent by the boot id. The boot under which the
// machine's programs asked for it becomes an older one: this process cannot give the system another.
func (m *machine) restart() {
	m.t.Helper()
	m.stop()
	store, err := journal.Open(filepath.Join(m.file.StateDir, "journal.db"))
	must(m.t, err)
	j, err := store.Agent(m.id)
	must(m.t, err)
	var parked []journal.Job
	must(m.t, j.Jobs(func(job journal.Job) error {
		if job.Boot != "" {
			parked = append(parked, job)
		}
		return nil
	}))
	for _, job := range parked {
		job.Boot = "the boot before"
		must(m.t, j.Keep(job))
	}
	must(m.t, store.Close())
	if len(parked) == 0 {
		m.t.Fatalf("nothing on %s waits for a restart", m.name)
	}
	m.start()
}

func TestWhatAProgramDependsOnRunsBeforeIt(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	fine, broken, restarts := f.machine("fine"), f.machine("broken"), f.machine("restarts")
	f.publishTold("base", "1.0", "", telling("install", "base", "    return-codes: {10: soft-reboot}\n"))
	f.publishTold("lib", "1.0", "", telling("install", "lib", "    run-first: [base@1.0/install]\n"))
	app := f.publishTold("app", "1.0", "", telling("install", "app", "    run-first: [lib@1.0/install]\n"),
		telling("refresh", "refreshed", "    run-first: [lib@1.0/install, base@1.0/install]\n    always-run-first: true\n"))
	f.everyone(3)
	broken.write("exit-lib", "7")
	restarts.write("exit-base", "10")

	f.deploy("chain", app, f.bound(app, "install"))
	f.want("chain", fine, events.Succeeded)
	fine.wantTold("base", "lib", "app")
	if got := fine.lines("contents"); !slices.Equal(got, []string{"base@1.0", "lib@1.0", "app@1.0"}) {
		t.Errorf("the programs saw the content of %q", got)
	}
	f.wantEnd("chain", broken, events.Failed, events.DependencyFailed, "lib@1.0/install", "exit code 7")
	broken.wantTold("base", "lib")
	f.wantWaiting("chain", restarts, events.WaitReboot)
	if s := f.newest("chain", restarts); s.Step != "base@1.0/install" {
		t.Fatalf("what waits for the restart is %q", s.Step)
	}
	restarts.stop() // of the agent alone
	restarts.start()
	restarts.awaitRunning()
	restarts.wantTold("base")
	restarts.restart()
	f.want("chain", restarts, events.Succeeded)
	restarts.wantTold("base", "lib", "app")

	// What succeeded once is not repeated, what failed is; unless it is always to run first.
	broken.remove("exit-lib")
	if got := mustAsk(f, events.ExecutionRetry, events.Named{Name: "chain"}); got.Offered != 1 {
		t.Fatalf("%d jobs are tried again", got.Offered)
	}
	eventually(t, "the broken machine is mended", func() bool {
		row, ok := f.row("chain", broken)
		return ok && row.Attempt == 2 && row.State == events.Succeeded
	})
	broken.wantTold("base", "lib", "lib", "app")
	f.deploy("again", app, f.bound(app, "install"))
	f.want("again", fine, events.Succeeded)
	fine.wantTold("base", "lib", "app", "app")
	f.deploy("refresh", app, f.bound(app, "refresh"))
	f.want("refresh", fine, events.Succeeded)
	fine.wantTold("base", "lib", "app", "app", "base", "lib", "refreshed")
	f.want("again", broken, events.Succeeded)
	f.want("refresh", broken, events.Succeeded)
	for _, deployment := range []string{"chain", "again", "refresh"} {
		f.check(deployment, fine, broken)
	}
}

func TestTwoJobsThatDependOnOneProgramRunItOnce(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	m := f.machine("ws1")
	f.everyone(1)
	f.publishTold("base", "1.0", "", telling("install", "base", ""))
	app := f.publishTold("app", "1.0", "", telling("install", "app", "    run-first: [base@1.0/install]\n"))
	tool := f.publishTold("tool", "1.0", "", telling("install", "tool", "    run-first: [base@1.0/install]\n"))
	m.write("hold-base", "")
	f.deploy("app", app, f.bound(app, "install"))
	f.want("app", m, events.Running)
	f.deploy("tool", tool, f.bound(tool, "install"))
	f.wantWaiting("tool", m, events.WaitSlot)
	m.remove("hold-base")
	f.want("app", m, events.Succeeded)
	f.want("tool", m, events.Succeeded)
	if told := m.told(); told[0] != "base" || !slices.Equal(slices.Sorted(slices.Values(told)), []string{"app", "base", "tool"}) {
		t.Errorf("ran %q", told)
	}
	f.check("app", m)
	f.check("tool", m)
}

func TestANewVersionTakesThePlaceOfTheOld(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	had, fresh := f.machine("had"), f.machine("fresh")
	undoes := "    undoes: install\n"
	f.everyone(2)
	late := f.collection("late", `agent.hostname == "fresh"`)
	old := f.publishTold("editor", "1.0", "", telling("install", "editor-1", ""), telling("remove", "remove-1", undoes))
	uninstalls := f.publishTold("editor", "2.0", "supersedes: [{package: editor, version: \"1.0\", uninstall: editor@1.0/remove}]\n",
		telling("install", "editor-2", ""), telling("remove", "remove-2", undoes))
	replaces := f.publishTold("editor", "3.0", "supersedes: [{package: editor, version: \"< 3.0\"}]\n", telling("install", "editor-3", ""))

	f.deploy("old", old, only(f.collection("early", `agent.hostname == "had"`)), f.bound(old, "install"))
	f.want("old", had, events.Succeeded)
	had.write("exit-remove-1", "5")
	f.deploy("new", uninstalls, f.bound(uninstalls, "install"))
	f.wantEnd("new", had, events.Failed, events.DependencyFailed, "editor@1.0/remove, which removes what is superseded, failed", "exit code 5")
	had.wantTold("editor-1", "remove-1")
	had.remove("exit-remove-1")
	mustAsk(f, events.ExecutionRetry, events.Named{Name: "new"})
	eventually(t, "the second attempt succeeds", func() bool {
		row, ok := f.row("new", had)
		return ok && row.Attempt == 2 && row.State == events.Succeeded
	})
	had.wantTold("editor-1", "remove-1", "remove-1", "editor-2")
	f.want("new", fresh, events.Succeeded)
	fresh.wantTold("editor-2") // there is nothing to remove

	f.deploy("old-again", old, f.bound(old, "install"))
	for _, m := range []*machine{had, fresh} {
		f.wantEnd("old-again", m, events.WillNotRerun, events.Superseded, "editor 2.0")
	}

	// Where the new one is taken back the old one may come again.
	_, err := ask(f, events.DeploymentCreate, f.sign("gone", uninstalls, only(late), f.bound(uninstalls, "remove")))
	refusedWith(t, err, "new (install of editor 2.0, 1 machines)", "stop that first")
	for _, name := range []string{"new", "old-again", "old"} {
		f.stopDeployment(name)
	}
	f.deploy("gone", uninstalls, only(late), f.bound(uninstalls, "remove"))
	f.want("gone", fresh, events.Succeeded)
	f.stopDeployment("gone")
	f.deploy("old-back", old, f.bound(old, "install"))
	f.want("old-back", fresh, events.Succeeded)
	f.wantEnd("old-back", had, events.WillNotRerun, events.Superseded, "editor 2.0")

	f.deploy("newest", replaces, f.bound(replaces, "install"))
	f.want("newest", had, events.Succeeded)
	f.want("newest", fresh, events.Succeeded)
	had.wantTold("editor-1", "remove-1", "remove-1", "editor-2", "editor-3")
	fresh.wantTold("editor-2", "remove-2", "editor-1", "editor-3")
	f.deploy("new-again", uninstalls, f.bound(uninstalls, "install"))
	f.wantEnd("new-again", had, events.WillNotRerun, events.Superseded, "editor 3.0")
	had.wantTold("editor-1", "remove-1", "remove-1", "editor-2", "editor-3")
}
