package integration

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/timing"
)

// crowd is machines of which only what they say is there: they hear their offers in JOBS, and tell how the jobs go. One
// machine of twenty fails.
type crowd struct {
	f          *fleet
	deployment string
	all        map[string]*crowdAgent // by id
	phases     []crowdPhase
	offers     chan events.JobOffer // new ones

	mu       sync.Mutex
	inFlight int
	most     int           // that were in flight at once
	limit    int           // of jobs in flight
	full     chan struct{} // closed when as many were in flight as the limit allows
	told     chan struct{} // closed when execution next tells how far it is
	again    int           // offers of an attempt that were heard before
	done     int           // machines whose job ended
	amiss    []string
}

// crowdAgent is one machine; taken is set under the crowd's lock.
type crowdAgent struct {
	id    string
	phase int // that it belongs to, by its place
	fails bool
	taken map[string]bool // jobs and attempts that it has heard of
}

// crowdPhase counts the machines of a phase: all, those whose program succeeds and fails; and, under the crowd's lock, those
// that have succeeded so far.
type crowdPhase struct {
	size                       int
	succeeds, fails, succeeded int64
}

// crowdCuts are the percents up to which the phases reach.
var crowdCuts = []float64{1, 25, 100}

func (a *crowdAgent) end() events.State {
	if a.fails {
		return events.Failed
	}
	return events.Succeeded
}

// newCrowd draws the phases as a rollout does: by the machines' places in the deployment.
func newCrowd(f *fleet, deployment string, machines int) *crowd {
	c := &crowd{f: f, deployment: deployment, all: map[string]*crowdAgent{}, phases: make([]crowdPhase, len(crowdCuts)), offers: make(chan events.JobOffer, 2*machines), full: make(chan struct{}), told: make(chan struct{})}
	var order []*crowdAgent
	for i := range machines {
		id := events.AgentID(fmt.Append(nil, "machine ", i))
		a := &crowdAgent{id: id, fails: timing.Place("failures", id) < 0.05, taken: map[string]bool{}}
		c.all[id] = a
		order = append(order, a)
	}
	slices.SortFunc(order, func(a, b *crowdAgent) int {
		return cmp.Compare(timing.Place(deployment, a.id), timing.Place(deployment, b.id))
	})
	for i, a := range order {
		for float64(i) >= math.Ceil(crowdCuts[a.phase]*float64(machines)/100) {
			a.phase++
		}
		p := &c.phases[a.phase]
		if p.size++; a.fails {
			p.fails++
		} else {
			p.succeeds++
		}
	}
	return c
}

// plan has gates without slack: the canary's opens when the last of its machines that can succeed did, and one failure more
// than there are halts.
func (c *crowd) plan() events.Plan {
	p := events.Plan{MaxInFlight: 100}
	for i, name := range []string{"canary", "pilot", "rest"} {
		p.Phases = append(p.Phases, events.Phase{Name: name, Percent: crowdCuts[i], HaltWhen: &events.Halt{Failed: &events.Limit{Count: int(c.phases[i].fails) + 1}}})
	}
	p.Phases[0].AdvanceWhen = &events.Advance{Succeeded: &events.Limit{Count: int(c.phases[0].succeeds)}}
	p.Phases[1].AdvanceWhen = &events.Advance{Succeeded: &events.Limit{Percent: pilotShare}}
	return p
}

// pilotShare of the pilot's machines must have succeeded, in percent.
const pilotShare = 90

// needed successes before the phase after this one may open.
func (c *crowd) needed(phase int) int64 {
	if phase == 0 {
		return c.phases[0].succeeds
	}
	return int64(math.Ceil(pilotShare * float64(c.phases[phase].size) / 100))
}

// report tells the facts of all machines.
func (c *crowd) report() {
	t := c.f.t
	t.Helper()
	stored, now := c.f.owner.NewPipeline(), time.Now().UTC()
	for i, id := range slices.Sorted(maps.Keys(c.all)) {
		facts := events.Facts{ID: id, Hostname: fmt.Sprintf("light-%04d", i), OS: "linux", OSName: "debian", OSVersion: "12.7", Arch: "amd64", Addresses: []string{}, Tags: []string{}, ClientKind: events.Advanced, OfferFormat: events.OfferFormat}
		m, err := bus.Message(events.AgentReported, events.Event[events.AgentReport]{ID: events.DeriveID("report", id), Source: events.AgentSource(id), Subject: id, Time: now, Data: events.AgentReport{Facts: facts, At: now}})
		must(t, err)
		must(t, stored.Add(t.Context(), m))
	}
	must(t, stored.Flush(t.Context()))
}

