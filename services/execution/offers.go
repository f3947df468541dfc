package execution

import (
	"context"
	"errors"
	"fmt"
	"time"

	"chandler/events"
	"chandler/events/bus"
)

// orderPatience is the number of deliveries after which a release of an unknown order is given up; the
// pauses between them grow to minutes.
const orderPatience = 30

// handleDeployments takes what scheduling says.
func (s *Service) handleDeployments(ctx context.Context) error {
	// What a replica died with comes again as soon as its partitions go to another. Until a release does, its agents of whom
	// execution heard by a status alone count in no phase, and no gate sees them.
	return s.bus.Handle(ctx, bus.Consumer{Stream: events.StreamEvents, Name: "execution", AckWait: bus.PinnedTTL},
		bus.On(events.DeploymentCreated, s.created),
		bus.On(events.DeploymentReleased, s.released),
		bus.On(events.DeploymentRemoved, s.removed),
		bus.On(events.RolloutHalted, s.rolloutHalted),
		bus.On(events.RolloutSkipped, s.rolloutSkipped),
		bus.On(events.DeploymentResumed, s.rolloutResumed),
		bus.On(events.DeploymentLapsed, s.rolloutOver),
		bus.On(events.LimitsChanged, s.limitsChanged),
		bus.On(events.CollectionChanged, s.collectionChanged),
		bus.On(events.CollectionRemoved, s.collectionRemoved))
}

// released offers an order to the agents of a release. Doing it again offers nothing twice: an agent that
// has a record is left out, and an offer's id is derived from what it offers.
func (s *Service) released(ctx context.Context, e events.Event[events.Release], m bus.Meta) error {
	r := e.Data
	k, err := s.orderOf(ctx, r)
	if err != nil {
		if m.Delivered > orderPatience && errors.Is(err, errNoOrder) {
			return bus.Drop("unknown_order", err)
		}
		return err
	}
	byPartition, err := s.reached(r)
	if err != nil {
		return bus.Drop("bad_release", err)
	}
	if stop, err := s.stopOf(ctx, k); err != nil || stop != nil {
		return err // a stopped revision is offered to nobody
	}
	for n, agents := range byPartition {
		if len(agents) == 0 {
			continue
		}
		err := s.change(ctx, s.partitions[n], func(jobs *jobs) outcome { return s.offer(jobs, k, r, agents) })
		if err != nil {
			return err
		}
	}
	// A stop that came meanwhile may have looked at the jobs before these were among them.
	stop, err := s.stopOf(ctx, k)
	if err != nil || stop == nil {
		return err
	}
	return s.cancelAll(ctx, *stop, false)
}

// reached sorts the agents of a release, with their sites, by partition.
func (s *Service) reached(r events.Release) ([][]place, error) {
	switch {
	case r.Phase < 0 || r.Phase >= events.MaxPhases:
		return nil, fmt.Errorf("phase %d is not between 0 and %d", r.Phase, events.MaxPhases-1)
	case len(r.Sites) != 0 && len(r.Sites) != len(r.Agents):
		return nil, fmt.Errorf("%d sites of %d agents", len(r.Sites), len(r.Agents))
	}
	byPartition := make([][]place, len(s.partitions))
	for i, agent := range r.Agents {
		if err := events.ValidAgent(agent); err != nil {
			return nil, err
		}
		p := place{agent: agent}
		if len(r.Sites) > 0 && len(r.Sites[i]) <= maxSite {
			p.site = r.Sites[i]
		}
		n := events.Partition(agent, len(s.partitions))
		byPartition[n] = append(byPartition[n], p)
	}
	return byPartition, nil
}

var errNoOrder = errors.New("the order is not known")

func (s *Service) orderOf(ctx context.Context, r events.Release) (*known, error) {
	if err := events.ValidDigest(r.Order); err != nil {
		return nil, bus.Drop("bad_order", err)
	}
	k, err := s.orderNamed(ctx, r.Order)
	switch {
	case err != nil:
		return nil, err
	case k == nil:
		return nil, fmt.Errorf("release of deployment %s revision %d: %w", r.Deployment, r.Revision, errNoOrder)
	case k.Deployment != r.Deployment || k.Revision != r.Revision:
		return nil, bus.Drop("bad_order", fmt.Errorf("release of deployment %s revision %d names an order of %s revision %d", r.Deployment, r.Revision, k.Deployment, k.Revision))
	}
	return k, nil
}

