package scheduling

import (
	"fmt"
	"math"

	"chandler/events"
)

// flight counts jobs in flight: handed over and not known to execution yet, or known to it as neither ended, nor waiting,
// nor silent. Execution's counts may be a moment old; they then count too many rather than too few.
type flight struct {
	total int
	sites map[string]int
}

// recount brings the counts of a deployment, and the fleet's, up to what is known. The caller holds the lock.
func (s *Service) recount(name string) {
	old := s.flights[name]
	s.inFlight.total -= old.total
	for site, n := range old.sites {
		s.inFlight.add(site, -n)
	}
	delete(s.flights, name)
	d, ok := s.deployments[name]
	if !ok {
		delete(s.progressed, name)
		return
	}
	now := s.flightOf(d)
	s.flights[name] = now
	s.inFlight.total += now.total
	for site, n := range now.sites {
		s.inFlight.add(site, n)
	}
}

func (f flight) add(site string, n int) {
	if f.sites[site] += n; f.sites[site] == 0 {
		delete(f.sites, site)
	}
}

// flightOf counts one deployment's. Whoever was handed over of one that is stopped or over and is unknown to execution will
// never be offered it. The caller holds the lock.
func (s *Service) flightOf(d *deployment) flight {
	f := flight{sites: map[string]int{}}
	log := s.releases[d.record.Deployment][d.record.Revision]
	p := s.progressed[d.record.Deployment]
	if p.revision != d.record.Revision {
		p = progress{}
	}
	offered := 0
	for _, w := range p.waves {
		offered += int(w.Offered)
		f.total += int(w.InFlight)
	}
	for site, c := range p.sites {
		f.add(site, int(c.InFlight))
	}
	if log == nil || d.record.Stopped || d.record.Lapsed {
		return f
	}
	unknown := max(0, log.released.count()-offered)
	f.total += unknown
	for site, n := range log.sites {
		// A machine that moved is counted at another site than it was handed over at: no site lacks more than all do.
		f.add(site, min(unknown, max(0, n-int(p.sites[site].Offered))))
	}
	return f
}

// room is how many more jobs may be in flight.
type room struct {
	total  int
	phases map[int]int // of phases with a limit
	sites  []siteBound
	taken  map[string]int // by site, of this room
}

// siteBound is a limit of jobs in flight at every site, and those there are.
type siteBound struct {
	limit int
	sites map[string]int
}

const boundless = math.MaxInt32

// roomFor says how many agents a deployment may be handed over to now, by its plan and the fleet's limits. The caller holds
// the lock.
func (s *Service) roomFor(d *deployment, plan events.Plan) room {
	r := room{total: boundless, phases: map[int]int{}, taken: map[string]int{}}
	limits, own := s.limits, s.flights[d.record.Deployment]
	if limits.MaxInFlight > 0 {
		r.total = max(0, limits.MaxInFlight-s.inFlight.total)
	}
	if plan.MaxInFlight > 0 {
		r.total = min(r.total, max(0, plan.MaxInFlight-own.total))
	}
	for _, bound := range []siteBound{{limits.MaxInFlightPerSite, s.inFlight.sites}, {plan.MaxInFlightPerSite, own.sites}} {
		if bound.limit > 0 {
			r.sites = append(r.sites, bound)
		}
	}
	log, p := s.releases[d.record.Deployment][d.record.Revision], s.progressed[d.record.Deployment]
	if p.revision != d.record.Revision {
		p = progress{}
	}
	for i, phase := range plan.Phases {
		if phase.MaxInFlight > 0 {
			w, released := p.wave(i), 0
			if log != nil {
				released = log.phases[i].own + log.phases[i].joined
			}
			r.phases[i] = max(0, phase.MaxInFlight-max(0, released-int(w.Offered))-int(w.InFlight))
		}
	}
	return r
}

// of a phase: how many agents of it may be handed over.
func (r room) of(phase int) int {
	if n, limited := r.phases[phase]; limited {
		return min(r.total, n)
	}
	return r.total
}

// take says whether one more may be handed over at a site, and counts it. The caller holds the lock.
func (r room) take(site string) bool {
	for _, bound := range r.sites {
		if bound.sites[site]+r.taken[site] >= bound.limit {
			return false
		}
	}
	r.taken[site]++
	return true
}

// limited says which limit of jobs in flight keeps an agent of an open phase from being handed over now; "": none.
func (s *Service) limited(d *deployment, state rolloutRecord, a *agent, phase string) string {
	plan := d.plan(state)
	s.mu.RLock()
	defer s.mu.RUnlock()
	own, site, room := s.flights[d.record.Deployment], a.site(), s.roomFor(d, plan)
	at := "at site " + site
	if site == "" {
		at = "of machines without a site"
	}
	for _, l := range []struct {
		limit, inFlight int
		what            string
	}{
		{s.limits.MaxInFlight, s.inFlight.total, "in the fleet"},
		{s.limits.MaxInFlightPerSite, s.inFlight.sites[site], at + ", in the fleet"},
		{plan.MaxInFlight, own.total, "in the deployment"},
		{plan.MaxInFlightPerSite, own.sites[site], at + ", in the deployment"},
	} {
		if l.limit > 0 && l.inFlight >= l.limit {
			return heldBack(l.limit, l.what)
		}
	}
	for i, p := range plan.Phases {
		if n, bounded := room.phases[i]; bounded && n == 0 && p.Name == phase {
			return heldBack(p.MaxInFlight, "in the phase")
		}
	}
	return ""
}

func heldBack(limit int, where string) string {
	return fmt.Sprintf("held back by a limit: at most %d jobs in flight %s, and there are as many; it is handed to execution when some have ended", limit, where)
}
