package scheduling

import (
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"chandler/events"
	"chandler/events/bus"
)

// tellAgain asks content for the packages that this service lost, and tells every live deployment and all its batches once more, for services that lost what they
// heard: the order first, then who was handed over. The ids are new in each run, so that the broker's
// duplicate window holds nothing back; those who know it all already change nothing. Deployments that are
// accepted or end meanwhile tell that by themselves.
func (s *Service) tellAgain(ctx context.Context, caller string, _ events.Nothing) (events.ReconcileAnswer, error) {
	if err := s.readable(); err != nil {
		return events.ReconcileAnswer{}, bus.Unavailable(err)
	}
	if err := s.recallPackages(ctx); err != nil { // agents are helped without it
		s.log.Warn("packages could not be learnt from content: reconcile again when it runs", "error", err)
	}
	answer := events.ReconcileAnswer{Run: rand.Text()}
	for _, name := range s.liveDeployments(func(*deployment) bool { return true }) {
		if err := s.tellDeploymentAgain(ctx, name, &answer); err != nil {
			return events.ReconcileAnswer{}, fmt.Errorf("tell deployment %s again: %w", name, err)
		}
	}
	if err := s.tellLimitsAgain(ctx, &answer); err != nil {
		return events.ReconcileAnswer{}, fmt.Errorf("tell limits again: %w", err)
	}
	s.log.Info("everything was told again", "run", answer.Run, "deployments", answer.Deployments, "batches", answer.Batches, "agents", answer.Agents, "by", caller)
	return answer, nil
}

func (s *Service) tellDeploymentAgain(ctx context.Context, name string, answer *events.ReconcileAnswer) error {
	r, _, err := load[deploymentRecord](ctx, s.deploymentStore, kindDeployment+"."+name)
	if err != nil {
		return err
	}
	if len(r.Envelope) == 0 {
		return nil // removed just now
	}
	revision := strconv.FormatUint(r.Revision, 10)
	ack, err := bus.Publish(ctx, s.bus, events.DeploymentCreated, events.Event[events.DeploymentOrder]{
		ID: events.DeriveID("reconcile", answer.Run, name, revision), Subject: name, Time: r.At, Trace: r.Trace, Data: r.signed(r.DeploymentNotice)})
	if err != nil {
		return err
	}
	answer.Deployments++
	answer.Sequence = ack.Sequence
	for _, n := range s.batchNumbers(name, r.Revision) {
		key := releaseKey{name, r.Revision, waveAll, n}
		batch, found, err := load[releaseRecord](ctx, s.deploymentStore, key.String())
		if err != nil {
			return err
		}
		if found == 0 {
			continue // a newer revision has replaced this one just now
		}
		ack, err := s.tellRelease(ctx, key, batch, events.DeriveID("reconcile", answer.Run, key.String()), r.Trace)
		if err != nil {
			return err
		}
		answer.Batches++
		answer.Agents += len(batch.Agents)
		answer.Sequence = ack.Sequence
	}
	return s.tellHaltAgain(ctx, r, answer)
}

// tellHaltAgain tells that a rollout is halted: execution holds jobs by that.
func (s *Service) tellHaltAgain(ctx context.Context, d deploymentRecord, answer *events.ReconcileAnswer) error {
	key := rolloutKey(d.Deployment, d.Revision)
	r, found, err := load[rolloutRecord](ctx, s.deploymentStore, key)
	if err != nil || found == 0 || r.Halted.IsZero() {
		return err
	}
	notice := events.PhaseNotice{DeploymentNotice: r.DeploymentNotice}
	notice.Why, notice.At, notice.By = r.Because, r.Halted, ""
	if p := r.newest(); p != nil {
		notice.Phase, notice.Index, notice.Size = p.Name, len(r.Phases)-1, p.Size
	}
	ack, err := bus.Publish(ctx, s.bus, events.RolloutHalted, events.Event[events.PhaseNotice]{
		ID: events.DeriveID("reconcile", answer.Run, key), Subject: d.Deployment, Time: r.Halted, Trace: r.Trace, Data: notice})
	if err == nil {
		answer.Sequence = ack.Sequence
	}
	return err
}

// tellLimitsAgain tells the fleet's limits, if somebody ever set any.
func (s *Service) tellLimitsAgain(ctx context.Context, answer *events.ReconcileAnswer) error {
	r, found, err := load[limitsRecord](ctx, s.deploymentStore, keyLimits)
	if err != nil || found == 0 {
		return err
	}
	ack, err := bus.Publish(ctx, s.bus, events.LimitsChanged, events.Event[events.Limits]{
		ID: events.DeriveID("reconcile", answer.Run, keyLimits), Subject: s.fleetToken(), Time: r.At, Data: r.Limits})
	if err == nil {
		answer.Sequence = ack.Sequence
	}
	return err
}

// batchNumbers of a revision, in order.
func (s *Service) batchNumbers(deployment string, revision uint64) []int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	log := s.releases[deployment][revision]
	if log == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(log.batches))
}
