package execution

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"chandler/events"
)

// Agents that come when too many others do are told to ask again after laterLeast to laterMost.
const (
	laterLeast = 2 * time.Second
	laterMost  = 10 * time.Second
	// syncPatience is how long an agent waits for its turn before it is told so.
	syncPatience = time.Second
	// outstandingMost bounds the jobs in one answer, so that it fits into one message (512 KiB). What is left
	// out is in a later one, when some of these have ended.
	outstandingMost = 400
)

// syncCall answers an agent with all that is outstanding for it, from the state of its jobs and not from
// what JOBS still holds. The caller is pinned by the broker; the request says nothing about who asks.
func (s *Service) syncCall(ctx context.Context, agent string, req events.SyncRequest) (events.SyncAnswer, error) {
	if !s.enterSync(ctx) {
		return s.later("busy"), nil
	}
	defer func() { <-s.syncing }()
	p := s.partitionOf(agent)
	p.mu.RLock()
	loaded := p.loaded
	p.mu.RUnlock()
	if !loaded {
		return s.later("loading"), nil
	}
	if err := s.hear(ctx, req); err != nil {
		return events.SyncAnswer{}, err
	}
	offers, held := s.outstanding(p, agent, req.OfferFormat)
	answer := events.SyncAnswer{Offers: offers, Freezes: s.control.freezesWith(func(deployment string) bool { return held[deployment] }),
		JobsGeneration: s.generations.jobs(), StatusGeneration: s.generations.status()}
	answer.Cancels = s.cancelsFor(agent, answer.Offers)
	s.metrics.syncs.WithLabelValues("ok").Inc()
	return answer, nil
}

// enterSync takes a slot, and waits for one a while: where a fleet comes back at once a slot is free again after
// milliseconds, and an agent that is told to come later starts nothing for up to twice laterMost.
func (s *Service) enterSync(ctx context.Context) bool {
	select {
	case s.syncing <- struct{}{}:
		return true
	default:
	}
	timer := time.NewTimer(syncPatience)
	defer timer.Stop()
	select {
	case s.syncing <- struct{}{}:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}

func (s *Service) later(result string) events.SyncAnswer {
	s.metrics.syncs.WithLabelValues(result).Inc()
	after := laterLeast + rand.N(laterMost-laterLeast)
	return events.SyncAnswer{Later: events.Duration(after.Round(100 * time.Millisecond)), Offers: []events.Outstanding{}}
}

// hear looks for a sign that a stream lost what the agent knows it held.
func (s *Service) hear(ctx context.Context, req events.SyncRequest) error {
	statusSequence := req.StatusSequence
	if req.StatusLost {
		statusSequence = ^uint64(0) // it saw the stream go back
	}
	for _, seen := range []struct {
		stream     string
		generation events.Generation
		sequence   uint64
	}{{events.StreamJobs, req.JobsGeneration, req.JobsSequence}, {events.StreamStatus, req.StatusGeneration, statusSequence}} {
		known := s.generations.of(seen.stream)
		if seen.sequence <= known.Last || seen.generation != known.Generation {
			continue
		}
		raised, err := s.generations.lost(ctx, seen.stream, seen.generation, seen.sequence, s.now())
		if err != nil {
			return fmt.Errorf("look for what %s lost: %w", seen.stream, err)
		}
		if raised {
			kick(s.generationNow)
		}
	}
	return nil
}

// outstanding lists the agent's jobs that have not ended, first those of which the agent has said nothing,
// also those of stopped deployments: the agent applies cancellations first and says that they are cancelled. held are the
// deployments of all such jobs, also of those that are left out.
func (s *Service) outstanding(p *partition, agent string, format int) (all []events.Outstanding, held map[string]bool) {
	if format == 0 || format > events.OfferFormat {
		format = events.OfferFormat
	}
	all, held = []events.Outstanding{}, map[string]bool{}
	list := func(k *known, j job) {
		all = append(all, events.Outstanding{State: j.state, Transition: j.transition, JobOffer: events.JobOffer{Format: format, Agent: agent, Job: j.id(),
			Deployment: j.deployment, Revision: j.revision, Order: k.Order, Occurrence: j.occurrence, User: j.user, Attempt: max(1, int(j.attempt))}, Trace: k.trace})
	}
	p.mu.RLock()
	defer p.mu.RUnlock()
	for j := range p.jobs.ofAgent(agent) {
		k, ok := s.orders.revision(j.deployment, j.revision)
		if !ok || !s.lives(j) {
			continue
		}
		if !j.state.Terminal() {
			list(k, j)
		}
		if j.occurrence != 0 && k.order.Standing() && !held[j.deployment] {
			list(k, k.umbrella(agent).known())
		}
		held[j.deployment] = true
	}
	slices.SortStableFunc(all, func(a, b events.Outstanding) int { return cmp.Compare(a.Transition, b.Transition) })
	return all[:min(len(all), outstandingMost)], held
}

// maxCancels bounds the stops that one answer names beside those of the agent's own jobs: an answer is one message.
const maxCancels = 1000

// cancelsFor lists the stops whose orders may still be obeyed, whether or not execution knows that the agent has a job of
// them, the newest [maxCancels] of them, and all those of the deployments listed. Where a newer revision took the place of an order,
// which is no rare thing, only the deployments listed are named: an agent that holds another hears of that revision.
func (s *Service) cancelsFor(agent string, offers []events.Outstanding) []events.CancelRequest {
	listed := map[string]uint64{} // the lowest revision
	for _, o := range offers {
		if lowest, ok := listed[o.Deployment]; !ok || o.Revision < lowest {
			listed[o.Deployment] = o.Revision
		}
	}
	marks := s.control.stopsThat(func(m stopMark) bool {
		until := s.orders.until(m.Deployment, m.Revision)
		if m.Until.After(until) {
			until = m.Until
		}
		lowest, ok := listed[m.Deployment]
		return ok && lowest <= m.Revision || (ok || !s.replaced(m)) && s.now().Before(until.Add(s.pace.lapse))
	})
	slices.SortFunc(marks, func(a, b stopMark) int { return b.At.Compare(a.At) })
	var all []events.CancelRequest
	others := 0
	for _, mark := range marks {
		if _, ok := listed[mark.Deployment]; !ok {
			if others++; others > maxCancels {
				continue
			}
		}
		all = append(all, mark.cancel(agent))
	}
	return all
}

// replaced says that the mark is there because a newer revision was signed, not because somebody stopped the deployment.
func (s *Service) replaced(m stopMark) bool {
	k, ok := s.orders.newest(m.Deployment)
	return ok && k.Revision > m.Revision
}
