package scheduling

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/rollout"
)

// decideRollout changes what people decided about a rollout. edit notes what is to be told, or returns errKeep.
func (s *Service) decideRollout(ctx context.Context, caller string, req events.Named, edit func(*deployment, *rolloutRecord) error) (events.DeploymentView, error) {
	d, err := s.liveDeployment(ctx, req)
	if err != nil {
		return events.DeploymentView{}, err
	}
	if _, _, err := load[rolloutRecord](ctx, s.deploymentStore, rolloutKey(req.Name, d.record.Revision)); err != nil {
		return events.DeploymentView{}, err
	}
	if _, err := s.changeRollout(ctx, d, func(r *rolloutRecord) error { return edit(d, r) }); err != nil {
		return events.DeploymentView{}, err
	}
	return s.deploymentShow(ctx, caller, events.Named{Name: req.Name})
}

// liveDeployment is readDeployment that refuses one that is over.
func (s *Service) liveDeployment(ctx context.Context, req events.Named) (*deployment, error) {
	d, err := s.readDeployment(ctx, req)
	if err != nil {
		return nil, err
	}
	if l := s.life(d); !live(l) {
		return nil, bus.Conflict(fmt.Errorf("deployment %s is %s, which is final: sign a new revision", req.Name, l))
	}
	return d, nil
}

// readDeployment reads a deployment from its bucket.
func (s *Service) readDeployment(ctx context.Context, req events.Named) (*deployment, error) {
	if err := checkNamed(req); err != nil {
		return nil, bus.BadRequest(err)
	}
	if _, _, err := load[deploymentRecord](ctx, s.deploymentStore, kindDeployment+"."+req.Name); err != nil {
		return nil, err
	}
	d, ok := s.deployment(req.Name)
	if !ok {
		return nil, unknownDeployment(req.Name)
	}
	return d, nil
}

func rolledBack(name string, r *rolloutRecord) error {
	return bus.Conflict(fmt.Errorf("deployment %s is being taken back by %s, which is final for revision %d: sign a new revision", name, r.RolledBack, r.Revision))
}

// resumeRollout lets a halted rollout go on. Failures and silences so far count no more in the gate of its phase.
func (s *Service) resumeRollout(ctx context.Context, caller string, req events.Named) error {
	d, err := s.liveDeployment(ctx, req)
	if err != nil {
		return err
	}
	p, sequence, err := s.lastProgress(ctx, req.Name)
	if err != nil {
		return err
	}
	if p != nil && p.Deployment == req.Name {
		s.learnProgress(*p, sequence)
	}
	if _, _, err := load[rolloutRecord](ctx, s.deploymentStore, rolloutKey(req.Name, d.record.Revision)); err != nil {
		return err
	}
	if s.rolloutOf(d).Halted.IsZero() {
		return nil
	}
	_, err = s.changeRollout(ctx, d, func(r *rolloutRecord) error {
		switch {
		case r.Halted.IsZero():
			return errKeep
		case r.RolledBack != "":
			return rolledBack(req.Name, r)
		}
		if phase := r.newest(); phase != nil {
			counts, sequence := s.countsOf(d, len(r.Phases)-1)
			phase.Forgiven = rollout.Forgiven{Failed: max(phase.Forgiven.Failed, counts.Failed), Silent: max(phase.Forgiven.Silent, counts.Silent)}
			phase.Resumed, phase.Judged = s.now().UTC(), max(phase.Judged, sequence)
		}
		r.goOn()
		r.note(events.DeploymentResumed.Declaration, caller, req.Why, s.now().UTC())
		return nil
	})
	return err
}

// goOn ends a halt.
func (r *rolloutRecord) goOn() { r.Halted, r.Because = time.Time{}, "" }

func (s *Service) deploymentApprove(ctx context.Context, caller string, req events.Named) (events.DeploymentView, error) {
	return s.decideRollout(ctx, caller, req, func(d *deployment, r *rolloutRecord) error {
		p := r.newest()
		switch {
		case p == nil || p.AdvanceWhen == nil || !p.AdvanceWhen.Approval:
			return bus.Conflict(fmt.Errorf("deployment %s has no open phase that waits for an approval", req.Name))
		case r.RolledBack != "":
			return rolledBack(req.Name, r)
		case p.Approved != "":
			return errKeep
		}
		p.Approved = caller
		r.note(events.RolloutApproved.Declaration, caller, req.Why, s.now().UTC())
		return nil
	})
}

