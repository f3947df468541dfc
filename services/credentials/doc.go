// Package credentials keeps the accounts that reach external sources and run installations. Secrets go in
// and never come out: no answer, event, log or metric of this service carries one. The request that sets one
// carries it in the clear, as long as the broker has neither TLS nor authentication.
//
// # Consumes
//
// Requests of administrators (make, list and remove accounts) and of agents (a lease), see
// events/call_credential.go. No events.
//
// # Emits
//
// AccountSet, AccountRemoved, and LeaseDenied: this version brokers no credentials yet, and says so to every
// agent that asks.
//
// # Keeps
//
// The bucket of accounts: kind, user and resources readable, the secret sealed by AES-256-GCM (tink) with
// the account's name and version as associated data, so that a sealed secret cannot be moved to another
// account or put back. A changed account replaces all earlier values of its key at once: old secrets do not
// linger in the bucket's history. The keyset is a file in the service's own directory, made at the first
// start, for its user alone (0600). It is in clear for now: who reads the file and the bucket reads the
// secrets, so back it up apart from the broker's files. Every replica needs the same file.
//
// # On failure
//
// Any number of replicas may run: changes are compare-and-set. What is to be told of a change is stored with
// it and told until the broker has it; ids are derived, so telling twice has no second effect. Without the
// keyset file nothing starts if it cannot be read; if it was lost and made anew, health names the accounts
// whose secrets must be set again. While the broker is away nothing changes and health says so.
package credentials
