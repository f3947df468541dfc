package events

import (
	"time"

	"chandler/events/calendar"
)

// Requests to scheduling.
var (
	CollectionSet     = call[Collection, CollectionView]("scheduling", "collection_set", ByDeployer, "make or change a collection")
	CollectionList    = call[Nothing, CollectionViews]("scheduling", "collection_list", ByViewer, "every collection")
	CollectionShow    = call[Named, CollectionView]("scheduling", "collection_show", ByViewer, "one collection with its members")
	CollectionPreview = call[Collection, CollectionView]("scheduling", "collection_preview", ByViewer, "who would be a member; nothing is kept")
	CollectionRemove  = call[Named, Nothing]("scheduling", "collection_remove", ByDeployer, "remove a collection that no live deployment names")

	DeploymentCreate   = call[DeploymentRequest, DeploymentView]("scheduling", "deployment_create", ByDeployer, "accept a signed order")
	DeploymentList     = call[Nothing, DeploymentViews]("scheduling", "deployment_list", ByViewer, "every deployment")
	DeploymentShow     = call[Named, DeploymentView]("scheduling", "deployment_show", ByViewer, "one deployment")
	DeploymentSign     = call[SignRequest, DeploymentView]("scheduling", "deployment_sign", ByDeployer, "add signatures to a draft; complete, it becomes the deployment")
	DeploymentDraft    = call[Named, DraftView]("scheduling", "deployment_draft", ByViewer, "a draft as it is to be signed")
	DeploymentPause    = call[Named, DeploymentView]("scheduling", "deployment_pause", ByDeployer, "release no further agents")
	DeploymentResume   = call[Named, DeploymentView]("scheduling", "deployment_resume", ByDeployer, "go on releasing")
	DeploymentApprove  = call[Named, DeploymentView]("scheduling", "deployment_approve", ByDeployer, "say that the next phase may open")
	DeploymentSkip     = call[Named, DeploymentView]("scheduling", "deployment_skip", ByDeployer, "open the next phase whatever the gate says")
	DeploymentRollback = call[Named, DeploymentView]("scheduling", "deployment_rollback", ByDeployer, "carry out the rollback that was signed with the deployment")
	DeploymentPlan     = call[PlanRequest, DeploymentView]("scheduling", "deployment_plan", ByDeployer, "change the phases that are not open yet, and the limits")
	GateSignal         = call[Signal, Signal]("scheduling", "gate_signal", ByDeployer, "say that something happened which gates may wait for")
	LimitsShow         = call[Nothing, Limits]("scheduling", "limits", ByViewer, "how many jobs of the fleet may be in flight, and be tried again")
	LimitsSet          = call[Limits, Limits]("scheduling", "limits_set", ByDeployer, "bound how many jobs of the fleet are in flight, and are tried again")
	DeploymentRemove   = call[Named, Nothing]("scheduling", "deployment_remove", ByDeployer, "forget a deployment that is stopped, expired or done")

	AgentList = call[AgentQuery, AgentViews]("scheduling", "agent_list", ByViewer, "agents and their facts")
	Reconcile = call[Nothing, ReconcileAnswer]("scheduling", "reconcile", ByAdministrator, "tell every live deployment and its released agents once more")
	Why       = call[WhyRequest, WhyAnswer]("scheduling", "why", ByViewer, "why a deployment does or does not reach an agent")
)

// CollectionView is a collection with its present members.
type CollectionView struct {
	Collection
	Members []string `json:"members"` // agent ids, sorted
	// Faults counts agents on whose facts the expression fails to evaluate (they are not members).
	Faults int    `json:"faults,omitempty"`
	Fault  string `json:"fault,omitempty"` // the first of them
	// Outdated names live deployments whose signed target is the collection as it was before.
	Outdated []string `json:"outdated,omitempty"`
	// OutdatedWindows names live deployments whose orders hold other maintenance windows of the collection.
	OutdatedWindows []string `json:"outdated_windows,omitempty"`
}

// CollectionViews is every collection.
type CollectionViews struct {
	Collections []CollectionView `json:"collections"`
}

// DeploymentRequest carries the signed order; everything about the deployment is derived from it.
type DeploymentRequest struct {
	Envelope []byte `json:"envelope"` // DSSE envelope, JSON
	// Include and Exclude are the lists whose digests the order binds.
	Include []string `json:"include,omitempty"`
	Exclude []string `json:"exclude,omitempty"`
	// Draft keeps an order that has too few signatures until [DeploymentSign] completes it. Without it such an
	// order is refused.
	Draft bool  `json:"draft,omitempty"`
	Plan  *Plan `json:"plan,omitempty"` // nil: everybody at once
	// Rollback is the signed order that takes this one back, kept until somebody, or a bad gate, asks for it.
	Rollback []byte `json:"rollback,omitempty"` // DSSE envelope, JSON
}

// PlanRequest changes how a live deployment goes on.
type PlanRequest struct {
	Deployment string `json:"deployment"`
	Plan       Plan   `json:"plan"`
}

