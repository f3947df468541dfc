// Package scheduling decides when, and for whom. It knows every agent's facts, the collections, and the
// deployments; it hands agents to execution in batches, as soon as a deployment is available and they are
// in its signed target.
//
// # Consumes
//
// AgentReported, AgentApproved, AgentArchived, AgentRevoked, TrustChanged, PackagePublished, PackageRemoved,
// DeploymentHalted (from EVENTS), TimerDue (from TIMERS), heartbeats (core NATS), and of a deployment the last
// DeploymentProgressed when it is shown, and that and the last DeploymentCreated before it is replaced. Requests
// of people: events/call_scheduling.go. While it knows no package at all, and to reconcile, it asks content for its list
// (ContentList): the events of packages may be older than what EVENTS keeps, and content alone knows them then. So it does
// for an order that starts at logoff, since no event says which programs run without anybody logged on.
//
// # Emits
//
// CollectionChanged, CollectionRemoved, DeploymentDrafted, DeploymentCreated (always before the first DeploymentReleased of
// the same revision), DeploymentReleased, DeploymentPaused, DeploymentResumed, DeploymentLapsed,
// DeploymentRemoved; AgentTwins. Timers, as the broker's scheduled messages.
//
// # Keeps
//
// The buckets of agents, collections and deployments; the last holds, by key:
//
//	deployment.<name>                              signed order, lists, what administrators decided
//	draft.<name>                                   the same of an order that lacks signatures
//	trust                                          newest trust bundle, so that orders can be checked
//	release.<name>.<revision>.<wave>.<batch>       which agents were handed over, numbered without gaps
//	package.<digest of manifest>                   what was published, so that orders can be checked
//
// Each replica keeps what the buckets hold in memory too, by reading their streams, and which runs of each agent
// it has heard of in the last minutes, so that two agents with one identity are noticed. Nothing else is kept: a deployment's life is computed from its order, the clock, and what administrators decided.
//
// Signatures are checked here as a service to those who sign, by the word of credentials on who is trusted:
// agents are the ones to be convinced, and alone decide. While no trust bundle is known all is left to them.
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
// is known content is asked for all of them, at start, every minute, and when reconciling. No right order is
// refused for what an old copy does not hold: before a refusal the newest trust bundle is looked for among the
// events, and so is the package. Revisions that were used since are known from the events, so that one that agents
// would take for old is refused here. Agents that were archived since are shown once more. An order that starts at
// logoff is taken only while content answers. Where others lost what they heard, an administrator lets every live
// deployment and its batches be told once more (Reconcile).
package scheduling
