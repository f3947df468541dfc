package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"chandler/agent/identity"
	"chandler/events"
	"chandler/events/manifest"
	"chandler/events/rollout"
	"chandler/events/target"
	"chandler/events/timing"
	"chandler/services/rehearsal"
)

// gather asks for all that the play depends on.
func (r *rehearsing) gather(ctx context.Context, seed uint64) (err error) {
	p := r.proposed
	r.in.Order, r.in.Include, r.in.Exclude = p.order, p.collection.Include, p.collection.Exclude
	if p.plan != nil {
		r.in.Plan = *p.plan
	}
	r.in.Program = p.manifest.Programs[p.order.Program]
	if r.in.Need, err = r.longest(ctx, p); err != nil {
		return err
	}
	if r.in.Bytes, err = r.bytes(ctx, p); err != nil {
		return err
	}
	if r.in.Limits, err = ask(ctx, r.c, events.LimitsShow, events.Nothing{}); err != nil {
		return err
	}
	if r.in.Collections, err = r.phaseCollections(ctx, r.in.Plan); err != nil {
		return err
	}
	if r.in.Identity, err = r.identity(ctx, p); err != nil {
		return err
	}
	all, err := ask(ctx, r.c, events.DeploymentList, events.Nothing{})
	if err != nil {
		return err
	}
	if err := r.fleet(ctx, all.Deployments); err != nil {
		return err
	}
	model, err := r.outcomes(ctx)
	if err != nil {
		return err
	}
	model.Seed, model.Silent = seed, r.silence(all.Deployments)
	r.in.Outcome = model.Outcome
	return nil
}

// bytes that a machine downloads: its package, and those of what runs first, each once.
func (r *rehearsing) bytes(ctx context.Context, p proposal) (int64, error) {
	sizes := map[string]int64{p.order.Manifest: p.manifest.Size()}
	for _, s := range p.order.First {
		found, err := r.pkg(ctx, s.Package, s.Version)
		if err != nil {
			return 0, err
		}
		sizes[found.digest] = found.manifest.Size()
	}
	var total int64
	for _, n := range sizes {
		total += n
	}
	return total, nil
}

func (r *rehearsing) phaseCollections(ctx context.Context, plan events.Plan) (map[string]target.Target, error) {
	all := map[string]target.Target{}
	for _, phase := range plan.Phases {
		if phase.Collection == "" {
			continue
		}
		v, err := r.collection(ctx, phase.Collection)
		if err == nil {
			all[phase.Collection], err = target.New(v.Expression, v.Include, v.Exclude)
		}
		if err != nil {
			return nil, fmt.Errorf("phase %s: collection %s: %w", phase.Name, phase.Collection, err)
		}
	}
	return all, nil
}

// identity decides as package access does which machines would lack an identity or account on the network.
func (r *rehearsing) identity(ctx context.Context, p proposal) (func(events.Facts) events.Reason, error) {
	accounts, err := ask(ctx, r.c, events.AccountList, events.Nothing{})
	if err != nil {
		return nil, err
	}
	deciding := accessDecision{manifest: p.manifest, place: identity.OnDP, collection: p.order.Collection}
	if manifest.External(p.manifest) {
		deciding.place = identity.External
	}
	deciding.know(accounts.Accounts)
	type question struct {
		kind   machineKind
		domain string
	}
	answers := map[question]events.Reason{}
	return func(f events.Facts) events.Reason {
		q := question{kindOf(f), f.Domain}
		reason, known := answers[q]
		if !known {
			d := deciding
			d.domain = q.domain
			reason = lackingReason(d.client(p.manifest.Programs[p.order.Program], q.kind))
			answers[q] = reason
		}
		return reason
	}, nil
}

// lackingReason is why a program would fail for what was decided; optional references are not missed.
func lackingReason(c clientAccess) events.Reason {
	if c.Reason != events.NoReason {
		return c.Reason
	}
	for _, r := range c.Resources {
		if r.Reason != events.NoReason && !r.Optional {
			return r.Reason
		}
	}
	return events.NoReason
}

// fleet is the recorded machines, and how the program ended on them before.
func (r *rehearsing) fleet(ctx context.Context, deployments []events.DeploymentView) error {
	found, err := ask(ctx, r.c, events.AgentList, events.AgentQuery{})
	if err != nil {
		return err
	}
	last, ran, err := r.history(ctx, deployments)
	if err != nil {
		return err
	}
	unknown := 0
	for _, v := range found.Agents {
		presence, err := rehearsal.ParsePresence(v.Presence)
		if err != nil {
			return fmt.Errorf("agent %s: %w", v.Facts.ID, err)
		}
		if presence == (rehearsal.Presence{}) {
			unknown++
		}
		r.in.Fleet = append(r.in.Fleet, rehearsal.Machine{Facts: v.Facts, LastSeen: v.LastSeen, Presence: presence, Last: last[v.Facts.ID], Rolls: ran[v.Facts.ID]})
	}
	r.in.Heard = rehearsal.Heard(r.in.Fleet)
	if unknown > 0 {
		r.suppose("Of %s no hours are known.", plural(unknown, "machine", "machines"))
	}
	return nil
}

func (r *rehearsing) suppose(format string, args ...any) {
	r.supposes = append(r.supposes, fmt.Sprintf(format, args...))
}

// mostJobs that execution tells of one deployment at once.
const mostJobs = 100_000

