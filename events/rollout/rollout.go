// Package rollout decides how a deployment goes through its phases: who is in a phase, when the next one opens, when a
// gate is bad. Scheduling decides by it for real, a rehearsal in virtual time.
//
// It is pure: what is known and the time come in, a verdict comes out.
package rollout

import (
	"time"

	"chandler/events"
)

// View is what is known of the newest open phase of a plan.
type View struct {
	Index  int       // of the phase
	Opened time.Time // when it opened
	// Resumed is when somebody let it go on after a halt; zero: it was never halted. Bake time begins anew then.
	Resumed time.Time
	// Size is the number of agents in it when it opened, less those who left before they were handed over.
	Size   int
	Counts events.WaveCounts // of its agents
	// Met is since when the success gate has been met without a break; zero: it was not when last judged.
	Met       time.Time
	Approved  bool // somebody approved the next phase since this one opened
	Signalled bool // the external event came since it opened
	Skipped   bool // somebody lets the next phase open whatever the gate says
	// Forgiven are failures and silences that somebody resumed the rollout in spite of: they count no more.
	Forgiven Forgiven
}

// Forgiven counts what a halt was resumed in spite of.
type Forgiven struct {
	Failed int64 `json:"failed,omitempty"`
	Silent int64 `json:"silent,omitempty"`
}

// Among are those that still stand among the counts of now: what failed and is tried again counts anew when it fails again.
func (f Forgiven) Among(c events.WaveCounts) Forgiven {
	return Forgiven{Failed: min(f.Failed, c.Failed), Silent: min(f.Silent, c.Silent)}
}

// Step is what a verdict says to do.
type Step int

// The steps.
const (
	Wait Step = iota // nothing, at most keep Met
	Open             // open the next phase
	Stop             // halt: Says tells why
	Done             // there is no next phase
)

// Verdict is what is to be done about the newest open phase.
type Verdict struct {
	Step Step
	// Met is since when the success gate is met, to be kept; zero: it is not.
	Met time.Time
	// Until is when time alone may change the verdict; zero: it does not.
	Until time.Time
	// Says tells people what is waited for, or why it is halted, with the numbers: "7 of 100 machines failed (7%), the gate
	// halts at 5%".
	Says string
}
