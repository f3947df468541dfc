package scheduling

import (
	"context"
	"errors"
	"fmt"
	"time"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/order"
)

// rollbackName is what the deployment is called that takes another one back.
func rollbackName(deployment string) string { return deployment + "-rollback" }

// checkRolls holds an order that takes another one back against that one.
func checkRolls(rolls order.Order, forward order.Order) error {
	want := order.Rolls{Deployment: forward.Deployment, Revision: forward.Revision, Package: forward.Package, Version: forward.Version, Program: forward.Program}
	switch {
	case rolls.Rolls == nil:
		return fmt.Errorf("the order of %s takes nothing back", rolls.Deployment)
	case *rolls.Rolls != want:
		return fmt.Errorf("the order of %s takes back %s of %s %s as deployment %s revision %d ran it, not %s of %s %s as %s revision %d does", rolls.Deployment,
			rolls.Rolls.Program, rolls.Rolls.Package, rolls.Rolls.Version, rolls.Rolls.Deployment, rolls.Rolls.Revision, want.Program, want.Package, want.Version, want.Deployment, want.Revision)
	case rolls.Deployment != rollbackName(forward.Deployment):
		return fmt.Errorf("the deployment that takes %s back is called %s, not %s", forward.Deployment, rollbackName(forward.Deployment), rolls.Deployment)
	}
	return nil
}

// checkRollback refuses, before a deployment is accepted, the order signed with it that could not take it back.
func (s *Service) checkRollback(ctx context.Context, d *deployment) error {
	if d.record.Rollback == nil {
		return s.checkRolling(d)
	}
	if d.order.Rolls != nil {
		return bus.BadRequest(fmt.Errorf("deployment %s takes another one back: it has no rollback of its own", d.record.Deployment))
	}
	o, _, err := order.Open(d.record.Rollback)
	if err != nil {
		return bus.BadRequest(fmt.Errorf("the rollback is refused: %w", err))
	}
	if err := checkRolls(o, d.order); err != nil {
		return bus.BadRequest(fmt.Errorf("the rollback is refused: %w", err))
	}
	rolling, err := s.rolling(d, "")
	if err != nil {
		return bus.BadRequest(fmt.Errorf("the rollback is refused: %w", err))
	}
	if err := s.mayRoll(ctx, rolling); err != nil {
		return fmt.Errorf("the rollback: %w", err)
	}
	if err := s.checkOrder(ctx, o); err != nil {
		return fmt.Errorf("the rollback: %w", err)
	}
	old, found, err := load[deploymentRecord](ctx, s.deploymentStore, kindDeployment+"."+o.Deployment)
	if err == nil {
		if err = supersedes(rolling, old, found > 0); errors.Is(err, errKeep) {
			err = nil
		}
	}
	return err
}

// checkRolling refuses an order that takes something back which this service does not know: nobody would get it.
func (s *Service) checkRolling(d *deployment) error {
	if d.order.Rolls == nil {
		return nil
	}
	forward, ok := s.deployment(d.order.Rolls.Deployment)
	if !ok || forward.record.Revision != d.order.Rolls.Revision {
		return bus.Conflict(fmt.Errorf("the order takes back revision %d of deployment %s, which is not there (any more): nobody would get it", d.order.Rolls.Revision, d.order.Rolls.Deployment))
	}
	if err := checkRolls(d.order, forward.order); err != nil {
		return bus.BadRequest(err)
	}
	return nil
}

// rolling is the deployment that the order signed with another one would be. It is to the same lists.
func (s *Service) rolling(d *deployment, caller string) (deploymentRecord, error) {
	if caller == "" {
		caller = d.record.By
	}
	r, err := s.propose(caller, events.DeploymentRequest{Envelope: d.record.Rollback, Include: d.record.Include, Exclude: d.record.Exclude})
	if err != nil {
		return r, err
	}
	r.Trace = d.record.Trace
	_, err = openDeployment(r)
	return r, err
}

// mayRoll holds the signatures of an order that takes another one back against the trust bundle, where it is known.
func (s *Service) mayRoll(ctx context.Context, r deploymentRecord) error {
	got, err := s.signatures(ctx, r.Envelope)
	switch {
	case err != nil:
		return refusedAlike(err)
	case got.known && !got.complete:
		return refusedAlike(got.lacking)
	}
	return nil
}

