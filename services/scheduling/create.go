package scheduling

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/order"
)

// maxRecord bounds a deployment with its lists, in bytes of JSON, so that its record and its event fit into
// one message each, and so does the order with its lists as execution answers agents: 512 KiB.
const maxRecord = 508 << 10

// deploymentCreate accepts a signed order. Agents are the ones to be convinced by its signatures; they are held
// against the trust bundle here too, where it is known, so that whoever signed hears at once what agents would
// refuse. Asking again with the same order changes nothing and succeeds.
func (s *Service) deploymentCreate(ctx context.Context, caller string, req events.DeploymentRequest) (events.DeploymentView, error) {
	r, err := s.propose(caller, req)
	r.Trace = bus.Trace(ctx)
	if err != nil {
		return events.DeploymentView{}, bus.BadRequest(err)
	}
	got, err := s.signatures(ctx, r.Envelope)
	switch {
	case err != nil:
		return events.DeploymentView{}, refusedAlike(err)
	case !got.known && req.Draft:
		return events.DeploymentView{}, noTrust()
	case got.known && !got.complete && req.Draft && len(req.Rollback) > 0:
		return events.DeploymentView{}, bus.BadRequest(errors.New("a rollback cannot be signed by several in turn: leave it out, and sign it when it is needed (`chandler deployment rollback`)"))
	case !got.known || got.complete:
		return s.accept(ctx, caller, r)
	case !req.Draft:
		return events.DeploymentView{}, bus.BadRequest(fmt.Errorf("%w; signed by %s; with `--draft` it is kept until others have signed it too", refusedAlike(got.lacking), strings.Join(got.signers, ", ")))
	}
	return s.draft(ctx, caller, r)
}

// draft keeps an order until it has all its signatures, after the checks that it must pass then too.
func (s *Service) draft(ctx context.Context, caller string, r deploymentRecord) (events.DeploymentView, error) {
	if same, err := s.acceptable(ctx, r); err != nil {
		return events.DeploymentView{}, err
	} else if same {
		return s.deploymentShow(ctx, caller, events.Named{Name: r.Deployment})
	}
	r, err := s.keepDraft(ctx, caller, r)
	if err != nil {
		return events.DeploymentView{}, err
	}
	got, err := s.signatures(ctx, r.Envelope) // others may have signed the same before
	if err != nil {
		return events.DeploymentView{}, refusedAlike(err)
	}
	if got.complete {
		return s.accept(ctx, caller, r)
	}
	s.log.Info("draft kept", "deployment", r.Deployment, "revision", r.Revision, "signatures", len(got.signers), "needed", got.needed, "by", caller)
	return s.showDraft(r)
}

// accept makes an order the deployment.
func (s *Service) accept(ctx context.Context, caller string, r deploymentRecord) (events.DeploymentView, error) {
	if same, err := s.acceptable(ctx, r); err != nil {
		return events.DeploymentView{}, err
	} else if same {
		return s.deploymentShow(ctx, caller, events.Named{Name: r.Deployment})
	}
	accepted, at := r, s.now().UTC()
	r, err := changeNoted(ctx, s.deploymentStore, kindDeployment+"."+r.Deployment, func(old deploymentRecord, found bool) (deploymentRecord, error) {
		if err := supersedes(accepted, old, found); err != nil {
			return old, err
		}
		// Notes of an older revision are dropped: the new one replaces it everywhere.
		accepted.At, accepted.Outbox = at, outbox{Last: old.Outbox.Last, At: old.Outbox.At}.with(events.DeploymentCreated.Declaration, caller, "", at)
		return accepted, nil
	})
	if err != nil {
		return events.DeploymentView{}, err
	}
	// Told before this answers: whoever stops the deployment next means this revision. What fails here is told later.
	if err := s.announceDeployment(ctx, r.Deployment); err != nil {
		s.log.Warn("an accepted deployment is not told yet", "deployment", r.Deployment, "revision", r.Revision, "error", err)
	}
	s.log.Info("deployment accepted", "deployment", r.Deployment, "revision", r.Revision, "package", r.Package, "version", r.Version,
		"program", r.Program, "collection", r.Collection, "by", caller)
	return s.deploymentShow(ctx, caller, events.Named{Name: r.Deployment})
}

