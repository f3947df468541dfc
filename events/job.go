package events

import (
	"fmt"
	"slices"
	"strconv"
	"time"
)

// State of a job, named as the original's message states.
type State string

// The states. Offered is execution's own word for a job of which the agent has not spoken yet; it is
// never the state of a status event.
const (
	Offered       State = "offered"
	Accepted      State = "accepted"
	Rejected      State = "rejected"
	Expired       State = "expired"
	WillNotRerun  State = "will_not_rerun"
	Waiting       State = "waiting"
	Downloading   State = "downloading"
	Downloaded    State = "downloaded"
	Running       State = "running"
	Retrying      State = "retrying"
	RebootPending State = "reboot_pending"
	Succeeded     State = "succeeded"
	Failed        State = "failed"
	Cancelled     State = "cancelled"
	OtherState    State = "other"
)

// States in the order in which a job may pass through them; their index is their code in execution's
// records, so new states go to the end.
func States() []State {
	return []State{Offered, Accepted, Rejected, Expired, WillNotRerun, Waiting, Downloading, Downloaded, Running,
		Retrying, RebootPending, Succeeded, Failed, Cancelled, OtherState}
}

// Terminal states are never left: a job has exactly one of them at its end.
func (s State) Terminal() bool {
	switch s {
	case Rejected, Expired, WillNotRerun, Succeeded, Failed, Cancelled:
		return true
	}
	return false
}

// BeforeRunning says whether a stop still reaches a job in this state before its program starts.
func (s State) BeforeRunning() bool {
	switch s {
	case Offered, Accepted, Waiting, Downloading, Downloaded, Retrying:
		return true
	}
	return false
}

// WaitingFor names what a waiting job waits for.
type WaitingFor string

// What a job can wait for.
const (
	WaitContent           WaitingFor = "content"
	WaitLogon             WaitingFor = "logon"
	WaitLogoff            WaitingFor = "logoff"
	WaitMaintenanceWindow WaitingFor = "maintenance_window"
	WaitAssignment        WaitingFor = "assignment"
	WaitDependency        WaitingFor = "dependency"
	WaitReboot            WaitingFor = "reboot"
	WaitSlot              WaitingFor = "slot"
	WaitClock             WaitingFor = "clock"
	WaitContact           WaitingFor = "contact"
	WaitFreeze            WaitingFor = "freeze"
)

// OfferFormat is the newest form of offers that this version writes and reads.
const OfferFormat = 1

// JobOffer offers one order to one agent. It adds nothing to the order: the agent fetches the order by
// its digest, verifies it, and decides by it alone.
type JobOffer struct {
	Format     int    `json:"format"`
	Agent      string `json:"agent"`
	Job        string `json:"job"`
	Deployment string `json:"deployment"`
	Revision   uint64 `json:"revision"`
	Order      string `json:"order"` // digest of the signed payload
	Occurrence int64  `json:"occurrence,omitempty"`
	User       string `json:"user,omitempty"`
	Attempt    int    `json:"attempt"`
}

// CancelRequest withdraws an offer.
type CancelRequest struct {
	Agent      string `json:"agent"`
	Deployment string `json:"deployment"`
	Revision   uint64 `json:"revision"` // this revision and all before it
	Kill       bool   `json:"kill,omitempty"`
	By         string `json:"by,omitempty"`
	Stop       string `json:"stop,omitempty"` // id of the stop this belongs to
}

// JobStatus is one transition of one job. All state events have this shape.
type JobStatus struct {
	Job        string `json:"job"`
	Deployment string `json:"deployment"`
	Revision   uint64 `json:"revision"`
	Order      string `json:"order"`
	Agent      string `json:"agent"`
	Host       string `json:"host,omitempty"`
	Site       string `json:"site,omitempty"`
	Package    string `json:"package,omitempty"`
	Version    string `json:"version,omitempty"`
	Program    string `json:"program,omitempty"`
	// Step is the program that runs first which this is about: package@version/program.
	Step        string     `json:"step,omitempty"`
	Occurrence  int64      `json:"occurrence,omitempty"`
	User        string     `json:"user,omitempty"`
	Attempt     int        `json:"attempt"`
	Transition  uint32     `json:"transition"` // counts this job's transitions in the agent's journal, from 1
	State       State      `json:"state"`
	Reason      Reason     `json:"reason,omitempty"`
	WaitingFor  WaitingFor `json:"waiting_for,omitempty"`
	Explanation string     `json:"explanation,omitempty"` // for people: what happened, who tried what, what it answered
	Identity    string     `json:"identity,omitempty"`    // who tried
	Resource    string     `json:"resource,omitempty"`    // what was tried
	Answer      string     `json:"answer,omitempty"`      // what the resource answered
	Reader      string     `json:"reader,omitempty"`      // who read the content
	Executor    string     `json:"executor,omitempty"`    // whose account ran the program
	ElevatedTo  string     `json:"elevated_to,omitempty"` // what that account was raised to, if it was
	ExitCode    *int       `json:"exit_code,omitempty"`
	Bytes       int64      `json:"bytes,omitempty"`    // fetched for this job
	Seconds     float64    `json:"seconds,omitempty"`  // the program's run time
	RetryAt     *time.Time `json:"retry_at,omitempty"` // of a retrying job: not before
	// Accesses are the accesses to external sources of this attempt so far, in their order: each resource once with each
	// answer, at most [MaxAccesses].
	Accesses []Access  `json:"accesses,omitempty"`
	At       time.Time `json:"at"`
}

