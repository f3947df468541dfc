package checker

import (
	"time"

	"chandler/events"
)

// Witness names who says something.
type Witness string

// The witnesses.
const (
	InEvents   Witness = "EVENTS"    // orders, stops, releases, finished jobs
	InJobs     Witness = "JOBS"      // offers
	InStatus   Witness = "STATUS"    // statuses
	InHistory  Witness = "HISTORY"   // ended jobs
	Scheduling Witness = "schedule"  // scheduling's own answers
	Execution  Witness = "execution" // execution's own answers
	InJournals Witness = "journal"   // agents' journals
	Executor   Witness = "executor"  // who ran the programs
	Agents     Witness = "agent"     // what was acknowledged to agents
)

// Evidence is what is known after a run. A list that is nil was not heard and nothing is held against it; one that is empty says
// that there is nothing. The order within lists does not matter.
type Evidence struct {
	Orders       []Order   // nil: nothing is held against orders, and none is taken to stand
	Stops        []Stop    // also of removals
	Released     []Release // by scheduling, as EVENTS holds it
	Counts       []Count   // by scheduling, as it answers
	Offers       []Offer
	Stored       []Status // with copies
	Acknowledged []Ack
	Journals     []Journal
	Runs         []Run
	Jobs         []events.JobRow // by execution, as it answers
	Finished     []End           // as EVENTS holds them
	History      []End           // as HISTORY holds them
	Freezes      []events.Freeze // in force at the end; what they hold need not have ended

	// Since is when what a witness holds begins to be complete; zero: it always was.
	Since map[Witness]time.Time
	// OffersSince is the same of JOBS for single agents, of whom it holds only the newest messages.
	OffersSince map[string]time.Time
	// Slack is by how much the clocks of agents, services and broker may differ, or were set, during the run.
	Slack time.Duration
	// Away are agents that were not connected at the end: what they have not told yet is not missed.
	Away map[string]bool
	// Open are deployments whose jobs need not have ended.
	Open map[string]bool
	// Deployments are those that are checked; none: all.
	Deployments []string
}

// Name says which job is meant, see [events.JobID].
type Name struct {
	Job        string
	Deployment string
	Revision   uint64
	Agent      string
	Occurrence int64
	User       string
}

// Order is one revision of a deployment.
type Order struct {
	Deployment string
	Revision   uint64
	Order      string // digest
	Standing   bool
	Occurrence int64 // of the job that is offered
	At         time.Time
}

// Stop says that what has not started of a deployment's revisions up to this one was withdrawn, or that it was removed.
type Stop struct {
	Deployment string
	Revision   uint64
	Removed    bool
	At         time.Time
}

// Release is a batch of agents that scheduling handed over.
type Release struct {
	Deployment string
	Revision   uint64
	Order      string
	Wave       string
	Batch      int
	Attempt    int // 0 and 1: the first
	Agents     []string
	At         time.Time
	Sequence   uint64 // in EVENTS
}

// Count is how many agents of the newest revision scheduling says that it handed over.
type Count struct {
	Deployment string
	Revision   uint64
	Released   int
}

// Offer is an offer of one attempt of a job.
type Offer struct {
	Name
	Order    string
	Attempt  int
	At       time.Time
	Sequence uint64 // in JOBS
}

// Status is a status as STATUS holds it.
type Status struct {
	Name
	ID         string // of the event; empty: not known
	Order      string
	Step       string
	Attempt    int
	Transition uint32
	State      events.State
	Reason     events.Reason
	Exited     bool // Exit is the program's exit code
	Exit       int
	At         time.Time // by the agent's clock
	Sequence   uint64    // in STATUS
}

// Ack is a status that the broker acknowledged to its agent.
type Ack struct {
	Agent, Deployment, Job string
	Attempt                int
	Transition             uint32
	State                  events.State
	Sequence               uint64 // that the broker named
	At                     time.Time
}

// Journal is what an agent's journal says of a job at the end.
type Journal struct {
	Name
	Started int // the last attempt whose program was about to be started; 0: none
	// The last transition; Transition 0: there was none.
	Attempt    int
	Transition uint32
	State      events.State
	Reason     events.Reason
	At         time.Time
}

// Run is one start of a program, as recorded by whoever ran it.
type Run struct {
	Agent, Deployment, Job string
	Attempt                int
	Step                   string // the program that ran first; empty: the order's own
	At                     time.Time
	Ended                  time.Time // zero: how it ended is not known, and neither are the following
	Exit                   int
	Well                   bool // its exit code means success
}

// End is the end of a job as execution told it.
type End struct {
	Name
	Attempt    int
	Transition uint32
	State      events.State
	Reason     events.Reason
	Silent     bool
	At         time.Time // by the agent's clock; of a silent end by execution's
	Sequence   uint64    // in its stream
}
