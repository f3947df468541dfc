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

// maxRecord bounds a deployment with its lists, in bytes of JSON, so that its record and its event fit into
// one message each, and so does the order with its lists as execution answers agents: 512 KiB.
const maxRecord = 508 << 10

// deploymentCreate accepts a signed order. The signature is not verified here: agents do that, who are the
// ones to be convinced. Asking again with the same order changes nothing and succeeds.
func (s *Service) deploymentCreate(ctx context.Context, caller string, req events.DeploymentRequest) (events.DeploymentView, error) {
	r, err := s.propose(caller, req)
	r.Trace = bus.Trace(ctx)
	if err != nil {
		return events.DeploymentView{}, bus.BadRequest(err)
	}
	d, err := openDeployment(r)
	if err != nil {
		return events.DeploymentView{}, bus.BadRequest(err)
	}
	key := kindDeployment + "." + r.Deployment
	old, revision, err := load[deploymentRecord](ctx, s.deploymentStore, key)
	if err != nil {
		return events.DeploymentView{}, err
	}
	switch err := supersedes(r, old, revision > 0); {
	case errors.Is(err, errKeep):
		return s.deploymentShow(ctx, caller, events.Named{Name: r.Deployment})
	case err != nil:
		return events.DeploymentView{}, err
	}
	if err := s.checkOrder(ctx, d.order); err != nil {
		return events.DeploymentView{}, err
	}
	r, err = change(ctx, s.deploymentStore, key, func(old deploymentRecord, found bool) (deploymentRecord, error) {
		if err := supersedes(r, old, found); err != nil {
			return old, err
		}
		accepted := r
		// Notes of an older revision are dropped: the new one replaces it everywhere.
		accepted.Outbox = outbox{Last: old.Outbox.Last}.with(events.DeploymentCreated.Declaration, caller, "", r.At)
		return accepted, nil
	})
	if err != nil {
		return events.DeploymentView{}, err
	}
	s.log.Info("deployment accepted", "deployment", r.Deployment, "revision", r.Revision, "package", r.Package, "version", r.Version,
		"program", r.Program, "collection", r.Collection, "by", caller)
	return s.deploymentShow(ctx, caller, events.Named{Name: r.Deployment})
}

// propose reads the request into the record that would be stored.
func (s *Service) propose(caller string, req events.DeploymentRequest) (deploymentRecord, error) {
	o, digest, err := order.Open(req.Envelope)
	if err != nil {
		return deploymentRecord{}, fmt.Errorf("the order is refused: %w", err)
	}
	include, exclude, err := checkLists(req.Include, req.Exclude)
	if err != nil {
		return deploymentRecord{}, fmt.Errorf("deployment %s: %w", o.Deployment, err)
	}
	r := deploymentRecord{
		DeploymentNotice: events.DeploymentNotice{Deployment: o.Deployment, Revision: o.Revision, Order: digest, Package: o.Package, Version: o.Version,
			Program: o.Program, Collection: o.Collection, By: caller, At: s.now().UTC()},
		Envelope: req.Envelope, Include: include, Exclude: exclude,
	}
	value, err := encode(r)
	if err != nil {
		return deploymentRecord{}, err
	}
	if len(value) > maxRecord {
		return deploymentRecord{}, fmt.Errorf("deployment %s with its lists takes %d bytes, at most %d can be: describe the agents by an expression", o.Deployment, len(value), maxRecord)
	}
	return r, nil
}

// supersedes decides whether an order may take the place of what is stored: nil, errKeep if it is the one
// that is stored, or a conflict.
func supersedes(r, old deploymentRecord, found bool) error {
	switch {
	case !found || r.Revision > old.Revision:
		return nil
	case old.Removed:
		return bus.Conflict(fmt.Errorf("a deployment %s was removed at revision %d, and agents refuse to go back: sign revision %d or higher", r.Deployment, old.Revision, old.Revision+1))
	case r.Order == old.Order:
		return errKeep
	case r.Revision == old.Revision:
		return bus.Conflict(fmt.Errorf("deployment %s has another order with revision %d: sign revision %d", r.Deployment, old.Revision, old.Revision+1))
	}
	return bus.Conflict(fmt.Errorf("deployment %s is at revision %d, the order has %d: sign revision %d", r.Deployment, old.Revision, r.Revision, old.Revision+1))
}

// checkOrder holds an order against the clock and against what there is.
func (s *Service) checkOrder(ctx context.Context, o order.Order) error {
	now := s.now()
	switch {
	case s.fleetName != "" && o.Fleet != s.fleetName:
		return bus.BadRequest(fmt.Errorf("the order is for fleet %s, this is %s", o.Fleet, s.fleetName))
	case o.Issued.After(now.Add(order.ClockTolerance)):
		return bus.BadRequest(fmt.Errorf("the order was issued at %s, which is still to come here: compare the clocks", o.Issued.Format(time.RFC3339)))
	case now.After(o.NotAfter):
		return bus.BadRequest(fmt.Errorf("the order was valid until %s: sign it again", o.NotAfter.Format(time.RFC3339)))
	case !now.Before(end(o)):
		return bus.BadRequest(fmt.Errorf("the deployment expired at %s: sign it with a later end", end(o).Format(time.RFC3339)))
	}
	c, err := s.collection(ctx, o.Collection)
	if err != nil {
		return err
	}
	if !signedAs(o, c) {
		return bus.Conflict(fmt.Errorf("collection %s is not the one that was signed: it was changed at %s: look at it and sign the order again", c.Name, c.Changed.Format(time.RFC3339)))
	}
	return s.checkPackage(ctx, o)
}