// MaxAccesses bounds what one status tells of.
const MaxAccesses = 32

// Access is what came of reading a resource on an external source in somebody's name.
type Access struct {
	Resource string `json:"resource"`          // address
	Identity string `json:"identity"`          // network-access-account, installation-account, user …
	Account  string `json:"account,omitempty"` // as the fleet names it
	User     string `json:"user,omitempty"`    // as the resource knows it
	Version  int    `json:"version,omitempty"` // of the account's secret
	// When: before the program started (for content, or to check a reference), or while it ran.
	When   string    `json:"when"`             // content, reference or run
	Reason Reason    `json:"reason,omitempty"` // "": it was read
	Answer string    `json:"answer,omitempty"` // what was answered, with the code that the field knows: access denied (5/0x80070005)
	At     time.Time `json:"at"`
}

// Words of Access.When.
const (
	AccessContent   = "content"
	AccessReference = "reference"
	AccessRun       = "run"
	AccessTest      = "test"
)

// StatusID is the id of a transition: the hash of job, attempt and transition number.
func (s JobStatus) StatusID() string {
	return DeriveID("status", s.Job, strconv.Itoa(s.Attempt), strconv.FormatUint(uint64(s.Transition), 10))
}

// Validate checks what a schema cannot: that the parts agree with each other.
func (s JobStatus) Validate() error {
	if err := ValidAgent(s.Agent); err != nil {
		return err
	}
	if err := ValidToken(s.Deployment); err != nil {
		return fmt.Errorf("deployment: %w", err)
	}
	if want := JobID(s.Deployment, s.Revision, s.Agent, s.Occurrence, s.User); s.Job != want {
		return fmt.Errorf("job %s is not of deployment %s revision %d on agent %s", s.Job, s.Deployment, s.Revision, s.Agent)
	}
	if s.Transition == 0 || s.Attempt < 1 {
		return fmt.Errorf("transition %d of attempt %d: both count from 1", s.Transition, s.Attempt)
	}
	return nil
}

// LogLine is one line of the agent's log.
type LogLine struct {
	At        time.Time `json:"at"`
	Level     string    `json:"level"` // info, warning, error
	Component string    `json:"component"`
	Text      string    `json:"text"`
}

// JobLog is a chunk of the log lines of one job.
type JobLog struct {
	Agent      string    `json:"agent"`
	Job        string    `json:"job"`
	Deployment string    `json:"deployment"`
	Attempt    int       `json:"attempt"`
	Chunk      int       `json:"chunk"`             // counts from 0 within the attempt
	Dropped    int       `json:"dropped,omitempty"` // lines lost before this chunk because the queue was full
	Lines      []LogLine `json:"lines"`
}

// JobEnd says that a job has come to its end, as execution sees it.
type JobEnd struct {
	JobStatus
	// Silent: the agent said nothing and the order's time is over. Should it speak later after all, its
	// word counts, and the job finishes once more.
	Silent bool `json:"silent,omitempty"`
}

// Validate checks that the parts agree with each other. Only of a silent end may the transition be 0: the
// agent never spoke of that job.
func (e JobEnd) Validate() error {
	status := e.JobStatus
	if e.Silent {
		status.Transition = max(status.Transition, 1)
	}
	return status.Validate()
}

// exampleDigest is the SHA-256 of nothing, for examples.
const exampleDigest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

const exampleAgent = "amrqzcs6aqpwdvsh3k7b2"

var exampleTime = time.Date(2026, 12, 1, 8, 0, 0, 0, time.UTC)

func exampleStatus(state State, change func(*JobStatus)) JobStatus {
	s := JobStatus{
		Job: JobID("hello-everywhere", 1, exampleAgent, 0, ""), Deployment: "hello-everywhere", Revision: 1, Order: exampleDigest,
		Agent: exampleAgent, Host: "ws-0412", Site: "oslo", Package: "hello", Version: "2.10-3", Program: "install", Attempt: 1,
		Transition: uint32(slices.Index(States(), state)), State: state, At: exampleTime,
	}
	if change != nil {
		change(&s)
	}
	return s
}