// deploymentRollback carries out the rollback that was signed with a deployment. The deployment halts for good; it may also
// be stopped or over already.
func (s *Service) deploymentRollback(ctx context.Context, caller string, req events.Named) (events.DeploymentView, error) {
	d, err := s.readDeployment(ctx, req)
	if err != nil {
		return events.DeploymentView{}, err
	}
	if len(d.record.Rollback) == 0 {
		return events.DeploymentView{}, bus.Conflict(fmt.Errorf("no rollback was signed with deployment %s: `chandler deployment rollback %s` signs one and hands it in", req.Name, req.Name))
	}
	rolling, err := s.rolling(d, caller)
	if err == nil {
		err = s.mayRoll(ctx, rolling)
	}
	if err != nil {
		return events.DeploymentView{}, err
	}
	if _, err := s.acceptable(ctx, rolling); err != nil {
		return events.DeploymentView{}, err
	}
	_, err = s.changeRollout(ctx, d, func(r *rolloutRecord) error {
		return r.takeBack(rolling.Deployment, caller, req.Why, s.now().UTC(), live(s.life(d)))
	})
	if err != nil {
		return events.DeploymentView{}, err
	}
	if _, err := s.accept(ctx, caller, rolling); err != nil {
		return events.DeploymentView{}, err
	}
	return s.deploymentShow(ctx, caller, events.Named{Name: req.Name})
}

// takeBack halts a rollout for good, where it is live, in favour of the deployment that takes it back; errKeep: it is already.
func (r *rolloutRecord) takeBack(rolls, by, why string, at time.Time, live bool) error {
	if r.RolledBack != "" {
		return errKeep
	}
	if live && r.Halted.IsZero() {
		r.stop(by, takenBack+rolls, at)
	}
	r.rollBack(rolls, by, why, at)
	return nil
}

// settleRollback brings about what a rollback needs: the deployment that is taken back is halted before anybody is told to
// take it back, and a rollback that a gate or somebody asked for becomes a deployment.
func (r *reconciler) settleRollback(ctx context.Context, d *deployment, all bool) error {
	if rolls := d.order.Rolls; rolls != nil {
		forward, ok := r.deployment(rolls.Deployment)
		if !live(r.life(d)) || !ok || forward.record.Revision != rolls.Revision || r.rolloutOf(forward).RolledBack != "" {
			return nil
		}
		if _, err := r.changeRollout(ctx, forward, func(now *rolloutRecord) error {
			return now.takeBack(d.record.Deployment, d.record.By, "", r.now().UTC(), live(r.life(forward)))
		}); err != nil {
			return fmt.Errorf("halt %s, which is taken back: %w", rolls.Deployment, err)
		}
		return r.announceRollouts(ctx, rolls.Deployment)
	}
	name := d.record.Deployment
	if len(d.record.Rollback) == 0 || r.rolloutOf(d).RolledBack == "" || r.refused[name] && !all {
		return nil
	}
	rolling, err := r.rolling(d, "")
	if err == nil && r.carriedOut(rolling) {
		return nil
	}
	if err == nil {
		err = r.mayRoll(ctx, rolling)
	}
	if err == nil {
		_, err = r.accept(ctx, d.record.By, rolling)
	}
	if errors.Is(err, bus.ErrBadRequest) || errors.Is(err, bus.ErrConflict) || errors.Is(err, bus.ErrNotFound) {
		// Nothing that trying again at once helps.
		r.refused[name] = true
		r.log.Error("a rollback that is due is refused", "deployment", name, "error", err)
		return nil
	}
	delete(r.refused, name)
	return err
}

// carriedOut says whether a rollback is a deployment already, or was.
func (s *Service) carriedOut(rolling deploymentRecord) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	d, ok := s.deployments[rolling.Deployment]
	return ok && d.record.Revision >= rolling.Revision || s.removed[rolling.Deployment] >= rolling.Revision
}

// rollbackTo is the program by which the order signed with a deployment takes it back: package@version/program; "": none was.
func (r deploymentRecord) rollbackTo() string {
	if len(r.Rollback) == 0 {
		return ""
	}
	o, _, err := order.Open(r.Rollback)
	if err != nil {
		return "" // it was checked when it was accepted
	}
	return fmt.Sprintf("%s@%s/%s", o.Package, o.Version, o.Program)
}

// meant are those in a deployment's target whom it is for: of one that takes another back, those whom that was handed over
// to. The caller holds the lock, and does not change what it gets.
func (s *Service) meant(d *deployment, members idSet) idSet {
	if d.order.Rolls == nil {
		return members
	}
	got := members.and(s.gotForward(d))
	if log := s.releases[d.record.Deployment][d.record.Revision]; log != nil { // the other one may be forgotten since
		got = got.or(members.and(log.released))
	}
	return got
}

// gotForward are the agents that the deployment was handed over to which this one takes back: nobody else is told to. The
// caller holds the lock.
func (s *Service) gotForward(d *deployment) idSet {
	if log := s.releases[d.order.Rolls.Deployment][d.order.Rolls.Revision]; log != nil {
		return log.released
	}
	return nil
}
