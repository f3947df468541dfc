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
	if err != nil || judged.old {
		return false, err
	}
	if verdict.Step != rollout.Open {
		r.noteStuck(d, false)
	}
	switch verdict.Step {
	case rollout.Open:
		return r.open(ctx, d, state, verdict.Says)
	case rollout.Stop:
		return false, r.halt(ctx, d, state, verdict.Says)
	}
	if err := r.keepJudged(ctx, d, state, verdict, judged); err != nil {
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

// basis is what a verdict about a phase is founded on.
type basis struct {
	old       bool   // others know newer news: it is left to them
	sequence  uint64 // in EVENTS, of the progress
	signalled bool
	forgiven  rollout.Forgiven
}

// judge decides about the newest phase. At a tick no replica with newer news is waited for, and the external event is looked
// for whatever else is lacking: EVENTS does not keep it for ever.
func (s *Service) judge(ctx context.Context, d *deployment, state rolloutRecord, all bool) (rollout.Verdict, basis, error) {
	p := state.newest()
	view, sequence := s.viewOf(d, state, all)
	if sequence < p.Judged && !all {
		return rollout.Verdict{}, basis{old: true}, nil
	}
	if sequence > 0 {
		view.Forgiven = view.Forgiven.Among(view.Counts)
	}
	plan := d.plan(state)
	if a := p.AdvanceWhen; a != nil && a.Event != nil && !view.Signalled {
		with := view
		with.Signalled = true
		if all || rollout.Judge(plan, with, s.now()).Step == rollout.Open {
			came, err := s.signalled(ctx, *a.Event, p.Opened)
			if err != nil {
				return rollout.Verdict{}, basis{}, err
			}
			view.Signalled = came
		}
	}
	return rollout.Judge(plan, view, s.now()), basis{sequence: sequence, signalled: view.Signalled, forgiven: view.Forgiven}, nil
}

// viewOf is what is known of the newest phase. Its size is less those who left before they were handed over, and those whom
// a contradiction keeps from it.
func (s *Service) viewOf(d *deployment, state rolloutRecord, again bool) (rollout.View, uint64) {
	index, p := len(state.Phases)-1, state.newest()
	counts, sequence := s.countsOf(d, index)
	queue := s.queuesOf(d, state, again).phases[index]
	s.mu.RLock()
	own, released := 0, idSet(nil)
	if log := s.releases[d.record.Deployment][d.record.Revision]; log != nil {
		own, released = log.phases[index].own, log.released
	}
	size := min(p.Size, own+s.due(d, queue, released).count())
	s.mu.RUnlock()
	return rollout.View{Index: index, Opened: p.Opened, Resumed: p.Resumed, Size: size, Counts: counts, Met: p.Met, Approved: p.Approved != "",
		Signalled: p.Signalled, Skipped: p.Skipped != "", Forgiven: p.Forgiven}, sequence
}

// draw finds who would be in the next phase. nobody says why it can hold nobody, where it must not open: whoever came later
// would be in none that a gate watches; "": it may open.
func (s *Service) draw(d *deployment, state rolloutRecord) (p phaseRecord, nobody string) {
	plan, index := d.plan(state), len(state.Phases)
	p = phaseRecord{Phase: plan.Phases[index], Opened: s.now().UTC(), All: index == len(plan.Phases)-1}
	members := s.members(d)
	if p.Collection == "" {
		var places []float64
		seen := s.now().Add(-rollout.Seen)
		for _, a := range members {
			if p.All || !a.lastSeen().Before(seen) {
				places = append(places, timing.Place(d.record.Deployment, a.facts.ID))
			}
		}
		if len(places) == 0 && !p.All {
			p.Cut = rollout.Cut(p.Phase, nil)
			return p, nobodyOf(len(members))
		}
		p.Cut = rollout.Cut(p.Phase, places)
		if p.All && p.Count >= len(places) {
			p.Cut = 1 // it has room for who joins
		}
	} else if _, there := s.targetOf(p.Collection); !there {
		return p, "there is no collection " + p.Collection
	}
	q := s.queue(d, append(slices.Clone(state.Phases), p))
	p.Size = q.phases[index].count()
	switch {
	case index > 0 || p.Size > 0:
		return p, ""
	case p.Collection == "" || len(members) == 0 || q.unseen > 0:
		return p, nobodyOf(len(members))
	}
	return p, "nobody of the target is in collection " + p.Collection
}

// nobodyOf says why no member of a target can be drawn for a phase.
func nobodyOf(members int) string {
	if members == 0 {
		return "nobody is in the target"
	}
	return fmt.Sprintf("whoever may be in it was not heard of for %d days", rollout.Seen/(24*time.Hour))
}

// open opens the next phase.
func (r *reconciler) open(ctx context.Context, d *deployment, state rolloutRecord, says string) (opened bool, err error) {
	p, nobody := r.draw(d, state)
	if r.noteStuck(d, nobody != ""); nobody != "" {
		return false, nil
	}
	_, err = r.changeRollout(ctx, d, func(now *rolloutRecord) error {
		if !now.asJudged(&state) {
			return errKeep // another replica was first, or knows better
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
		if !now.asJudged(&state) {
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
	r.note(events.RolloutHalted.Declaration, by, why, at)
	r.Halted, r.Because = r.Outbox.At, why
	if p := r.newest(); p != nil {
		p.Met = time.Time{} // the bake time begins anew when it goes on
	}
}

// rollBack notes the deployment that takes this one back and tells it.
func (r *rolloutRecord) rollBack(rolls, by, why string, at time.Time) {
	r.RolledBack, r.RolledBy, r.RolledWhy, r.RolledAt = rolls, by, why, at
	r.note(events.RolloutRolledBack.Declaration, by, why, at)
	r.Outbox.Notes[len(r.Outbox.Notes)-1].Rolls = rolls
}

// keepJudged notes since when the success gate is met, or that it is not any more, that the external event came, and which
// failures still are those that were forgiven.
func (r *reconciler) keepJudged(ctx context.Context, d *deployment, state rolloutRecord, v rollout.Verdict, on basis) error {
	p := *state.newest()
	if v.Met.Equal(p.Met) && on.signalled == p.Signalled && on.forgiven == p.Forgiven {
		return nil
	}
	_, err := r.changeRollout(ctx, d, func(now *rolloutRecord) error {
		if !now.asJudged(&state) {
			return errKeep
		}
		to := now.newest()
		to.Met, to.Signalled, to.Forgiven, to.Judged = v.Met, on.signalled, on.forgiven, on.sequence
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
