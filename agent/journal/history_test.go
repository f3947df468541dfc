package journal

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"chandler/events"
	"chandler/events/order"
)

// ended is a job whose program ran to that end.
func ended(name, pkg, version, program string, state events.State, work Work) Job {
	j := job(name, state, 3)
	j.Last.Package, j.Last.Version, j.Last.Program = pkg, version, program
	j.Ran, j.Work = true, &work
	return j
}

func lastRun(t *testing.T, j *Journal, pkg, version, program string) events.State {
	t.Helper()
	state, err := j.LastRun(ProgramName{Package: pkg, Version: version, Program: program})
	must(t, err)
	return state
}

func superseded(t *testing.T, j *Journal, pkg, version string) string {
	t.Helper()
	by, ok, err := j.SupersededBy(pkg, version)
	must(t, err)
	if !ok {
		return ""
	}
	return by.Package + " " + by.Version
}

func TestAStepThatIsPassedIsInItsOwnHistoryAndNotInTheJobs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	s, err := Open(path)
	must(t, err)
	j, err := s.Agent("agent0001")
	must(t, err)
	step := order.Step{Package: "runtime", Version: "4.2", Program: "setup"}
	running := ended("a", "hello", "1.0", "install", events.Running, Work{Step: &step})
	running.Started, running.Run, running.Boot, running.Hard, running.Last.User = 1, "/runs/a", "boot 1", true, "alice"
	must(t, j.Advance(running))
	if got := lastRun(t, j, "runtime", "4.2", "setup"); got != "" {
		t.Errorf("a step that runs has history %q", got)
	}
	if _, err := j.Pass(running); err != nil {
		t.Fatal(err)
	}
	must(t, s.Close())
	j = open(t, path)
	next, _, err := j.Job("a")
	must(t, err)
	if next.Passed != 1 || next.Started != 0 || next.Run != "" || next.Ran || next.Work != nil || next.Boot != "" || next.Hard || next.Last.State != events.Running {
		t.Errorf("the job goes on as %+v", next)
	}
	if got := lastRun(t, j, "runtime", "4.2", "setup"); got != events.Succeeded {
		t.Errorf("the step has history %q", got)
	}
	if got := lastRun(t, j, "hello", "1.0", "install"); got != "" {
		t.Errorf("the job's own program has history %q", got)
	}
	// A step that was needless follows one that ran of the job's former attempt: it says nothing.
	next.Ran, next.Work = true, &Work{}
	if _, err := j.Pass(next); err != nil || lastRun(t, j, "hello", "1.0", "install") != "" {
		t.Errorf("a step that was skipped entered a history, %v", err)
	}
}

func TestAStepThatEndsTheJobIsInItsOwnHistory(t *testing.T) {
	j := open(t, filepath.Join(t.TempDir(), "journal.db"))
	step := order.Step{Package: "runtime", Version: "4.2", Program: "setup"}
	must(t, j.Advance(ended("a", "hello", "1.0", "install", events.Failed, Work{Step: &step})))
	if got := lastRun(t, j, "runtime", "4.2", "setup"); got != events.Failed {
		t.Errorf("the step has history %q", got)
	}
	if got := lastRun(t, j, "hello", "1.0", "install"); got != "" {
		t.Errorf("the job's own program has history %q", got)
	}
}

func TestWhatAProgramsSuccessSupersedes(t *testing.T) {
	below3 := []events.Supersede{{Package: "hello", Version: "< 3"}, {Package: "greeter"}}
	install := func(version string, supersedes []events.Supersede, p events.Program) Job {
		return ended("a"+version, "hello", version, "install", events.Succeeded, Work{Program: p, Supersedes: supersedes})
	}
	j := open(t, filepath.Join(t.TempDir(), "journal.db"))
	failed := install("3", below3, events.Program{})
	failed.Last.State = events.Failed
	must(t, j.Advance(failed))
	if by := superseded(t, j, "hello", "2"); by != "" {
		t.Errorf("a failure of %s supersedes", by)
	}
	must(t, j.Advance(install("3", below3, events.Program{})))
	for _, c := range []struct{ pkg, version, by string }{{"hello", "2", "hello 3"}, {"hello", "2.9", "hello 3"}, {"hello", "3", ""}, {"hello", "3.1", ""}, {"greeter", "7", "hello 3"}, {"other", "1", ""}} {
		if by := superseded(t, j, c.pkg, c.version); by != c.by {
			t.Errorf("%s %s is superseded by %q, want %q", c.pkg, c.version, by, c.by)
		}
	}
	// The next version takes the place of the last one, and of what that one had taken only as far as it says so itself.
	must(t, j.Advance(install("4", []events.Supersede{{Package: "hello", Version: "< 4"}}, events.Program{})))
	if by := superseded(t, j, "hello", "3") + superseded(t, j, "greeter", "7"); by != "hello 4" {
		t.Errorf("superseded by %q", by)
	}
	undo := ended("u", "hello", "4", "remove", events.Succeeded, Work{Program: events.Program{Undoes: "install"}, Supersedes: below3})
	must(t, j.Advance(undo))
	if by := superseded(t, j, "hello", "3"); by != "" {
		t.Errorf("what was undone, %s, still supersedes", by)
	}
}

