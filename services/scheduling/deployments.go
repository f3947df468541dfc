package scheduling

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"chandler/events"
	"chandler/events/order"
	"chandler/events/target"
)

// deployment is what this replica knows of one deployment. Record, order and target are never changed in
// place.
type deployment struct {
	record  deploymentRecord
	order   order.Order
	target  target.Target
	members *membership // shared by all deployments with this target; guarded by Service.mu
}

// openDeployment derives everything from the signed bytes.
func openDeployment(r deploymentRecord) (*deployment, error) {
	o, _, err := order.Open(r.Envelope)
	if err != nil {
		return nil, err
	}
	t, err := o.Target(r.Include, r.Exclude)
	if err != nil {
		return nil, err
	}
	return &deployment{record: r, order: o, target: t, members: &membership{target: t}}, nil
}

// end is when nothing of the order starts any more: it expires, or its validity is over on every clock
// that agents tolerate.
func end(o order.Order) time.Time { return o.Over() }

// life follows from the order, the clock, and what administrators decided. What ends it comes first.
func (d *deployment) life(now time.Time) events.Life {
	switch {
	case d.record.Stopped:
		return events.LifeStopped
	case d.record.Lapsed || !now.Before(end(d.order)):
		return events.LifeExpired
	case d.record.Paused:
		return events.LifePaused
	case now.Before(d.order.Begins()):
		return events.LifePending
	}
	return events.LifeActive
}

func live(l events.Life) bool { return l != events.LifeStopped && l != events.LifeExpired }

// liveDeployments names those that match, sorted.
func (s *Service) liveDeployments(match func(*deployment) bool) (names []string) {
	now := s.now()
	s.mu.RLock()
	defer s.mu.RUnlock()
	for name, d := range s.deployments {
		if live(s.lifeLocked(d, now)) && match(d) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func (s *Service) deployment(name string) (*deployment, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	d, ok := s.deployments[name]
	return d, ok
}

// applyDeploymentKey takes over what the bucket says.
func (s *Service) applyDeploymentKey(key string, value []byte) {
	kind, rest, _ := strings.Cut(key, ".")
	var err error
	switch kind {
	case kindDeployment:
		err = s.applyDeployment(rest, value)
	case kindDraft:
		err = s.applyDraft(rest, value)
	case keyTrust:
		err = s.applyTrust(value)
	case kindRelease:
		err = s.applyRelease(rest, value)
	case kindPackage:
		err = s.applyPackage(rest, value)
	case kindRollout:
		err = s.applyRollout(rest, value)
	case keyLimits:
		err = s.applyLimits(value)
	default:
		err = fmt.Errorf("unknown kind of key %q", kind)
	}
	if err != nil {
		s.log.Error("a record of deployments cannot be read and is left alone", "key", key, "error", err)
	}
}

func (s *Service) applyDeployment(name string, value []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.work.deployment(name)
	defer s.recount(name)
	if value == nil {
		s.drop(name)
		delete(s.removed, name)
		return nil
	}
	var r deploymentRecord
	if err := json.Unmarshal(value, &r); err != nil {
		return err
	}
	if r.Removed {
		s.drop(name)
		s.removed[name] = r.Revision
		return nil
	}
	if old, ok := s.deployments[name]; ok && old.record.Order == r.Order && bytes.Equal(old.record.Envelope, r.Envelope) {
		d := *old // what was signed needs no second look
		d.record = r
		s.deployments[name] = &d
		return nil
	}
	d, err := openDeployment(r)
	if err != nil {
		// Written by a newer version, whose replicas look after it.
		s.drop(name)
		return err
	}
	s.drop(name)
	d.members = s.membershipOf(d)
	s.deployments[name] = d
	s.index(d, true)
	delete(s.removed, name)
	return nil
}

// drop forgets a deployment. The caller holds the lock.
func (s *Service) drop(name string) {
	old, ok := s.deployments[name]
	if !ok {
		return
	}
	delete(s.deployments, name)
	delete(s.held, name)
	delete(s.stuck, name)
	s.index(old, false)
}
