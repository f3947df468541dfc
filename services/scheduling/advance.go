package scheduling

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
	"chandler/events/rollout"
	"chandler/events/timing"
)

// advance brings a rollout as far as its gates allow: it opens phases, and halts at a bad gate. Every step is one
// compare-and-set that only holds on what was judged, so that it is taken once, by whichever replica.
func (r *reconciler) advance(ctx context.Context, d *deployment, all bool) error {
	if !d.phased() {
		return nil
	}
	for range events.MaxPhases + 1 {
		again, err := r.step(ctx, d, all)
		if err != nil || !again {
			return errors.Join(err, r.announceRollouts(ctx, d.record.Deployment))
		}
		all = false
	}
	return nil
}

// step takes one step; again says that another one may be due at once.
func (r *reconciler) step(ctx context.Context, d *deployment, all bool) (again bool, err error) {
	state := r.rolloutOf(d)
	if !state.Halted.IsZero() {
		return false, nil
	}
	if len(state.Phases) == 0 {
		return r.open(ctx, d, state, "")
	}
	verdict, judged, err := r.judge(ctx, d, state, all)
	if err != nil || judged == nil {
		return false, err
	}
	switch verdict.Step {
	case rollout.Open:
		return r.open(ctx, d, state, verdict.Says)
	case rollout.Stop:
		return false, r.halt(ctx, d, state, verdict.Says)
	}
	if err := r.keepMet(ctx, d, state, verdict, judged); err != nil {
		return false, err
	}
	if verdict.Until.IsZero() || verdict.Until.Equal(r.baking[d.record.Deployment]) {
		return false, nil
	}
	if err := r.setTimer(ctx, d.record, timerBake, verdict.Until); err != nil {
		return false, err
	}
	r.baking[d.record.Deployment] = verdict.Until
	return false, nil
}

// judge decides about the newest phase. judged is nil where that is left to a replica with newer news; at a tick nobody is
// waited for.
func (s *Service) judge(ctx context.Context, d *deployment, state rolloutRecord, all bool) (rollout.Verdict, *uint64, error) {
	p := state.newest()
	view, sequence := s.viewOf(d, state, all)
	if sequence < p.Judged && !all {
		return rollout.Verdict{}, nil, nil
	}
	plan := d.plan(state)
	if a := p.AdvanceWhen; a != nil && a.Event != nil && !view.Signalled {
		// It is only looked for when nothing else is lacking.
		view.Signalled = true
		if v := rollout.Judge(plan, view, s.now()); v.Step == rollout.Open {
			came, err := s.signalled(ctx, *a.Event, p.Opened)
			if err != nil {
				return rollout.Verdict{}, nil, err
			}
			view.Signalled = came
		} else {
			view.Signalled = false
		}
	}
	return rollout.Judge(plan, view, s.now()), &sequence, nil
}

// viewOf is what is known of the newest phase. Its size is less those who left before they were handed over.
func (s *Service) viewOf(d *deployment, state rolloutRecord, again bool) (rollout.View, uint64) {
	index, p := len(state.Phases)-1, state.newest()
	counts, sequence := s.countsOf(d, index)
	queue := s.queuesOf(d, state, again).phases[index]
	s.mu.RLock()
	own, released := 0, idSet(nil)
	if log := s.releases[d.record.Deployment][d.record.Revision]; log != nil {
		own, released = log.phases[index].own, log.released
	}
	size := min(p.Size, own+queue.countNotIn(released))
	s.mu.RUnlock()
	return rollout.View{Index: index, Opened: p.Opened, Size: size, Counts: counts, Met: p.Met, Approved: p.Approved != "", Signalled: p.Signalled,
		Skipped: p.Skipped != "", Forgiven: p.Forgiven}, sequence
}

// draw finds who would be in the next phase. ok is false while it can hold nobody, where it must not open: whoever came
// later would be in none that a gate watches.
func (s *Service) draw(d *deployment, state rolloutRecord) (p phaseRecord, ok bool) {
	plan, index := d.plan(state), len(state.Phases)
	p = phaseRecord{Phase: plan.Phases[index], Opened: s.now().UTC(), All: index == len(plan.Phases)-1}
	if p.Collection == "" {
		var places []float64
		seen := s.now().Add(-rollout.Seen)
		for _, a := range s.members(d) {
			if p.All || !a.lastSeen().Before(seen) {
				places = append(places, timing.Place(d.record.Deployment, a.facts.ID))
			}
		}
		if len(places) == 0 && !p.All {
			return p, false
		}
		p.Cut = rollout.Cut(p.Phase, places)
		if p.All && p.Count >= len(places) {
			p.Cut = 1 // it has room for who joins
		}
	} else if _, there := s.targetOf(p.Collection); !there {
		return p, false
	}
	q := s.queue(d, append(slices.Clone(state.Phases), p))
	p.Size = q.phases[index].count()
	return p, index > 0 || p.Size > 0
}

