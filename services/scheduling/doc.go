// Package scheduling decides when, and for whom. It knows every agent's facts, the collections, and the
// deployments; it hands agents to execution in batches, as soon as a deployment is available, they are
// in its signed target, their phase is open, and limits of jobs in flight leave room. Package rollout decides by what
// execution counts when the next phase opens and when a rollout halts.
//
// # Consumes
//
// AgentReported, AgentApproved, AgentArchived, AgentRevoked, TrustChanged, PackagePublished, PackageRemoved,
// DeploymentHalted, GateSignalled (from EVENTS), TimerDue (from TIMERS), heartbeats (core NATS), and the last
// DeploymentProgressed of each deployment: every replica reads it as it is told, and once more when a deployment is shown or
// resumed, and at every tick where a plan or the fleet's limits depend on it. Before a deployment is replaced, its last
// DeploymentCreated and DeploymentProgressed. For an external gate of one of Chandler's own types, the last event of that type
// about its subject. Requests
// of people: events/call_scheduling.go. While it knows no package at all, and to reconcile, it asks content for its list
// (ContentList): the events of packages may be older than what EVENTS keeps, and content alone knows them then. So it does
// for an order that starts at logon or logoff, and once for each package of which several programs are deployed, since no
// event says which programs run without anybody logged on, and which of them take back or repair another.
//
// # Emits
//
// CollectionChanged, CollectionRemoved, DeploymentDrafted, DeploymentCreated (always before the first DeploymentReleased of
// the same revision; once more when its plan was changed), DeploymentReleased, DeploymentPaused, DeploymentResumed,
// DeploymentLapsed, DeploymentRemoved; RolloutOpened, RolloutHalted, RolloutApproved, RolloutSkipped, RolloutRolledBack;
// GateSignalled, LimitsChanged; AgentTwins. Timers, as the broker's scheduled messages.
//
// # Keeps
//
// The buckets of agents, collections and deployments. That of agents holds under presence.<shard> in which hours agents were
// heard; that of deployments, by key:
//
//	deployment.<name>                              signed order, its rollback, lists, plan, what administrators decided
//	draft.<name>                                   the same of an order that lacks signatures
//	rollout.<name>.<revision>                      which phases have opened and how they were cut, approvals, halt, rollback
//	release.<name>.<revision>.<wave>.<batch>       which agents were handed over, of which phase; numbered without gaps
//	limits                                         how many jobs of the fleet may be in flight
//	trust                                          newest trust bundle, so that orders can be checked
//	package.<digest of manifest>                   what was published, so that orders can be checked
//
// Each replica keeps what the buckets hold in memory too, by reading their streams, and which runs of each agent
// it has heard of in the last minutes, so that two agents with one identity are noticed. Deployments of one target share who
// is in it. Nothing else is kept: a deployment's life is computed from its order, the clock, its rollout, and what
// administrators decided.
//
// Signatures are checked here as a service to those who sign, by the word of credentials on who is trusted:
// agents are the ones to be convinced, and alone decide. While no trust bundle is known all is left to them.
//
// # On failure
//
// Any number of replicas may run: every change is a compare-and-set, and a batch is handed over by whoever
// creates its key, which needs to have seen all batches before it, of whichever phase; so no agent is in two batches of one
// revision. A phase opens, and a rollout halts, by one change of its record that holds only on what was judged. Limits of one
// deployment are kept to the job, by counts that may be old and then hold back too much; those of the fleet may be exceeded by
// one batch of each further replica that hands over another deployment in the same moment. Whatever is to be told is stored with the change that it tells of, and told again until the
// broker has it; ids are derived, so telling twice has no second effect. A crash between any two steps is
// caught up at the next start, and at the latest a minute later by any replica. Timers only wake: all
// deployments are held against the clock at start and every minute. What comes for an external gate of Chandler's own types
// is seen within that minute. A rollback that is due is carried out by any replica, after the halt of what it takes back is
// stored, also where that was stopped or its time is over; one that is refused is tried again every minute. What is told of one
// record is told with rising times, whatever the clocks of replicas say, for others go by them. While the broker is away nothing is
// decided, and Healthy says so. A bucket that is lost or restored from an older copy is read anew; what it
// no longer holds is gone for scheduling: agents report again, orders are created again, and while no package
// is known content is asked for all of them, at start, every minute, and when reconciling. No right order is
// refused for what an old copy does not hold: before a refusal the newest trust bundle is looked for among the
// events, and so is the package. Revisions that were used since are known from the events, so that one that agents
// would take for old is refused here. Agents that were archived since are shown once more. An order that starts at
// logon or logoff is taken only while content answers; what programs take back contradicts nothing while it never did.
// Where others lost what they heard, an administrator lets every live deployment, its batches, its halt and the fleet's limits
// be told once more (Reconcile).
package scheduling
