package rehearsal

import (
	"container/heap"
	"time"

	"chandler/events"
	"chandler/events/rollout"
)

// phase is one of the rollout's; view is what is known of it, as scheduling knows it.
type phase struct {
	plan    events.Phase
	view    rollout.View
	counts  events.WaveCounts
	waiting waitingSites // agents in it that are not released
	blocked map[*site]*siteQueue
	asked   bool // for an approval
	line    Phase
}

// site is where machines are.
type site struct {
	name   string
	flying int
}

// siteQueue are the agents of one site that wait for their release, in the order of the fleet.
type siteQueue struct {
	site   *site
	agents []int
}

// waitingSites is a heap, by each site's first.
type waitingSites []*siteQueue

func (w waitingSites) Len() int           { return len(w) }
func (w waitingSites) Less(i, j int) bool { return w[i].agents[0] < w[j].agents[0] }
func (w waitingSites) Swap(i, j int)      { w[i], w[j] = w[j], w[i] }
func (w *waitingSites) Push(x any)        { *w = append(*w, x.(*siteQueue)) }
func (w *waitingSites) Pop() any {
	last := (*w)[len(*w)-1]
	*w = (*w)[:len(*w)-1]
	return last
}

// open opens a phase: who is in it is fixed from now on. A phase that could hold nobody does not open, nor does the first
// one without anybody: whoever came later would be in none that a gate watches.
func (s *play) open(index int) bool {
	p := s.phases[index]
	drawn, ok := s.drawn(p.plan, index == len(s.phases)-1)
	if !ok || index == 0 && len(drawn) == 0 {
		p.line.Says = "there is nobody for it, so that it does not open"
		return false
	}
	p.view = rollout.View{Index: index, Opened: s.now, Size: len(drawn)}
	p.line.Opened, p.line.Size = s.now, len(drawn)
	p.blocked = map[*site]*siteQueue{}
	queues := map[*site]*siteQueue{}
	for _, i := range drawn {
		a := &s.agents[i]
		a.story.Phase = index
		q := queues[a.site]
		if q == nil {
			q = &siteQueue{site: a.site}
			queues[a.site] = q
			p.waiting = append(p.waiting, q)
		}
		q.agents = append(q.agents, i)
	}
	heap.Init(&p.waiting)
	s.opened++
	if gate := p.plan.AdvanceWhen; gate != nil && gate.Event != nil && s.in.People.Signal != nil {
		s.foresee(s.now.Add(*s.in.People.Signal), signal, index)
	}
	return true
}

// drawn are the agents of a phase that are in none before it; ok is false where none may be drawn.
func (s *play) drawn(p events.Phase, last bool) (drawn []int, ok bool) {
	var places []float64
	could := make([]int, 0, len(s.agents))
	for i := range s.agents {
		if a := &s.agents[i]; last || !a.machine.away(s.in.Recorded) {
			could = append(could, i)
			places = append(places, a.place)
		}
	}
	cut, collection := 1.0, s.in.Collections[p.Collection]
	if p.Collection == "" {
		if len(places) == 0 && !last {
			return nil, false
		}
		cut = rollout.Cut(p, places)
	}
	for _, i := range could {
		a := &s.agents[i]
		if a.story.Phase >= 0 || a.place > cut {
			continue
		}
		if p.Collection != "" {
			if in, err := collection.Matches(a.machine.Facts); err != nil || !in {
				continue
			}
		}
		drawn = append(drawn, i)
	}
	return drawn, true
}

// settle decides what follows from what happened at this instant.
func (s *play) settle() {
	for {
		s.release()
		if s.opened == 0 || s.frozen || !s.line.Done.IsZero() || len(s.queue) > 0 && s.queue[0].at.Equal(s.now) {
			return // what else happens now counts too
		}
		if !s.judge() {
			return
		}
	}
}

// judge acts by the verdict about the newest phase; it says whether another one has opened.
func (s *play) judge() bool {
	p := s.phases[s.opened-1]
	p.view.Counts, p.view.Forgiven = p.counts, p.view.Forgiven.Among(p.counts)
	verdict := rollout.Judge(events.Plan{Phases: s.plan()}, p.view, s.now)
	p.line.Says = verdict.Says
	met := p.view.Met
	if verdict.Step != rollout.Open {
		p.view.Met, p.line.Met = verdict.Met, verdict.Met // a halt begins the bake time anew
	}
	switch verdict.Step {
	case rollout.Open:
		if !s.open(s.opened) {
			return false
		}
		p.line.Met, p.line.Left, p.line.Says = verdict.Met, s.now, ""
		return true
	case rollout.Done:
		p.line.Left, s.line.Done = s.now, s.now
	case rollout.Stop:
		s.halt(p, verdict.Says, met)
	case rollout.Wait:
		if verdict.Until.After(s.now) && !verdict.Until.Equal(s.woken) {
			s.woken = verdict.Until
			s.foresee(verdict.Until, wakes, p.view.Index)
		}
		s.askApproval(p, verdict)
	}
	return false
}

