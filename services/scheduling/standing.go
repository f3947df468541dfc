package scheduling

import (
	"cmp"
	"context"
	"fmt"

	"chandler/events"
	"chandler/events/rollout"
	"chandler/events/timing"
)

// rolloutView adds to a deployment's view how far its rollout has come.
func (s *Service) rolloutView(ctx context.Context, d *deployment, v *events.DeploymentView) {
	state := s.rolloutOf(d)
	v.RolledBack, v.RollbackTo = state.RolledBack != "", d.record.rollbackTo()
	if v.RolledBack {
		v.Rollback = state.RolledBack
	} else if len(d.record.Rollback) > 0 {
		v.Rollback = rollbackName(d.record.Deployment)
	}
	switch why := state.why(); {
	case v.Life == events.LifeHalted || v.RolledBack && v.Why == "":
		v.Why = why
	case v.RolledBack:
		v.Why += "; " + why
	}
	if d.record.Plan == nil {
		return
	}
	plan := d.plan(state)
	v.Plan = &plan
	due := len(state.Phases) == 0 // the next phase is to open
	for i, phase := range plan.Phases {
		if i < len(state.Phases) {
			var pv events.PhaseView
			pv, due = s.phaseView(ctx, d, state, i, *v)
			v.Phases = append(v.Phases, pv)
			continue
		}
		says := unopened(i, len(state.Phases))
		if due && i == len(state.Phases) && v.Life == events.LifeActive {
			says = cmp.Or(s.nobodyFor(d, state), says)
		}
		v.Phases = append(v.Phases, events.PhaseView{Name: phase.Name, Counts: events.WaveCounts{Wave: i}, Says: says})
	}
}

// phaseView is an open phase; due: by its gate the next one is to open.
func (s *Service) phaseView(ctx context.Context, d *deployment, state rolloutRecord, i int, v events.DeploymentView) (pv events.PhaseView, due bool) {
	p := state.Phases[i]
	pv = events.PhaseView{Name: p.Name, Opened: p.Opened, Size: p.Size, Counts: events.WaveCounts{Wave: i}, Met: p.Met, Approved: p.Approved, Skipped: p.Skipped}
	pv.Counts, _ = s.countsOf(d, i)
	if v.Progress != nil { // it was just read
		pv.Counts = progress{waves: v.Progress.Waves}.wave(i)
	}
	s.mu.RLock()
	if log := s.releases[d.record.Deployment][d.record.Revision]; log != nil {
		t := log.phases[i]
		pv.Released, pv.Joined = t.own+t.joined, t.joined
	}
	s.mu.RUnlock()
	if i < len(state.Phases)-1 {
		return pv, false
	}
	if v.Life == events.LifeHalted {
		pv.Says = "halted: " + state.why()
		return pv, false
	}
	verdict, _, err := s.judge(ctx, d, state, true)
	if pv.Says = verdict.Says; err != nil {
		pv.Says = err.Error()
	}
	return pv, err == nil && verdict.Step == rollout.Open
}

// unopened says when a phase opens, of which so many before it are open.
func unopened(i, open int) string {
	switch {
	case i > open:
		return "opens after the phases before it"
	case i == 0:
		return "opens when the deployment is available and somebody is in it"
	}
	return "opens when the gate of the phase before it is met"
}

// nobodyFor says that the next phase, which is to open, does not since there is nobody for it; "": it opens in a moment.
func (s *Service) nobodyFor(d *deployment, state rolloutRecord) string {
	index, phases := len(state.Phases), d.plan(state).Phases
	if index == len(phases) || !s.evaluatedAlready(d.members) {
		return ""
	}
	_, nobody := s.draw(d, state)
	if nobody == "" {
		return ""
	}
	says := fmt.Sprintf("there is nobody for it: %s; it opens when there is somebody", nobody)
	if index < len(phases)-1 {
		says += fmt.Sprintf("; `chandler deployment skip %s` passes it", d.record.Deployment)
	}
	return says
}

