//go:build unix

package agent

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"chandler/agent/execute"
	"chandler/agent/journal"
	"chandler/events"
	"chandler/events/order"
)

// removal makes a step the one that removes what its package installs.
func removal(p *plant, detectMark string) func(*events.Manifest, *order.Step) {
	return func(m *events.Manifest, s *order.Step) {
		install := m.Programs["install"]
		if detectMark != "" {
			install.Detect = []events.Detect{{File: p.mark(detectMark)}}
			m.Programs["install"] = install
		}
		m.Programs["remove"] = events.Program{Command: p.command("remove-"+m.Package, "rm -f '"+p.mark("old")+"';", 0), Run: events.RunAdministrative, Undoes: "install"}
		s.Program, s.Why = "remove", order.StepUninstall
	}
}

func TestWhatRunsFirstRunsBeforeTheProgramUnlessItIsDone(t *testing.T) {
	touch := func(p *plant, name string) {
		if err := os.WriteFile(p.mark(name), nil, 0o600); err != nil {
			p.t.Fatal(err)
		}
	}
	always := func(_ *events.Manifest, s *order.Step) { s.Always = true }
	for name, c := range map[string]struct {
		steps func(*plant) []order.Step
		runs  string
	}{
		"in their order": {func(p *plant) []order.Step { return []order.Step{p.step("a", nil), p.step("b", nil)} }, "a b own"},
		"not what succeeded before": {func(p *plant) []order.Step {
			p.past("a", "install", events.Succeeded)
			return []order.Step{p.step("a", nil), p.step("b", nil)}
		}, "b own"},
		"what failed before": {func(p *plant) []order.Step {
			p.past("a", "install", events.Failed)
			return []order.Step{p.step("a", nil)}
		}, "a own"},
		"what succeeded before, if it always is to": {func(p *plant) []order.Step {
			p.past("a", "install", events.Succeeded)
			return []order.Step{p.step("a", nil, always)}
		}, "a own"},
		"not what is detected": {func(p *plant) []order.Step {
			touch(p, "there")
			return []order.Step{p.step("a", func(q *events.Program) { q.Detect = []events.Detect{{File: p.mark("there")}} })}
		}, "own"},
		"what is detected, if it always is to": {func(p *plant) []order.Step {
			touch(p, "there")
			return []order.Step{p.step("a", func(q *events.Program) { q.Detect = []events.Detect{{File: p.mark("there")}} }, always)}
		}, "a own"},
		"what succeeded before and is not there any more": {func(p *plant) []order.Step {
			p.past("a", "install", events.Succeeded)
			return []order.Step{p.step("a", func(q *events.Program) {
				q.Command, q.Detect = p.command("a", "touch '"+p.mark("new")+"';", 0), []events.Detect{{File: p.mark("new")}}
			})}
		}, "a own"},
		"not what was superseded here": {func(p *plant) []order.Step {
			by := journal.ProgramName{Package: "a", Version: "2", Program: "install"}
			if err := p.journal.Found(by, events.Program{}, []events.Supersede{{Package: "a", Version: "< 2"}}); err != nil {
				p.t.Fatal(err)
			}
			return []order.Step{p.step("a", nil)}
		}, "own"},
		"what is to be removed and is there": {func(p *plant) []order.Step {
			touch(p, "old")
			return []order.Step{p.step("a", nil, removal(p, "old"))}
		}, "remove-a own"},
		"not what is to be removed and is not there": {func(p *plant) []order.Step {
			p.past("a", "install", events.Succeeded)
			return []order.Step{p.step("a", nil, removal(p, "old"))}
		}, "own"},
		"what is to be removed and ran, where detection cannot tell": {func(p *plant) []order.Step {
			p.past("a", "install", events.Succeeded)
			return []order.Step{p.step("a", nil, removal(p, ""))}
		}, "remove-a own"},
		"not what is to be removed and never ran": {func(p *plant) []order.Step { return []order.Step{p.step("a", nil, removal(p, ""))} }, "own"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlant(t)
			job := p.order(c.steps(p))
			if last := p.carry(job, ""); last.State != events.Succeeded || last.Step != "" || p.runs() != c.runs {
				t.Errorf("it is %s (%s): %s; ran %q, want %q", last.State, last.Reason, last.Explanation, p.runs(), c.runs)
			}
			if p.kept(job.job.Offer.Job).Passed != 0 || p.slots.free != 1 {
				t.Errorf("an ended job has %d steps behind it, %d slots are free", p.kept(job.job.Offer.Job).Passed, p.slots.free)
			}
		})
	}
}

