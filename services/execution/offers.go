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
	return s.bus.Handle(ctx, bus.Consumer{Stream: events.StreamEvents, Name: "execution"},
		bus.On(events.DeploymentCreated, s.created),
		bus.On(events.DeploymentReleased, s.released),
		bus.On(events.DeploymentRemoved, s.removed),
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
	byPartition := make([][]string, len(s.partitions))
	for _, agent := range r.Agents {
		if err := events.ValidAgent(agent); err != nil {
			return bus.Drop("bad_agent", err)
		}
		n := events.Partition(agent, len(s.partitions))
		byPartition[n] = append(byPartition[n], agent)
	}
	if stop, err := s.stopOf(ctx, k); err != nil || stop != nil {
		return err // a stopped revision is offered to nobody
	}
	for n, agents := range byPartition {
		if len(agents) == 0 {
			continue
		}
		err := s.change(ctx, s.partitions[n], func(jobs *jobs) outcome { return s.offer(jobs, k, agents, max(r.Attempt, 1)) })
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
// a later attempt, those whose job failed.
func (s *Service) offer(jobs *jobs, k *known, agents []string, attempt int) outcome {
	o := unchanged(jobs)
	for _, agent := range agents {
		fresh := job{deployment: k.Deployment, agent: agent, revision: k.Revision, occurrence: k.occurrence()}
		old, ok := jobs.find(fresh.key())
		switch {
		case !ok || old.revision < fresh.revision || old.revision == fresh.revision && old.occurrence < fresh.occurrence:
			s.offerAgain(fresh, attempt, &o)
		case old.revision == fresh.revision && old.occurrence == fresh.occurrence && failed(old) && attempt > int(old.attempt):
			s.offerAgain(old, attempt, &o)
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

// removed forgets a deployment: first its orders, so that nothing is folded for it any more, then its jobs.
func (s *Service) removed(ctx context.Context, e events.Event[events.DeploymentNotice], _ bus.Meta) error {
	name := e.Data.Deployment
	if k, ok := s.orders.newest(name); ok && k.Revision > e.Data.Revision {
		return nil // made again since
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