// deploymentSkip lets the next phase open whatever the gate says, also that of a halted rollout. A phase that cannot open
// since there is nobody for it counts as gone through.
func (s *Service) deploymentSkip(ctx context.Context, caller string, req events.Named) (events.DeploymentView, error) {
	return s.decideRollout(ctx, caller, req, func(d *deployment, r *rolloutRecord) error {
		last := len(d.plan(*r).Phases) - 1
		switch p := r.newest(); {
		case r.RolledBack != "":
			return rolledBack(req.Name, r)
		case last < 0 || len(r.Phases) > last || last == 0:
			return bus.Conflict(fmt.Errorf("deployment %s has no phase that is still to open", req.Name))
		case !s.evaluatedAlready(d.members):
			return bus.Unavailable(fmt.Errorf("who is in the target of deployment %s is being found out: try again in a moment", req.Name))
		case p == nil || p.Skipped != "" || s.stuckAt(ctx, d, *r) != "":
			next, nobody := s.draw(d, *r)
			if p != nil && (nobody == "" || len(r.Phases) == last) {
				return errKeep // it opens in a moment; the last one cannot be gone through
			}
			r.Phases = append(r.Phases, next)
			r.note(events.RolloutOpened.Declaration, caller, req.Why, next.Opened)
		}
		r.newest().Skipped = caller
		r.goOn()
		r.note(events.RolloutSkipped.Declaration, caller, req.Why, s.now().UTC())
		return nil
	})
}

// deploymentPlan changes the phases that are not open yet, and the limits. It is told as the order was: execution knows by
// the plan for how long a machine may be silent.
func (s *Service) deploymentPlan(ctx context.Context, caller string, req events.PlanRequest) (events.DeploymentView, error) {
	named := events.Named{Name: req.Deployment}
	d, err := s.liveDeployment(ctx, named)
	if err != nil {
		return events.DeploymentView{}, err
	}
	if _, _, err := load[rolloutRecord](ctx, s.deploymentStore, rolloutKey(req.Deployment, d.record.Revision)); err != nil {
		return events.DeploymentView{}, err
	}
	return s.decide(ctx, named, func(now *deployment) (events.Declaration, error) {
		state := s.rolloutOf(now)
		if now.record.Order != d.record.Order {
			return events.Declaration{}, bus.Conflict(fmt.Errorf("deployment %s got revision %d meanwhile", req.Deployment, now.record.Revision))
		}
		if err := s.replannable(now, state, req.Plan); err != nil {
			return events.Declaration{}, bus.Conflict(fmt.Errorf("deployment %s: %w", req.Deployment, err))
		}
		now.record.Plan = &req.Plan
		plan := now.plan(state) // phases that are open stay as they are
		if err := s.checkPlan(ctx, &plan, now.record.Rollback); err != nil {
			return events.Declaration{}, err
		}
		if old, ok := s.deployment(req.Deployment); ok && old.record.Plan != nil && reflect.DeepEqual(*old.record.Plan, plan) {
			return events.Declaration{}, errKeep
		}
		now.record.Plan = &plan
		return events.DeploymentCreated.Declaration, now.record.checkSize()
	}, caller)
}

