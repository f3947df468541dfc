// Package rehearsal plays a rollout in virtual time against a recorded fleet, before anything is signed: who would get it
// when, which gate opens or halts when, what each site would download, what would never run and why.
//
// It decides by the very code that scheduling and agents decide by (packages rollout, timing, calendar and target). What
// those cannot know it takes as told: how programs end and how long they run, when machines are switched on, when people
// answer. What it supposes besides is in [Timeline.Supposes].
//
// It is pure: no clock, no I/O, and the same input, seed included, gives the same timeline. It fails on input that scheduling
// would refuse, and ends early, saying so, where an order would have more happen than can be played.
package rehearsal

import (
	"errors"
	"fmt"
	"time"

	"chandler/events"
	"chandler/events/order"
	"chandler/events/rollout"
	"chandler/events/target"
	"chandler/events/timing"
)

// Input is what is played.
type Input struct {
	Order order.Order
	// Include and Exclude are the lists of agents whose digests the order binds.
	Include, Exclude []string
	Plan             events.Plan
	// Collections are those that the plan's phases name.
	Collections map[string]target.Target
	Limits      events.Limits // of the fleet; what other deployments have in flight is not known
	Program     events.Program
	// Need is the longest run time allowed to any of the programs that run, the ones that run first included; 0: the program's.
	Need  time.Duration
	Bytes int64 // that each machine downloads
	// Fleet in the order in which scheduling hands machines over where limits hold others back: that in which it got to
	// know them.
	Fleet []Machine
	// Heard are the hours of the week of which anything is known, as [Heard] gives them: of the others each machine counts
	// as there. None: all are.
	Heard Presence
	// Outcome says how an attempt, counted from 1, of an agent's job ends. See [Model].
	Outcome func(agent string, attempt int) Result
	// Identity says why a machine could not run it for want of an identity or account on the network; "": it could. nil:
	// every one can.
	Identity func(events.Facts) events.Reason
	People   People
	// Silence is after how long without a word a job counts as silent where the phase's gate names no time; 0: [Silence].
	Silence      time.Duration
	Start, Until time.Time // what happens after Until is not played
	// Recorded is when the fleet was, and its LastSeen; zero: at Start.
	Recorded time.Time
}

// Silence is execution's own patience.
const Silence = 4 * time.Hour

// Machine is one of the fleet.
type Machine struct {
	Facts    events.Facts
	LastSeen time.Time
	Presence Presence
	Last     timing.Last // how the program ended here before
	Rolls    bool        // of an order that rolls back: the job that it takes back ran here
}

// People is how long people take to do what a rollout waits for; nil: they never do.
type People struct {
	Approve *time.Duration // since nothing but their approval is missing
	Signal  *time.Duration // since the phase opened: the event that its gate waits for comes
	Resume  *time.Duration // since a gate halted the rollout
}

// Result is how an attempt ends.
type Result struct {
	Took   time.Duration
	Reason events.Reason // why it fails; "": it succeeds
	// Silent: the machine takes the offer and never says a word, nor runs anything.
	Silent bool
}

// Run plays a rollout. Errors are of input that nobody would accept as a deployment.
func Run(in Input) (Timeline, error) {
	if in.Outcome == nil {
		return Timeline{}, errors.New("nothing says how programs end")
	}
	if !in.Until.After(in.Start) {
		return Timeline{}, fmt.Errorf("the rehearsal would end at %s, before it begins", in.Until.Format(time.RFC3339))
	}
	if err := in.Order.Validate(); err != nil {
		return Timeline{}, fmt.Errorf("order: %w", err)
	}
	if err := rollout.Check(in.Plan); err != nil {
		return Timeline{}, fmt.Errorf("plan: %w", err)
	}
	for _, p := range in.Plan.Phases {
		if _, ok := in.Collections[p.Collection]; p.Collection != "" && !ok {
			return Timeline{}, fmt.Errorf("phase %s: there is no collection %s", p.Name, p.Collection)
		}
	}
	s, err := newPlay(in)
	if err != nil {
		return Timeline{}, err
	}
	s.play()
	return s.told(), nil
}
