package events

import (
	"time"

	"chandler/events/calendar"
)

// Collection is a set of agents: those whose facts satisfy the expression, and those included by id,
// less those excluded by id (exclusion wins). An empty expression matches nobody.
type Collection struct {
	Name       string   `json:"name"`
	Expression string   `json:"expression,omitempty"` // CEL over the facts, see package target
	Include    []string `json:"include,omitempty"`    // agent ids, sorted
	Exclude    []string `json:"exclude,omitempty"`    // agent ids, sorted
	// Windows are maintenance windows: the machines of the collection start programs in them alone.
	Windows []calendar.Window `json:"windows,omitempty"`
	Comment string            `json:"comment,omitempty"`
	Changed time.Time         `json:"changed"`
	By      string            `json:"by,omitempty"`
}

// DeploymentNotice names a deployment in the events about its life.
type DeploymentNotice struct {
	Deployment string    `json:"deployment"`
	Revision   uint64    `json:"revision"`
	Order      string    `json:"order"` // digest of the signed payload
	Package    string    `json:"package"`
	Version    string    `json:"version"`
	Program    string    `json:"program"`
	Collection string    `json:"collection"`
	By         string    `json:"by,omitempty"`
	Why        string    `json:"why,omitempty"`
	At         time.Time `json:"at"`
}

// DeploymentOrder is a deployment with its signed order, all that other services need of it.
type DeploymentOrder struct {
	DeploymentNotice
	Envelope []byte `json:"envelope"` // DSSE envelope (JSON); services derive the deployment from it alone
	// Include and Exclude are the lists whose digests the order binds, sorted; together at most [MaxListed] ids.
	Include []string `json:"include,omitempty"`
	Exclude []string `json:"exclude,omitempty"`
	Plan    *Plan    `json:"plan,omitempty"` // not signed; nil: everybody at once
	// RollbackTo is the program of the order that was signed to take this one back: package@version/program.
	RollbackTo string `json:"rollback_to,omitempty"`
}

// MaxListed bounds the agents that one collection or order includes and excludes by id, together. An agent
// gets both lists with the order in one answer, and an answer to an agent is one message of at most 512 KiB
// (package bus); larger sets are described by an expression, for instance over tags.
const MaxListed = 15_000

// ReleaseSize is the largest number of agents in one DeploymentReleased.
const ReleaseSize = 1000

// Release hands a batch of agents to execution.
type Release struct {
	Deployment string   `json:"deployment"`
	Revision   uint64   `json:"revision"`
	Order      string   `json:"order"`
	Wave       string   `json:"wave"`  // names the release: the batch's id is derived from deployment, wave and batch
	Batch      int      `json:"batch"` // counts from 0
	Agents     []string `json:"agents"`
	// Sites of the agents, in their order; absent where none has one.
	Sites   []string `json:"sites,omitempty"`
	Phase   int      `json:"phase,omitempty"`   // index of the phase they belong to
	Joined  bool     `json:"joined,omitempty"`  // they came after the phase had opened, and count in no gate
	Attempt int      `json:"attempt,omitempty"` // 0 and 1: the first; higher when an administrator retries
}

// Progress counts a deployment's jobs.
type Progress struct {
	Deployment string           `json:"deployment"`
	Revision   uint64           `json:"revision"`
	States     map[State]int64  `json:"states"`
	Reasons    map[Reason]int64 `json:"reasons,omitempty"` // of jobs rejected, retrying or failed
	Silent     int64            `json:"silent"`            // offered and never heard of
	Total      int64            `json:"total"`
	// Waves counts the agents of each phase that was released to, Sites those of each site, "" included. Jobs of single
	// users are not among them.
	Waves []WaveCounts          `json:"waves,omitempty"`
	Sites map[string]SiteCounts `json:"sites,omitempty"`
	At    time.Time             `json:"at"`
}

var exampleNotice = DeploymentNotice{Deployment: "hello-everywhere", Revision: 1, Order: exampleDigest, Package: "hello", Version: "2.10-3",
	Program: "install", Collection: "workstations", By: "admin", At: exampleTime}

var exampleCollection = Collection{Name: "workstations", Expression: `agent.os == "linux" && "office" in agent.tags`, Changed: exampleTime, By: "admin"}

// Events about collections and deployments.
var (
	CollectionChanged = declare("collection.changed", StreamEvents, "event.collection.changed.<collection>", "scheduling", "a collection was made or changed", exampleCollection)
	CollectionRemoved = declare("collection.removed", StreamEvents, "event.collection.removed.<collection>", "scheduling", "a collection was removed", exampleCollection)

	DeploymentCreated  = declare("deployment.created", StreamEvents, "event.deployment.created.<deployment>", "scheduling", "a signed order was accepted", DeploymentOrder{DeploymentNotice: exampleNotice, Envelope: []byte(`{"payloadType":"application/vnd.chandler.order+json","payload":"e30=","signatures":[]}`)})
	DeploymentDrafted  = declare("deployment.drafted", StreamEvents, "event.deployment.drafted.<deployment>", "scheduling", "an order was accepted that lacks signatures; nothing is released until others have signed it too", exampleNotice)
	DeploymentReleased = declare("deployment.released", StreamEvents, "event.deployment.released.<deployment>", "scheduling", "these agents are to be offered the order now", Release{Deployment: "hello-everywhere", Revision: 1, Order: exampleDigest, Wave: "1", Agents: []string{exampleAgent}})
	DeploymentPaused   = declare("deployment.paused", StreamEvents, "event.deployment.paused.<deployment>", "scheduling", "no further agents are released", exampleNotice)
	DeploymentResumed  = declare("deployment.resumed", StreamEvents, "event.deployment.resumed.<deployment>", "scheduling", "releasing goes on", exampleNotice)
	DeploymentLapsed   = declare("deployment.expired", StreamEvents, "event.deployment.expired.<deployment>", "scheduling", "the deployment's time is over; nothing starts any more", exampleNotice)
	DeploymentRemoved  = declare("deployment.removed", StreamEvents, "event.deployment.removed.<deployment>", "scheduling", "the deployment is forgotten; its history stays", exampleNotice)
	DeploymentHalted   = declare("deployment.stopped", StreamEvents, "event.deployment.stopped.<deployment>", "execution", "an administrator stopped the deployment: its jobs that do not run yet are withdrawn", exampleNotice)

	DeploymentProgressed = declare("deployment.progressed", StreamEvents, "event.deployment.progressed.<deployment>", "execution", "the counts of a deployment's jobs changed",
		Progress{Deployment: "hello-everywhere", Revision: 1, States: map[State]int64{Succeeded: 9_214, Running: 73}, Total: 9_287, At: exampleTime})
)
