//go:build unix

package agent

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"chandler/agent/journal"
	"chandler/events"
	"chandler/events/calendar"
	"chandler/events/order"
)

// version gives the order's package another version, and what it supersedes.
func version(v string, supersedes ...events.Supersede) func(*given) {
	return func(g *given) {
		g.manifest.Version, g.order.Version, g.manifest.Supersedes = v, v, supersedes
	}
}

// removing makes the order that of a program which undoes install.
func (p *plant) removing(g *given) {
	g.manifest.Programs["remove"] = events.Program{Command: p.command("remove", "", 0), Run: events.RunAdministrative, Undoes: "install"}
	g.order.Program = "remove"
}

func (p *plant) wants(t *task, state events.State, reason events.Reason, runs string) {
	p.t.Helper()
	if last := p.carry(t, ""); last.State != state || last.Reason != reason || p.runs() != runs {
		p.t.Errorf("deployment %s is %s (%s): %s; ran %q, want %q", last.Deployment, last.State, last.Reason, last.Explanation, p.runs(), runs)
	}
}

func TestWhatIsSupersededRunsNoMoreUntilTheOtherIsUndone(t *testing.T) {
	p := newPlant(t)
	older := events.Supersede{Package: "hello", Version: "< 2"}
	p.wants(p.offerOf("one", nil), events.Succeeded, "", "own")
	p.wants(p.offerOf("two", nil, version("2", older)), events.Succeeded, "", "own own")
	p.wants(p.offerOf("one-again", nil), events.WillNotRerun, events.Superseded, "own own")
	p.wants(p.offerOf("one-removed", nil, p.removing), events.WillNotRerun, events.Superseded, "own own")
	p.wants(p.offerOf("two-again", nil, version("2", older)), events.Succeeded, "", "own own own")
	p.wants(p.offerOf("two-removed", nil, version("2", older), p.removing), events.Succeeded, "", "own own own remove")
	p.wants(p.offerOf("one-back", nil), events.Succeeded, "", "own own own remove own")
}

