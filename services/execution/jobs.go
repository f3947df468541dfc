package execution

import (
	"fmt"
	"iter"
	"math"
	"slices"

	"chandler/events"
)

// jobs is the state of one partition: every job, live or ended, of the deployments that are not removed.
// It changes only by [jobs.apply], so that every replica that applies the same deltas holds the same.
// It is not safe for concurrent use; see [partition].
type jobs struct {
	codes codes
	// position in FOLD, and in STATUS up to which everything is folded.
	sequence uint64
	status   events.Generation
	folded   uint64
	author   uint64 // replica that made the newest change

	deployments []*tally // by index; nil once removed
	byName      map[string]uint32
	agents      []agentJobs // by index
	byAgent     map[string]uint32
	users       []string // by index; the first is none
	byUser      map[string]uint32
	sites       sites
	// granted counts the jobs that were offered again because they said so: what the budget of retries is for.
	granted uint64
}

// agentJobs lists an agent's records. There are few of them: one for each deployment that reached it.
type agentJobs struct {
	id   string
	site uint32 // index into sites
	jobs []kept
}

type kept struct {
	deployment, user uint32
	record
}

// tally counts the jobs of one deployment, by revision.
type tally struct {
	name      string
	revisions []counts
}

type counts struct {
	revision uint64
	total    int64
	silent   int64
	states   []int64 // by code
	reasons  []int64 // by code, of jobs rejected, retrying or failed
	rollout
}

func newJobs(c codes) *jobs {
	return &jobs{codes: c, byName: map[string]uint32{}, byAgent: map[string]uint32{}, users: []string{""}, byUser: map[string]uint32{"": 0}, sites: newSites()}
}

// find gives the record of a job.
func (s *jobs) find(k jobKey) (job, bool) {
	a, ok := s.byAgent[k.agent]
	if !ok {
		return job{}, false
	}
	d, known := s.byName[k.deployment]
	u, knownUser := s.byUser[k.user]
	if !known || !knownUser {
		return job{}, false
	}
	for _, kept := range s.agents[a].jobs {
		if kept.deployment == d && kept.user == u {
			return s.wide(a, kept), true
		}
	}
	return job{}, false
}

func (s *jobs) wide(agent uint32, k kept) job {
	d := s.deployments[k.deployment]
	return job{deployment: d.name, agent: s.agents[agent].id, user: s.users[k.user], revision: d.revisions[k.revision].revision, occurrence: k.occurrence,
		changed: k.changed, transition: k.transition, attempt: k.attempt, state: s.codes.states[k.state()], reason: s.codes.reasons[k.reason],
		waiting: s.codes.waiting[k.waiting()], wave: k.wave, flags: k.flags}
}

// ofAgent lists the jobs of one agent.
func (s *jobs) ofAgent(agent string) iter.Seq[job] {
	return func(yield func(job) bool) {
		a, ok := s.byAgent[agent]
		if !ok {
			return
		}
		for _, k := range s.agents[a].jobs {
			if !yield(s.wide(a, k)) {
				return
			}
		}
	}
}

// total counts the jobs of all deployments.
func (s *jobs) total() (n int) {
	for _, d := range s.deployments {
		if d != nil {
			for i := range d.revisions {
				n += int(d.revisions[i].total)
			}
		}
	}
	return n
}

func (s *jobs) countOf(agent string) int {
	if a, ok := s.byAgent[agent]; ok {
		return len(s.agents[a].jobs)
	}
	return 0
}

// all lists every job; of one deployment unless its name is empty.
func (s *jobs) all(deployment string) iter.Seq[job] {
	return func(yield func(job) bool) {
		only, ok := s.byName[deployment]
		if deployment != "" && !ok {
			return
		}
		for a := range s.agents {
			for _, k := range s.agents[a].jobs {
				if (deployment == "" || k.deployment == only) && !yield(s.wide(uint32(a), k)) {
					return
				}
			}
		}
	}
}

// apply makes the change that a delta states. Deltas hold whole records, so applying one twice is harmless.
func (s *jobs) apply(sequence uint64, d delta) error {
	for _, r := range d.removed {
		s.remove(r.deployment)
	}
	for _, p := range d.places {
		s.settleAt(p)
	}
	for _, j := range d.jobs {
		if err := s.set(j); err != nil {
			return err
		}
	}
	s.sequence, s.status, s.folded, s.author = sequence, d.status, d.folded, d.author
	return nil
}

