package events

import "time"

// Requests to execution.
var (
	ExecutionOrder = call[OrderRequest, OrderAnswer]("execution", "order", ByAgent, "a signed order by its digest")
	ExecutionSync  = call[SyncRequest, SyncAnswer]("execution", "sync", ByAgent, "what is outstanding for the calling agent")

	ExecutionStop     = call[StopRequest, StopAnswer]("execution", "stop", ByDeployer, "withdraw every job of a deployment that does not run yet")
	ExecutionStopped  = call[StopQuery, StopAnswer]("execution", "stopped", ByViewer, "how far a stop has got")
	ExecutionFreeze   = call[Freeze, Freeze]("execution", "freeze", ByDeployer, "start no programs in a scope")
	ExecutionUnfreeze = call[Named, Freeze]("execution", "unfreeze", ByDeployer, "lift a freeze by its id")
	ExecutionFreezes  = call[Nothing, FreezeList]("execution", "freezes", ByViewer, "what is frozen")
	ExecutionJobs     = call[JobQuery, JobRows]("execution", "jobs", ByViewer, "jobs and their states")
	ExecutionProgress = call[Named, Progress]("execution", "progress", ByViewer, "the counts of one deployment")
	ExecutionRetry    = call[Named, RetryAnswer]("execution", "retry", ByDeployer, "offer a deployment's failed jobs once more")
	ExecutionRetell   = call[Nothing, RetellAnswer]("execution", "retell", ByAdministrator, "make every agent tell again what it keeps of its jobs")
	ExecutionOutcomes = call[OutcomeQuery, OutcomeAnswer]("execution", "outcomes", ByViewer, "how a package's program ended of late, and how long it took")
	ExecutionHistory  = call[HistoryQuery, HistoryAnswer]("execution", "history", ByViewer, "ended jobs of one agent")
)

// OrderRequest asks for an order.
type OrderRequest struct {
	Order string `json:"order"` // digest
}

// OrderAnswer holds the DSSE envelope and the lists that it binds by digest (sorted agent ids).
type OrderAnswer struct {
	Envelope []byte   `json:"envelope"`
	Include  []string `json:"include,omitempty"`
	Exclude  []string `json:"exclude,omitempty"`
}

// SyncRequest tells what the agent knows; the agent itself is the caller token.
type SyncRequest struct {
	JobsSequence     uint64     `json:"jobs_sequence"`   // of the newest offer it has seen
	StatusSequence   uint64     `json:"status_sequence"` // highest that an acknowledgement named
	JobsGeneration   Generation `json:"jobs_generation"`
	StatusGeneration Generation `json:"status_generation"`
	OfferFormat      int        `json:"offer_format"`
	// StatusLost: an acknowledgement named a lower sequence than one before, so STATUS went back.
	StatusLost bool `json:"status_lost,omitempty"`
}

// SyncAnswer is everything outstanding for the agent. Later: ask again after that time; the rest is empty.
type SyncAnswer struct {
	Later            Duration        `json:"later,omitempty"`
	Offers           []Outstanding   `json:"offers"`
	Cancels          []CancelRequest `json:"cancels,omitempty"`
	Freezes          []Freeze        `json:"freezes,omitempty"`
	JobsGeneration   Generation      `json:"jobs_generation"`
	StatusGeneration Generation      `json:"status_generation"`
}

// Outstanding is a job that execution does not know to have ended. An agent that knows more tells it again.
type Outstanding struct {
	JobOffer
	State      State  `json:"state"`
	Transition uint32 `json:"transition"`
	Trace      string `json:"trace,omitempty"` // as Event.Trace of the offer
}

// StopRequest stops a deployment for good: what has not started will not.
type StopRequest struct {
	Deployment string `json:"deployment"`
	Kill       bool   `json:"kill,omitempty"` // end running programs too
	Why        string `json:"why,omitempty"`
}

// StopQuery asks about a stop.
type StopQuery struct {
	Deployment string `json:"deployment"`
}

// StopAnswer counts what a stop has reached.
type StopAnswer struct {
	Deployment  string     `json:"deployment"`
	Stopped     int64      `json:"stopped"`                   // withdrawn before their program started; agents confirmed it
	Running     int64      `json:"running"`                   // their program runs (with kill: is being ended)
	Unreachable int64      `json:"unreachable"`               // not confirmed yet
	Ended       int64      `json:"ended"`                     // had ended before
	MayStart    *time.Time `json:"may_start_until,omitempty"` // until then an unreachable machine may still start
}

// FreezeList is what is frozen.
type FreezeList struct {
	Freezes []Freeze `json:"freezes"`
}

// JobQuery selects jobs; empty fields select all.
type JobQuery struct {
	Deployment string  `json:"deployment,omitempty"`
	Agent      string  `json:"agent,omitempty"` // id
	Job        string  `json:"job,omitempty"`   // id or its beginning
	States     []State `json:"states,omitempty"`
	Limit      int     `json:"limit,omitempty"` // 0: 1000
}

// JobRow is one job as execution sees it.
type JobRow struct {
	Job        string     `json:"job"`
	Deployment string     `json:"deployment"`
	Revision   uint64     `json:"revision"`
	Agent      string     `json:"agent"`
	User       string     `json:"user,omitempty"`
	Occurrence int64      `json:"occurrence,omitempty"`
	State      State      `json:"state"`
	Reason     Reason     `json:"reason,omitempty"`
	WaitingFor WaitingFor `json:"waiting_for,omitempty"`
	Attempt    int        `json:"attempt"`
	Silent     bool       `json:"silent,omitempty"`
	Changed    time.Time  `json:"changed"`
}

// JobRows are the jobs found; More says that the limit cut the list.
type JobRows struct {
	Jobs []JobRow `json:"jobs"`
	More bool     `json:"more,omitempty"`
}

// RetryAnswer says how many jobs were offered again.
type RetryAnswer struct {
	Offered int `json:"offered"`
}

// RetellAnswer names the generation of STATUS that began: agents that hear of it tell everything again.
type RetellAnswer struct {
	StatusGeneration Generation `json:"status_generation"`
}

// HistoryQuery asks for the ended jobs of one agent, newest last.
type HistoryQuery struct {
	Agent string    `json:"agent"`
	Since time.Time `json:"since,omitzero"`
	Limit int       `json:"limit,omitempty"` // 0: 100
}

// HistoryAnswer lists ended jobs.
type HistoryAnswer struct {
	Jobs []JobEnd `json:"jobs"`
}

// OutcomeQuery asks how programs ended.
type OutcomeQuery struct {
	Package string `json:"package,omitempty"` // of every version; empty: any
	Program string `json:"program,omitempty"`
}

// OutcomeAnswer counts the newest ended jobs, at most 100,000 looked at.
type OutcomeAnswer struct {
	Jobs      int64            `json:"jobs"`
	Succeeded int64            `json:"succeeded"`
	Failed    int64            `json:"failed"`
	Reasons   map[Reason]int64 `json:"reasons,omitempty"` // of those that failed
	// Seconds are the quantiles 0, 1/20 … 1 of the run time of those whose program ran; 21 numbers, or none.
	Seconds []float64 `json:"seconds,omitempty"`
}