func TestADetectedSuccessorSupersedesToo(t *testing.T) {
	p := newPlant(t)
	if err := os.WriteFile(p.mark("two"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p.wants(p.offerOf("two", nil, version("2", events.Supersede{Package: "hello", Version: "< 2"}), program(func(q *events.Program) { q.Detect = []events.Detect{{File: p.mark("two")}} })),
		events.Succeeded, events.AlreadyInstalled, "")
	p.wants(p.offerOf("one", nil), events.WillNotRerun, events.Superseded, "")
}

// back makes an order the one that takes back revision 1 of a deployment, which installs a version.
func back(deployment, v string) func(*given) {
	return func(g *given) {
		g.order.Rolls = &order.Rolls{Deployment: deployment, Revision: 1, Package: "hello", Version: v, Program: "install"}
	}
}

func revision(n uint64) func(*given) { return func(g *given) { g.order.Revision = n } }

func TestADeploymentThatIsSignedAnewRunsNothingAgain(t *testing.T) {
	always := func(g *given) { g.order.Rerun = order.RerunAlways }
	later := func(g *given) { g.order.NotAfter = g.order.NotAfter.Add(time.Hour) }
	p := newPlant(t)
	p.wants(p.offerOf("two", nil, version("2"), always), events.Succeeded, "", "own")
	p.wants(p.offerOf("two", nil, version("2"), always, later, revision(2)), events.WillNotRerun, events.AlreadyRan, "own")
	p.wants(p.offerOf("two", nil, version("2"), always, later, revision(3), func(g *given) {
		g.order.Assignments = []order.Assignment{{At: new(calendar.At(p.Clock().Add(-time.Minute)))}}
	}), events.Succeeded, "", "own own")
	p.wants(p.offerOf("three", nil, version("2"), always), events.Succeeded, "", "own own own")
}

func TestARollbackIsObeyedOnlyWhereThereIsSomethingToRollBack(t *testing.T) {
	older := events.Supersede{Package: "hello", Version: "< 2"}
	never := func(g *given) { g.order.Rerun = order.RerunNever }
	t.Run("not where the deployment was never offered", func(t *testing.T) {
		p := newPlant(t)
		p.wants(p.offerOf("two-rollback", nil, back("two", "2")), events.Rejected, events.NothingToRollBack, "")
	})
	t.Run("not where only what runs first ran", func(t *testing.T) {
		p := newPlant(t)
		p.carry(p.offerOf("two", []order.Step{p.step("a", func(q *events.Program) { q.Command = p.command("a", "", 1) })}, version("2", older)), "")
		p.wants(p.offerOf("two-rollback", nil, back("two", "2")), events.Rejected, events.NothingToRollBack, "a")
	})
	t.Run("not where only a later revision ran", func(t *testing.T) {
		p := newPlant(t)
		p.carry(p.offerOf("two", nil, version("2", older), revision(2)), "")
		p.wants(p.offerOf("two-rollback", nil, back("two", "2")), events.Rejected, events.NothingToRollBack, "own")
	})
	t.Run("also where an earlier revision ran, which was signed anew since", func(t *testing.T) {
		p := newPlant(t)
		p.carry(p.offerOf("two", nil, version("2", older)), "")
		p.wants(p.offerOf("two-rollback", nil, back("two", "2"), func(g *given) { g.order.Rolls.Revision = 2 }), events.Succeeded, "", "own own")
	})
	t.Run("by what was superseded, whatever rerun and loose rules say, and once", func(t *testing.T) {
		p := newPlant(t)
		if err := os.WriteFile(p.mark("any"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		loose := program(func(q *events.Program) { q.Detect = []events.Detect{{File: p.mark("any")}} })
		p.past("hello", "install", events.Succeeded)
		p.carry(p.offerOf("two", nil, version("2", older)), "")
		p.wants(p.offerOf("two-rollback", nil, back("two", "2"), never, loose), events.Succeeded, "", "own own")
		if got := p.lastRun("hello", "2", "install"); got != "" {
			t.Errorf("what was taken back has history %q", got)
		}
		p.wants(p.offerOf("two-rollback-again", nil, back("two", "2"), never, loose), events.Rejected, events.NothingToRollBack, "own own")
		p.wants(p.offerOf("one", nil), events.Succeeded, "", "own own own")
	})
	t.Run("by its uninstall, also where it failed", func(t *testing.T) {
		p := newPlant(t)
		p.carry(p.offerOf("two", nil, program(func(q *events.Program) { q.Command = p.command("broken", "", 1) }), version("2", older)), "")
		p.wants(p.offerOf("two-rollback", nil, version("2", older), p.removing, back("two", "2")), events.Succeeded, "", "broken remove")
	})
	t.Run("also where it is tried again and a step before it fails now", func(t *testing.T) {
		p := newPlant(t)
		always := func(_ *events.Manifest, s *order.Step) { s.Always = true }
		once := func(q *events.Program) {
			q.Command.Argv[2] = fmt.Sprintf("test ! -e '%s' && touch '%s'", p.mark("once"), p.mark("once"))
		}
		forward := p.offerOf("two", []order.Step{p.step("a", once, always)}, program(func(q *events.Program) { q.Command = p.command("broken", "", 1) }), version("2", older))
		p.carry(forward, "")
		again := p.kept(forward.job.Offer.Job)
		again.Offer.Attempt, again.Last.State = 2, events.Retrying // as Offer does
		if last := p.carry(p.newTask(again), ""); last.Reason != events.DependencyFailed {
			t.Fatalf("it is %s (%s): %s", last.State, last.Reason, last.Explanation)
		}
		p.wants(p.offerOf("two-rollback", nil, version("2", older), p.removing, back("two", "2")), events.Succeeded, "", "broken remove")
	})
	t.Run("once it has ended", func(t *testing.T) {
		p := newPlant(t)
		forward := p.offerOf("two", nil, version("2", older))
		running := forward.job
		running.Ran, running.Started, running.Work = true, 1, &journal.Work{Order: forward.order}
		running.Last = events.JobStatus{Job: running.Offer.Job, Deployment: "two", Package: "hello", Version: "2", Program: "install", State: events.Running, Attempt: 1, Transition: 1}
		if err := p.journal.Advance(running); err != nil {
			t.Fatal(err)
		}
		job := p.offerOf("two-rollback", nil, back("two", "2"))
		if last := p.carry(job, events.Waiting); last.WaitingFor != events.WaitDependency || !strings.Contains(last.Explanation, "two revision 1") {
			t.Errorf("it waits for %s: %s", last.WaitingFor, last.Explanation)
		}
		running.Acted, running.Last.State, running.Last.Transition, running.Last.At = true, events.Succeeded, 2, time.Now()
		if err := p.journal.Advance(running); err != nil {
			t.Fatal(err)
		}
		p.wants(p.again(), events.Succeeded, "", "own")
	})
}

func TestARepairRunsOnlyWhereThereIsSomethingToRepair(t *testing.T) {
	for name, c := range map[string]struct {
		past   events.State // of the program that is repaired
		there  bool         // detection finds it
		rules  bool         // there are some
		code   int
		state  events.State
		reason events.Reason
		last   events.State // of the program that is repaired, afterwards
	}{
		"it never ran":                             {state: events.Rejected, reason: events.RequirementsNotMet},
		"it failed":                                {past: events.Failed, state: events.Rejected, reason: events.RequirementsNotMet, last: events.Failed},
		"it succeeded":                             {past: events.Succeeded, state: events.Succeeded, last: events.Succeeded},
		"it never ran and is not detected":         {rules: true, state: events.Rejected, reason: events.RequirementsNotMet},
		"it never ran, and is detected":            {rules: true, there: true, state: events.Succeeded, last: events.Succeeded},
		"it failed, and is detected":               {past: events.Failed, rules: true, there: true, state: events.Succeeded, last: events.Succeeded},
		"it succeeded, and the repair fails":       {past: events.Succeeded, code: 1, state: events.Failed, reason: events.ExitCode, last: events.Succeeded},
		"it succeeded, is gone, and is not mended": {past: events.Succeeded, rules: true, state: events.Failed, reason: events.NotDetected, last: events.Succeeded},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlant(t)
			if c.past != "" {
				p.past("hello", "install", c.past)
			}
			if c.there {
				if err := os.WriteFile(p.mark("there"), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			job := p.order(nil, program(func(q *events.Program) {
				if c.rules {
					q.Detect = []events.Detect{{File: p.mark("there")}}
				}
			}), func(g *given) {
				g.manifest.Programs["repair"] = events.Program{Command: p.command("repair", "", c.code), Run: events.RunAdministrative, Repairs: "install"}
				g.order.Program = "repair"
			})
			runs := "repair"
			if c.state == events.Rejected {
				runs = ""
			}
			p.wants(job, c.state, c.reason, runs)
			if got := p.lastRun("hello", "1", "install"); got != c.last {
				t.Errorf("what is repaired has history %q, want %q", got, c.last)
			}
		})
	}
}