// acceptable says whether an order may become the deployment; same: it is already.
func (s *Service) acceptable(ctx context.Context, r deploymentRecord) (same bool, err error) {
	d, err := openDeployment(r)
	if err != nil {
		return false, bus.BadRequest(err)
	}
	old, revision, err := load[deploymentRecord](ctx, s.deploymentStore, kindDeployment+"."+r.Deployment)
	if err != nil {
		return false, err
	}
	if err := supersedes(r, old, revision > 0); err != nil {
		if errors.Is(err, errKeep) {
			return true, nil
		}
		return false, err
	}
	if err := s.toldBefore(ctx, r); err != nil {
		return false, err
	}
	if err := s.checkOrder(ctx, d.order); err != nil {
		return false, err
	}
	if err := s.checkPlan(ctx, r.Plan, r.Rollback); err != nil {
		return false, err
	}
	if err := s.checkRollback(ctx, d); err != nil {
		return false, err
	}
	return false, s.checkContradictions(ctx, d)
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
		Envelope: req.Envelope, Include: include, Exclude: exclude, Plan: req.Plan, Rollback: req.Rollback,
	}
	return r, r.checkSize()
}

func (r deploymentRecord) checkSize() error {
	value, err := encode(r)
	if err != nil {
		return err
	}
	if len(value) > maxRecord {
		return bus.BadRequest(fmt.Errorf("deployment %s with its lists takes %d bytes, at most %d can be: describe the agents by an expression", r.Deployment, len(value), maxRecord))
	}
	return nil
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

// toldBefore refuses a revision that others know to be old, where the bucket was restored from an older copy and
// does not: agents refuse to go back. What cannot be asked is no reason to refuse.
func (s *Service) toldBefore(ctx context.Context, r deploymentRecord) error {
	created, err := lastTold(ctx, s, events.DeploymentCreated, r.Deployment)
	if err == nil && created != nil && created.Deployment == r.Deployment && (created.Revision > r.Revision || created.Revision == r.Revision && created.Order != r.Order) {
		return outdated(r, created.Revision)
	}
	progress, failed := lastTold(ctx, s, events.DeploymentProgressed, r.Deployment)
	if failed == nil && progress != nil && progress.Deployment == r.Deployment && progress.Revision > r.Revision {
		return outdated(r, progress.Revision)
	}
	if err := errors.Join(err, failed); err != nil {
		s.log.Warn("what was told of a deployment cannot be looked for", "deployment", r.Deployment, "error", err)
	}
	return nil
}

func outdated(r deploymentRecord, revision uint64) error {
	return bus.Conflict(fmt.Errorf("agents were told of revision %d of deployment %s and refuse to go back: sign revision %d", revision, r.Deployment, revision+1))
}

// checkOrder holds an order against the clock and against what there is.
func (s *Service) checkOrder(ctx context.Context, o order.Order) error {
	now, fleet := s.now(), s.fleetOf()
	switch {
	case fleet != "" && o.Fleet != fleet:
		return bus.BadRequest(fmt.Errorf("the order is for fleet %s, this is %s", o.Fleet, fleet))
	case o.Issued.After(now.Add(order.ClockTolerance)):
		return bus.BadRequest(fmt.Errorf("the order was issued at %s, which is still to come here: compare the clocks", o.Issued.Format(time.RFC3339)))
	case now.After(o.NotAfter):
		return bus.BadRequest(fmt.Errorf("the order was valid until %s: sign it again", o.NotAfter.Format(time.RFC3339)))
	case !now.Before(end(o)):
		return bus.BadRequest(fmt.Errorf("the deployment expired at %s: sign it with a later end", end(o).Format(time.RFC3339)))
	}
	if o.Rolls != nil { // it is for who got the other one, whatever became of the collection since
		return s.checkPackage(ctx, o)
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