// SignRequest adds the signatures of an envelope with the draft's very payload to the draft.
type SignRequest struct {
	Envelope []byte `json:"envelope"` // DSSE envelope, JSON
}

// DraftView is an order that waits for signatures.
type DraftView struct {
	DeploymentOrder
	Signed []string `json:"signed"` // names of the trusted keys that signed, sorted
	Needed int      `json:"needed"` // signatures of different keys
}

// Life of a deployment.
type Life string

// The lives.
const (
	LifeDraft   Life = "draft"   // lacks signatures; nothing is released
	LifePending Life = "pending" // not yet available
	LifeActive  Life = "active"
	LifePaused  Life = "paused"
	LifeStopped Life = "stopped"
	LifeExpired Life = "expired"
	LifeHalted  Life = "halted" // by a gate
)

// DeploymentView is a deployment as scheduling sees it.
type DeploymentView struct {
	DeploymentNotice
	Life       Life             `json:"life"`
	Expression string           `json:"expression,omitempty"`
	Zone       calendar.Zone    `json:"zone,omitempty"` // of wall-clock times
	Available  *calendar.Moment `json:"available,omitempty"`
	Deadline   *calendar.Moment `json:"deadline,omitempty"`
	Expires    *calendar.Moment `json:"expires,omitempty"`
	NotAfter   time.Time        `json:"not_after"`         // end of the order's validity
	Signers    []string         `json:"signers,omitempty"` // names of the keys that signed, where scheduling knows the trust bundle
	Needed     int              `json:"needed,omitempty"`  // of a draft: signatures of different keys
	Released   int              `json:"released"`          // agents handed to execution
	Members    int              `json:"members"`           // agents in the target now
	Progress   *Progress        `json:"progress,omitempty"`
	Plan       *Plan            `json:"plan,omitempty"`
	Phases     []PhaseView      `json:"phases,omitempty"`
	Rollback   string           `json:"rollback,omitempty"` // the deployment that takes this one back, or would: signed with it
	// RollbackTo is the program that the order signed with this one runs: package@version/program.
	RollbackTo string `json:"rollback_to,omitempty"`
	RolledBack bool   `json:"rolled_back,omitempty"`
}

// PhaseView is where a phase of a rollout stands.
type PhaseView struct {
	Name     string     `json:"name"`
	Opened   time.Time  `json:"opened,omitzero"`
	Size     int        `json:"size,omitempty"`     // agents in it, when it opened
	Released int        `json:"released,omitempty"` // handed to execution, with those who joined
	Joined   int        `json:"joined,omitempty"`
	Counts   WaveCounts `json:"counts"`
	Met      time.Time  `json:"met,omitzero"`       // since when the success gate is
	Approved string     `json:"approved,omitempty"` // by whom
	Skipped  string     `json:"skipped,omitempty"`
	Says     string     `json:"says,omitempty"` // what it waits for
}

// DeploymentViews is every deployment.
type DeploymentViews struct {
	Deployments []DeploymentView `json:"deployments"`
}

// ReconcileAnswer counts what was told again.
type ReconcileAnswer struct {
	Run         string `json:"run"` // names this run, in the ids of its events
	Deployments int    `json:"deployments"`
	Batches     int    `json:"batches"`
	Agents      int    `json:"agents"`   // in those batches; one that several deployments reach counts for each
	Sequence    uint64 `json:"sequence"` // of the last of these events in EVENTS; 0: there was none
}

// AgentQuery selects agents; all empty: every agent.
type AgentQuery struct {
	Name  string `json:"name,omitempty"`  // id or host name
	Where string `json:"where,omitempty"` // CEL
}

// AgentView is an agent as the services see it.
type AgentView struct {
	Facts    Facts     `json:"facts"`
	LastSeen time.Time `json:"last_seen"` // last heartbeat or report
	Reported time.Time `json:"reported"`
	// Presence has a bit for each hour of the week, from Monday 00:00 UTC, in which the machine was heard of late, as 42
	// hexadecimal digits, the first hour highest; empty: nothing is known.
	Presence string    `json:"presence,omitempty"`
	Twins    time.Time `json:"twins,omitzero"` // two running agents with this identity were heard last
}

// AgentViews is a list of agents, by host name.
type AgentViews struct {
	Agents []AgentView `json:"agents"`
}

// WhyRequest asks about one agent (by id), and one deployment or all.
type WhyRequest struct {
	Agent      string `json:"agent"`
	Deployment string `json:"deployment,omitempty"`
}

// WhyAnswer tells, for each deployment, what scheduling decided about the agent.
type WhyAnswer struct {
	Agent   AgentView     `json:"agent"`
	Answers []WhyDecision `json:"answers"`
}

// WhyDecision is scheduling's part of the story of one agent and one deployment.
type WhyDecision struct {
	Deployment string `json:"deployment"`
	Member     bool   `json:"member"`
	Released   bool   `json:"released"`
	Life       Life   `json:"life"`
	Phase      string `json:"phase,omitempty"` // that it is in, or will be
	Says       string `json:"says"`            // which clause, which fact
}
