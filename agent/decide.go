package agent

import (
	"context"

	"chandler/agent/detect"
	"chandler/agent/journal"
	"chandler/events"
	"chandler/events/manifest"
	"chandler/events/resource"
	"chandler/events/target"
	"chandler/events/timing"
	"chandler/events/trust"
)

// decide reads the signed manifest and finds out whether the program is to run here at all.
func (t *task) decide(ctx context.Context) error {
	if err := t.readManifest(ctx); err != nil {
		return err
	}
	if err := t.asWhom(); err != nil {
		return err
	}
	if t.stood() {
		return nil // it may apply again; the occurrences decide for themselves
	}
	if err := t.applies(); err != nil {
		return err
	}
	if t.umbrella() {
		return nil // it runs nothing
	}
	if err := t.repairable(ctx); err != nil {
		return err
	}
	if err := t.rollable(ctx); err != nil {
		return err
	}
	return t.stillToRun(ctx)
}

// stillToRun finds out whether the program has still to run, by detection and by how it ended here before. That is
// looked at once more right before the start: another job may have run it meanwhile.
func (t *task) stillToRun(ctx context.Context) error {
	if t.step != nil {
		return t.stepToRun(ctx)
	}
	if by, err := t.replaced(); err != nil || by != "" {
		return endUnless(err, events.WillNotRerun, events.Superseded, "the machine has %s, which supersedes %s %s", by, t.order.Package, t.order.Version)
	}
	if t.program.EveryUser {
		// What the machine has says nothing of a user; and the job that opens those of the users runs nothing.
		if t.forUsers() || t.job.Offer.Attempt > 1 {
			return nil
		}
		return t.runsAgain(detect.Result{State: detect.Unknown})
	}
	done, found, err := t.foundDone(ctx)
	if err != nil {
		return err
	}
	if done {
		return &ending{events.Succeeded, events.AlreadyInstalled, status{explanation: "nothing was to be done: " + found.Explanation}}
	}
	if t.job.Offer.Attempt > 1 {
		return nil // an attempt that failed, or an administrator's retry
	}
	return t.runsAgain(found)
}

// runsAgain holds the rerun behaviour against how the program ended here before. Where detection is sure
// that what it did is not there any more, an earlier success counts as a failure.
func (t *task) runsAgain(found detect.Result) error {
	if t.order.Rolls != nil {
		return nil // what it takes back ran since
	}
	name := t.programName()
	state, err := t.a.journal.LastRun(name)
	if err != nil {
		return err
	}
	last := timing.LastOf(state)
	if last == timing.LastSucceeded && found.State != detect.Unknown {
		last = timing.LastFailed
	}
	if timing.RunsAgain(t.order.Rerun, last) {
		if last != timing.LastSucceeded {
			return nil
		}
		return t.ranBefore()
	}
	return end(events.WillNotRerun, events.AlreadyRan, "program %s of %s %s ended here as %s before, and rerun is %s; to run it all the same, deploy it with --rerun always",
		name.Program, name.Package, name.Version, state, t.order.Rerun)
}

// readManifest fetches the manifest that the order binds by its digest, makes sure that publishers signed it,
// and takes the program from it. It is kept in the cache until the job ends.
func (t *task) readManifest(ctx context.Context) error {
	part := t.part()
	envelope, err := t.a.fetcher.FetchBytes(ctx, t.job.Offer.Job, part.Manifest, manifest.MaxEnvelope)
	if err != nil {
		return err
	}
	pinned := false // are all references to be
	err = t.a.byTrust(ctx, func(b trust.Bundle) (err error) {
		t.manifest, err = manifest.Verify(envelope, b)
		pinned = b.PinnedReferences
		return err
	})
	if err != nil {
		return err
	}
	if events.DigestOf(envelope) != part.Manifest {
		return end(events.Rejected, events.ManifestMismatch, "the manifest is not the one that the order names")
	}
	program, ok := t.manifest.Programs[part.Program]
	if !ok || t.manifest.Package != part.Package || t.manifest.Version != part.Version {
		return end(events.Rejected, events.ManifestMismatch, "the manifest is of %s %s and has no program %s", t.manifest.Package, t.manifest.Version, part.Program)
	}
	if loose := manifest.Unpinned(program); pinned && len(loose) > 0 {
		return end(events.Rejected, events.ReferenceUnpinned, "program %s refers to %s without saying what it must be", part.Program, resource.Shown(loose[0]))
	}
	t.program = program
	return nil
}

// applies holds what the program asks of machines against the facts of this one.
func (t *task) applies() error {
	if err := t.ofPlatform(); err != nil {
		return err
	}
	if t.program.AppliesIf == "" {
		return nil
	}
	e, err := target.Compile(t.program.AppliesIf)
	if err != nil {
		return end(events.Rejected, events.RequirementsUnknown, "applies-if: %v", err)
	}
	ok, err := e.Eval(t.facts)
	if err != nil {
		return end(events.Rejected, events.RequirementsUnknown, "applies-if: %v", err)
	}
	if !ok {
		return end(events.Rejected, events.RequirementsNotMet, "applies-if: %s", e.Explain(t.facts))
	}
	return nil
}

// foundDone says whether detection finds the program's work done, and what it finds. What is to be repaired is there,
// and to be repaired all the same; and rules that an older version satisfies may be satisfied by the newer one, whose
// place it is to take again.
func (t *task) foundDone(ctx context.Context) (bool, detect.Result, error) {
	rules, wanted := t.detection()
	rollsBack := t.step == nil && t.order.Rolls != nil && wanted == detect.Installed
	if len(rules) == 0 || t.program.Repairs != "" || rollsBack {
		return false, detect.Result{State: detect.Unknown}, nil
	}
	found := t.a.detector.Detect(ctx, rules)
	if ctx.Err() != nil {
		return false, found, ctx.Err()
	}
	t.say(info, "Detection before the run: %s", found.Explanation)
	if found.State != wanted {
		return false, found, nil
	}
	return true, found, t.a.journal.Found(t.programName(), t.program, t.manifest.Supersedes)
}

// detection is the program's rules and what they give when it has done its work: for a program that
// undoes another, the other's rules and "not installed", for one that repairs another the other's.
func (t *task) detection() ([]events.Detect, detect.State) {
	switch {
	case len(t.program.Detect) > 0:
	case t.program.Undoes != "":
		return t.manifest.Programs[t.program.Undoes].Detect, detect.NotInstalled
	case t.program.Repairs != "":
		return t.manifest.Programs[t.program.Repairs].Detect, detect.Installed
	}
	return t.program.Detect, detect.Installed
}

// confirm asks detection after the run: the program said it succeeded.
func (t *task) confirm(ctx context.Context) error {
	if len(t.job.Work.Rules) == 0 {
		return nil
	}
	found := t.a.detector.Detect(ctx, t.job.Work.Rules)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	t.say(info, "Detection after the run: %s", found.Explanation)
	result := t.result
	result.explanation = found.Explanation
	switch {
	case found.State == detect.Unknown:
		return &ending{events.Failed, events.DetectionUnknown, result}
	case found.State != wanted(t.job.Work):
		return &ending{events.Failed, events.NotDetected, result}
	}
	return nil
}

// wanted is what detection finds when the program has done its work.
func wanted(w *journal.Work) detect.State {
	if w.Gone {
		return detect.NotInstalled
	}
	return detect.Installed
}
