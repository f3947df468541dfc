package scheduling

import (
	"sync"
	"time"

	"chandler/events/rollout"
	"chandler/events/target"
	"chandler/events/timing"
)

// queues are who belongs to each open phase and was not handed over, of one deployment. An agent belongs to the first
// open phase that it is in; who joins later is in one by the same rule.
type queues struct {
	key    queueKey
	phases []idSet
	// unseen counts those whom a phase would hold if they had been heard of: time alone may bring them in.
	unseen int
}

// queueKey is what queues depend on, beside agents that were not heard of for long.
type queueKey struct {
	order            string
	members          *membership
	version, touched uint64
	open             int
	forgotten        int // batches that a restored bucket took away
	collections      string
}

// queueCache keeps the last queues of each deployment. Safe for concurrent use.
type queueCache struct {
	mu     sync.Mutex
	byName map[string]*queues
}

func newQueueCache() *queueCache { return &queueCache{byName: map[string]*queues{}} }

func (c *queueCache) get(name string) *queues {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.byName[name]
}

func (c *queueCache) put(name string, q *queues) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.byName[name] = q
}

// keep forgets the queues of deployments that are not named.
func (c *queueCache) keep(names map[string]bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name := range c.byName {
		if !names[name] {
			delete(c.byName, name)
		}
	}
}

// queuesOf finds the queues of a deployment's open phases. again: also where nothing but time has passed.
func (s *Service) queuesOf(d *deployment, r rolloutRecord, again bool) *queues {
	key := s.queueKeyOf(d, r)
	old := s.queues.get(d.record.Deployment)
	if old != nil && old.key == key && (!again || old.unseen == 0) {
		return old
	}
	q := s.queue(d, r.Phases)
	q.key = key
	s.queues.put(d.record.Deployment, q)
	return q
}

func (s *Service) queueKeyOf(d *deployment, r rolloutRecord) queueKey {
	s.mu.RLock()
	defer s.mu.RUnlock()
	key := queueKey{order: d.record.Order, members: d.members, version: d.members.version, open: len(r.Phases)}
	if log := s.releases[d.record.Deployment][d.record.Revision]; log != nil {
		key.forgotten = log.forgotten
	}
	for _, p := range r.Phases {
		if p.Collection != "" {
			key.touched = d.members.touched
			key.collections += p.Collection + s.collections[p.Collection].Changed.Format(time.RFC3339Nano) + "\n"
		}
	}
	return key
}

// queue sorts who was not handed over into phases.
func (s *Service) queue(d *deployment, phases []phaseRecord) *queues {
	q := &queues{phases: make([]idSet, len(phases))}
	inside := make([]func(*agent) bool, len(phases))
	for i, p := range phases {
		inside[i] = s.inside(d.record.Deployment, p)
	}
	seen := s.now().Add(-rollout.Seen)
	for _, a := range s.waiting(d) {
		for i, p := range phases {
			if !inside[i](a) {
				continue
			}
			if !p.All && a.lastSeen().Before(seen) {
				q.unseen++
				continue
			}
			q.phases[i] = q.phases[i].set(a.place, true)
			break
		}
	}
	return q
}

// inside is the rule by which agents are in a phase, whether or not they were heard of.
func (s *Service) inside(deployment string, p phaseRecord) func(*agent) bool {
	if p.Collection == "" {
		return func(a *agent) bool { return p.holds(deployment, a.facts.ID) }
	}
	t, ok := s.targetOf(p.Collection)
	return func(a *agent) bool {
		if !ok {
			return false
		}
		in, err := t.Matches(a.facts)
		return in && err == nil // a fault is no membership, as everywhere
	}
}

// holds says whether an agent's place is in a phase by percent or count.
func (p phaseRecord) holds(deployment, agent string) bool {
	return timing.Place(deployment, agent) <= p.Cut
}

// targetOf is a collection as it is defined now.
func (s *Service) targetOf(collection string) (target.Target, bool) {
	s.mu.RLock()
	c, ok := s.collections[collection]
	s.mu.RUnlock()
	if !ok || c.Removed {
		return target.Target{}, false
	}
	t, err := target.New(c.Expression, c.Include, c.Exclude)
	return t, err == nil
}

// waiting lists the members of a deployment's target that were not handed over.
func (s *Service) waiting(d *deployment) []*agent {
	s.mu.RLock()
	var released idSet
	if log := s.releases[d.record.Deployment][d.record.Revision]; log != nil {
		released = log.released
	}
	places := d.members.set.firstNotIn(released, len(d.members.set)*64)
	s.mu.RUnlock()
	return s.fleet.at(places)
}

// members lists the agents in a deployment's target.
func (s *Service) members(d *deployment) []*agent {
	s.mu.RLock()
	places := d.members.set.firstNotIn(nil, len(d.members.set)*64)
	s.mu.RUnlock()
	return s.fleet.at(places)
}
