package scheduling

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"chandler/events"
)

// tellAnotherBroker tells what was told lately once more where the broker is another process than the one that heard it, and at
// the start of this replica. A broker that loses power loses the newest of what it had acknowledged, and of each stream
// another part: this service would take for told what nobody heard. All is told under its ids, so that the broker
// and whoever heard it take it for what it is.
func (r *reconciler) tellAnotherBroker(ctx context.Context) error {
	conn := r.bus.Conn()
	broker := conn.ConnectedServerId()
	if broker == "" || broker == r.broker {
		return nil
	}
	since := r.now().Add(-toldFor)
	var failures []error
	for _, name := range r.deploymentNames() {
		if err := r.tellLately(ctx, name, since); err != nil {
			failures = append(failures, fmt.Errorf("tell of deployment %s again: %w", name, err))
		}
	}
	failures = append(failures, r.tellCollectionsLately(ctx, since), r.tellLimitsLately(ctx, since))
	if err := errors.Join(failures...); err != nil {
		return err
	}
	r.broker = broker
	return nil
}

// tellLately tells again of a deployment, in the order in which execution understands it.
func (r *reconciler) tellLately(ctx context.Context, name string, since time.Time) error {
	d, ok := r.deployment(name)
	if !ok {
		return nil
	}
	notes := d.record.Outbox.toldSince(since)
	for i, n := range notes {
		// The record is that of the newest revision, so only the newest order is told.
		if n.Type == events.DeploymentCreated.Name && slices.ContainsFunc(notes[i+1:], func(later note) bool { return later.Type == n.Type }) {
			continue
		}
		if err := r.tellDeployment(ctx, d.record, n); err != nil {
			return err
		}
	}
	if err := r.tellReleasesLately(ctx, d, since); err != nil {
		return err
	}
	r.mu.RLock()
	rollouts := maps.Clone(r.rollouts[name])
	r.mu.RUnlock()
	for _, revision := range slices.Sorted(maps.Keys(rollouts)) {
		for _, n := range rollouts[revision].Outbox.toldSince(since) {
			if err := r.tellRollout(ctx, rollouts[revision], n); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *reconciler) tellReleasesLately(ctx context.Context, d *deployment, since time.Time) error {
	r.mu.RLock()
	var lately []int
	if log := r.releases[d.record.Deployment][d.record.Revision]; log != nil {
		for n, b := range log.batches {
			if b.announced && b.at.After(since) {
				lately = append(lately, n)
			}
		}
	}
	r.mu.RUnlock()
	slices.Sort(lately)
	for _, n := range lately {
		key := releaseKey{d.record.Deployment, d.record.Revision, waveAll, n}
		batch, found, err := load[releaseRecord](ctx, r.deploymentStore, key.String())
		if err != nil {
			return err
		}
		if found == 0 {
			continue // a newer revision has replaced it just now
		}
		if _, err := r.tellRelease(ctx, key, batch, key.eventID(batch), d.record.Trace); err != nil {
			return err
		}
	}
	return nil
}

func (r *reconciler) tellCollectionsLately(ctx context.Context, since time.Time) error {
	r.mu.RLock()
	collections := maps.Clone(r.collections)
	r.mu.RUnlock()
	for _, name := range slices.Sorted(maps.Keys(collections)) {
		if err := r.tellCollection(ctx, collections[name], collections[name].Outbox.toldSince(since)); err != nil {
			return fmt.Errorf("tell of collection %s again: %w", name, err)
		}
	}
	return nil
}

func (r *reconciler) tellLimitsLately(ctx context.Context, since time.Time) error {
	r.mu.RLock()
	limits := r.limits
	r.mu.RUnlock()
	if err := r.tellLimits(ctx, limits, limits.Outbox.toldSince(since)); err != nil {
		return fmt.Errorf("tell limits again: %w", err)
	}
	return nil
}
