// Package access says who may do what on the broker, and makes the keys and identities that say so.
//
// A fleet is several NATS accounts under one operator, because the broker publishes its answers (the
// acknowledgement of a store, a direct get, a delivery) on whatever subject the asker named for them, with
// the rights of the asker's whole account. In one account an agent that may only read its own last offer
// could have the answer delivered as a request to purge a stream. Between accounts only what is exported
// and imported passes, and answers come back to the asker's account alone:
//
//   - fleet: the services, their streams and buckets;
//   - agents: every agent;
//   - people: administrators, deployers, viewers and integrators;
//   - enrolment: machines that have no identity yet;
//   - system: the broker's own, by which the administrator changes accounts.
//
// Within an account the template of a role's signing key pins each user to subjects that carry its name and
// key. Subjects are derived from the declarations of package events; what those do not tell (which readers a
// service has) is the table in service.go. The outcome is written down in deploy/nats/permissions.json.
//
// A site's leaf node is a user of the accounts of agents, of enrolment and of the system, and speaks for all that
// is behind it: see [MintLeaf].
//
// What the broker does not keep apart: services share an account, so one of them that is taken over can reach
// what the others store, by naming a subject of the broker's or of a bucket for its answers: also to empty the
// stream that holds the audit. What agents obey is signed, and accounts are encrypted; that is why. Whoever
// holds a token's enrolment identity can hear the answers to other enrolling machines, which hold nothing that
// is of use without the machine's own key. An answer of the broker can be sent to any subject within the
// asker's account; it has no event in it that a reader would take (package bus).
package access
