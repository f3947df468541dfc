package rehearsal

import (
	"cmp"
	"container/heap"
	"errors"
	"fmt"
	"time"

	"chandler/events"
	"chandler/events/order"
	"chandler/events/target"
	"chandler/events/timing"
)

// mostHappenings bounds a play: a cron of every minute on a large fleet has no end that anybody waits for.
const mostHappenings = 20_000_000

// play is a rollout while it is played.
type play struct {
	in     Input
	now    time.Time
	queue  happenings
	count  int // of what happened
	turns  int // of what was foreseen
	order  order.Order
	needs  *target.Expression // applies-if; nil: none
	need   time.Duration
	zones  map[string]*time.Location
	ends   map[*time.Location]time.Time
	member membership
	agents []agent
	phases []*phase
	opened int // phases
	sites  map[string]*site
	flying int // jobs in flight
	freed  map[*site]bool
	frozen bool
	woken  time.Time
	held   []holding
	retry  budget
	hours  map[int64]*Hour
	loads  map[siteHour]int64
	line   Timeline
}

type siteHour struct {
	site string
	hour int64
}

// what happens.
type kind uint8

const (
	hears kind = iota // an agent is there and reads its offer
	opens             // a standing order may have an occurrence due
	tries             // a job may start
	ends              // a program ends
	expires
	silent // an agent said nothing for too long
	wakes  // time alone may change the verdict
	approval
	signal
	resumes
)

// happening is one thing that happens at a time; those of one instant in the order in which they were foreseen.
type happening struct {
	at    time.Time
	turn  int
	kind  kind
	agent int    // or the phase
	epoch uint32 // of the agent when it was foreseen: a job that went another way meanwhile overlooks it
}

type happenings []happening

func (h happenings) Len() int { return len(h) }
func (h happenings) Less(i, j int) bool {
	if c := h[i].at.Compare(h[j].at); c != 0 {
		return c < 0
	}
	return h[i].turn < h[j].turn
}
func (h happenings) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *happenings) Push(x any)   { *h = append(*h, x.(happening)) }
func (h *happenings) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

func newPlay(in Input) (*play, error) {
	o := in.Order
	if order.ListDigest(in.Include) != o.IncludeDigest || order.ListDigest(in.Exclude) != o.ExcludeDigest {
		return nil, errors.New("the lists of agents are not those that the order binds")
	}
	s := &play{in: in, now: in.Start, order: o, need: cmp.Or(in.Need, in.Program.RunTime()), zones: map[string]*time.Location{}, ends: map[*time.Location]time.Time{},
		sites: map[string]*site{}, freed: map[*site]bool{}, hours: map[int64]*Hour{}, loads: map[siteHour]int64{}, retry: budget{cmp.Or(in.Limits.RetriesPerMinute, events.DefaultRetriesPerMinute), map[int64]int{}, map[int64]int64{}}}
	if s.in.Recorded.IsZero() {
		s.in.Recorded = in.Start
	}
	if s.in.Silence == 0 {
		s.in.Silence = Silence
	}
	if in.Program.AppliesIf != "" {
		e, err := target.Compile(in.Program.AppliesIf)
		if err != nil {
			return nil, fmt.Errorf("applies-if: %w", err)
		}
		s.needs = e
	}
	all, err := target.New(o.Expression, in.Include, in.Exclude)
	if err != nil {
		return nil, fmt.Errorf("target: %w", err)
	}
	if s.member, err = newMembership(o); err != nil {
		return nil, err
	}
	plan := in.Plan.Phases
	if len(plan) == 0 {
		plan = []events.Phase{{Percent: 100}}
	}
	for i, p := range plan {
		s.phases = append(s.phases, &phase{plan: p, counts: events.WaveCounts{Wave: i}, line: Phase{Name: p.Name}})
	}
	s.admit(all)
	return s, nil
}

