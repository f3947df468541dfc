// Package scheduling decides when, and for whom. It knows every agent's facts, the collections, and the
// deployments; it hands agents to execution in batches, as soon as a deployment is available and they are
// in its signed target.
//
// # Consumes
//
// AgentReported, PackagePublished, PackageRemoved, DeploymentHalted (from EVENTS), TimerDue (from TIMERS),
// heartbeats (core NATS), and the last DeploymentProgressed of a deployment when it is shown. Requests of
// administrators: events/call_scheduling.go. It asks content for its list of packages (ContentList).
//
// # Emits
//
// CollectionChanged, CollectionRemoved, DeploymentCreated (always before the first DeploymentReleased of
// the same revision), DeploymentReleased, DeploymentPaused, DeploymentResumed, DeploymentLapsed,
// DeploymentRemoved. Timers, as the broker's scheduled messages.
//
// # Keeps
//
// The buckets of agents, collections and deployments; the last holds, by key:
//
//	deployment.<name>                              signed order, lists, what administrators decided
//	release.<name>.<revision>.<wave>.<batch>       which agents were handed over, numbered without gaps
//	package.<digest of manifest>                   what was published, so that orders can be checked
//
// Each replica keeps what the buckets hold in memory too, by reading their streams. Nothing else is kept:
// a deployment's life is computed from its order, the clock, and what administrators decided.
//
// # On failure
//
// Any number of replicas may run: every change is a compare-and-set, and a batch is handed over by whoever
// creates its key, which needs to have seen all batches before it; so no agent is in two batches of one
// revision. Whatever is to be told is stored with the change that it tells of, and told again until the
// broker has it; ids are derived, so telling twice has no second effect. A crash between any two steps is
// caught up at the next start, and at the latest a minute later by any replica. Timers only wake: all
// deployments are held against the clock at start and every minute. While the broker is away nothing is
// decided, and Healthy says so. A bucket that is lost or restored from an older copy is read anew; what it
// no longer holds is gone for scheduling: agents report again, orders are created again, and while no package
// is known content is asked for all of them, at start, every minute, and when reconciling. Where others lost
// what they heard, an administrator lets every live deployment and its batches be told once more (Reconcile).
package scheduling