// offer computes whom a release reaches: agents without a record of this revision and occurrence, and, in
// a later attempt, those whose job failed. An agent that opened any occurrence of a standing order has the order. The
// others stay as they are, but for their phase, which a first attempt tells.
func (s *Service) offer(jobs *jobs, k *known, r events.Release, agents []place) outcome {
	o := unchanged(jobs)
	attempt := max(r.Attempt, 1)
	for _, at := range agents {
		if len(r.Sites) > 0 && jobs.siteOf(at.agent) != at.site {
			o.delta.places = append(o.delta.places, at)
		}
		fresh := job{deployment: k.Deployment, agent: at.agent, revision: k.Revision, occurrence: k.occurrence()}.released(r)
		old, ok := jobs.find(fresh.key())
		has := ok && old.revision == fresh.revision && (old.occurrence >= fresh.occurrence || k.order.Standing())
		switch {
		case !has && (!ok || old.revision <= fresh.revision):
			s.offerAgain(fresh, attempt, &o)
		case has && failed(old) && attempt > int(old.attempt):
			s.offerAgain(old, attempt, &o)
		case has && attempt == 1 && old.released(r) != old:
			o.delta.jobs = append(o.delta.jobs, old.released(r))
		}
	}
	return o
}

func failed(j job) bool { return j.state == events.Failed || j.state == events.Rejected }

// offerAgain adds one offer, and its record, to an outcome. Jobs of an order that is gone are left alone.
func (s *Service) offerAgain(j job, attempt int, o *outcome) {
	k, ok := s.orders.revision(j.deployment, j.revision)
	if !ok {
		return
	}
	o.offers = append(o.offers, events.JobOffer{Format: events.OfferFormat, Agent: j.agent, Job: j.id(), Deployment: j.deployment, Revision: j.revision,
		Order: k.Order, Occurrence: j.occurrence, User: j.user, Attempt: attempt})
	o.delta.jobs = append(o.delta.jobs, j.offered(attempt, s.now()))
}

// removed forgets a deployment, but not that it was stopped: first its orders, so that nothing is folded for it any more, then its jobs.
func (s *Service) removed(ctx context.Context, e events.Event[events.DeploymentNotice], _ bus.Meta) error {
	name := e.Data.Deployment
	if k, ok := s.orders.newest(name); ok && k.Revision > e.Data.Revision {
		return nil // made again since
	}
	if err := s.keepStop(ctx, name, s.orders.until(name, e.Data.Revision)); err != nil {
		return err
	}
	kv, err := s.js.KeyValue(ctx, events.BucketOrders)
	if err != nil {
		return fmt.Errorf("open bucket %s: %w", events.BucketOrders, err)
	}
	for _, digest := range s.orders.digests(name, e.Data.Revision) {
		if err := kv.Delete(ctx, digest); err != nil {
			return fmt.Errorf("delete order %.12s: %w", digest, err)
		}
	}
	s.orders.forget(name, e.Data.Revision)
	if err := s.forgetHalt(ctx, name, e.Data.Revision, e.Data.At); err != nil {
		return err
	}
	for _, p := range s.partitions {
		err := s.change(ctx, p, func(jobs *jobs) outcome {
			o := unchanged(jobs)
			if _, ok := jobs.byName[name]; ok {
				o.delta.removed = []removal{{name, e.Data.Revision}}
			}
			return o
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// retryCall offers a deployment's failed and rejected jobs once more.
func (s *Service) retryCall(ctx context.Context, _ string, req events.Named) (events.RetryAnswer, error) {
	k, err := s.deployment(req.Name)
	if err != nil {
		return events.RetryAnswer{}, err
	}
	switch stop, err := s.stopOf(ctx, k); {
	case err != nil:
		return events.RetryAnswer{}, err
	case stop != nil:
		return events.RetryAnswer{}, bus.Conflict(fmt.Errorf("deployment %q is stopped, which is final: create it again with --revise", req.Name))
	}
	if _, halted := s.control.halted(k.Deployment, k.Revision); halted {
		return events.RetryAnswer{}, bus.Conflict(fmt.Errorf("the rollout of deployment %q is halted: resume it first (chandler deployment resume %s)", req.Name, req.Name))
	}
	if !s.now().Before(k.over()) {
		return events.RetryAnswer{}, bus.Conflict(fmt.Errorf("the order of deployment %q ended at %s: create it again with --revise", req.Name, k.over().UTC().Format(time.RFC3339)))
	}
	answer := events.RetryAnswer{}
	for _, p := range s.partitions {
		offered := map[jobKey]bool{}
		err := s.changeEach(ctx, p, req.Name, func(j job) bool { return j.revision == k.Revision && failed(j) }, func(j job, o *outcome) {
			offered[j.key()] = true
			s.offerAgain(j, int(j.attempt)+1, o)
		})
		if err != nil {
			return events.RetryAnswer{}, err
		}
		answer.Offered += len(offered)
	}
	s.metrics.retries.WithLabelValues("administrator").Add(float64(answer.Offered))
	return answer, nil
}

// deployment finds the newest revision that an administrator means by a name.
func (s *Service) deployment(name string) (*known, error) {
	if err := events.ValidToken(name); err != nil {
		return nil, bus.BadRequest(err)
	}
	k, ok := s.orders.newest(name)
	if !ok {
		return nil, bus.NotFound(fmt.Errorf("there is no deployment %q: `chandler deployment ls` lists them", name))
	}
	return k, nil
}