func (s *jobs) set(j job) error {
	d := s.deployment(j.deployment)
	revision := slices.IndexFunc(s.deployments[d].revisions, func(c counts) bool { return c.revision == j.revision })
	if revision < 0 {
		revision = len(s.deployments[d].revisions)
		if revision > math.MaxUint16 {
			return fmt.Errorf("deployment %s has more than %d revisions", j.deployment, math.MaxUint16)
		}
		s.deployments[d].revisions = append(s.deployments[d].revisions,
			counts{revision: j.revision, states: make([]int64, len(s.codes.states)), reasons: make([]int64, len(s.codes.reasons)),
				rollout: rollout{sites: map[uint32]events.SiteCounts{}}})
	}
	after := kept{d, s.user(j.user), record{occurrence: j.occurrence, changed: j.changed, transition: j.transition, attempt: j.attempt, revision: uint16(revision),
		stage: stageOf(s.codes.state(j.state), s.codes.waits(j.waiting)), reason: s.codes.reason(j.reason), wave: j.wave, flags: j.flags}}
	a := &s.agents[s.agent(j.agent)]
	i := slices.IndexFunc(a.jobs, func(k kept) bool { return k.deployment == after.deployment && k.user == after.user })
	if i < 0 {
		a.jobs = append(a.jobs, after)
		s.place(&after, a.site, 1)
	} else {
		before := a.jobs[i]
		a.jobs[i] = after
		s.count(&before, -1)
		s.replace(&before, &after, a.site)
		if j.state == events.Offered && before.revision == after.revision && s.codes.states[before.state()] == events.Retrying {
			s.granted++
		}
	}
	s.count(&after, 1)
	return nil
}

func (s *jobs) count(k *kept, n int64) {
	c := &s.deployments[k.deployment].revisions[k.revision]
	c.total += n
	c.states[k.state()] += n
	switch s.codes.states[k.state()] {
	case events.Rejected, events.Retrying, events.Failed:
		c.reasons[k.reason] += n
	}
	if k.flags&quiet != 0 {
		c.silent += n
	}
}

func (s *jobs) remove(name string) {
	d, ok := s.byName[name]
	if !ok {
		return
	}
	for a := range s.agents {
		s.agents[a].jobs = slices.DeleteFunc(s.agents[a].jobs, func(k kept) bool { return k.deployment == d })
	}
	delete(s.byName, name)
	s.deployments[d] = nil
}

func (s *jobs) deployment(name string) uint32 {
	i, ok := s.byName[name]
	if !ok {
		i = uint32(len(s.deployments))
		s.byName[name] = i
		s.deployments = append(s.deployments, &tally{name: name})
	}
	return i
}

func (s *jobs) agent(id string) uint32 {
	i, ok := s.byAgent[id]
	if !ok {
		i = uint32(len(s.agents))
		s.byAgent[id] = i
		s.agents = append(s.agents, agentJobs{id: id})
	}
	return i
}

func (s *jobs) user(name string) uint32 {
	i, ok := s.byUser[name]
	if !ok {
		i = uint32(len(s.users))
		s.byUser[name] = i
		s.users = append(s.users, name)
	}
	return i
}

// extent is what is counted of a deployment.
type extent int

const (
	oneRevision  extent = iota
	upToRevision        // all revisions up to it
	wholeRollout        // one revision, with its phases and sites
)

// addTo adds the counts of a deployment to a progress, which names the revision.
func (s *jobs) addTo(p *events.Progress, what extent) {
	d, ok := s.byName[p.Deployment]
	if !ok {
		return
	}
	for _, c := range s.deployments[d].revisions {
		if c.revision != p.Revision && (what != upToRevision || c.revision > p.Revision) {
			continue
		}
		if what == wholeRollout {
			c.rollout.addTo(p, s.sites.names)
		}
		p.Total += c.total
		p.Silent += c.silent
		for code, n := range c.states {
			if n != 0 {
				p.States[s.codes.states[code]] += n
			}
		}
		for code, n := range c.reasons {
			if n != 0 && s.codes.reasons[code] != events.NoReason {
				p.Reasons[s.codes.reasons[code]] += n
			}
		}
	}
}