// admit finds the machines that the order is for.
func (s *play) admit(all target.Target) {
	s.line.Start = s.in.Start
	for _, m := range s.in.Fleet {
		m.Presence = m.Presence.among(s.in.Heard)
		member, err := all.Matches(m.Facts)
		if err != nil {
			s.line.Faults++
			if s.line.Fault == "" {
				s.line.Fault = err.Error()
			}
		}
		if !member {
			s.line.Outside++
			continue
		}
		at := s.sites[m.Facts.Site]
		if at == nil {
			at = &site{name: m.Facts.Site}
			s.sites[at.name] = at
		}
		zone := s.zone(m.Facts.Zone)
		a := agent{machine: m, who: timing.Machine{ID: m.Facts.ID, Zone: zone}, site: at, place: timing.Place(s.order.Deployment, m.Facts.ID), last: m.Last, ends: s.endsIn(zone)}
		a.story = AgentStory{Agent: m.Facts.ID, Host: m.Facts.Hostname, Site: m.Facts.Site, Phase: -1, State: NotReleased}
		s.agents = append(s.agents, a)
	}
}

func (s *play) zone(name string) *time.Location {
	loc, ok := s.zones[name]
	if !ok {
		var err error
		if loc, err = time.LoadLocation(name); err != nil || name == "Local" {
			loc = time.UTC
		}
		s.zones[name] = loc
	}
	return loc
}

func (s *play) endsIn(loc *time.Location) time.Time {
	end, ok := s.ends[loc]
	if !ok {
		end = timing.Ends(s.order, timing.Machine{Zone: loc})
		s.ends[loc] = end
	}
	return end
}

// play lets happen what happens, an instant at a time; what is decided for all is decided after each.
func (s *play) play() {
	if begins := s.order.Begins(); begins.After(s.now) {
		s.now = begins
	}
	if s.now.After(s.in.Until) {
		s.line.Ended = "the deployment becomes available only after the time played"
		return
	}
	s.open(0)
	for s.settle(); len(s.queue) > 0; s.settle() {
		if s.count >= mostHappenings {
			s.line.Ended = fmt.Sprintf("too much happens: what comes after %s was not played", s.now.UTC().Format(time.RFC3339))
			return
		}
		for s.now = s.queue[0].at; len(s.queue) > 0 && s.queue[0].at.Equal(s.now); s.count++ {
			s.happens(heap.Pop(&s.queue).(happening))
		}
	}
}

// foresee has something happen, if that is within the time played.
func (s *play) foresee(at time.Time, what kind, agent int) {
	if at.After(s.in.Until) {
		return
	}
	if at.Before(s.now) {
		at = s.now
	}
	s.turns++
	h := happening{at: at, turn: s.turns, kind: what, agent: agent}
	if what <= silent {
		h.epoch = s.agents[agent].epoch
	}
	heap.Push(&s.queue, h)
}

func (s *play) happens(h happening) {
	if h.kind <= expires && s.agents[h.agent].epoch != h.epoch {
		return
	}
	switch h.kind {
	case hears:
		s.hears(h.agent)
	case opens:
		s.opens(h.agent)
	case tries:
		s.tries(h.agent)
	case ends:
		s.programEnds(h.agent)
	case expires:
		s.move(h.agent, events.Expired, events.DeploymentExpired, "")
	case silent:
		s.silent(h.agent)
	case approval:
		s.phases[h.agent].view.Approved = true
	case signal:
		s.phases[h.agent].view.Signalled = true
	case resumes:
		s.resume(h.agent)
	case wakes:
	}
}

func (s *play) hour() *Hour {
	at := s.now.UTC().Truncate(time.Hour)
	h := s.hours[at.Unix()]
	if h == nil {
		h = &Hour{At: at}
		s.hours[at.Unix()] = h
	}
	return h
}

// budget is how many jobs the fleet tries again within a minute.
type budget struct {
	perMinute int
	used      map[int64]int   // by minute
	full      map[int64]int64 // by minute in which retries are due: the first one that may have room for them
}

// at is when a retry that is due takes its turn: in the first minute from then on that has room.
func (b budget) at(due time.Time) time.Time {
	wanted := due.Unix() / 60
	minute := max(wanted, b.full[wanted])
	for b.used[minute] >= b.perMinute {
		minute++
	}
	b.used[minute]++
	b.full[wanted] = minute
	if at := time.Unix(minute*60, 0).In(due.Location()); at.After(due) {
		return at
	}
	return due
}
