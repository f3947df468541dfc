// Package credentials says who belongs to the fleet, and keeps the accounts that reach external sources and
// run installations.
//
// It gives agents their identities: to machines that enrol by a token, to agents that renew, and to those
// that return after theirs expired. It holds the signing key of role agent and no other: it cannot make
// people, services or the broker's accounts, and what it tells of trust is signed by roots that it does not
// have. Whoever takes it over can make agents, and withhold identities and bundles; it cannot give orders.
//
// Secrets of accounts go in, and come out only sealed to the agent that an account is lent to: no other answer, and
// no event, log or metric of this service carries one. The request that sets one carries it in the clear as far as
// the broker's connections are not TLS.
//
// # Leases
//
// An account is lent for one job, by package lease: the agent encloses the signed order, and this service verifies
// it by the newest trust bundle, as the agent does. It lends a software installation account to a legacy client
// whose administrative order names it, and the fleet's one account of kind client-token-domain to an agent on which
// an administrator conferred that it is a domain controller; to run programs, and not to reach external sources. An
// account of another kind never runs anything. The job must be of that order and of the agent that asks, its order
// offered to it, not withdrawn, and not ended; see alive. A lease lasts ten minutes; asked for again while the job
// lives it is the same one, for longer, and holds the secret that is current by then. Setting an account again makes
// a new version: whoever was lent the former keeps it for as long as the domain takes it. A request is granted once:
// sent again it is refused, by every replica.
//
// What this cannot keep: an agent that was taken over while it may have an account can hide that its job has ended,
// and go on asking until its order's validity ends, the deployment is stopped, or the agent is revoked.
//
// # Consumes
//
// Requests of people (accounts, tokens, agents, trust, users), of agents (a lease, renewal, trust bundles)
// and of machines without an identity (enrol, return), see events/call_credential.go and
// events/call_enrolment.go. It handles no events, but looks up what is stored of a job before it lends an account:
// JobOffered and JobCancelRequested, JobFinished, and the ends of jobs that the agent itself told.
//
// # Emits
//
// AccountSet and AccountRemoved; CredentialLeased before the secret is given, and LeaseDenied, once an hour for each
// agent, wish and reason within the bounds of EnrolmentRefused. TokenCreated and TokenRemoved; AgentEnrolled, AgentPending, AgentApproved, AgentRevoked,
// AgentArchived and AgentKindSet; UserAdded and UserRevoked; TrustChanged, and TrustAnnounced every minute and
// after a change (each replica, not stored). EnrolmentRefused is stored once an hour for each agent, reason
// and token, and for at most 500 at once and one every 5 s afterwards; metrics count all.
//
// # Keeps
//
// The bucket of accounts: kind, user and resources readable, the secret sealed by AES-256-GCM (tink) with
// the account's name and version as associated data, so that a sealed secret cannot be moved to another
// account or put back. A changed record replaces all earlier values of its key at once: old secrets do not
// linger in the bucket's history. The keyset is a file in the service's own directory, made at the first
// start, for its user alone (0600). It is in clear for now: who reads the file and the bucket reads the
// secrets, so back it up apart from the broker's files. Every replica needs the same file.
//
// The bucket of leases, without secrets: what is lent and the nonces of the requests, until they have expired. If it
// is lost, a request that was recorded within the last minutes can be sent once more; its answer is still sealed to
// the key of the agent that made it.
//
// The bucket of enrolments, without secrets: agent.<id>, token.<name> and user.<name>. Agents never go away;
// an expired token is emptied after 30 days, of a user the last key is kept. The bucket of trust: every
// bundle that was set, by version. Each replica keeps a copy of accounts (as they are sealed), enrolments and trust
// in memory, some 1.2 KB for each agent, and reads what was stored since whenever it is asked for a list: what one
// replica did, all of them show.
//
// # On failure
//
// Any number of replicas may run: changes are compare-and-set, a trust bundle's over its whole bucket. What is
// to be told of a change is stored with it and told until the broker has it; ids are derived, so telling twice
// has no second effect. An identity is given only after the agent's record was written: once a revocation is
// stored, no replica gives one any more. Uses of a token are exact whoever crashes when: see join.
//
// Without the keyset file nothing starts if it cannot be read; if it was lost and made anew, health names the
// accounts whose secrets must be set again. Without a trust bundle the service is healthy, and machines that
// ask are told that it is not set up. While the broker is away nothing changes and health says so; agents that
// are off in the meantime return within 90 days of their last identity. If the bucket of enrolments is lost,
// every agent has to enrol anew; if that of trust is lost, the newest bundle can be set again.
//
// A flood of requests in made-up names costs time, and some 20 MiB of memory, but no room in the buckets: a
// record is made only for a use of a token, at most 100 a second and 5,000 at once. What exceeds a bound is
// answered "later".
package credentials
