package events

import "time"

// Requests to scheduling.
var (
	CollectionSet     = call[Collection, CollectionView]("scheduling", "collection_set", ByDeployer, "make or change a collection")
	CollectionList    = call[Nothing, CollectionViews]("scheduling", "collection_list", ByViewer, "every collection")
	CollectionShow    = call[Named, CollectionView]("scheduling", "collection_show", ByViewer, "one collection with its members")
	CollectionPreview = call[Collection, CollectionView]("scheduling", "collection_preview", ByViewer, "who would be a member; nothing is kept")
	CollectionRemove  = call[Named, Nothing]("scheduling", "collection_remove", ByDeployer, "remove a collection that no live deployment names")

	DeploymentCreate = call[DeploymentRequest, DeploymentView]("scheduling", "deployment_create", ByDeployer, "accept a signed order")
	DeploymentList   = call[Nothing, DeploymentViews]("scheduling", "deployment_list", ByViewer, "every deployment")
	DeploymentShow   = call[Named, DeploymentView]("scheduling", "deployment_show", ByViewer, "one deployment")
	DeploymentSign   = call[SignRequest, DeploymentView]("scheduling", "deployment_sign", ByDeployer, "add signatures to a draft; complete, it becomes the deployment")
	DeploymentDraft  = call[Named, DraftView]("scheduling", "deployment_draft", ByViewer, "a draft as it is to be signed")
	DeploymentPause  = call[Named, DeploymentView]("scheduling", "deployment_pause", ByDeployer, "release no further agents")
	DeploymentResume = call[Named, DeploymentView]("scheduling", "deployment_resume", ByDeployer, "go on releasing")
	DeploymentRemove = call[Named, Nothing]("scheduling", "deployment_remove", ByDeployer, "forget a deployment that is stopped, expired or done")

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
	Draft bool `json:"draft,omitempty"`
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
)

// DeploymentView is a deployment as scheduling sees it.
type DeploymentView struct {
	DeploymentNotice
	Life       Life       `json:"life"`
	Expression string     `json:"expression,omitempty"`
	Available  *time.Time `json:"available,omitempty"`
	Deadline   *time.Time `json:"deadline,omitempty"`
	Expires    *time.Time `json:"expires,omitempty"`
	NotAfter   time.Time  `json:"not_after"`         // end of the order's validity
	Signers    []string   `json:"signers,omitempty"` // names of the keys that signed, where scheduling knows the trust bundle
	Needed     int        `json:"needed,omitempty"`  // of a draft: signatures of different keys
	Released   int        `json:"released"`          // agents handed to execution
	Members    int        `json:"members"`           // agents in the target now
	Progress   *Progress  `json:"progress,omitempty"`
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
	Says       string `json:"says"` // which clause, which fact
}
