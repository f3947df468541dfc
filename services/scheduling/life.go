package scheduling

import (
	"context"
	"errors"
	"fmt"
	"time"

	"chandler/events"
	"chandler/events/bus"
)

// decide changes what administrators decided about a deployment. edit returns the note to tell, or errKeep.
func (s *Service) decide(ctx context.Context, req events.Named, edit func(d *deployment) (events.Declaration, error), caller string) (events.DeploymentView, error) {
	if err := checkNamed(req); err != nil {
		return events.DeploymentView{}, bus.BadRequest(err)
	}
	_, err := changeNoted(ctx, s.deploymentStore, kindDeployment+"."+req.Name, func(old deploymentRecord, found bool) (deploymentRecord, error) {
		if !found || old.Removed {
			return old, unknownDeployment(req.Name)
		}
		d, err := openDeployment(old)
		if err != nil {
			return old, err
		}
		tells, err := edit(d)
		if err != nil {
			return old, err
		}
		d.record.Outbox = old.Outbox.with(tells, caller, req.Why, s.now().UTC())
		return d.record, nil
	})
	if err != nil {
		return events.DeploymentView{}, err
	}
	return s.deploymentShow(ctx, caller, events.Named{Name: req.Name})
}

func checkNamed(req events.Named) error {
	if err := events.ValidToken(req.Name); err != nil {
		return fmt.Errorf("deployment: %w", err)
	}
	if len(req.Why) > maxText {
		return fmt.Errorf("the reason is longer than %d bytes", maxText)
	}
	return nil
}

func unknownDeployment(name string) error {
	return bus.NotFound(fmt.Errorf("there is no deployment %q: `chandler deployment ls` lists them", name))
}

func (s *Service) deploymentPause(ctx context.Context, caller string, req events.Named) (events.DeploymentView, error) {
	return s.decide(ctx, req, func(d *deployment) (events.Declaration, error) {
		switch l := d.life(s.now()); {
		case !live(l):
			return events.Declaration{}, bus.Conflict(fmt.Errorf("deployment %s is %s: there is nothing to pause", req.Name, l))
		case d.record.Paused:
			return events.Declaration{}, errKeep
		}
		d.record.Paused, d.record.Because = true, because(caller, req.Why)
		return events.DeploymentPaused.Declaration, nil
	}, caller)
}

// deploymentResume ends a pause, and a halt by a gate.
func (s *Service) deploymentResume(ctx context.Context, caller string, req events.Named) (events.DeploymentView, error) {
	if err := s.resumeRollout(ctx, caller, req); err != nil {
		return events.DeploymentView{}, err
	}
	return s.decide(ctx, req, func(d *deployment) (events.Declaration, error) {
		switch l := d.life(s.now()); {
		case !live(l):
			return events.Declaration{}, bus.Conflict(fmt.Errorf("deployment %s is %s, which is final: sign a new revision", req.Name, l))
		case !d.record.Paused:
			return events.Declaration{}, errKeep
		}
		d.record.Paused, d.record.Because = false, ""
		return events.DeploymentResumed.Declaration, nil
	}, caller)
}

func because(caller, why string) string {
	if why == "" {
		return "by " + caller
	}
	return "by " + caller + ": " + why
}

// deploymentRemove drops the draft of that name, and nothing else; where there is none, the deployment. Nobody
// is told that a draft is gone: DeploymentRemoved would make others forget the deployment.
func (s *Service) deploymentRemove(ctx context.Context, caller string, req events.Named) (events.Nothing, error) {
	if err := checkNamed(req); err != nil {
		return events.Nothing{}, bus.BadRequest(err)
	}
	if draft, err := s.removeDraft(ctx, req.Name); err != nil || draft {
		return events.Nothing{}, err
	}
	view, err := s.deploymentShow(ctx, caller, events.Named{Name: req.Name})
	if err != nil {
		return events.Nothing{}, err
	}
	if live(view.Life) && (!done(view) || s.recurs(req.Name)) {
		return events.Nothing{}, bus.Conflict(fmt.Errorf("deployment %s is %s and not all its jobs have ended: stop it first", req.Name, view.Life))
	}
	_, err = changeNoted(ctx, s.deploymentStore, kindDeployment+"."+req.Name, func(old deploymentRecord, found bool) (deploymentRecord, error) {
		switch {
		case !found || old.Removed:
			return old, errKeep
		case old.Revision != view.Revision:
			return old, bus.Conflict(fmt.Errorf("deployment %s got revision %d meanwhile", req.Name, old.Revision))
		}
		return deploymentRecord{DeploymentNotice: old.DeploymentNotice, Trace: old.Trace, Removed: true,
			Outbox: old.Outbox.with(events.DeploymentRemoved.Declaration, caller, req.Why, s.now().UTC())}, nil
	})
	return events.Nothing{}, err
}

// recurs says whether machines open occurrences of a deployment by themselves: then the end of their last ones ends nothing.
func (s *Service) recurs(name string) bool {
	d, ok := s.deployment(name)
	return ok && d.order.Standing()
}

// done says whether everybody in the target was handed over and every job has ended.
func done(v events.DeploymentView) bool {
	if v.Progress == nil || v.Released < v.Members || v.Progress.Total < int64(v.Released) {
		return false
	}
	for state, n := range v.Progress.States {
		if n > 0 && !state.Terminal() {
			return false
		}
	}
	return true
}

// onHalted takes over a stop. It reaches this revision and all before it: a stop that is heard again after
// a new revision was signed does not undo that.
func (s *Service) onHalted(ctx context.Context, e events.Event[events.DeploymentNotice], _ bus.Meta) error {
	n := e.Data
	if n.Deployment != e.Subject {
		return bus.Drop("disagrees", fmt.Errorf("the stop of %s names deployment %q", e.Subject, n.Deployment))
	}
	_, err := change(ctx, s.deploymentStore, kindDeployment+"."+n.Deployment, func(old deploymentRecord, found bool) (deploymentRecord, error) {
		if !found || old.Removed || old.Stopped || old.Revision > n.Revision {
			return old, errKeep
		}
		old.Stopped, old.Because = true, because(n.By+" at "+n.At.UTC().Format(time.RFC3339), n.Why)
		return old, nil
	})
	if err != nil {
		return fmt.Errorf("stop deployment %s: %w", n.Deployment, err)
	}
	return nil
}

// lapse notes that the deployment's time is over.
func (s *Service) lapse(ctx context.Context, d *deployment) error {
	_, err := change(ctx, s.deploymentStore, kindDeployment+"."+d.record.Deployment, func(old deploymentRecord, found bool) (deploymentRecord, error) {
		if !found || old.Removed || old.Stopped || old.Lapsed || old.Revision != d.record.Revision {
			return old, errKeep
		}
		old.Lapsed = true
		old.Outbox = old.Outbox.with(events.DeploymentLapsed.Declaration, "", "", end(d.order).UTC())
		return old, nil
	})
	if err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("expire deployment %s: %w", d.record.Deployment, err)
	}
	return err
}
