package scheduling

import (
	"context"
	"fmt"
	"time"

	"chandler/events"
	"chandler/events/timing"
)

// rolloutView adds to a deployment's view how far its rollout has come.
func (s *Service) rolloutView(ctx context.Context, d *deployment, v *events.DeploymentView) {
	state := s.rolloutOf(d)
	v.RolledBack = state.RolledBack != ""
	if v.RolledBack {
		v.Rollback = state.RolledBack
	} else if len(d.record.Rollback) > 0 {
		v.Rollback = rollbackName(d.record.Deployment)
	}
	if v.Life == events.LifeHalted {
		v.Why = state.Because
	}
	if d.record.Plan == nil {
		return
	}
	plan := d.plan(state)
	v.Plan = &plan
	for i, phase := range plan.Phases {
		if i >= len(state.Phases) {
			v.Phases = append(v.Phases, events.PhaseView{Name: phase.Name, Counts: events.WaveCounts{Wave: i}, Says: s.unopened(d, state, i)})
			continue
		}
		v.Phases = append(v.Phases, s.phaseView(ctx, d, state, i, *v))
	}
}

func (s *Service) phaseView(ctx context.Context, d *deployment, state rolloutRecord, i int, v events.DeploymentView) events.PhaseView {
	p := state.Phases[i]
	pv := events.PhaseView{Name: p.Name, Opened: p.Opened, Size: p.Size, Counts: events.WaveCounts{Wave: i}, Met: p.Met, Approved: p.Approved, Skipped: p.Skipped}
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
		return pv
	}
	if v.Life == events.LifeHalted {
		pv.Says = "halted: " + state.Because
		return pv
	}
	verdict, _, err := s.judge(ctx, d, state, true)
	if pv.Says = verdict.Says; err != nil {
		pv.Says = err.Error()
	}
	return pv
}

// unopened says why a phase is not open yet.
func (s *Service) unopened(d *deployment, state rolloutRecord, i int) string {
	if i > len(state.Phases) {
		return "opens after the phases before it"
	}
	phase := d.plan(state).Phases[i]
	if _, ok := s.targetOf(phase.Collection); phase.Collection != "" && !ok {
		return fmt.Sprintf("cannot open: there is no collection %s", phase.Collection)
	}
	if i == 0 {
		return "opens when the deployment is available and somebody is in it"
	}
	return "opens when the gate of the phase before it is met"
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
func (s *Service) whyHeld(d *deployment, a *agent, now time.Time) (phase, says string) {
	state := s.rolloutOf(d)
	s.mu.RLock()
	if rolls := d.order.Rolls; rolls != nil && !s.gotForward(d).has(a.place) {
		s.mu.RUnlock()
		return "", fmt.Sprintf("deployment %s, which this one takes back, was not handed over to it: not handed to execution", rolls.Deployment)
	}
	for _, other := range s.contradicting(d) {
		log := s.releases[other.record.Deployment][other.record.Revision]
		if issuedBefore(d, other) && log != nil && log.released.has(a.place) {
			s.mu.RUnlock()
			return "", fmt.Sprintf("deployment %s, which means the contrary and was issued later, was handed over to it: not handed to execution", other.record.Deployment)
		}
	}
	held := s.held[d.record.Deployment]
	s.mu.RUnlock()
	if d.phased() {
		name, open := s.phaseOf(d, state, a)
		if phase = name; !open {
			return phase, s.notOpen(d, state, a, name)
		}
	}
	if held > 0 {
		return phase, fmt.Sprintf("held back, with %d others, until fewer jobs in flight leave room by the limits", held-1)
	}
	return phase, ""
}

// notOpen says how far the rollout is from an agent's phase.
func (s *Service) notOpen(d *deployment, state rolloutRecord, a *agent, name string) string {
	phases := d.plan(state).Phases
	far := fmt.Sprintf("none of %d phases is open", len(phases))
	if n := len(state.Phases); n > 0 {
		far = fmt.Sprintf("phase %d of %d, %s, is the newest that is open", n, len(phases), phases[n-1].Name)
		if n < len(phases) {
			counts, _ := s.countsOf(d, n-1)
			far += fmt.Sprintf(" (%d of %d succeeded, %d failed)", counts.Succeeded, state.Phases[n-1].Size, counts.Failed)
		}
	}
	switch {
	case len(state.Phases) == len(phases):
		return "it is in none of the phases, which are all open; not handed to execution"
	case name == "":
		return "its phase is not open yet: " + far + "; not handed to execution yet"
	}
	return fmt.Sprintf("its phase, %s, is not open yet: %s; not handed to execution yet", name, far)
}