func TestAStepThatFailsEndsTheJobInItsWords(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*events.Program)
		more   func(*events.Manifest, *order.Step)
		state  events.State
		reason events.Reason
		says   []string
		last   events.State // of the step, in its history
	}{
		"its exit code says so": {change: func(q *events.Program) { q.Command.Argv[2] += " exit 7" }, state: events.Failed, reason: events.DependencyFailed, last: events.Failed,
			says: []string{"a@1/install", "runs first", "exit_code", "exit code 7"}},
		"it is for other platforms": {change: func(q *events.Program) { q.Platforms = []events.Platform{{OS: "windows"}} }, state: events.Failed, reason: events.DependencyFailed,
			says: []string{"platform_unsupported", "the fact os is linux"}},
		"its requirements are not met": {change: func(q *events.Program) { q.AppliesIf = `agent.os == "windows"` }, state: events.Failed, reason: events.DependencyFailed, says: []string{"requirements_not_met"}},
		"its command is not there":     {change: func(q *events.Program) { q.Command.Argv = []string{"/no/such"} }, state: events.Failed, reason: events.DependencyFailed, last: events.Failed, says: []string{"command_not_found"}},
		"it is not detected after it succeeded": {change: func(q *events.Program) { q.Detect = []events.Detect{{File: "/no/such"}} }, state: events.Failed, reason: events.DependencyFailed,
			last: events.Failed, says: []string{"not_detected"}},
		"another installer runs, for the first time": {change: func(q *events.Program) {
			q.Command.Argv[2] += " exit 82"
			q.ReturnCodes = map[int]string{82: "retry"}
		}, state: events.Retrying, reason: events.InstallerBusy},
		"the disk is too full, for the first time":   {change: func(q *events.Program) { q.DiskSpace = 1 << 50 }, state: events.Retrying, reason: events.DiskSpaceMissing},
		"nobody here runs it":                        {change: func(q *events.Program) { q.Run = events.RunUser }, state: events.Failed, reason: events.DependencyFailed, says: []string{"context_unsupported"}},
		"the order says otherwise than its manifest": {more: func(_ *events.Manifest, s *order.Step) { s.InstallationAccount = "corp" }, state: events.Failed, reason: events.DependencyFailed, says: []string{"manifest_mismatch"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlant(t)
			var more []func(*events.Manifest, *order.Step)
			if c.more != nil {
				more = append(more, c.more)
			}
			p.facts.OS = "linux"
			job := p.order([]order.Step{p.step("a", func(q *events.Program) {
				q.Command.Argv[2] = strings.TrimSuffix(q.Command.Argv[2], " exit 0")
				if c.change != nil {
					c.change(q)
				}
			}, more...)})
			until := events.State("")
			if c.state == events.Retrying {
				until = events.Retrying
			}
			last := p.carry(job, until)
			if last.State != c.state || last.Reason != c.reason || last.Step != "a@1/install" || last.Package != "hello" {
				t.Errorf("it is %s (%s) of step %q: %s", last.State, last.Reason, last.Step, last.Explanation)
			}
			for _, word := range c.says {
				if !strings.Contains(last.Explanation, word) {
					t.Errorf("it does not say %q: %s", word, last.Explanation)
				}
			}
			if got := p.lastRun("a", "1", "install"); got != c.last {
				t.Errorf("the step's history says %q, want %q", got, c.last)
			}
			if strings.Contains(p.runs(), "own") || p.lastRun("hello", "1", "install") != "" {
				t.Errorf("ran %q; the program's history says %q", p.runs(), p.lastRun("hello", "1", "install"))
			}
		})
	}
}

