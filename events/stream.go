package events

import (
	"strings"
	"time"
)

// Prefix begins every subject of Chandler.
const Prefix = "chandler."

// Streams, see [Streams] for what each keeps.
const (
	StreamJobs       = "JOBS"
	StreamStatus     = "STATUS"
	StreamLogs       = "LOGS"
	StreamEvents     = "EVENTS"
	StreamTimers     = "TIMERS"
	StreamDeadLetter = "DEADLETTER"
	StreamFold       = "FOLD"
	StreamHistory    = "HISTORY"
)

// Partitions is the number of partitions of STATUS by agent. It is fixed when the stream is provisioned:
// changing it means draining STATUS first.
const Partitions = 8

// MaxPayload is what the broker's max_payload must be at least, in bytes: the largest message that a stream
// takes is 1 MiB with its headers, and a dead letter holds such a message whole, with headers of its own.
const MaxPayload = 2 << 20

// Stream declares one JetStream stream; package bus provisions it.
type Stream struct {
	Name        string
	Description string
	Subjects    []string
	// MaxAge and MaxBytes bound the stream; the oldest messages go first (Lost says what that means).
	// Zero: no bound.
	MaxAge   time.Duration
	MaxBytes int64
	// MaxPerSubject keeps only that many newest messages of each subject; 0: all.
	MaxPerSubject int64
	MaxMsgSize    int32
	// Duplicates is the window in which the broker drops a second message with the same id. It saves
	// work only: every handler is idempotent by itself.
	Duplicates time.Duration
	// RepublishFrom and RepublishTo: what is stored is sent on, after the store.
	RepublishFrom, RepublishTo string
	// TransformFrom and TransformTo rewrite the subject as the message comes in.
	TransformFrom, TransformTo string
	// Direct lets readers fetch single messages without a consumer; Schedules lets messages be delayed.
	Direct, Schedules, AtomicBatches bool
	// Lost says what is lost when a limit is reached or the stream itself is, and how it comes back.
	Lost string
}

// Streams is the whole stored topology, declared once.
func Streams() []Stream {
	const day, mib, gib = 24 * time.Hour, 1 << 20, 1 << 30
	return []Stream{
		{
			Name: StreamJobs, Description: "offers and cancellations, republished to each agent after the store",
			Subjects: []string{"chandler.offer.*"}, MaxAge: 90 * day, MaxBytes: 16 * gib, MaxPerSubject: 64, MaxMsgSize: mib, Duplicates: 2 * time.Minute,
			RepublishFrom: "chandler.offer.*", RepublishTo: "chandler.agent.{{wildcard(1)}}.offer", Direct: true,
			Lost: "nothing: agents ask execution for what is outstanding (sync), which answers from its own state",
		},
		{
			Name: StreamStatus, Description: "every transition of every job, partitioned by agent",
			// One agent must not push out what others said.
			Subjects: []string{"chandler.job.*.*"}, MaxAge: 30 * day, MaxBytes: 64 * gib, MaxPerSubject: 4096, MaxMsgSize: mib, Duplicates: 2 * time.Minute,
			TransformFrom: "chandler.job.*.*", TransformTo: "chandler.job.{{wildcard(1)}}.{{wildcard(2)}}.{{partition(8,2)}}", Direct: true,
			Lost: "detail older than the limit; execution's state is in FOLD, ended jobs are in HISTORY, and agents tell again what a lost stream held",
		},
		{
			Name: StreamLogs, Description: "the agents' execmgr.log in chunks",
			Subjects: []string{"chandler.log.*"}, MaxAge: 14 * day, MaxBytes: 16 * gib, MaxPerSubject: 4096, MaxMsgSize: mib, Direct: true,
			Lost: "log text; the agent keeps its own files",
		},
		{
			Name: StreamEvents, Description: "everything else that happened: packages, collections, deployments, agents, accounts",
			Subjects: []string{"chandler.event.>"}, MaxAge: 90 * day, MaxBytes: 16 * gib, MaxMsgSize: mib, Duplicates: 2 * time.Minute, Direct: true, AtomicBatches: true,
			Lost: "history; each service keeps in its own bucket what it still needs",
		},
		{
			// No MaxAge: the broker silently removes a schedule that is older than it.
			Name: StreamTimers, Description: "starts, expiries and retries, kept as the broker's scheduled messages",
			Subjects: []string{"chandler.timer.>", "chandler.due.>"}, MaxMsgSize: mib, Direct: true, Schedules: true,
			Lost: "nothing for long: services compare their timers with their deployments at start and every minute",
		},
		{
			Name: StreamDeadLetter, Description: "events that no handler could take, with the reason",
			Subjects: []string{"chandler.deadletter.>"}, MaxAge: 90 * day, MaxBytes: gib, MaxMsgSize: MaxPayload, Direct: true,
			Lost: "evidence of old mistakes",
		},
		{
			Name: StreamFold, Description: "execution's state as a log of changes, one subject per partition; each append names the one before it",
			Subjects: []string{"chandler.fold.*"}, MaxMsgSize: mib, Direct: true,
			Lost: "execution's counts; rebuilt from STATUS and from what agents tell again",
		},
		{
			Name: StreamHistory, Description: "ended jobs, one subject per agent, beyond the age of STATUS",
			Subjects: []string{"chandler.history.*"}, MaxAge: 400 * day, MaxBytes: 64 * gib, MaxMsgSize: mib, Duplicates: 2 * time.Minute, Direct: true,
			Lost: "what a machine did long ago",
		},
	}
}

