package scheduling

import (
	"strconv"

	"chandler/events"
)

// lot is the next batch of a deployment.
type lot struct {
	places []int
	number int
	phase  int
	phased bool
	joined bool
	held   int // where nobody is picked: whom nothing but a limit holds back
}

// wave names the phase in events; a deployment without phases has one wave.
func (r releaseRecord) wave() string {
	if r.Phased {
		return strconv.Itoa(r.Phase)
	}
	return waveAll
}

// nextLot picks who is handed over next, as far as limits allow; none: nobody. Who is held back by nothing but a limit is
// counted. A batch is of one phase, and all of it joined or none: the phase's fixed number is filled first.
func (s *Service) nextLot(d *deployment) lot {
	state := s.rolloutOf(d)
	sets := []idSet{nil}
	if d.phased() {
		sets = s.queuesOf(d, state, false).phases
	}
	plan := d.plan(state)
	s.mu.RLock()
	defer s.mu.RUnlock()
	if !d.phased() {
		sets[0] = d.members.set
	}
	log := s.releases[d.record.Deployment][d.record.Revision]
	if log == nil {
		log = &releaseLog{}
	}
	room, held := s.roomFor(d, plan), 0
	for i, set := range sets {
		due := s.due(d, set, log.released)
		l := lot{number: log.next(), phase: i, phased: d.phased()}
		most := min(events.ReleaseSize, room.of(i))
		if own := log.phases[i].own; l.phased && own < state.Phases[i].Size {
			most = min(most, state.Phases[i].Size-own)
		} else {
			l.joined = l.phased
		}
		if l.places = s.pick(due, most, room); len(l.places) > 0 {
			return l
		}
		held += due.count()
	}
	return lot{held: held}
}

// due are those of a set who were not handed over, and whom no contradiction and no rollback's rule keeps back. The caller
// holds the lock.
func (s *Service) due(d *deployment, set, released idSet) idSet {
	due := set.without(released).without(s.barred(d))
	if d.order.Rolls == nil {
		return due
	}
	return due.and(s.gotForward(d))
}

// pick takes up to n agents, lowest first, as far as their sites have room. The caller holds the lock.
func (s *Service) pick(due idSet, n int, r room) (places []int) {
	if n < 1 {
		return nil
	}
	if len(r.sites) == 0 {
		return due.firstNotIn(nil, n)
	}
	for _, place := range due.firstNotIn(nil, due.count()) {
		if len(places) == n {
			break
		}
		if r.take(s.fleet.site(place)) {
			places = append(places, place)
		}
	}
	return places
}

// note counts a batch. The caller holds the service's lock.
func (l *releaseLog) note(number int, b batch) {
	if old, known := l.batches[number]; known {
		l.count(old, -1)
	}
	l.batches[number] = b
	l.count(b, 1)
	for _, p := range b.places {
		l.released = l.released.set(p, true)
	}
}

func (l *releaseLog) count(b batch, sign int) {
	t := l.phases[b.phase]
	if b.joined {
		t.joined += sign * len(b.places)
	} else {
		t.own += sign * len(b.places)
	}
	l.phases[b.phase] = t
	for site, n := range b.sites {
		l.sites[site] += sign * n
	}
}
