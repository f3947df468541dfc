package events

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Plan is how a deployment reaches its agents: in which phases, past which gates, how many at once. It is not signed:
// within an order's target and validity it only hastens or withholds. It is decided by package rollout.
type Plan struct {
	// Phases in their order; none: everybody at once. The last one has no AdvanceWhen.
	Phases []Phase `json:"phases,omitempty" yaml:"phases,omitempty"`
	// MaxInFlight bounds the jobs that were offered and have neither ended, nor wait, nor fell silent; 0: no bound.
	MaxInFlight        int `json:"max_in_flight,omitempty" yaml:"max-in-flight,omitempty"`
	MaxInFlightPerSite int `json:"max_in_flight_per_site,omitempty" yaml:"max-in-flight-per-site,omitempty"`
	// OnHalt is what a bad gate does beside halting: nothing, or OnHaltRollback, which needs the order that rolls back to be
	// signed with the deployment.
	OnHalt string `json:"on_halt,omitempty" yaml:"on-halt,omitempty"`
}

// OnHaltRollback takes the program back where it ran.
const OnHaltRollback = "rollback"

// MaxPhases of a plan.
const MaxPhases = 200

// Phase is one step of a rollout. Exactly one of Percent, Count and Collection says who is in it, together with all
// phases before it.
type Phase struct {
	Name       string  `json:"name" yaml:"name"`
	Percent    float64 `json:"percent,omitempty" yaml:"percent,omitempty"`       // of the target, cumulative
	Count      int     `json:"count,omitempty" yaml:"count,omitempty"`           // cumulative
	Collection string  `json:"collection,omitempty" yaml:"collection,omitempty"` // those of the target who are in it
	// MaxInFlight is as the plan's, of this phase's jobs.
	MaxInFlight int      `json:"max_in_flight,omitempty" yaml:"max-in-flight,omitempty"`
	AdvanceWhen *Advance `json:"advance_when,omitempty" yaml:"advance-when,omitempty"`
	HaltWhen    *Halt    `json:"halt_when,omitempty" yaml:"halt-when,omitempty"`
}

// Advance is the gate behind a phase: the next one opens when all that is named is true, and has been for the time For.
type Advance struct {
	Succeeded *Limit        `json:"succeeded,omitempty" yaml:"succeeded,omitempty"`
	For       Duration      `json:"for,omitempty" yaml:"for,omitempty"` // bake time, from the moment Succeeded is met
	Approval  bool          `json:"approval,omitempty" yaml:"approval,omitempty"`
	Event     *ExternalGate `json:"event,omitempty" yaml:"event,omitempty"`
}

// ExternalGate is an event that must have come since the phase opened: one of Chandler's types about a subject, or any
// other that somebody signalled (GateSignal).
type ExternalGate struct {
	Type    string `json:"type" yaml:"type"`
	Subject string `json:"subject" yaml:"subject"`
}

// Halt says what stops a rollout while the phase is the newest.
type Halt struct {
	Failed *Limit   `json:"failed,omitempty" yaml:"failed,omitempty"`
	Silent *Silence `json:"silent,omitempty" yaml:"silent,omitempty"`
}

// Silence is of agents that said nothing for the time After since their offer.
type Silence struct {
	Share Limit    `json:"share" yaml:"share"`
	After Duration `json:"after" yaml:"after"`
}

// Limit is a share of the agents of a phase that the program applies to ("5%"), or a number of them ("12").
type Limit struct {
	Percent float64
	Count   int
}

// String is the one spelling.
func (l Limit) String() string {
	if l.Percent > 0 || l.Count == 0 {
		return strconv.FormatFloat(l.Percent, 'f', -1, 64) + "%"
	}
	return strconv.Itoa(l.Count)
}

// MarshalText writes "5%" or "12".
func (l Limit) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText reads what MarshalText writes: a share of 0% to 100%, or a number of agents from 1.
func (l *Limit) UnmarshalText(text []byte) error {
	s := string(text)
	if share, ok := strings.CutSuffix(s, "%"); ok {
		n, err := strconv.ParseFloat(share, 64)
		if err != nil || !(n >= 0 && n <= 100) {
			return fmt.Errorf("%q is no share: write it as 5%%, between 0%% and 100%%", s)
		}
		*l = Limit{Percent: n}
		return nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		return fmt.Errorf("%q is neither a share (5%%) nor a number of machines from 1", s)
	}
	*l = Limit{Count: n}
	return nil
}

// Outcome is what a job's state means for a gate.
type Outcome string

// The outcomes. NotApplicable takes the agent out of the shares' denominators.
const (
	OutcomePending       Outcome = "pending"
	OutcomeSucceeded     Outcome = "succeeded"
	OutcomeFailed        Outcome = "failed"
	OutcomeNotApplicable Outcome = "not_applicable"
)