// phaseOf is the phase by which an agent is, or will be, in a rollout, and whether it is open; "": that is not known
// before the phase opens.
func (s *Service) phaseOf(d *deployment, state rolloutRecord, a *agent) (name string, open bool) {
	s.mu.RLock()
	if log := s.releases[d.record.Deployment][d.record.Revision]; log != nil && log.released.has(a.place) {
		for _, b := range log.batches {
			for _, place := range b.places {
				if place == a.place && b.phase < len(state.Phases) {
					s.mu.RUnlock()
					return state.Phases[b.phase].Name, true
				}
			}
		}
	}
	s.mu.RUnlock()
	for i, p := range state.Phases {
		if s.queueHas(d, state, i, a) {
			return p.Name, true
		}
	}
	plan := d.plan(state)
	for i := len(state.Phases); i < len(plan.Phases); i++ {
		p := phaseRecord{Phase: plan.Phases[i]}
		if p.Collection != "" && s.inside(d.record.Deployment, p)(a) || p.Percent >= 100 {
			return p.Name, false
		}
		if p.Percent > 0 && 100*timing.Place(d.record.Deployment, a.facts.ID) <= p.Percent { // as near as can be said before it opens
			return p.Name, false
		}
	}
	return "", false
}

func (s *Service) queueHas(d *deployment, state rolloutRecord, i int, a *agent) bool {
	q := s.queuesOf(d, state, false)
	return i < len(q.phases) && q.phases[i].has(a.place)
}

// whyHeld says what keeps a member of an active deployment from being handed over; "": nothing.
func (s *Service) whyHeld(ctx context.Context, d *deployment, a *agent) (phase, says string) {
	state := s.rolloutOf(d)
	s.mu.RLock()
	for _, other := range s.contradicting(d) {
		log := s.releases[other.record.Deployment][other.record.Revision]
		if issuedBefore(d, other) && log != nil && log.released.has(a.place) {
			s.mu.RUnlock()
			return "", fmt.Sprintf("deployment %s, which means the contrary and was issued later, was handed over to it: not handed to execution", other.record.Deployment)
		}
	}
	s.mu.RUnlock()
	if d.phased() {
		name, open := s.phaseOf(d, state, a)
		if phase = name; !open {
			return phase, s.notOpen(ctx, d, state, name)
		}
	}
	return phase, s.limited(d, state, a, phase)
}

// notOpen says how far the rollout is from an agent's phase.
func (s *Service) notOpen(ctx context.Context, d *deployment, state rolloutRecord, name string) string {
	phases, n := d.plan(state).Phases, len(state.Phases)
	far := fmt.Sprintf("none of %d phases is open", len(phases))
	if n > 0 {
		far = fmt.Sprintf("phase %d of %d, %s, is the newest that is open", n, len(phases), phases[n-1].Name)
		if n < len(phases) {
			counts, _ := s.countsOf(d, n-1)
			far += fmt.Sprintf(" (%d of %d succeeded, %d failed)", counts.Succeeded, state.Phases[n-1].Size, counts.Failed)
		}
	}
	if nobody := s.stuckAt(ctx, d, state); nobody != "" {
		far += fmt.Sprintf(", and %s does not open: %s", phases[n].Name, nobody)
	}
	switch {
	case n == len(phases):
		return "it is in none of the phases, which are all open; not handed to execution"
	case name == "":
		return "its phase is not open yet: " + far + "; not handed to execution yet"
	}
	return fmt.Sprintf("its phase, %s, is not open yet: %s; not handed to execution yet", name, far)
}

// stuckAt is nobodyFor the next phase where that is to open; "": it is not, or opens in a moment.
func (s *Service) stuckAt(ctx context.Context, d *deployment, state rolloutRecord) string {
	if len(state.Phases) > 0 {
		if verdict, _, err := s.judge(ctx, d, state, true); err != nil || verdict.Step != rollout.Open {
			return ""
		}
	}
	return s.nobodyFor(d, state)
}
