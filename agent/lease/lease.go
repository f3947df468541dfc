// Package lease asks the credential service for accounts: one lease for one job, one account, a short time.
//
// A secret is in memory only, for as long as it is needed: it comes sealed to a key that is made for the
// request, and whoever holds a lease clears it. Under failure there is no lease, and the error says why: a
// *Denied is the service's own word, anything else means that it was not heard. Nothing is asked again by
// itself.
package lease

import (
	"fmt"
	"time"

	"chandler/events"
)

// Wanted says which account. Exactly one of its fields is set.
type Wanted struct {
	Account string             // by the name that the order gives
	Kind    events.AccountKind // the fleet's only one of this kind: the domain's copy of the client token account
}

// Lease is an account for a while.
type Lease struct {
	ID      string // the same when it is renewed
	Account string // the name that the fleet knows it by
	Kind    events.AccountKind
	User    string // as the operating system or the domain names it: EXAMPLE\installer
	Method  string // how it proves itself; "": by password
	Version int    // of the secret
	Secret  []byte
	Expires time.Time
}

// Clear overwrites the secret.
func (l *Lease) Clear() {
	clear(l.Secret)
	l.Secret = nil
}

// Format keeps the secret out of whatever prints a lease.
func (l Lease) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "lease of %s (%s, user %s, version %d) until %s", l.Account, l.Kind, l.User, l.Version, l.Expires.Format(time.RFC3339))
}

// Denied is the credential service's refusal.
type Denied struct {
	Reason events.Reason
	Why    string
}

func (d *Denied) Error() string { return d.Why }
