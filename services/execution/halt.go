package execution

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
	"chandler/events/bus"
)

const (
	// maxHalts bounds the deployments that are halted at the same time, and maxHaltBytes what their freezes take as JSON:
	// a beacon carries all of them in one message.
	maxHalts     = 2000
	maxHaltBytes = 512 << 10
	// maxHaltWhy bounds the reason that agents are told, in bytes; the whole of it is with scheduling.
	maxHaltWhy = 200
	// haltAttempts bounds how often a halt is written against others who write it too.
	haltAttempts = 10
	// byScheduling is who acts where nobody is named.
	byScheduling = "scheduling"
)

// halt is a value of the bucket of control: whether the rollout of a deployment is halted. It stays when the rollout goes
// on, so that an older event which comes late changes nothing.
type halt struct {
	Deployment string    `json:"deployment"`
	Revision   uint64    `json:"revision"` // this one and all before it
	Halted     bool      `json:"halted,omitempty"`
	Lifted     bool      `json:"lifted,omitempty"` // it was halted until At
	By         string    `json:"by,omitempty"`
	Why        string    `json:"why,omitempty"`
	At         time.Time `json:"at"` // by scheduling's clock
}

func newHalt(n events.DeploymentNotice, halted bool) halt {
	why := n.Why
	if len(why) > maxHaltWhy {
		why = strings.ToValidUTF8(why[:maxHaltWhy], "")
	}
	return halt{Deployment: n.Deployment, Revision: n.Revision, Halted: halted, By: cmp.Or(n.By, byScheduling), Why: why, At: n.At}
}

// newerThan says which of two states of a deployment counts.
func (h halt) newerThan(old halt) bool {
	return cmp.Or(cmp.Compare(h.Revision, old.Revision), h.At.Compare(old.At)) > 0
}

// freeze is how agents hear of it.
func (h halt) freeze() events.Freeze {
	return events.Freeze{ID: haltID(h.Deployment), Scope: "deployment", Name: h.Deployment, Revision: h.Revision, By: h.By, Why: h.Why, At: h.At}
}

// haltID is that of the freeze: of a deployment whose name leaves no room for the scope, one derived from it.
func haltID(deployment string) string {
	id := "deployment-" + deployment
	if events.ValidToken(id) != nil {
		return "deployment-" + events.DeriveID("halt", deployment)
	}
	return id
}

// halted is the halt that holds jobs of this revision.
func (c *control) halted(deployment string, revision uint64) (halt, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	h, ok := c.halts[deployment]
	return h, ok && h.Halted && h.Revision >= revision
}

// haltFreezes lists the freezes of halted deployments that which names, in no order.
func (c *control) haltFreezes(which func(deployment string) bool) (all []events.Freeze) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	for _, h := range c.halts {
		if h.Halted && which(h.Deployment) {
			all = append(all, h.freeze())
		}
	}
	return all
}

func anyDeployment(string) bool { return true }

// rolloutHalted holds what the deployment's agents have not started.
func (s *Service) rolloutHalted(ctx context.Context, e events.Event[events.PhaseNotice], m bus.Meta) error {
	k, err := s.noticed(ctx, e.Data.DeploymentNotice, m)
	if err != nil {
		return err
	}
	if stop, err := s.stopOf(ctx, k); err != nil || stop != nil {
		return err // nothing of it starts anyway
	}
	if err := s.setHalt(ctx, newHalt(e.Data.DeploymentNotice, true)); err != nil {
		return err
	}
	// A stop, or a newer revision, that came meanwhile may have found nothing to lift.
	stop, err := s.stopOf(ctx, k)
	if err != nil || stop == nil {
		return err
	}
	return s.liftHalt(ctx, stop.Deployment, stop.Revision, stop.By, stop.At)
}

func (s *Service) rolloutSkipped(ctx context.Context, e events.Event[events.PhaseNotice], m bus.Meta) error {
	return s.rolloutResumed(ctx, events.Event[events.DeploymentNotice]{Data: e.Data.DeploymentNotice}, m)
}

// rolloutResumed lets agents go on.
func (s *Service) rolloutResumed(ctx context.Context, e events.Event[events.DeploymentNotice], m bus.Meta) error {
	if _, err := s.noticed(ctx, e.Data, m); err != nil {
		return err
	}
	return s.setHalt(ctx, newHalt(e.Data, false))
}

// rolloutOver is for a deployment whose time is over: nothing is left to hold.
func (s *Service) rolloutOver(ctx context.Context, e events.Event[events.DeploymentNotice], _ bus.Meta) error {
	if err := events.ValidToken(e.Data.Deployment); err != nil {
		return bus.Drop("bad_deployment", err)
	}
	return s.liftHalt(ctx, e.Data.Deployment, e.Data.Revision, cmp.Or(e.Data.By, byScheduling), e.Data.At)
}

// noticed is the order that a notice is about. It may come before the order does, or after the deployment was removed.
func (s *Service) noticed(ctx context.Context, n events.DeploymentNotice, m bus.Meta) (*known, error) {
	k, err := s.orderOf(ctx, events.Release{Deployment: n.Deployment, Revision: n.Revision, Order: n.Order})
	if m.Delivered > orderPatience && errors.Is(err, errNoOrder) {
		return nil, bus.Drop("unknown_order", err)
	}
	return k, err
}

