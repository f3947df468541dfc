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
// it by the newest trust bundle, as the agent does. The job must be of that order, administrative, and of the agent
// that asks, its order offered to it, not withdrawn, and not ended; see alive. A request is granted once: sent again it
// is refused, by every replica. A job for one user, which the agent opens itself, is one of which it told before the
// deployment's own job on it had ended.
//
// To run programs it lends a software installation account to a legacy client whose order names it, if the account is
// for the order's collection and the machine's domain, and the fleet's one account of kind client-token-domain to an agent
// on which an administrator conferred that it is a domain controller. An account of another kind never runs anything.
//
// To read an external source, the order must name it: what is asked for lies at or below one of its resources, and the
// lease is of that resource. An advanced client reads by the network access account that package scope chooses, a
// legacy client by the installation account of the order, or not at all. One account is chosen or none; there is never a
// second to try.
//
// There is one lease for each job, resource and purpose. It lasts ten minutes; asked for again while the job lives it is
// the same one, for longer. It is withdrawn when its job's attempt has ended, its agent is revoked or archived, its
// account removed or given another secret, or a person says so; the agent is told at once, and told or not it gets no
// more of it. After a person's word also a job that lives does not get the same lease before it would have expired.
// To keep a job from an account for good, stop its deployment, revoke the agent, or remove the account.
//
// Setting an account again makes a new version of its secret. The former counts for as long as the administrator says, at
// most 30 days, sealed as before: whoever was lent it is lent it again, as long as it counts for two minutes more, and
// everybody else the new one. It is erased when its time is over, at the version after, and with the account.
//
// An administrator may have one agent try one resource by an account, once: the agent is lent it for two minutes, without
// a job, and says what was answered. That this is one try is on record before the account is given. The resource must be
// one that the account names, so that nobody can have a secret shown to a host of their own.
//
// # What a rogue part can do
//
// An agent that was taken over while it may have an account can hide that its job has ended, and go on asking until its
// order's validity ends, the deployment is stopped, or the agent is revoked. It can keep what it was lent: after a break-in
// the secrets of the accounts that `events tail` shows as leased to it have to be changed. It says itself which domain it is
// of, so that a scope by domain chooses an account and protects none; resources and collections bind.
//
// A version of a secret that was refused at three machines is lent no more, until there is another: one wrong secret costs
// an account three bad passwords, and not one from each machine of the fleet. What counts is the word of different agents,
// each about a lease to read that was lent to it, of the current version, at the host of the lease. One agent, or two, cannot
// suspend an account; three that work together, each with a job that may have the account, can, and hold up those who
// need it until an administrator rotates it. They learn nothing by that, and the listing names them.
//
// Who takes over this service can read every secret that it can open, and lend accounts to agents of its own making. Who
// takes over the broker sees who is lent what, and no secret but those that are set over connections without TLS; it can
// ask in the name of administrators. Nothing proves to an agent who answered its request: whoever carries it can name
// another user of that machine, who then is given an administrator's rights while the signed program runs.
//
// # Consumes
//
// Requests of people (accounts, leases, tokens, agents, trust, users), of agents (a lease, what a test answered, renewal,
// trust bundles) and of machines without an identity (enrol, return), see events/call_credential.go and
// events/call_enrolment.go. JobFinished, which ends leases, and CredentialUsed, of which it counts rejections; both only
// while they are less than an hour old. Before it lends an account it looks up what is stored of the job: JobOffered
// and JobCancelRequested, JobFinished, and the ends of jobs that the agent itself told.
//
// # Emits
//
// AccountSet and AccountRemoved. CredentialRequested once a request is proved to be the agent's, and before anything is
// decided; CredentialLeased before the secret is given; LeaseDenied, once an hour for each agent, wish and reason;
// CredentialRevoked; CredentialExpired within a minute or so after a lease ran out. An agent
// fills EVENTS by its requests at most every 5 s in the long run. AccountTestAsked and LeaseWithdrawn go to one agent
// and are not stored. TokenCreated and TokenRemoved; AgentEnrolled, AgentPending, AgentApproved, AgentRevoked,
// AgentArchived and AgentKindSet; UserAdded and UserRevoked; TrustChanged, and TrustAnnounced every minute and
// after a change (each replica, not stored). EnrolmentRefused is stored once an hour for each agent, reason
// and token, and for at most 500 at once and one every 5 s afterwards; metrics count all.
//
// # Keeps
//
// The bucket of accounts: kind, user, resources and who was refused readable, the secret sealed by AES-256-GCM (tink) with
// the account's name and version as associated data, so that a sealed secret cannot be moved to another
// account or put back. A changed record replaces all earlier values of its key at once: old secrets do not
// linger in the bucket's history. The keyset is a file in the service's own directory, made at the first start, for
// its user alone (0600), and itself encrypted by a key-encryption key that is kept elsewhere: package vault. Who reads
// the bucket, the keyset file and that key reads the secrets, so back them up apart from each other. Every replica
// needs the same file and key. Rekeying seals every secret by a new key; the ones before go when nothing can need them
// any more, after some minutes, whoever crashes when.
//
// The bucket of leases, without secrets: what is lent, withdrawn or to be tested, and the nonces of the requests, until
// they have expired; each replica has a copy in memory. If it is lost, nothing is withdrawn that was lent before, and a
// request that was recorded within the last minutes can be sent once more; its answer is still sealed to the key of the
// agent that made it.
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
// If the keyset file is there and cannot be opened, nothing starts; if it was lost and made anew, health names the
// accounts whose secrets must be set again. Without a trust bundle the service is healthy, and machines that
// ask are told that it is not set up. While the broker is away nothing changes and health says so; agents that
// are off in the meantime return within 90 days of their last identity. If the bucket of enrolments is lost,
// every agent has to enrol anew; if that of trust is lost, the newest bundle can be set again.
//
// A flood of requests in made-up names costs time, and some 20 MiB of memory, but no room in the buckets: a
// record is made only for a use of a token, at most 100 a second and 5,000 at once. What exceeds a bound is
// answered "later".
package credentials