// plan is the phases as they are judged.
func (s *play) plan() []events.Phase {
	if len(s.in.Plan.Phases) > 0 {
		return s.in.Plan.Phases
	}
	return []events.Phase{s.phases[0].plan}
}

// askApproval has somebody approve, in time, what waits for nothing else.
func (s *play) askApproval(p *phase, v rollout.Verdict) {
	gate := p.plan.AdvanceWhen
	if gate == nil || !gate.Approval || p.asked || v.Met.IsZero() || !v.Until.IsZero() || gate.Event != nil && !p.view.Signalled {
		return
	}
	p.asked = true
	if s.in.People.Approve != nil {
		s.foresee(s.now.Add(*s.in.People.Approve), approval, p.view.Index)
	}
}

func (s *play) halt(p *phase, says string, met time.Time) {
	s.frozen = true
	p.line.Halts = append(p.line.Halts, Halt{At: s.now, Says: says, Met: met, Counts: p.counts})
	if s.in.Plan.OnHalt == events.OnHaltRollback {
		for i := range s.agents {
			if s.agents[i].story.Runs > 0 {
				s.line.RolledBack++
			}
		}
		return
	}
	if s.in.People.Resume != nil {
		s.foresee(s.now.Add(*s.in.People.Resume), resumes, p.view.Index)
	}
}

// resume forgives what halted the rollout; whoever was held starts, if it still may.
func (s *play) resume(index int) {
	p := s.phases[index]
	s.frozen, p.view.Resumed = false, s.now
	p.view.Forgiven = rollout.Forgiven{Failed: max(p.view.Forgiven.Failed, p.counts.Failed), Silent: max(p.view.Forgiven.Silent, p.counts.Silent)}
	p.line.Halts[len(p.line.Halts)-1].Resumed = s.now
	held := s.held
	s.held = nil
	for _, h := range held {
		if s.agents[h.agent].epoch == h.epoch {
			s.foresee(s.now, tries, h.agent)
		}
	}
}

// release hands agents over, those of the earliest phases first and else in the order of the fleet, as far as the limits of jobs in flight allow.
func (s *play) release() {
	if s.frozen || !s.now.Before(s.order.Over()) {
		return
	}
	total := least(s.in.Plan.MaxInFlight, s.in.Limits.MaxInFlight)
	perSite := least(s.in.Plan.MaxInFlightPerSite, s.in.Limits.MaxInFlightPerSite)
	for _, p := range s.phases[:s.opened] {
		for at := range s.freed {
			if q := p.blocked[at]; q != nil {
				delete(p.blocked, at)
				heap.Push(&p.waiting, q)
			}
		}
	}
	clear(s.freed)
	for _, p := range s.phases[:s.opened] {
		for len(p.waiting) > 0 && below(s.flying, total) && below(int(p.counts.InFlight), p.plan.MaxInFlight) {
			q := p.waiting[0]
			if !below(q.site.flying, perSite) {
				p.blocked[q.site] = q
				heap.Pop(&p.waiting)
				continue
			}
			s.offer(p, q.agents[0])
			if q.agents = q.agents[1:]; len(q.agents) == 0 {
				heap.Pop(&p.waiting)
				continue
			}
			heap.Fix(&p.waiting, 0)
		}
	}
}

// least of two bounds, where 0 is none.
func least(a, b int) int {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

func below(n, bound int) bool { return bound == 0 || n < bound }

// offer releases an agent.
func (s *play) offer(p *phase, i int) {
	a := &s.agents[i]
	p.line.Released++
	a.story.Offered = s.now
	s.hour().Offered++
	a.story.State = events.Offered
	p.counts.Offered++
	p.counts.Agents++
	s.tally(a, 1)
	s.line.Most = max(s.line.Most, s.flying)
	s.foresee(s.now.Add(s.patience(p)+longer), silent, i)
	if there := a.machine.there(s.in.Recorded, s.now); !there.IsZero() && !s.in.Outcome(a.who.ID, 1).Silent {
		s.foresee(there, hears, i)
	}
}

// longer than its patience a machine says nothing: execution counts in whole seconds.
const longer = time.Second

// patience is after how long without a word an agent of the phase counts as silent.
func (s *play) patience(p *phase) time.Duration {
	if h := p.plan.HaltWhen; h != nil && h.Silent != nil {
		return time.Duration(h.Silent.After)
	}
	return s.in.Silence
}

// tally adds what an agent's job counts as, or takes it away.
func (s *play) tally(a *agent, n int64) {
	c := &s.phases[a.story.Phase].counts
	if a.story.State.InFlight() && !a.silent {
		c.InFlight += n
		s.flying += int(n)
		if a.site.flying += int(n); n < 0 {
			s.freed[a.site] = true
		}
	}
	if a.silent {
		c.Silent += n
	}
	if a.story.State == events.Waiting {
		c.Waiting += n
	}
	switch events.OutcomeOf(a.story.State, a.story.Reason) {
	case events.OutcomeSucceeded:
		c.Succeeded += n
	case events.OutcomeFailed:
		c.Failed += n
	case events.OutcomeNotApplicable:
		c.NotApplicable += n
	}
}