// history is how the program ended on each machine by what execution knows of deployments that there are, without the one
// that is played again; and where the one ran that the order takes back.
func (r *rehearsing) history(ctx context.Context, all []events.DeploymentView) (map[string]timing.Last, map[string]bool, error) {
	last, ran := map[string]timing.Last{}, map[string]bool{}
	changed := map[string]time.Time{}
	o := r.in.Order
	for _, d := range all {
		same := d.Package == o.Package && d.Version == o.Version && d.Program == o.Program && d.Deployment != r.again
		rolls := o.Rolls != nil && d.Deployment == o.Rolls.Deployment && d.Revision == o.Rolls.Revision
		if !same && !rolls || d.Life == events.LifeDraft {
			continue
		}
		rows, err := ask(ctx, r.c, events.ExecutionJobs, events.JobQuery{Deployment: d.Deployment, States: []events.State{events.Succeeded, events.Failed}, Limit: mostJobs})
		if err != nil {
			return nil, nil, err
		}
		if rows.More {
			r.suppose("Of deployment %s the first %s jobs were looked at.", d.Deployment, count(mostJobs))
		}
		for _, job := range rows.Jobs {
			if job.Revision != d.Revision || job.User != "" {
				continue
			}
			ran[job.Agent] = ran[job.Agent] || rolls
			if same && !job.Changed.Before(changed[job.Agent]) {
				last[job.Agent], changed[job.Agent] = timing.LastOf(job.State), job.Changed
			}
		}
	}
	r.suppose("Where the program ran before is known from the deployments that there are.")
	return last, ran, nil
}

// outcomes are as the program ended of late; where it never did, as any program.
func (r *rehearsing) outcomes(ctx context.Context) (rehearsal.Model, error) {
	what := r.in.Order.Package + "/" + r.in.Order.Program
	found, err := ask(ctx, r.c, events.ExecutionOutcomes, events.OutcomeQuery{Package: r.in.Order.Package, Program: r.in.Order.Program})
	ran := programFailures(found)
	if err == nil && found.Succeeded+ran.failed == 0 {
		what = "all programs"
		found, err = ask(ctx, r.c, events.ExecutionOutcomes, events.OutcomeQuery{})
		ran = programFailures(found)
	}
	model := rehearsal.Model{Reasons: ran.reasons, Seconds: found.Seconds}
	switch ended := found.Succeeded + ran.failed; {
	case err != nil:
		return model, err
	case ended == 0:
		r.suppose("Nothing is recorded of programs: none fails, each takes %s.", rehearsal.SupposedRunTime)
	default:
		model.Failed = float64(ran.failed) / float64(ended)
		r.suppose("Programs end as %s runs of %s did of late: %.3g%% fail, %s.", count(ended), what, model.Failed*100, runTimes(found.Seconds))
	}
	return model, nil
}

// failures are those of programs.
type failures struct {
	failed  int64
	reasons map[events.Reason]int64
}

// unstarted are the reasons of jobs that ended before their program started, by what was said of their own deployment:
// what of that matters is played.
var unstarted = []events.Reason{
	events.OrderUnavailable, events.OrderUnsigned, events.OrderUnknownKey, events.OrderRevokedKey, events.OrderAltered, events.OrderMalformed,
	events.OrderExpired, events.OrderNotYetValid, events.OrderSerialOld, events.OrderOtherFleet, events.NotTargeted, events.ManifestMismatch,
	events.ManifestUnsigned, events.UnsupportedFormat, events.PlatformUnsupported, events.RequirementsNotMet, events.RequirementsUnknown,
	events.DeploymentExpired, events.AlreadyRan, events.DeploymentStopped, events.ContextUnsupported, events.Superseded, events.NothingToRollBack,
	events.WindowNeverFits, events.OccurrenceUnknown, events.NoNetworkIdentity, events.NetworkAccessAccountMissing,
}

// programFailures are the recorded failures without those of jobs whose program never started: that is played.
func programFailures(o events.OutcomeAnswer) failures {
	f := failures{o.Failed, map[events.Reason]int64{}}
	for reason, n := range o.Reasons {
		if slices.Contains(unstarted, reason) {
			f.failed -= n
			continue
		}
		f.reasons[reason] = n
	}
	f.failed = max(f.failed, 0)
	return f
}

// runTimes says how long programs take.
func runTimes(quantiles []float64) string {
	if len(quantiles) == 0 {
		return fmt.Sprintf("each takes %s", rehearsal.SupposedRunTime)
	}
	return fmt.Sprintf("half take at most %s", time.Duration(quantiles[len(quantiles)/2])*time.Second)
}

// silence is the share of machines that said nothing of what they were offered, beside those that were not heard at all of
// late: these say nothing anyhow.
func (r *rehearsing) silence(deployments []events.DeploymentView) float64 {
	var silent, total, away float64
	for _, d := range deployments {
		if d.Progress != nil {
			silent, total = silent+float64(d.Progress.Silent), total+float64(d.Progress.Total)
		}
	}
	for _, m := range r.in.Fleet {
		if m.LastSeen.Before(r.in.Recorded.Add(-rollout.Seen)) {
			away++
		}
	}
	if away = away / max(1, float64(len(r.in.Fleet))); total == 0 || silent/total <= away {
		return 0
	}
	share := (silent/total - away) / (1 - away)
	r.suppose("As in the deployments that there are, %.3g%% of the machines that are there say nothing.", share*100)
	return share
}
