// Package execution owns jobs: it offers them to agents, follows what agents say of them, tries failed ones
// again, finishes those nobody speaks of, withdraws stopped ones, and answers for all of it.
//
// # Consumes
//
// DeploymentCreated (keeps the signed order for agents to fetch, and its plan; withdraws what does not run of older
// revisions), DeploymentReleased (offers it), RolloutHalted (freezes it), RolloutSkipped, DeploymentResumed and
// DeploymentLapsed (lift that freeze), DeploymentRemoved (forgets it), LimitsChanged (the budget of retries),
// CollectionChanged and CollectionRemoved (so that a collection can be frozen while scheduling is down), every status
// of every job (stream STATUS), and its own timers. It answers the requests of package events that begin with Execution.
//
// # Emits
//
// JobOffered and JobCancelRequested to agents; JobFinished; DeploymentProgressed, at most about one a second
// for each deployment and replica, with the counts of each phase and site; DeploymentHalted; FreezeSet and FreezeLifted; the Beacon. Ended jobs
// also go to the stream HISTORY.
//
// # Keeps
//
// The state of every job is a fold of STATUS, in one part for each partition of the agents: 24 bytes a job
// in memory ([record]), and in the stream FOLD as a log of changes ([delta]). Every change, also an offer,
// is appended under the condition that the delta before it is the one it was computed from; a replica that
// comes second reads what the first wrote and computes again. So no replica needs to be the only one: a
// paused one that wakes, or two that hold the same partition for a while, cost a repetition and nothing
// else. Every replica follows all of FOLD and can answer every request. Now and then a partition is stored
// as a whole in the bucket chandler_fold, and the deltas before that are purged. A snapshot is named after
// the delta it ends with, because objects have no compare-and-set: a slow replica must not replace a newer
// snapshot by its own after the deltas between them were purged.
//
// Orders are in the bucket chandler_orders by digest; stops, freezes, halts, the limits, generations of streams and the
// last known collections in chandler_control. A stop is kept for good, also beyond its deployment; a halt until the
// deployment is removed, also after it ended, so that an older event that comes late changes nothing.
//
// An order that stands (package order) is offered as one job, out of which the agent opens occurrences. Execution learns
// of one by its first status, and its record keeps the latest; while the order lives, whoever has a record of it
// has the order, and an answer to its sync offers it again to a machine whose journal was lost.
//
// Jobs that say that they are to be tried again share the fleet's budget, in equal parts by partition. What is granted is
// read off the changes themselves, so that two replicas keep one budget; what exceeds it comes later.
//
// # On failure
//
// What a change says to others (an offer, a cancellation, the end of a job, a timer) is said before the
// change is stored, under an id derived from what it states: a crash in between repeats it and never
// forgets it. A status is acknowledged after the delta that holds it is stored; folding is idempotent and
// does not depend on order. Statuses are acknowledged one by one, not up to a sequence, because the latter
// also acknowledges what got lost on its way to this process. Whoever begins with a partition first reads
// STATUS from where FOLD says it is folded, as far as it was delivered to anybody, since redelivery comes late.
//
// If STATUS is made anew or goes back, its generation rises, agents tell again what they keep, and all of it
// is folded once more. If FOLD is lost, running replicas carry on from memory and store snapshots that fit the
// new one; a replica that starts with less than there was folds all of STATUS again and takes from JOBS what
// was offered and not answered. Statuses whose order is unknown, and what exceeds the limits for one agent,
// are counted and left out.
//
// If that is not enough, an administrator lets everybody tell again (Reconcile of scheduling, ExecutionRetell
// here): orders and releases come once more, and a new generation of STATUS makes agents tell what they keep.
// Whatever execution then offers to an agent that had the job already, the agent answers with what it knows. The phases
// of jobs are in FOLD and in releases alone: after a loss of FOLD, jobs count in none until then, so that scheduling takes
// them to be in flight and no gate is met or bad. Nor does what an agent says count that no release names.
//
// The jobs of an agent that was archived or revoked are left as they are: scheduling counts on it no longer and
// hands it nothing over, and a job that nobody speaks of ends with its order's time, or by a stop. An agent that
// is let back goes on with them.
//
// A lost offer is found by the agent (sync); a lost timer by a sweep over the records; a stop that was
// interrupted is completed by the same sweep. Stops, freezes and everything here work without scheduling.
package execution
