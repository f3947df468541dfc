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

// settleWait is how long news is collected before it is looked at: ten thousand agents that report at once
// become a few large batches.
const settleWait = 25 * time.Millisecond

// reconciler brings about what the state demands: tells what is owed, ends what is over, hands over who is
// due. Everything it does can be done again, by any replica, at any time.
type reconciler struct {
	*Service
	refused map[string]bool      // deployments whose rollback is due and was refused
	timed   map[string]string    // order digest by deployment whose timers this process has set
	owing   map[string]bool      // deployments whose last settling failed
	broker  string               // id of the broker's process that heard what was told last; "": none has yet
	baking  map[string]time.Time // when the bake time ends for which this process has set a timer, by deployment
}

// run looks at what changed when it changes, and at everything at start and at every tick.
func (r *reconciler) run(ctx context.Context) error {
	ticker := time.NewTicker(r.tick)
	defer ticker.Stop()
	retry := time.NewTimer(0)
	defer retry.Stop()
	everything := true
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			everything = true
		case <-r.work.wake:
		case <-retry.C:
		}
		if !pause(ctx, settleWait) {
			return nil
		}
		err := r.pass(ctx, everything)
		if ctx.Err() != nil {
			return nil
		}
		r.setProblem(err)
		if err != nil {
			r.log.Warn("reconciling failed and will be tried again", "error", err)
			retry.Reset(retryWait)
			continue
		}
		everything = false
	}
}

// pass looks once at what changed, or at everything.
func (r *reconciler) pass(ctx context.Context, everything bool) error {
	if err := r.readable(); err != nil {
		return err
	}
	agents, deployments, collections := r.work.take()
	if everything {
		if err := r.recallTrust(ctx); err != nil { // it only makes refusals early
			r.log.Debug("the newest trust bundle cannot be looked for", "error", err)
		}
	}
	if everything && !r.knowsPackages() {
		if err := r.recallPackages(ctx); err != nil { // nothing else waits for content
			r.log.Debug("packages cannot be learnt from content yet", "error", err)
		}
	}
	if everything {
		if err := errors.Join(r.collectionStore.missed(ctx, ">"), r.deploymentStore.missed(ctx, kindDraft+".>")); err != nil {
			r.log.Debug("what other replicas forgot cannot be looked for", "error", err)
		}
		r.learnAllPrograms(ctx)
		collections = r.collectionsOwing(collections)
	}
	for _, name := range r.reevaluate(agents) {
		deployments[name] = true
	}
	if everything {
		for _, name := range slices.Concat(r.deploymentNames(), r.draftNames()) {
			deployments[name] = true
		}
	}
	for name := range r.owing {
		deployments[name] = true
	}
	var failures []error
	for _, name := range slices.Sorted(maps.Keys(collections)) {
		if err := r.announceCollection(ctx, name); err != nil {
			failures = append(failures, err)
			r.work.collection(name)
		}
	}
	if err := r.announceLimits(ctx); err != nil {
		failures = append(failures, fmt.Errorf("limits: %w", err))
	}
	for _, name := range slices.Sorted(maps.Keys(deployments)) {
		if err := errors.Join(r.settleDraft(ctx, name), r.settle(ctx, name, everything || r.owing[name])); err != nil {
			failures = append(failures, fmt.Errorf("deployment %s: %w", name, err))
			r.owing[name] = true
			continue
		}
		delete(r.owing, name)
	}
	if everything {
		failures = append(failures, r.tellAnotherBroker(ctx))
		r.forgetUnused()
		failures = append(failures, r.forgetReleases(ctx), r.forgetRollouts(ctx))
	}
	return errors.Join(failures...)
}

// settle brings one deployment to what it should be now. The order matters: nobody hears of a batch, or of a phase,
// before the deployment it belongs to.
func (r *reconciler) settle(ctx context.Context, name string, all bool) error {
	d, ok := r.deployment(name)
	if !ok || len(d.record.Outbox.Notes) > 0 {
		if err := r.announceDeployment(ctx, name); err != nil {
			return err
		}
	}
	if err := r.announceRollouts(ctx, name); err != nil || !ok {
		return err
	}
	r.evaluate(d.members)
	life := r.life(d)
	if life == events.LifeExpired && !d.record.Lapsed {
		return r.lapse(ctx, d)
	}
	if live(life) && r.timed[name] != d.record.Order {
		if err := r.setTimers(ctx, d); err != nil {
			return err
		}
		r.timed[name] = d.record.Order
	}
	if err := r.settleRollback(ctx, d, all); err != nil {
		return err
	}
	if life != events.LifeActive {
		r.noteHeld(d, 0)
		r.noteStuck(d, false)
		return nil
	}
	if all {
		if err := r.recallProgress(ctx, d); err != nil {
			return err
		}
		if err := r.announceReleases(ctx, d); err != nil {
			return err
		}
	}
	if err := r.advance(ctx, d, all); err != nil {
		return err
	}
	return r.release(ctx, d)
}

// collectionsOwing adds the collections with something to tell.
func (s *Service) collectionsOwing(names map[string]bool) map[string]bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for name, c := range s.collections {
		if c.Removed || len(c.Outbox.Notes) > 0 {
			names[name] = true
		}
	}
	return names
}
