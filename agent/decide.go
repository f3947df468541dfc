package agent

import (
	"context"
	"encoding/json"

	"chandler/agent/detect"
	"chandler/agent/fetch"
	"chandler/events"
	"chandler/events/target"
	"chandler/events/timing"
)

// decide reads the signed manifest and finds out whether the program is to run here at all.
func (t *task) decide(ctx context.Context) error {
	if err := t.readManifest(ctx); err != nil {
		return err
	}
	if err := t.supported(); err != nil {
		return err
	}
	if err := t.applies(); err != nil {
		return err
	}
	last, err := t.a.journal.LastRun(t.order.Package, t.order.Program)
	if err != nil {
		return err
	}
	if first := t.job.Offer.Attempt == 1; first && !timing.RunsAgain(t.order.Rerun, timing.LastOf(last)) {
		return end(events.WillNotRerun, events.AlreadyRan, "program %s of %s ended here as %s before, and rerun is %q", t.order.Program, t.order.Package, last, t.order.Rerun)
	}
	rules, wanted := t.detection()
	if len(rules) == 0 {
		return nil
	}
	found := t.a.detector.Detect(ctx, rules)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	t.say(info, "Detection before the run: %s", found.Explanation)
	if found.State == wanted {
		return &ending{events.Succeeded, events.AlreadyInstalled, status{explanation: "nothing was to be done: " + found.Explanation}}
	}
	return nil
}

// readManifest fetches the manifest that the order binds by its digest and takes the program from it.
func (t *task) readManifest(ctx context.Context) error {
	data, err := t.a.fetcher.FetchBytes(ctx, t.job.Offer.Job, t.order.Manifest, fetch.MaxManifest)
	if err != nil {
		return err
	}
	if events.DigestOf(data) != t.order.Manifest {
		return end(events.Failed, events.ManifestMismatch, "the manifest is not the one that was signed")
	}
	t.manifest = events.Manifest{}
	if err := json.Unmarshal(data, &t.manifest); err != nil {
		return end(events.Failed, events.ManifestMismatch, "the signed manifest cannot be read: %v", err)
	}
	program, ok := t.manifest.Programs[t.order.Program]
	switch {
	case !ok || t.manifest.Package != t.order.Package || t.manifest.Version != t.order.Version:
		return end(events.Rejected, events.ManifestMismatch, "the manifest is of %s %s and has no program %s", t.manifest.Package, t.manifest.Version, t.order.Program)
	case program.Run != t.order.Run:
		return end(events.Rejected, events.ManifestMismatch, "the order says run: %s, the manifest run: %s", t.order.Run, program.Run)
	}
	t.program = program
	return nil
}

// supported refuses what this agent cannot do, rather than doing half of it.
func (t *task) supported() error {
	p := t.program
	switch {
	case p.Run == events.RunUser:
		return end(events.Rejected, events.ContextUnsupported, "this agent does not run programs as the logged-on user yet")
	case t.a.ClientKind == events.Legacy:
		return end(events.Rejected, events.ContextUnsupported, "this agent does not run programs by the client token account yet")
	case p.Logon == "user" || p.Logon == "none":
		return end(events.Rejected, events.ContextUnsupported, "this agent does not watch who is logged on yet, and the program asks for logon: %s", p.Logon)
	case p.Interactive:
		return end(events.Rejected, events.ContextUnsupported, "this agent does not show programs to users yet")
	case p.After != "" && p.After != "none":
		return end(events.Rejected, events.ContextUnsupported, "this agent does nothing after a program yet, and the program asks for after: %s", p.After)
	}
	if p.InstallationAccount != "" {
		t.say(info, "Installation account %s is ignored: this client is an advanced one and runs the program itself", p.InstallationAccount)
	}
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

// confirm is the stage after the run: the program said it succeeded, detection has the last word.
func (t *task) confirm(ctx context.Context) error {
	rules, wanted := t.detection()
	if len(rules) == 0 {
		return nil
	}
	found := t.a.detector.Detect(ctx, rules)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	t.say(info, "Detection after the run: %s", found.Explanation)
	result := t.result
	result.explanation = found.Explanation
	switch {
	case found.State == detect.Unknown:
		return &ending{events.Failed, events.DetectionUnknown, result}
	case found.State != wanted:
		return &ending{events.Failed, events.NotDetected, result}
	}
	return nil
}
