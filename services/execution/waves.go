package execution

import (
	"slices"

	"chandler/events"
)

// rollout counts the jobs of one revision of a deployment by phase and by site, as they change. Jobs of single users are
// not among them: an agent counts once.
type rollout struct {
	waves []events.WaveCounts // by index of the phase
	sites map[uint32]events.SiteCounts
}

// standing is all of a record that a rollout counts: the index of its phase in the upper byte, and below it bits. Most
// changes of a job leave it as it is.
type standing uint16

const (
	succeeded standing = 1 << iota
	failure
	notApplicable
	inFlight
	waiting
	silent // its agent has said nothing since the offer
	joined
	stray // counts nowhere
)

// newStanding is that of a job whose agent speaks and did not join later; silent is set where it would be if it did not.
func newStanding(state events.State, reason events.Reason) (s standing) {
	switch events.OutcomeOf(state, reason) {
	case events.OutcomeSucceeded:
		s = succeeded
	case events.OutcomeFailed:
		s = failure
	case events.OutcomeNotApplicable:
		s = notApplicable
	}
	if state.InFlight() {
		s |= inFlight
	}
	switch state {
	case events.Waiting:
		s |= waiting
	case events.Offered:
		s |= silent
	}
	return s
}

func (c *codes) standing(r *record) standing {
	s := c.standings[int(r.state())*len(c.reasons)+int(r.reason)]
	if r.flags&quiet != 0 {
		s &^= inFlight
	} else {
		s &^= silent
	}
	if r.flags&flagJoined != 0 {
		s |= joined
	}
	if r.flags&flagStray != 0 {
		s |= stray
	}
	return s | standing(r.wave)<<8
}

// place counts a record in (n is 1) or out (-1) of its phase and its agent's site.
func (s *jobs) place(k *kept, site uint32, n int64) {
	if k.user == 0 {
		s.deployments[k.deployment].revisions[k.revision].rollout.add(s.codes.standing(&k.record), site, n)
	}
}

// replace counts one record out and another in.
func (s *jobs) replace(before, after *kept, site uint32) {
	if before.revision == after.revision && s.codes.standing(&before.record) == s.codes.standing(&after.record) {
		return
	}
	s.place(before, site, -1)
	s.place(after, site, 1)
}

func (c *rollout) add(of standing, site uint32, n int64) {
	if of&stray != 0 {
		return
	}
	wave := int(of >> 8)
	for len(c.waves) <= wave {
		c.waves = append(c.waves, events.WaveCounts{Wave: len(c.waves)})
	}
	w, at := &c.waves[wave], c.sites[site]
	w.Offered += n
	at.Offered += n
	if of&inFlight != 0 {
		w.InFlight += n
		at.InFlight += n
	}
	if c.sites[site] = at; at == (events.SiteCounts{}) {
		delete(c.sites, site)
	}
	if of&joined != 0 {
		return
	}
	w.Agents += n
	switch of & (succeeded | failure | notApplicable | waiting | silent) {
	case succeeded:
		w.Succeeded += n
	case failure:
		w.Failed += n
	case notApplicable:
		w.NotApplicable += n
	case waiting:
		w.Waiting += n
	case silent:
		w.Silent += n
	}
}

// maxSites bounds the sites that a progress counts: it is one message.
const maxSites = 4096

// addTo adds the counts to a progress, whose waves are sorted and hold those alone that anybody was released in.
func (c *rollout) addTo(p *events.Progress, names []string) {
	for _, w := range c.waves {
		if w.Offered == 0 {
			continue
		}
		i, found := slices.BinarySearchFunc(p.Waves, w, func(a, b events.WaveCounts) int { return a.Wave - b.Wave })
		if !found {
			p.Waves = slices.Insert(p.Waves, i, w)
			continue
		}
		sum := &p.Waves[i]
		sum.Offered, sum.InFlight, sum.Agents = sum.Offered+w.Offered, sum.InFlight+w.InFlight, sum.Agents+w.Agents
		sum.Succeeded, sum.Failed, sum.NotApplicable = sum.Succeeded+w.Succeeded, sum.Failed+w.Failed, sum.NotApplicable+w.NotApplicable
		sum.Waiting, sum.Silent = sum.Waiting+w.Waiting, sum.Silent+w.Silent
	}
	for site, n := range c.sites {
		at, known := p.Sites[names[site]]
		if !known && len(p.Sites) >= maxSites {
			continue
		}
		if p.Sites == nil {
			p.Sites = map[string]events.SiteCounts{}
		}
		p.Sites[names[site]] = events.SiteCounts{Offered: at.Offered + n.Offered, InFlight: at.InFlight + n.InFlight}
	}
}

// maxSite bounds the name of a site, in bytes.
const maxSite = 128

// place is where an agent is.
type place struct{ agent, site string }

// sites are the places of agents, by index; the first is none. An index that no agent has any more is given anew, so that
// there are never more of them than agents.
type sites struct {
	names  []string
	agents []int // how many are there; of the first, nobody counts
	byName map[string]uint32
	free   []uint32
}

func newSites() sites {
	return sites{names: []string{""}, agents: []int{0}, byName: map[string]uint32{}}
}

func (s *sites) enter(name string) uint32 {
	if name == "" {
		return 0
	}
	i, ok := s.byName[name]
	if !ok {
		if last := len(s.free) - 1; last >= 0 {
			i, s.free = s.free[last], s.free[:last]
		} else {
			i = uint32(len(s.names))
			s.names, s.agents = append(s.names, ""), append(s.agents, 0)
		}
		s.names[i], s.byName[name] = name, i
	}
	s.agents[i]++
	return i
}

func (s *sites) leave(i uint32) {
	if i == 0 {
		return
	}
	if s.agents[i]--; s.agents[i] == 0 {
		delete(s.byName, s.names[i])
		s.names[i], s.free = "", append(s.free, i)
	}
}

// siteOf is where an agent is as far as is known.
func (s *jobs) siteOf(agent string) string {
	a, ok := s.byAgent[agent]
	if !ok {
		return ""
	}
	return s.sites.names[s.agents[a].site]
}

// settleAt moves an agent and all that is counted of it to a site.
func (s *jobs) settleAt(p place) {
	a := &s.agents[s.agent(p.agent)]
	if s.sites.names[a.site] == p.site {
		return
	}
	from, to := a.site, s.sites.enter(p.site)
	for i := range a.jobs {
		s.place(&a.jobs[i], from, -1)
		s.place(&a.jobs[i], to, 1)
	}
	a.site = to
	s.sites.leave(from)
}

// places lists the agents whose site is known.
func (s *jobs) places() (all []place) {
	for _, a := range s.agents {
		if a.site != 0 {
			all = append(all, place{a.id, s.sites.names[a.site]})
		}
	}
	return all
}
