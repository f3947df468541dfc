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
	if err := t.applies(); err != nil {
		return err
	}
	if t.program.EveryUser {
		// What the machine has says nothing of a user; and the job that opens those of the users runs nothing.
		if t.forUsers() || t.job.Offer.Attempt > 1 {
			return nil
		}
		return t.runsAgain(detect.Result{State: detect.Unknown})
	}
	rules, wanted := t.detection()
	found := detect.Result{State: detect.Unknown}
	if len(rules) > 0 {
		found = t.a.detector.Detect(ctx, rules)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		t.say(info, "Detection before the run: %s", found.Explanation)
		if found.State == wanted {
			return &ending{events.Succeeded, events.AlreadyInstalled, status{explanation: "nothing was to be done: " + found.Explanation}}
		}
	}
	if t.job.Offer.Attempt > 1 {
		return nil // an attempt that failed, or an administrator's retry
	}
	return t.runsAgain(found)
}

// runsAgain holds the rerun behaviour against how the program ended here before. Where detection is sure
// that what it did is not there any more, an earlier success counts as a failure.
func (t *task) runsAgain(found detect.Result) error {
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
		return nil
	}
	return end(events.WillNotRerun, events.AlreadyRan, "program %s of %s %s ended here as %s before, and rerun is %s; to run it all the same, deploy it with --rerun always",
		name.Program, name.Package, name.Version, state, t.order.Rerun)
}

// readManifest fetches the manifest that the order binds by its digest, makes sure that publishers signed it,
// and takes the program from it. It is kept in the cache until the job ends.
func (t *task) readManifest(ctx context.Context) error {
	envelope, err := t.a.fetcher.FetchBytes(ctx, t.job.Offer.Job, t.order.Manifest, manifest.MaxEnvelope)
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
	if events.DigestOf(envelope) != t.order.Manifest {
		return end(events.Rejected, events.ManifestMismatch, "the manifest is not the one that the order names")
	}
	program, ok := t.manifest.Programs[t.order.Program]
	switch {
	case !ok || t.manifest.Package != t.order.Package || t.manifest.Version != t.order.Version:
		return end(events.Rejected, events.ManifestMismatch, "the manifest is of %s %s and has no program %s", t.manifest.Package, t.manifest.Version, t.order.Program)
	}
	if loose := manifest.Unpinned(program); pinned && len(loose) > 0 {
		return end(events.Rejected, events.ReferenceUnpinned, "program %s refers to %s without saying what it must be", t.order.Program, resource.Shown(loose[0]))
	}
	t.program = program
	return nil
}

func (t *task) applies() error {
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

// detection is the program's rules and what they give when it has done its work: for a program that
// undoes another, the other's rules and "not installed".
func (t *task) detection() ([]events.Detect, detect.State) {
	if t.program.Undoes != "" && len(t.program.Detect) == 0 {
		return t.manifest.Programs[t.program.Undoes].Detect, detect.NotInstalled
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