func declareState(state State, summary string, change func(*JobStatus)) Type[JobStatus] {
	return declare("job."+string(state), StreamStatus, "job."+string(state)+".<agent>", "agent", summary, exampleStatus(state, change))
}

// Events about jobs.
var (
	JobOffered = declare("job.offered", StreamJobs, "offer.<agent>", "execution", "execution offers one order to one agent",
		JobOffer{Format: 1, Agent: exampleAgent, Job: JobID("hello-everywhere", 1, exampleAgent, 0, ""), Deployment: "hello-everywhere", Revision: 1, Order: exampleDigest, Attempt: 1})
	JobCancelRequested = declare("job.cancel_requested", StreamJobs, "offer.<agent>", "execution", "an administrator withdrew a deployment from one agent",
		CancelRequest{Agent: exampleAgent, Deployment: "hello-everywhere", Revision: 1, By: "admin"})

	JobAccepted = declareState(Accepted, "the agent verified the order and will carry it out", nil)
	JobRejected = declareState(Rejected, "the agent refuses the order, or it does not apply to this machine", func(s *JobStatus) {
		s.Reason = NotTargeted
		s.Explanation = "agent.os is \"linux\", the target asks for \"windows\""
	})
	JobExpired       = declareState(Expired, "the deployment's time ended before the program started", func(s *JobStatus) { s.Reason = DeploymentExpired })
	JobWillNotRerun  = declareState(WillNotRerun, "the program ran here before, and the deployment says not to run it again", func(s *JobStatus) { s.Reason = AlreadyRan })
	JobWaiting       = declareState(Waiting, "the job waits; waiting_for names what for", func(s *JobStatus) { s.WaitingFor = WaitAssignment })
	JobDownloading   = declareState(Downloading, "the agent fetches the package's content", nil)
	JobDownloaded    = declareState(Downloaded, "the content is in the agent's cache and verified", func(s *JobStatus) { s.Bytes = 53_148; s.Reader = "agent" })
	JobRunning       = declareState(Running, "the program was started", func(s *JobStatus) { s.Executor = "root" })
	JobRetrying      = declareState(Retrying, "the attempt failed in a way that is tried again", func(s *JobStatus) { s.Reason = SourceUnreachable })
	JobRebootPending = declareState(RebootPending, "the program succeeded and the machine must restart to finish", func(s *JobStatus) { s.Reason = RebootRequired; s.ExitCode = new(3010) })
	JobSucceeded     = declareState(Succeeded, "the program ended well, or was found done already", func(s *JobStatus) { s.ExitCode = new(0); s.Seconds = 1.2; s.Executor = "root" })
	JobFailed        = declareState(Failed, "the job failed and is not tried again by itself", func(s *JobStatus) {
		s.Reason = ExitCode
		s.ExitCode = new(1603)
		s.Executor = "root"
		s.Explanation = "root ran dpkg: exit code 1603"
	})
	JobCancelled = declareState(Cancelled, "the job was withdrawn before its program started, or killed", func(s *JobStatus) { s.Reason = DeploymentStopped })

	JobLogged = declare("job.logged", StreamLogs, "log.<agent>", "agent", "lines of the agent's log that belong to one job",
		JobLog{Agent: exampleAgent, Job: JobID("hello-everywhere", 1, exampleAgent, 0, ""), Deployment: "hello-everywhere", Attempt: 1,
			Lines: []LogLine{{At: exampleTime, Level: "info", Component: "execmgr", Text: "Program install of hello 2.10-3 ended with exit code 0"}}})
	JobFinished = declare("job.finished", StreamEvents, "event.job.finished.<agent>", "execution", "execution counts the job as ended",
		JobEnd{JobStatus: exampleStatus(Succeeded, nil)})
)

// StatusType is the event type of a state; ok is false for states that have none.
func StatusType(state State) (kind Type[JobStatus], ok bool) {
	switch state {
	case Accepted:
		return JobAccepted, true
	case Rejected:
		return JobRejected, true
	case Expired:
		return JobExpired, true
	case WillNotRerun:
		return JobWillNotRerun, true
	case Waiting:
		return JobWaiting, true
	case Downloading:
		return JobDownloading, true
	case Downloaded:
		return JobDownloaded, true
	case Running:
		return JobRunning, true
	case Retrying:
		return JobRetrying, true
	case RebootPending:
		return JobRebootPending, true
	case Succeeded:
		return JobSucceeded, true
	case Failed:
		return JobFailed, true
	case Cancelled:
		return JobCancelled, true
	}
	return Type[JobStatus]{}, false
}
