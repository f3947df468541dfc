package agent

import (
	"context"
	"fmt"

	"chandler/agent/detect"
	"chandler/agent/journal"
	"chandler/events"
	"chandler/events/order"
	"chandler/events/timing"
)

// repairable refuses to repair what is not there.
func (t *task) repairable(ctx context.Context) error {
	if t.program.Repairs == "" {
		return nil
	}
	name := t.programName()
	name.Program = t.program.Repairs
	last, err := t.a.journal.LastRun(name)
	if err != nil || last == events.Succeeded {
		return err
	}
	words := "it has not succeeded here"
	if rules := t.manifest.Programs[name.Program].Detect; len(rules) > 0 {
		found := t.a.detector.Detect(ctx, rules)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if found.State == detect.Installed {
			return nil
		}
		words += ", and detection does not find what it does: " + found.Explanation
	}
	return end(events.Rejected, events.RequirementsNotMet, "program %s repairs %s: %s", t.part().Program, name.Program, words)
}

// replaced names the package that took the place of the one under way on this machine; "": none did. What takes an order
// back is to bring back what was replaced.
func (t *task) replaced() (by string, err error) {
	if t.order.Rolls != nil {
		return "", nil
	}
	part := t.part()
	taken, ok, err := t.a.journal.SupersededBy(part.Package, part.Version)
	if err != nil || !ok {
		return "", err
	}
	return taken.Package + " " + taken.Version, nil
}

// endUnless gives an error, or where there is none an ending.
func endUnless(err error, state events.State, reason events.Reason, format string, args ...any) error {
	if err != nil {
		return err
	}
	return end(state, reason, format, args...)
}

// rollable refuses an order that takes back what never ran here, or was taken back since. One that runs now is waited for.
func (t *task) rollable(ctx context.Context) error {
	rolls := t.order.Rolls
	if rolls == nil {
		return nil
	}
	for {
		if t.timing().Verdict == timing.TooLate {
			return t.tooLate()
		}
		ran, runs, err := t.ranFor(*rolls)
		switch {
		case err != nil:
			return err
		case runs:
			t.pass(ctx, events.Waiting, status{waitingFor: events.WaitDependency, explanation: fmt.Sprintf("deployment %s revision %d, which is to be taken back, is under way here", rolls.Deployment, rolls.Revision)})
			if err := t.waitChange(ctx, soon(ctx)); err != nil {
				return err
			}
			continue
		case !ran:
			return end(events.Rejected, events.NothingToRollBack, "no program of deployment %s revision %d ran here", rolls.Deployment, rolls.Revision)
		}
		last, err := t.a.journal.LastRun(journal.ProgramName{Package: rolls.Package, Version: rolls.Version, Program: rolls.Program, User: t.job.Offer.User})
		if err != nil || last != "" {
			return err
		}
		return end(events.Rejected, events.NothingToRollBack, "what program %s of %s %s did here was taken back already", rolls.Program, rolls.Package, rolls.Version)
	}
}

// ranFor says whether the own program of an order ran here, in any of its jobs, and whether it is still under way.
func (t *task) ranFor(r order.Rolls) (ran, runs bool, err error) {
	err = t.a.journal.Jobs(func(j journal.Job) error {
		// What an earlier revision ran is taken back too: signing anew does not run it again.
		if o := j.Offer; o.Deployment != r.Deployment || o.Revision > r.Revision {
			return nil
		}
		own := j.Ran && j.Work != nil && j.Work.Step == nil // of the present attempt, else of one that is over
		ran = ran || own || j.Acted
		runs = runs || own && !j.Ended() && (j.Boot != "" || j.Last.State == events.Running)
		return nil
	})
	return ran, runs, err
}

// ranBefore ends a job whose occurrence succeeded here under an earlier revision of its deployment that says the same of
// what runs and when: a deployment that is signed anew, for its validity, its target or its windows, runs nothing again.
func (t *task) ranBefore() error {
	o := t.job.Offer
	var earlier []journal.Job
	err := t.a.journal.Jobs(func(j journal.Job) error {
		if e := j.Offer; e.Deployment == o.Deployment && e.Revision < o.Revision && e.Occurrence == o.Occurrence && e.User == o.User && j.Acted && j.Last.State == events.Succeeded {
			earlier = append(earlier, j)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, j := range earlier {
		answer, ok, err := t.a.journal.Order(j.Offer.Order)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		before, _, err := order.Open(answer.Envelope)
		if err == nil && before.RunsAs(t.order) {
			return end(events.WillNotRerun, events.AlreadyRan, "revision %d of the deployment, which says the same of what runs and when, ran the program here already", j.Offer.Revision)
		}
	}
	return nil
}