// Bucket declares one key-value or object bucket; exactly one service owns it.
type Bucket struct {
	Name, Owner, Description string
	History                  uint8
	Objects                  bool // an object store, for values above the broker's message size
}

// Buckets, see the names for their owners.
const (
	BucketAgents      = "chandler_agents"
	BucketCollections = "chandler_collections"
	BucketDeployments = "chandler_deployments"
	BucketPackages    = "chandler_packages"
	BucketOrders      = "chandler_orders"
	BucketControl     = "chandler_control"
	BucketFold        = "chandler_fold"
	BucketAccounts    = "chandler_accounts"
	BucketLeases      = "chandler_leases"
	BucketEnrolments  = "chandler_enrolments"
	BucketTrust       = "chandler_trust"
)

// Buckets is the whole kept state, declared once.
func Buckets() []Bucket {
	return []Bucket{
		{Name: BucketAgents, Owner: "scheduling", Description: "facts of every agent, by agent id", History: 1},
		{Name: BucketCollections, Owner: "scheduling", Description: "collections by name", History: 5},
		{Name: BucketDeployments, Owner: "scheduling", Description: "deployments by name: signed order, phase of life, who was released", History: 5},
		{Name: BucketPackages, Owner: "content", Description: "published packages by name and version", History: 5},
		{Name: BucketOrders, Owner: "execution", Description: "signed orders by digest, as agents fetch them", History: 1},
		{Name: BucketControl, Owner: "execution", Description: "stops, freezes and the generations of streams", History: 5},
		{Name: BucketFold, Owner: "execution", Description: "snapshots of execution's state, one per partition", Objects: true},
		{Name: BucketAccounts, Owner: "credentials", Description: "accounts, encrypted, by name", History: 5},
		{Name: BucketLeases, Owner: "credentials", Description: "accounts that are lent, to whom and until when, by lease; no secrets", History: 1},
		{Name: BucketEnrolments, Owner: "credentials", Description: "agents' identities by id, enrolment tokens by public key, users by name; no secrets", History: 5},
		{Name: BucketTrust, Owner: "credentials", Description: "signed trust bundles by version", History: 1},
	}
}

// Subjects that are not event types.

// AgentInbox matches everything that reaches one agent.
func AgentInbox(agent string) string { return "chandler.agent." + agent + ".>" }

// OfferRepublished is where an offer arrives after it was stored.
func OfferRepublished(agent string) string { return "chandler.agent." + agent + ".offer" }

// OfferStored is where an offer is stored in JOBS.
func OfferStored(agent string) string { return "chandler.offer." + agent }

// StatusPartition matches every status of one partition as STATUS stores it.
func StatusPartition(partition string) string { return "chandler.job.*.*." + partition }

// FoldSubject is where execution appends the changes of one partition.
func FoldSubject(partition string) string { return "chandler.fold." + partition }

// HistorySubject is where execution stores the ended jobs of one agent.
func HistorySubject(agent string) string { return "chandler.history." + agent }

// TimerSubject is where a service keeps one timer: setting it again replaces it. Every further token tells
// the service's timers from each other and must have passed [ValidToken]. When the timer is due, the broker
// publishes it as [TimerDue].
func TimerSubject(service string, tokens ...string) string {
	return strings.Join(append([]string{"chandler.timer", service}, tokens...), ".")
}

// DeadLetterSubject is where messages that a stream's readers could not take are kept.
func DeadLetterSubject(stream string) string { return "chandler.deadletter." + stream }