func TestARetryGoesOnWithTheStepThatFailedAndAnAdministratorsBeginsAnew(t *testing.T) {
	p := newPlant(t)
	busy := func(q *events.Program) {
		q.Command = events.Command{Argv: []string{"/bin/sh", "-c", fmt.Sprintf("echo b >> '%s'; test $CHANDLER_ATTEMPT -gt 1 || exit 82", p.ran)}}
		q.ReturnCodes = map[int]string{82: "retry"}
	}
	always := func(_ *events.Manifest, s *order.Step) { s.Always = true }
	job := p.order([]order.Step{p.step("a", nil, always), p.step("b", busy)})
	p.carry(job, events.Retrying)
	next := p.again()
	o := next.job.Offer
	o.Attempt = 2
	next.reoffers <- offered{o, ""}
	if last := p.carry(next, ""); last.State != events.Succeeded || p.runs() != "a b b own" {
		t.Fatalf("it is %s (%s): %s; ran %q", last.State, last.Reason, last.Explanation, p.runs())
	}
	ended := p.kept(next.job.Offer.Job)
	ended.Offer.Attempt, ended.Last.State = 3, events.Retrying // as Offer does
	if last := p.carry(p.newTask(ended), ""); last.State != events.Succeeded || p.runs() != "a b b own a own" {
		t.Errorf("it is %s (%s): %s; ran %q", last.State, last.Reason, last.Explanation, p.runs())
	}
}

func TestAStepThatNeedsARestartHoldsTheJobUntilThen(t *testing.T) {
	soft := func(q *events.Program) {
		q.Command.Argv[2] = strings.TrimSuffix(q.Command.Argv[2], "0") + "10"
		q.ReturnCodes = map[int]string{10: "soft-reboot"}
	}
	t.Run("and goes on after it", func(t *testing.T) {
		p := newPlant(t)
		job := p.order([]order.Step{p.step("a", soft), p.step("b", nil)})
		last := p.carry(job, events.Waiting)
		if last.WaitingFor != events.WaitReboot || last.Step != "a@1/install" || p.runs() != "a" {
			t.Fatalf("it waits for %s at %q; ran %q", last.WaitingFor, last.Step, p.runs())
		}
		if last := p.carry(p.again(), events.Waiting); last.WaitingFor != events.WaitReboot || p.runs() != "a" {
			t.Fatalf("without a restart it waits for %s; ran %q", last.WaitingFor, p.runs())
		}
		p.facts.BootID = "boot 2"
		if last := p.carry(p.again(), ""); last.State != events.Succeeded || p.runs() != "a b own" {
			t.Errorf("it is %s (%s): %s; ran %q", last.State, last.Reason, last.Explanation, p.runs())
		}
	})
	t.Run("and can be stopped meanwhile", func(t *testing.T) {
		p := newPlant(t)
		job := p.order([]order.Step{p.step("a", soft)})
		p.carry(job, events.Waiting)
		next := p.again()
		next.withdraw(events.CancelRequest{By: "ada"})
		if last := p.carry(next, ""); last.State != events.Cancelled || p.runs() != "a" || p.lastRun("a", "1", "install") != events.Succeeded {
			t.Errorf("it is %s (%s): %s; ran %q, and the step's history says %q", last.State, last.Reason, last.Explanation, p.runs(), p.lastRun("a", "1", "install"))
		}
	})
}