func TestWhatTwoProgramsSupersedeStaysWhileOneOfThemIsThere(t *testing.T) {
	j := open(t, filepath.Join(t.TempDir(), "journal.db"))
	older := []events.Supersede{{Package: "hello", Version: "< 3"}}
	for _, program := range []string{"core", "extra"} {
		must(t, j.Found(ProgramName{Package: "hello", Version: "3", Program: program}, events.Program{}, older))
	}
	for _, c := range []struct{ undone, by string }{{"extra", "hello 3"}, {"core", ""}} {
		must(t, j.Found(ProgramName{Package: "hello", Version: "3", Program: "remove"}, events.Program{Undoes: c.undone}, older))
		if by := superseded(t, j, "hello", "2"); by != c.by {
			t.Errorf("without %s it is superseded by %q", c.undone, by)
		}
	}
}

func TestARepairCountsAsTheProgramThatItRepairs(t *testing.T) {
	j := open(t, filepath.Join(t.TempDir(), "journal.db"))
	repair := func(state events.State) Job {
		return ended("r", "hello", "3", "repair", state, Work{Program: events.Program{Repairs: "install"}, Supersedes: []events.Supersede{{Package: "greeter"}}})
	}
	must(t, j.Advance(repair(events.Failed)))
	if got := lastRun(t, j, "hello", "3", "install"); got != "" {
		t.Errorf("after a repair that failed it has history %q", got)
	}
	must(t, j.Advance(repair(events.Succeeded)))
	if got := lastRun(t, j, "hello", "3", "install"); got != events.Succeeded {
		t.Errorf("it has history %q", got)
	}
	must(t, j.Advance(ended("u", "hello", "3", "remove", events.Succeeded, Work{Program: events.Program{Undoes: "install"}})))
	if by := superseded(t, j, "greeter", "1"); by != "" {
		t.Errorf("%s is gone and still supersedes", by)
	}
}

func TestWhatARollbackTookBackNeverRan(t *testing.T) {
	j := open(t, filepath.Join(t.TempDir(), "journal.db"))
	must(t, j.Advance(ended("two", "hello", "2", "install", events.Succeeded, Work{Supersedes: []events.Supersede{{Package: "hello", Version: "< 2"}}})))
	rolls := order.Order{Rolls: &order.Rolls{Deployment: "two", Revision: 1, Package: "hello", Version: "2", Program: "install"}}
	step := order.Step{Package: "runtime", Version: "4.2", Program: "setup"}
	must(t, j.Advance(ended("s", "hello", "1", "install", events.Succeeded, Work{Order: rolls, Step: &step})))
	if got := lastRun(t, j, "hello", "2", "install"); got != events.Succeeded {
		t.Errorf("a step of the rollback has made it %q", got)
	}
	must(t, j.Advance(ended("back", "hello", "1", "install", events.Succeeded, Work{Order: rolls})))
	if got, by := lastRun(t, j, "hello", "2", "install"), superseded(t, j, "hello", "1"); got != "" || by != "" {
		t.Errorf("it has history %q, and %q supersedes", got, by)
	}
	if got := lastRun(t, j, "hello", "1", "install"); got != events.Succeeded {
		t.Errorf("what the rollback brought back has history %q", got)
	}
}

func TestOfAStandingOrderTheNewestOccurrencesAreRememberedAndOneThatRan(t *testing.T) {
	j := open(t, filepath.Join(t.TempDir(), "journal.db"))
	occurrence := func(n int64, state events.State, acted bool) Job {
		name := fmt.Sprintf("occurrence-%04d", n)
		o := job(name, state, 1)
		o.Offer.Deployment, o.Offer.Revision, o.Offer.Occurrence, o.Occurrence, o.Acted = "patches", 1, n, &Occurrence{}, acted
		return o
	}
	all := []Job{occurrence(1, events.Waiting, false), job("another", events.Succeeded, 1)}
	for n := int64(2); n < MaxOccurrences+20; n++ {
		all = append(all, occurrence(n, events.Rejected, n == 5 || n == 7))
	}
	must(t, j.Keep(all...))
	must(t, j.Forget(t0, t0.Add(-time.Hour)))
	there := map[int64]bool{}
	ended := 0
	must(t, j.Jobs(func(o Job) error {
		there[o.Offer.Occurrence] = true
		if o.Ended() && o.Occurrence != nil {
			ended++
		}
		return nil
	}))
	if ended != MaxOccurrences+1 || !there[0] || !there[1] || there[5] || !there[7] || there[19] || !there[20] {
		t.Errorf("%d are remembered: %v", ended, there)
	}
}

func TestAnEndedJobDoesNotKeepWhatOnlyARunNeeds(t *testing.T) {
	j := open(t, filepath.Join(t.TempDir(), "journal.db"))
	step := order.Step{Package: "runtime", Version: "4.2", Program: "setup"}
	must(t, j.Advance(ended("a", "hello", "1.0", "install", events.Running, Work{Step: &step})))
	if kept, _, err := j.Job("a"); err != nil || kept.Work == nil {
		t.Fatalf("while it runs it has %+v, %v", kept.Work, err)
	}
	must(t, j.Advance(ended("a", "hello", "1.0", "install", events.Failed, Work{Step: &step})))
	if kept, _, err := j.Job("a"); err != nil || kept.Work != nil {
		t.Errorf("it has %+v, %v", kept.Work, err)
	}
	if got := lastRun(t, j, "runtime", "4.2", "setup"); got != events.Failed {
		t.Errorf("the step has history %q", got)
	}
	var said []events.State
	must(t, j.Statuses(func(s events.JobStatus) { said = append(said, s.State) }))
	if len(said) != 1 || said[0] != events.Failed {
		t.Errorf("statuses: %v", said)
	}
}