// open opens the next phase.
func (r *reconciler) open(ctx context.Context, d *deployment, state rolloutRecord, says string) (opened bool, err error) {
	p, ok := r.draw(d, state)
	if !ok {
		return false, nil
	}
	_, err = r.changeRollout(ctx, d, func(now *rolloutRecord) error {
		if len(now.Phases) != len(state.Phases) || !now.Halted.IsZero() {
			return errKeep // another replica was first
		}
		now.Phases = append(now.Phases, p)
		now.note(events.RolloutOpened.Declaration, "", says, p.Opened)
		opened = true
		return nil
	})
	if err != nil {
		return false, fmt.Errorf("open phase %s: %w", p.Name, err)
	}
	if opened {
		r.metrics.phases.Inc()
		r.log.Info("phase opened", "deployment", d.record.Deployment, "revision", d.record.Revision, "phase", p.Name, "size", p.Size)
	}
	return true, nil
}

// halt stops the rollout at a bad gate; where the plan says so, it also has the rollback carried out that was signed with
// the deployment.
func (r *reconciler) halt(ctx context.Context, d *deployment, state rolloutRecord, why string) error {
	at, halted := r.now().UTC(), false
	_, err := r.changeRollout(ctx, d, func(now *rolloutRecord) error {
		if len(now.Phases) != len(state.Phases) || !now.Halted.IsZero() || now.newest().Forgiven != state.newest().Forgiven || now.newest().Skipped != "" {
			return errKeep
		}
		now.stop("", why, at)
		if d.plan(state).OnHalt == events.OnHaltRollback && len(d.record.Rollback) > 0 {
			now.rollBack(rollbackName(d.record.Deployment), "", why, at)
		}
		halted = true
		return nil
	})
	if err != nil {
		return fmt.Errorf("halt: %w", err)
	}
	if halted {
		r.metrics.halts.Inc()
		r.log.Warn("rollout halted", "deployment", d.record.Deployment, "revision", d.record.Revision, "phase", state.newest().Name, "why", why)
	}
	return nil
}

// stop halts the rollout and tells it.
func (r *rolloutRecord) stop(by, why string, at time.Time) {
	r.Halted, r.Because = at, why
	if p := r.newest(); p != nil {
		p.Met = time.Time{}
	}
	r.note(events.RolloutHalted.Declaration, by, why, at)
}

// rollBack notes the deployment that takes this one back and tells it.
func (r *rolloutRecord) rollBack(rolls, by, why string, at time.Time) {
	r.RolledBack = rolls
	r.note(events.RolloutRolledBack.Declaration, by, why, at)
	r.Outbox.Notes[len(r.Outbox.Notes)-1].Rolls = rolls
}

// keepMet notes since when the success gate is met, or that it is not any more.
func (r *reconciler) keepMet(ctx context.Context, d *deployment, state rolloutRecord, v rollout.Verdict, judged *uint64) error {
	if v.Met.Equal(state.newest().Met) {
		return nil
	}
	_, err := r.changeRollout(ctx, d, func(now *rolloutRecord) error {
		if len(now.Phases) != len(state.Phases) || !now.newest().Met.Equal(state.newest().Met) || !now.Halted.IsZero() {
			return errKeep
		}
		now.newest().Met, now.newest().Judged = v.Met, *judged
		return nil
	})
	if err != nil {
		return fmt.Errorf("note the gate: %w", err)
	}
	return nil
}

// signalled says whether an external gate's event was stored since a phase opened: one of Chandler's own under its type's
// subject, any other as somebody signalled it.
func (s *Service) signalled(ctx context.Context, gate events.ExternalGate, since time.Time) (bool, error) {
	subject := events.GateSignalled.Subject(events.SignalKey(gate.Type, gate.Subject))
	if t, ours := gateType(gate.Type); ours {
		subject = t.Subject(gate.Subject)
	}
	stream, err := s.eventStream(ctx)
	if err != nil {
		return false, err
	}
	stored, err := stream.GetLastMsgForSubject(ctx, subject)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for event %s about %s: %w", gate.Type, gate.Subject, err)
	}
	return stored.Time.After(since), nil
}