func TestEachStepRunsInACopyOfItsOwnContent(t *testing.T) {
	p := newPlant(t)
	with := func(m *events.Manifest, text string) {
		p.blobs[events.DigestOf([]byte(text))] = []byte(text)
		m.Files = []events.File{{Path: "said", Size: int64(len(text)), Mode: 0o644, SHA256: events.DigestOf([]byte(text))}}
	}
	says := events.Command{Argv: []string{"/bin/sh", "-c", "cat said >> '" + p.ran + "'; ls >> '" + p.ran + "'"}}
	step := p.step("a", func(q *events.Program) { q.Command = says }, func(m *events.Manifest, _ *order.Step) { with(m, "step\n") })
	job := p.order([]order.Step{step}, program(func(q *events.Program) { q.Command = says }), func(g *given) { with(&g.manifest, "program\n") })
	p.wants(job, events.Succeeded, "", "step said program said")
	entries, err := p.journal.Unsent(0, 100)
	if err != nil {
		t.Fatal(err)
	}
	var said []string
	for _, e := range entries {
		said = append(said, strings.TrimSuffix(string(e.Status.State)+" "+e.Status.Step, " "))
	}
	want := []string{"accepted", "downloading", "downloaded", "downloading a@1/install", "downloaded a@1/install", "running a@1/install", "running", "succeeded"}
	if diff := cmp.Diff(want, said); diff != "" {
		t.Error(diff)
	}
	if left, err := filepath.Glob(filepath.Join(p.StateDir, "runs", "*")); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestAJobThatIsStoppedWhileAStepRunsEndsAfterIt(t *testing.T) {
	p := newPlant(t)
	job := p.order([]order.Step{p.step("a", nil), p.step("b", nil)})
	p.Runners["system"] = stopping{p.Runners["system"], job}
	if last := p.carry(job, ""); last.State != events.Cancelled || p.runs() != "a" || p.lastRun("a", "1", "install") != events.Succeeded {
		t.Errorf("it is %s (%s): %s; ran %q, and the step's history says %q", last.State, last.Reason, last.Explanation, p.runs(), p.lastRun("a", "1", "install"))
	}
}

// stopping withdraws a job when it is too late for the program that starts.
type stopping struct {
	execute.Runner
	job *task
}

func (s stopping) Prepare(ctx context.Context, r execute.Request) (execute.Prepared, error) {
	s.job.withdraw(events.CancelRequest{By: "ada"})
	return s.Runner.Prepare(ctx, r)
}

func TestWhatAStepCouldNotReadDoesNotExplainAnotherProgramsFailure(t *testing.T) {
	var list accesses
	refused := events.Access{Resource: "smb://files/a", When: events.AccessRun, Reason: events.NetworkAccessDenied}
	list.begin()
	list.add(refused)
	if got, ok := list.refused(); !ok || got.Resource != refused.Resource {
		t.Errorf("its own is %+v, %v", got, ok)
	}
	list.begin()
	if got, ok := list.refused(); ok {
		t.Errorf("the next one's is %+v", got)
	}
	list.restore(list.all())
	if _, ok := list.refused(); ok || len(list.all()) != 1 {
		t.Errorf("after a restart of the agent it is there: %v, and %d are kept", ok, len(list.all()))
	}
}

// TestAnAgentThatIsKilledAnywhereRunsEachStepOnce kills the agent at every one of its looks at the clock, of which there is
// at least one between any two things that it does.
func TestAnAgentThatIsKilledAnywhereRunsEachStepOnce(t *testing.T) {
	every := 1
	if testing.Short() {
		every = 7
	}
	for n := 1; ; n += every {
		p := newPlant(t)
		always := func(_ *events.Manifest, s *order.Step) { s.Always = true }
		job := p.order([]order.Step{p.step("a", nil, always), p.step("b", nil)})
		p.dies = n
		p.carry(job, "")
		died := p.dead
		if died && !p.kept(job.job.Offer.Job).Ended() {
			p.carry(p.again(), "")
		}
		kept := p.kept(job.job.Offer.Job)
		if last := kept.Last; last.State != events.Succeeded || p.runs() != "a b own" {
			t.Fatalf("killed at look %d: it is %s (%s): %s; ran %q", n, last.State, last.Reason, last.Explanation, p.runs())
		}
		got := map[string]events.State{"a": p.lastRun("a", "1", "install"), "b": p.lastRun("b", "1", "install"), "own": p.lastRun("hello", "1", "install")}
		if diff := cmp.Diff(map[string]events.State{"a": events.Succeeded, "b": events.Succeeded, "own": events.Succeeded}, got); diff != "" {
			t.Fatalf("killed at look %d: %s", n, diff)
		}
		if !died {
			if n < 20 {
				t.Errorf("it looked at the clock %d times: the test kills nothing", n)
			}
			return
		}
	}
}
