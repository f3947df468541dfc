package checker

import (
	"fmt"
	"slices"

	"chandler/events"
)

// runs holds the record of whoever ran the programs against what the agent says.
func (c *checks) runs(d *dossier) {
	if c.Runs == nil {
		return
	}
	for i, r := range d.runs {
		if i > 0 && r.Attempt == d.runs[i-1].Attempt && r.Step == d.runs[i-1].Step {
			c.report(d, RanTwice, fmt.Sprintf("attempt %d ran twice", r.Attempt), d.runs[i-1].line(), r.line())
			continue
		}
		if p := d.runBefore(r); p == nil || c.afterRun(d, p, r) {
			c.told(d, r)
		}
	}
	for _, e := range c.endings(d) {
		c.outcome(d, e)
	}
}

// runBefore is the last run of the same program in an earlier attempt.
func (d *dossier) runBefore(r *Run) (before *Run) {
	for _, p := range d.runs {
		if p.Step == r.Step && p.Attempt < r.Attempt {
			before = p
		}
	}
	return before
}

// afterRun checks that a program ran again because it was to be tried again, and not while it still ran. again is false where it
// was not to run at all.
func (c *checks) afterRun(d *dossier, p, r *Run) (again bool) {
	if c.whole(d) && d.again(p.Attempt) == nil {
		history := []line{p.line(), r.line()}
		if s := d.lastOf(p.Attempt); s != nil {
			history = append(history, s.line())
		}
		c.report(d, RanTwice, fmt.Sprintf("the program ran in attempt %d and again in attempt %d, and nobody said that it is to be tried again", p.Attempt, r.Attempt), history...)
		return false
	}
	if !p.Ended.IsZero() && r.At.Add(c.Slack).Before(p.Ended) {
		c.report(d, RanTwice, fmt.Sprintf("attempt %d ran beside attempt %d", r.Attempt, p.Attempt), p.line(), r.line())
	}
	return true
}

// told checks that the agent said, and wrote into its journal before, that the program runs.
func (c *checks) told(d *dossier, r *Run) {
	said := slices.ContainsFunc(d.statuses, func(s *Status) bool { return s.Attempt == r.Attempt && s.State == events.Running })
	if !said && c.whole(d) {
		history := []line{r.line()}
		if s := d.lastOf(r.Attempt); s != nil {
			history = append(history, s.line())
		}
		c.report(d, RanUntold, fmt.Sprintf("the program ran in attempt %d, and STATUS does not say so", r.Attempt), history...)
		return
	}
	if c.Journals == nil || r.Step != "" || !c.covers(InJournals, r.At) {
		return
	}
	switch n := len(d.journals); {
	case n == 0:
		c.report(d, RanUntold, "the program ran, and the journal does not know the job", r.line())
	case d.journals[n-1].Started < r.Attempt:
		c.report(d, RanUntold, fmt.Sprintf("the program ran in attempt %d, and the journal does not know that it was started", r.Attempt), r.line(), d.journals[n-1].line())
	}
}

// ending is how an attempt ended, by STATUS, or by the journal where STATUS does not hold it.
type ending struct {
	Status
	running bool // the attempt said that its program runs
	line    line
}

func (c *checks) endings(d *dossier) (all []ending) {
	for _, attempt := range byAttempt(d.statuses) {
		if last := attempt[len(attempt)-1]; last.State.Terminal() || last.State == events.Retrying {
			running := slices.ContainsFunc(attempt, func(s *Status) bool { return s.State == events.Running })
			all = append(all, ending{*last, running, last.line()})
		}
	}
	if n := len(d.journals); n > 0 && d.journals[n-1].State.Terminal() {
		j := d.journals[n-1]
		if len(d.statuses) == 0 || d.statuses[len(d.statuses)-1].Transition < j.Transition {
			all = append(all, ending{Status{Name: j.Name, Attempt: j.Attempt, Transition: j.Transition, State: j.State, Reason: j.Reason, At: j.At}, j.Started == j.Attempt, j.line()})
		}
	}
	return all
}

// outcome holds the end of an attempt against its run.
func (c *checks) outcome(d *dossier, e ending) {
	if c.opens(d) || e.Step != "" || e.Reason == events.DependencyFailed {
		return
	}
	var run *Run
	for _, r := range d.runs {
		if r.Attempt == e.Attempt && r.Step == "" {
			run = r
		}
	}
	succeeded := e.State == events.Succeeded
	switch {
	case run == nil:
		if claimsRun(&e.Status, e.running) && c.covers(Executor, c.begin(d)) {
			c.report(d, NotRun, fmt.Sprintf("attempt %d is said to have run, and nobody ran it", e.Attempt), e.line)
		}
	case run.Ended.IsZero():
	case succeeded && !run.Well:
		c.report(d, Outcome, "the job succeeded, and its last run failed", run.line(), e.line)
	case run.Well && (e.State == events.Failed || e.State == events.Retrying) && (e.Reason == events.ExitCode || e.Reason == events.InstallerBusy):
		c.report(d, Outcome, "the attempt is said to have failed, and its run ended well", run.line(), e.line)
	case e.Exited && e.Exit != run.Exit:
		c.report(d, Outcome, fmt.Sprintf("exit code %d is told, and it was %d", e.Exit, run.Exit), run.line(), e.line)
	}
}

// claimsRun says whether an end can only be that of a program that was run.
func claimsRun(end *Status, running bool) bool {
	switch end.State {
	case events.Succeeded:
		return end.Reason != events.AlreadyInstalled
	case events.Failed, events.Retrying:
		switch end.Reason {
		case events.ExitCode:
			return true
		case events.InstallerBusy, events.NotDetected, events.DetectionUnknown, events.KilledBySignal, events.RunTimeExceeded:
			return running
		}
	}
	return false
}

// opens says whether a job may be one that runs nothing itself and opens others: that of a standing order, and that of a program
// which runs once for every user. An order that EVENTS does not hold any more may stand.
func (c *checks) opens(d *dossier) bool {
	key := revision{d.Deployment, d.Revision}
	o := c.orders[key]
	stands := o != nil && o.Standing || o == nil && c.Orders != nil
	return d.User == "" && (c.ofUsers[holder{key, d.Agent}] || stands && d.Occurrence == 0)
}
