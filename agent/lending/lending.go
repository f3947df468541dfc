// Package lending is how the process that watches over a run gets the account by which the program's references are read:
// from the agent, which alone can ask the credential service, over a socket in the agent's own directory.
//
// A request names a run's directory and an address; the answer is an account with its secret, or why there is none. The
// agent answers one process only: the live supervisor of that run, which the kernel names (SO_PEERCRED) and the run's
// record confirms. Whoever else calls, the programs of root included, is sent away and logged.
//
// # Under failure
//
// Frames are bounded in size and time on both sides. The agent may be restarting: a [Client] calls again until its
// patience is over, and then says credential_unavailable. A refusal is final. The secret is in memory only, in buffers
// that are overwritten after use, and in nothing that is printed or marshalled.
package lending

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"chandler/agent/source"
)

// Loan is an account for a while. Where there is none the error says why, and the Loan only who was to read.
type Loan struct {
	Identity string // who reads: one of package identity's words
	Account  string // as the fleet names it
	User     string // as the resource knows it
	Version  int    // of the secret
	Method   string // how the account proves itself, as in source.Login
	Lease    string // its id, by which it is withdrawn; "": it is of no lease
	Secret   []byte
	Expires  time.Time // zero: never
}

// Login is what a source takes. The secret is still the Loan's.
func (l Loan) Login() source.Login {
	return source.Login{User: l.User, Method: l.Method, Secret: l.Secret}
}

// Clear overwrites the secret.
func (l *Loan) Clear() {
	clear(l.Secret)
	l.Secret = nil
}

// Format keeps the secret out of whatever prints a loan.
func (l Loan) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "loan of %s (user %s, version %d) until %s", l.Account, l.User, l.Version, l.Expires.Format(time.RFC3339))
}

// MarshalJSON keeps the secret out of whatever is encoded.
func (l Loan) MarshalJSON() ([]byte, error) { return json.Marshal(fmt.Sprint(l)) }

const (
	frameLimit  = 10 * time.Second       // for a frame to come or go once it is due
	lendLimit   = time.Minute            // for the credential service
	redialPause = 100 * time.Millisecond // while the agent is away
)

// errUnsupported: no socket there says which process calls.
var errUnsupported = errors.New("this system has no socket that names the process that calls")