// liftHalt ends a halt of a revision that was stopped, replaced or removed, or whose time is over; where there is none, it
// does nothing.
func (s *Service) liftHalt(ctx context.Context, deployment string, revision uint64, by string, at time.Time) error {
	kv, err := s.controlBucket(ctx)
	if err != nil {
		return err
	}
	old, _, err := readHalt(ctx, kv, deployment)
	if err != nil || old == nil || !old.Halted || old.Revision > revision {
		return err
	}
	if !at.After(old.At) {
		at = old.At.Add(time.Nanosecond) // another clock's time
	}
	return s.setHalt(ctx, halt{Deployment: deployment, Revision: old.Revision, By: by, At: at})
}

// setHalt stores what is known of a deployment's rollout unless something newer is, and tells of the freeze that follows.
func (s *Service) setHalt(ctx context.Context, h halt) error {
	kv, err := s.controlBucket(ctx)
	if err != nil {
		return err
	}
	if err := s.roomForHalt(ctx, h); err != nil {
		return err
	}
	key := keyHalt + h.Deployment
	for range haltAttempts {
		old, revision, err := readHalt(ctx, kv, h.Deployment)
		switch {
		case err != nil:
			return err
		case old != nil && old.Halted == h.Halted && old.Revision == h.Revision && old.At.Equal(h.At):
			return s.tellHalt(ctx, *old) // perhaps nobody was told
		case old != nil && !h.newerThan(*old):
			return nil
		}
		h.Lifted = old != nil && old.Halted && !h.Halted
		value, err := json.Marshal(h)
		if err != nil {
			return err
		}
		if old == nil {
			_, err = kv.Create(ctx, key, value) // also where it was deleted
		} else {
			_, err = kv.Update(ctx, key, value, revision)
		}
		if err == nil {
			if _, err = s.control.see(key, value); err != nil {
				return err
			}
			return s.tellHalt(ctx, h)
		}
		if !wrongSequence(err) && !errors.Is(err, jetstream.ErrKeyExists) {
			return fmt.Errorf("store %s: %w", key, err)
		}
	}
	return fmt.Errorf("store %s: others keep changing it", key)
}

// roomForHalt refuses a halt beyond what agents can be told. Scheduling releases nothing of it all the same.
func (s *Service) roomForHalt(ctx context.Context, h halt) error {
	if !h.Halted {
		return nil
	}
	others := s.control.haltFreezes(func(deployment string) bool { return deployment != h.Deployment })
	value, err := json.Marshal(append(others, h.freeze()))
	if err != nil {
		return err
	}
	if len(others) < maxHalts && len(value) <= maxHaltBytes {
		return nil
	}
	s.metrics.haltsRefused.Inc()
	s.log.ErrorContext(ctx, "too many deployments are halted: agents are not told of this one and may start what they have of it", "deployment", h.Deployment,
		"revision", h.Revision, "halted", len(others))
	return bus.Drop("too_many_halts", fmt.Errorf("deployment %s cannot be halted at its agents: %d others are", h.Deployment, len(others)))
}

func (s *Service) tellHalt(ctx context.Context, h halt) error {
	kick(s.beaconNow)
	switch {
	case h.Halted:
		return s.tellFreeze(ctx, events.FreezeSet, h.freeze())
	case h.Lifted:
		return s.tellFreeze(ctx, events.FreezeLifted, h.freeze())
	}
	return nil
}

// readHalt gives the value and its revision; nil where there is none.
func readHalt(ctx context.Context, kv jetstream.KeyValue, deployment string) (*halt, uint64, error) {
	entry, err := kv.Get(ctx, keyHalt+deployment)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, fmt.Errorf("read halt of %s: %w", deployment, err)
	}
	var h halt
	if err := json.Unmarshal(entry.Value(), &h); err != nil {
		return nil, 0, fmt.Errorf("read halt of %s: %w", deployment, err)
	}
	return &h, entry.Revision(), nil
}

// forgetHalt is for a deployment that is forgotten.
func (s *Service) forgetHalt(ctx context.Context, deployment string, revision uint64, at time.Time) error {
	if err := s.liftHalt(ctx, deployment, revision, byScheduling, at); err != nil {
		return err
	}
	kv, err := s.controlBucket(ctx)
	if err != nil {
		return err
	}
	old, last, err := readHalt(ctx, kv, deployment)
	if err != nil || old == nil || old.Revision > revision {
		return err
	}
	key := keyHalt + deployment
	if err := kv.Delete(ctx, key, jetstream.LastRevision(last)); err != nil {
		return fmt.Errorf("delete %s: %w", key, err)
	}
	_, err = s.control.see(key, nil)
	return err
}

// sortFreezes puts them into the order in which they are shown and told.
func sortFreezes(all []events.Freeze) []events.Freeze {
	slices.SortFunc(all, func(a, b events.Freeze) int { return cmp.Compare(a.ID, b.ID) })
	return all
}