// start has the machines hear offers and carry them out until the test ends.
func (c *crowd) start(limit int) {
	c.limit = limit
	ctx, cancel := context.WithCancel(context.Background())
	var working sync.WaitGroup
	c.f.t.Cleanup(func() { cancel(); working.Wait() })
	follow := func(stream, filter string, each func(jetstream.Msg) error) {
		working.Go(func() {
			if err := c.f.owner.Follow(ctx, stream, filter, 1, each); err != nil && ctx.Err() == nil {
				c.f.t.Errorf("follow %s: %v", stream, err)
			}
		})
	}
	follow(events.StreamJobs, events.OfferStored("*"), c.hear)
	follow(events.StreamEvents, events.DeploymentProgressed.Subject(c.deployment), func(jetstream.Msg) error {
		c.mu.Lock()
		defer c.mu.Unlock()
		close(c.told)
		c.told = make(chan struct{})
		return nil
	})
	for range 2 * limit {
		working.Go(func() {
			for {
				select {
				case o := <-c.offers:
					if err := c.carryOut(ctx, o); err != nil && ctx.Err() == nil {
						c.f.t.Errorf("job of %s: %v", o.Agent, err)
					}
				case <-ctx.Done():
					return
				}
			}
		})
	}
}

// hear takes an offer. What is in flight here is so for the services too: it ends here before they hear of it.
func (c *crowd) hear(m jetstream.Msg) error {
	e, err := typed[events.JobOffer](m)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	a, known := c.all[e.Data.Agent]
	attempt := fmt.Sprintf("%s attempt %d", e.Data.Job, e.Data.Attempt)
	switch {
	case !known || e.Data.Deployment != c.deployment:
		c.amiss = append(c.amiss, fmt.Sprintf("offered: %+v", e.Data))
		return nil
	case a.taken[attempt]:
		c.again++
		return nil
	case len(a.taken) > 0:
		c.amiss = append(c.amiss, fmt.Sprintf("%s was offered %s beside %v", a.id, attempt, slices.Collect(maps.Keys(a.taken))))
	}
	a.taken[attempt] = true
	for before := range a.phase {
		if got, need := c.phases[before].succeeded, c.needed(before); got < need {
			c.amiss = append(c.amiss, fmt.Sprintf("%s of phase %d was offered a job when %d machines of phase %d had succeeded, not %d", a.id, a.phase, got, before, need))
		}
	}
	c.inFlight++
	if c.most = max(c.most, c.inFlight); c.inFlight == c.limit {
		select {
		case <-c.full:
		default:
			close(c.full)
		}
	}
	if c.inFlight > c.limit {
		c.amiss = append(c.amiss, fmt.Sprintf("with %s, %d jobs are in flight", a.id, c.inFlight))
	}
	c.offers <- e.Data // there is room for all there should be, twice
	return nil
}

// carryOut tells of a job from its beginning to its end. A program runs until execution has told of jobs once more, so that
// scheduling has the time to hand over too many; after the canary none starts before as many jobs were in flight as the limit
// allows, so that the limit is put to the test.
func (c *crowd) carryOut(ctx context.Context, o events.JobOffer) error {
	a := c.all[o.Agent]
	if err := c.say(ctx, o, 1, events.Accepted); err != nil {
		return err
	}
	if a.phase > 0 {
		if err := closed(ctx, c.full); err != nil {
			return err
		}
	}
	c.mu.Lock()
	told := c.told // that it runs is told of later than now
	c.mu.Unlock()
	if err := c.say(ctx, o, 2, events.Running); err != nil {
		return err
	}
	if err := closed(ctx, told); err != nil {
		return err
	}
	c.note(a)
	return c.say(ctx, o, 3, a.end())
}

// closed waits until a channel is.
func closed(ctx context.Context, done <-chan struct{}) error {
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// say stores a status as its machine would.
func (c *crowd) say(ctx context.Context, o events.JobOffer, transition uint32, state events.State) error {
	status := events.JobStatus{Job: o.Job, Deployment: o.Deployment, Revision: o.Revision, Order: o.Order, Agent: o.Agent, Occurrence: o.Occurrence, User: o.User,
		Attempt: o.Attempt, Transition: transition, State: state, At: time.Now().UTC()}
	switch state {
	case events.Succeeded:
		status.ExitCode = new(0)
	case events.Failed:
		status.Reason, status.ExitCode = events.ExitCode, new(1603)
	}
	kind, _ := events.StatusType(state)
	_, err := bus.Publish(ctx, c.f.owner, kind, events.Event[events.JobStatus]{ID: status.StatusID(), Source: events.AgentSource(o.Agent), Subject: o.Agent, Time: status.At, Data: status})
	return err
}

// note counts a job that is about to end, before anybody can hear of it.
func (c *crowd) note(a *crowdAgent) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inFlight--
	c.done++
	if !a.fails {
		c.phases[a.phase].succeeded++
	}
}

func (c *crowd) ended() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.done
}

// await waits until something holds. A replica's share of the work may rest until the broker gives it to another. It looks
// often, so that replicas are killed amid what they do and not only between.
func (c *crowd) await(what string, holds func() bool) {
	c.f.t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	const most = 4 * time.Minute
	for deadline := time.Now().Add(most); time.Now().Before(deadline); <-tick.C {
		if holds() {
			return
		}
	}
	c.f.t.Fatalf("waited %s in vain: %s", most, what)
}