// replannable says why a plan cannot take the place of the present one.
func (s *Service) replannable(d *deployment, state rolloutRecord, p events.Plan) error {
	if len(p.Phases) < len(state.Phases) {
		return fmt.Errorf("%d phases are open already, the plan has %d", len(state.Phases), len(p.Phases))
	}
	for i, open := range state.Phases {
		if p.Phases[i].Name != open.Name {
			return fmt.Errorf("phase %d, %s, is open already: it cannot become %s", i+1, open.Name, p.Phases[i].Name)
		}
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	log := s.releases[d.record.Deployment][d.record.Revision]
	if !d.phased() && len(p.Phases) > 0 && log != nil && len(log.batches) > 0 {
		return errors.New("it was handed over to everybody at once: only limits can be set now")
	}
	return nil
}

// checkPlan says what is wrong with a plan here and now. Collections are read from their bucket: what an administrator set a
// moment ago, by whichever replica, is there.
func (s *Service) checkPlan(ctx context.Context, p *events.Plan, rollback []byte) error {
	if p == nil {
		return nil
	}
	if err := sound(*p, rollback); err != nil {
		return bus.BadRequest(fmt.Errorf("plan: %w", err))
	}
	for _, phase := range p.Phases {
		if phase.Collection == "" {
			continue
		}
		if _, err := s.collection(ctx, phase.Collection); errors.Is(err, bus.ErrNotFound) {
			return bus.BadRequest(fmt.Errorf("plan: phase %s: %w", phase.Name, err))
		} else if err != nil {
			return err
		}
	}
	return nil
}

// sound says what is wrong with a plan by itself.
func sound(p events.Plan, rollback []byte) error {
	if err := rollout.Check(p); err != nil {
		return err
	}
	if p.OnHalt == events.OnHaltRollback && len(rollback) == 0 {
		return errors.New("on-halt: rollback needs the order that rolls back to be signed with the deployment")
	}
	for _, phase := range p.Phases {
		if a := phase.AdvanceWhen; a != nil && a.Event != nil {
			if err := checkGate(*a.Event); err != nil {
				return fmt.Errorf("phase %s: advance-when event: %w", phase.Name, err)
			}
		}
	}
	return nil
}

func checkGate(g events.ExternalGate) error {
	if _, ours := gateType(g.Type); ours {
		return events.ValidToken(g.Subject)
	}
	if strings.HasPrefix(g.Type, events.TypePrefix) {
		return fmt.Errorf("%s is no event that is kept in %s: `chandler events types` lists those that are", g.Type, events.StreamEvents)
	}
	return checkSignal(g.Type, g.Subject)
}

// gateType finds one of Chandler's own event types that EVENTS keeps.
func gateType(name string) (events.Declaration, bool) {
	t, ok := events.TypeNamed(name)
	return t, ok && t.Name == name && t.Stream == events.StreamEvents
}

// maxSignal bounds what names a signal, as rollout.Check does, in bytes.
const maxSignal = 200

func checkSignal(kind, subject string) error {
	if kind == "" || len(kind) > maxSignal || subject == "" || len(subject) > maxSignal {
		return fmt.Errorf("a signal has a type and a subject, each at most %d bytes", maxSignal)
	}
	return nil
}

// gateSignal tells that something happened outside which gates may wait for. It is stored when this answers.
func (s *Service) gateSignal(ctx context.Context, caller string, req events.Signal) (events.Signal, error) {
	if err := checkSignal(req.Type, req.Subject); err != nil {
		return events.Signal{}, bus.BadRequest(err)
	}
	if strings.HasPrefix(req.Type, events.TypePrefix) {
		return events.Signal{}, bus.BadRequest(fmt.Errorf("%s is a type of Chandler's own, which nobody else may tell: gates look for the event itself", req.Type))
	}
	if len(req.Text) > maxText {
		return events.Signal{}, bus.BadRequest(fmt.Errorf("the text is longer than %d bytes", maxText))
	}
	req.By, req.At = caller, s.now().UTC()
	key := events.SignalKey(req.Type, req.Subject)
	id := events.DeriveID(events.GateSignalled.Name, key, caller, req.At.Format("2006-01-02T15:04:05.999999999"))
	_, err := bus.Publish(ctx, s.bus, events.GateSignalled, events.Event[events.Signal]{ID: id, Subject: key, Time: req.At, Trace: bus.Trace(ctx), Data: req})
	return req, err
}

// onSignalled wakes the rollouts that wait for a signal.
func (s *Service) onSignalled(_ context.Context, e events.Event[events.Signal], _ bus.Meta) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for name, d := range s.deployments {
		state := s.rollouts[name][d.record.Revision]
		if p := state.newest(); p != nil && p.AdvanceWhen != nil && p.AdvanceWhen.Event != nil && p.AdvanceWhen.Event.Type == e.Data.Type {
			s.work.deployment(name)
		}
	}
	return nil
}
