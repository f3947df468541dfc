package scheduling

import (
	"maps"
	"time"

	"chandler/events/target"
)

// membership is who is in a target by the facts known now. All deployments whose orders have one target share it, so that
// ten thousand of them to the same machines cost one evaluation. Only the reconciler changes it.
type membership struct {
	target    target.Target
	evaluated bool // over the whole fleet
	set       idSet
	// version counts the changes of set, touched the evaluations of members' facts.
	version, touched uint64
}

// targetKey is what tells targets apart: what the order binds of them.
func (d *deployment) targetKey() string {
	return d.order.Expression + "\x00" + d.order.IncludeDigest + "\x00" + d.order.ExcludeDigest
}

// membershipOf finds or begins the membership of a deployment's target. The caller holds the lock.
func (s *Service) membershipOf(d *deployment) *membership {
	key := d.targetKey()
	m, ok := s.memberships[key]
	if !ok {
		m = &membership{target: d.target}
		s.memberships[key] = m
	}
	return m
}

func (s *Service) evaluatedAlready(m *membership) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return m.evaluated
}

// evaluate finds who is in a target where that was never done.
func (r *reconciler) evaluate(m *membership) {
	if !r.evaluatedAlready(m) {
		r.judgeAgents(m, r.fleet.all())
	}
}

// reevaluate looks at agents whose facts are new, and names the deployments that it may matter to.
func (r *reconciler) reevaluate(agents []*agent) (names []string) {
	if len(agents) == 0 {
		return nil
	}
	r.mu.RLock()
	var all []*membership
	for _, m := range r.memberships {
		if m.evaluated {
			all = append(all, m)
		}
	}
	r.mu.RUnlock()
	changed, touched := map[*membership]bool{}, map[*membership]bool{}
	for _, m := range all {
		version, count := m.version, m.touched
		r.judgeAgents(m, agents)
		changed[m], touched[m] = m.version != version, m.touched != count
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	for name, d := range r.deployments {
		if changed[d.members] || touched[d.members] && d.phased() {
			names = append(names, name)
		}
	}
	return names
}

// judgeAgents holds agents against a target.
func (r *reconciler) judgeAgents(m *membership, agents []*agent) {
	in := make([]bool, len(agents))
	var faults faults
	for i, a := range agents {
		if a.gone {
			continue
		}
		ok, err := m.target.Matches(a.facts)
		faults.note(err)
		in[i] = ok
	}
	if faults.count > 0 {
		r.metrics.faults.Add(float64(faults.count))
		r.log.Warn("a target cannot be evaluated on some agents, which are not members", "agents", faults.count, "error", faults.first)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, a := range agents {
		if m.set.has(a.place) != in[i] {
			m.set = m.set.set(a.place, in[i])
			m.version++
		}
		if in[i] {
			m.touched++
		}
	}
	m.evaluated = true
}

// forgetUnused drops memberships, queues and notes of no deployment.
func (r *reconciler) forgetUnused() {
	r.mu.Lock()
	defer r.mu.Unlock()
	used, phased := map[*membership]bool{}, map[string]bool{}
	for name, d := range r.deployments {
		used[d.members] = true
		phased[name] = d.phased()
	}
	r.queues.keep(phased)
	gone := func(name string) bool { return r.deployments[name] == nil }
	maps.DeleteFunc(r.baking, func(name string, _ time.Time) bool { return gone(name) })
	maps.DeleteFunc(r.refused, func(name string, _ bool) bool { return gone(name) })
	for key, m := range r.memberships {
		if !used[m] {
			delete(r.memberships, key)
		}
	}
}