// OutcomeOf classifies a job. A machine that refuses the order for what it is (a signature, an altered manifest) has
// failed; one that the order does not concern has not.
func OutcomeOf(state State, reason Reason) Outcome {
	switch state {
	case Succeeded:
		return OutcomeSucceeded
	case Failed:
		return OutcomeFailed
	case WillNotRerun, Expired, Cancelled:
		return OutcomeNotApplicable
	case Rejected:
		switch reason {
		case NotTargeted, PlatformUnsupported, RequirementsNotMet, NothingToRollBack, OrderSerialOld:
			return OutcomeNotApplicable
		}
		return OutcomeFailed
	}
	return OutcomePending
}

// WaveCounts counts the jobs of the agents of one phase. Joined agents, that came after it had opened, are in Offered and
// InFlight alone.
type WaveCounts struct {
	Wave          int   `json:"wave"`    // index of the phase
	Offered       int64 `json:"offered"` // agents with a job
	InFlight      int64 `json:"in_flight,omitempty"`
	Agents        int64 `json:"agents,omitempty"` // with a job, who did not join later
	Succeeded     int64 `json:"succeeded,omitempty"`
	Failed        int64 `json:"failed,omitempty"`
	NotApplicable int64 `json:"not_applicable,omitempty"`
	Waiting       int64 `json:"waiting,omitempty"`
	Silent        int64 `json:"silent,omitempty"` // said nothing since the offer for as long as the phase's gate says
}

// SiteCounts counts the agents of one site with a job.
type SiteCounts struct {
	Offered  int64 `json:"offered"`
	InFlight int64 `json:"in_flight,omitempty"`
}

// InFlight says whether a job in this state counts against the limits of jobs in flight.
func (s State) InFlight() bool { return !s.Terminal() && s != Waiting }

// PhaseNotice tells of a rollout: a phase that opened or was skipped, a gate that halted it, an approval.
type PhaseNotice struct {
	DeploymentNotice
	Phase string `json:"phase,omitempty"`
	Index int    `json:"index"`           // of the phase, from 0
	Size  int    `json:"size,omitempty"`  // agents in it
	Rolls string `json:"rolls,omitempty"` // of a rollback: the deployment that does it
}

// Signal is an event from outside that gates wait for.
type Signal struct {
	Type    string    `json:"type"`
	Subject string    `json:"subject"`
	Text    string    `json:"text,omitempty"`
	By      string    `json:"by,omitempty"`
	At      time.Time `json:"at,omitzero"`
}

// SignalKey is the token under which signals of a type about a subject are stored.
func SignalKey(kind, subject string) string { return DeriveID("signal", kind, subject) }

// Limits bound the whole fleet; 0: no bound.
type Limits struct {
	MaxInFlight        int `json:"max_in_flight,omitempty"`
	MaxInFlightPerSite int `json:"max_in_flight_per_site,omitempty"`
	// RetriesPerMinute bounds how many jobs are tried again by themselves; 0: [DefaultRetriesPerMinute].
	RetriesPerMinute int       `json:"retries_per_minute,omitempty"`
	By               string    `json:"by"`
	At               time.Time `json:"at"`
}

// DefaultRetriesPerMinute of the fleet.
const DefaultRetriesPerMinute = 600

// Events of rollouts.
var (
	RolloutOpened     = declare("deployment.phase_opened", StreamEvents, "event.deployment.phase_opened.<deployment>", "scheduling", "the next phase of a rollout is open", PhaseNotice{DeploymentNotice: exampleNotice, Phase: "canary", Size: 12})
	RolloutHalted     = declare("deployment.halted", StreamEvents, "event.deployment.halted.<deployment>", "scheduling", "a gate was bad: nothing further is released or started until somebody resumes, skips or rolls back", PhaseNotice{DeploymentNotice: exampleNotice, Phase: "canary"})
	RolloutApproved   = declare("deployment.approved", StreamEvents, "event.deployment.approved.<deployment>", "scheduling", "somebody approved that the phase after this one opens", PhaseNotice{DeploymentNotice: exampleNotice, Phase: "canary"})
	RolloutSkipped    = declare("deployment.phase_skipped", StreamEvents, "event.deployment.phase_skipped.<deployment>", "scheduling", "somebody let the next phase open whatever the gate says", PhaseNotice{DeploymentNotice: exampleNotice, Phase: "canary"})
	RolloutRolledBack = declare("deployment.rolled_back", StreamEvents, "event.deployment.rolled_back.<deployment>", "scheduling", "another deployment takes this one back where its program ran", PhaseNotice{DeploymentNotice: exampleNotice, Rolls: "hello-everywhere-rollback"})
	GateSignalled     = declare("gate.signalled", StreamEvents, "event.gate.signalled.<signal>", "scheduling", "somebody outside says that something happened which gates may wait for", Signal{Type: "com.example.smoketest.passed", Subject: "hello", By: "ci", At: exampleTime})
	LimitsChanged     = declare("limits.changed", StreamEvents, "event.limits.changed.<fleet>", "scheduling", "how many jobs of the fleet may be in flight, and be tried again", Limits{MaxInFlight: 5000, By: "admin", At: exampleTime})
)
