package scheduling

import (
	"cmp"
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unique"

	"chandler/events"
)

// agent is what this replica knows of one agent. Facts are never changed in place: a report makes a new
// agent, so that readers need no lock.
type agent struct {
	facts      events.Facts
	reported   time.Time // by the agent's clock
	stored     time.Time // by the broker's
	place      int       // in the roster
	gone       bool      // left the fleet
	heard      *atomic.Int64
	runs       *runs
	attendance *attendance
}

// lastSeen is the last heartbeat or report, by the clocks of services: an agent's own may be wrong.
func (a *agent) lastSeen() time.Time {
	last := a.stored
	if heard := time.Unix(0, a.heard.Load()).UTC(); heard.After(last) {
		last = heard
	}
	if hour := a.attendance.heard(); hour.After(last) { // by another replica, or before this one started
		last = hour
	}
	return last
}

// fleet is every agent, by id. Safe for concurrent use.
type fleet struct {
	mu     sync.RWMutex
	agents map[string]*agent
	sorted []*agent // by id; nil: to be made again
	// roster gives each id that was ever named a small number, for sets.
	roster     map[string]int
	ids        []string
	attendance map[string]*attendance // of agents, also before their facts are read
}

func newFleet() *fleet {
	return &fleet{agents: map[string]*agent{}, roster: map[string]int{}, attendance: map[string]*attendance{}}
}

// put takes over what the bucket says of an agent (nil: nothing). changed is the agent when its facts are not
// what they were, or it left the fleet.
func (f *fleet) put(id string, value []byte) (changed *agent, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var r agentRecord
	if value != nil {
		if err := json.Unmarshal(value, &r); err != nil {
			return nil, err
		}
	}
	old := f.agents[id]
	if !r.there() {
		if old == nil {
			return nil, nil
		}
		delete(f.agents, id)
		delete(f.attendance, id)
		f.sorted = nil
		left := *old
		left.gone = true
		return &left, nil
	}
	a := &agent{facts: r.Facts, reported: r.Reported, stored: r.Stored, place: f.enrol(id), heard: new(atomic.Int64), runs: new(runs), attendance: f.attends(id)}
	a.facts.ID = f.ids[a.place]
	shareWords(&a.facts)
	if old != nil {
		a.heard, a.runs = old.heard, old.runs
	}
	f.agents[id] = a
	f.sorted = nil
	if old != nil && reflect.DeepEqual(old.facts, a.facts) {
		return nil, nil
	}
	return a, nil
}

// shareWords keeps what most machines say alike once for all of them: it is most of what facts take.
func shareWords(f *events.Facts) {
	for _, word := range []*string{&f.Domain, &f.OS, &f.OSName, &f.OSVersion, &f.Arch, &f.Kernel, &f.Site, &f.Version, &f.Zone, (*string)(&f.ClientKind)} {
		*word = unique.Make(*word).Value()
	}
	for i, tag := range f.Tags {
		f.Tags[i] = unique.Make(tag).Value()
	}
}

// enrol gives the roster's number of an id. The caller holds the lock.
func (f *fleet) enrol(id string) int {
	place, ok := f.roster[id]
	if !ok {
		place = len(f.ids)
		f.roster[id] = place
		f.ids = append(f.ids, id)
	}
	return place
}

// places gives the roster's numbers of ids, also of agents that are not known (any more).
func (f *fleet) places(ids []string) []int {
	f.mu.Lock()
	defer f.mu.Unlock()
	found := make([]int, len(ids))
	for i, id := range ids {
		found[i] = f.enrol(id)
	}
	return found
}

// sited gives the ids of places, sorted, and their sites in the same order; no sites where none has one.
func (f *fleet) sited(places []int) (ids, sites []string) {
	ids = f.named(places)
	f.mu.RLock()
	defer f.mu.RUnlock()
	sites = make([]string, len(ids))
	any := false
	for i, id := range ids {
		if a, ok := f.agents[id]; ok {
			sites[i] = a.site()
			any = any || sites[i] != ""
		}
	}
	if !any {
		return ids, nil
	}
	return ids, sites
}

// site of who is at a place of the roster.
func (f *fleet) site(place int) string {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if a, ok := f.agents[f.ids[place]]; ok {
		return a.site()
	}
	return ""
}

// maxSite bounds the name of a site by which jobs are counted, as execution does, in bytes.
const maxSite = 128

// site of an agent; a name that is too long counts as none.
func (a *agent) site() string {
	if len(a.facts.Site) > maxSite {
		return ""
	}
	return a.facts.Site
}

// named turns the roster's numbers back into ids, sorted.
func (f *fleet) named(places []int) []string {
	f.mu.RLock()
	defer f.mu.RUnlock()
	ids := make([]string, len(places))
	for i, p := range places {
		ids[i] = f.ids[p]
	}
	slices.Sort(ids)
	return ids
}

// heard notes a heartbeat; one of an agent that never reported says nothing of use. twins is not nil when
// it is to be told that the agent runs twice.
func (f *fleet) heard(id, instance string, at time.Time) (twins *twins) {
	a, ok := f.get(id)
	if !ok {
		return nil
	}
	a.heard.Store(at.UnixNano())
	a.attendance.hear(at)
	other, tell := a.runs.hear(instance, at)
	if !tell {
		return nil
	}
	return newTwins(a, instance, other, at)
}

func (f *fleet) get(id string) (*agent, bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	a, ok := f.agents[id]
	return a, ok
}

// at lists the agents at places of the roster, without those that are gone.
func (f *fleet) at(places []int) []*agent {
	f.mu.RLock()
	defer f.mu.RUnlock()
	agents := make([]*agent, 0, len(places))
	for _, p := range places {
		if a, ok := f.agents[f.ids[p]]; ok {
			agents = append(agents, a)
		}
	}
	return agents
}

// all is every agent by id. The caller must not change the slice.
func (f *fleet) all() []*agent {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.sorted == nil {
		f.sorted = make([]*agent, 0, len(f.agents))
		for _, a := range f.agents {
			f.sorted = append(f.sorted, a)
		}
		slices.SortFunc(f.sorted, func(a, b *agent) int { return strings.Compare(a.facts.ID, b.facts.ID) })
	}
	return f.sorted
}

// byHost orders agents as lists show them: two agents with one host name stand beside each other.
func byHost(a, b events.AgentView) int {
	return cmp.Or(strings.Compare(a.Facts.Hostname, b.Facts.Hostname), strings.Compare(a.Facts.ID, b.Facts.ID))
}
