// Package raised prepares runs by an account that has rights only while its program runs: what the runners of the client
// token account and of the software installation account have in common.
//
// Promises under failure. Nothing is given before the very start of the program, and what is given then is the Keeper's to
// take back. A leased account is never used before it was found to be of the kind asked for, whatever the credential
// service said, and never if it is root; a secret that is not needed is cleared at once, one that is needed when it was used or
// cannot be any more, and at the latest when its lease is over. What an administrator
// can mend is an *execute.Impossible.
package raised

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"chandler/agent/account"
	"chandler/agent/elevate"
	"chandler/agent/execute"
	"chandler/agent/execute/systemrunner"
	"chandler/agent/lease"
	"chandler/agent/supervise"
	"chandler/events"
)

// Keeper gives rights for one run: elevate.Keeper.
type Keeper interface {
	Grant(ctx context.Context, g elevate.Grant, spec supervise.Spec) (supervise.Spec, error)
}

// Logon gives a token of an account on Windows, and what closes it; nil elsewhere.
type Logon func(ctx context.Context) (token uint64, done func(), err error)

// Run is a run by an account.
type Run struct {
	Keeper  Keeper
	Account account.Account
	Kind    string // elevate.ClientToken, …
	Logon   Logon
	Forget  func() // clears the secret by which Logon logs on; nil: there is none
	Note    string
}

// Prepare lets the Keeper give the rights at the start. The environment is what the system's own programs get, since the
// program has the system's rights; its temporary files are the system's for the same reason.
func (r Run) Prepare(ctx context.Context, req execute.Request) (execute.Prepared, error) {
	req.NetLogin = nil // the account is on the network what it is here
	system, err := systemrunner.New().Prepare(ctx, req)
	if err != nil {
		return execute.Prepared{}, err
	}
	return execute.Prepared{
		Executor: r.Account.Name, ElevatedTo: raisedTo, Env: system.Env, Note: strings.Trim(r.Note+"; "+system.Note, "; "),
		Elevate: func(ctx context.Context, dir string, spec supervise.Spec) (supervise.Spec, error) {
			if r.Forget != nil {
				defer r.Forget() // also where the Keeper refused before it logged on
			}
			return r.Keeper.Grant(ctx, elevate.Grant{
				Dir: dir, Account: r.Account, Kind: r.Kind, Logon: r.Logon,
				Job: req.Job, Deployment: req.Deployment, Program: req.Program, Attempt: req.Attempt,
			}, spec)
		},
	}, nil
}

// Borrow leases the account that is wanted, which must be of that kind, and finds it on this machine by one of the
// spellings of its user. Every spelling must name the same user: they are tried in turn until the system knows one. forget
// clears what logon needs, and may be called again.
func Borrow(ctx context.Context, req execute.Request, wanted lease.Wanted, kind events.AccountKind, spell func(user string) []string) (who account.Account, logon Logon, forget func(), err error) {
	l, err := ask(ctx, req, wanted)
	if err != nil {
		return account.Account{}, nil, nil, err
	}
	if l.Kind != kind {
		l.Clear()
		return account.Account{}, nil, nil, impossible(events.AccountRefused, l.Account, fmt.Sprintf("account %s is of kind %s; programs are run by one of kind %s", l.Account, l.Kind, kind), nil)
	}
	found, err := find(ctx, l.User, spell)
	if err == nil && found.UID == 0 && found.SID == "" {
		err = impossible(events.AccountRefused, l.Account, fmt.Sprintf("account %s is root itself (user %s, uid 0), from whom nothing can be taken back: it must be an ordinary user", l.Account, found.Name), nil)
	}
	if err != nil {
		l.Clear()
		return account.Account{}, nil, nil, err
	}
	logon, forget = logonBy(l)
	return found, logon, forget, nil
}

func ask(ctx context.Context, req execute.Request, wanted lease.Wanted) (*lease.Lease, error) {
	name := wanted.Account
	if name == "" {
		name = string(wanted.Kind)
	}
	if req.Lease == nil {
		return nil, impossible(events.CredentialDenied, name, "there is no credential service that the account could be asked from", nil)
	}
	l, err := req.Lease(ctx, wanted)
	var denied *lease.Denied
	switch {
	case errors.As(err, &denied):
		return nil, impossible(denied.Reason, name, denied.Why, err)
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil:
		return nil, impossible(events.CredentialDenied, name, fmt.Sprintf("the credential service gave no lease: %v", err), err)
	case l == nil:
		return nil, impossible(events.CredentialDenied, name, "the credential service gave no lease", nil)
	}
	return l, nil
}

func find(ctx context.Context, user string, spell func(user string) []string) (account.Account, error) {
	if spell == nil {
		spell = Spell
	}
	for _, name := range spell(user) {
		found, err := account.Lookup(ctx, name)
		var unusable *account.Unusable
		switch {
		case err == nil:
			return found, nil
		case errors.As(err, &unusable):
			return account.Account{}, impossible(events.AccountUnusable, name, unusable.Error(), err)
		case !errors.Is(err, account.ErrNotFound):
			return account.Account{}, err
		}
	}
	return account.Account{}, impossible(events.AccountUnusable, user, fmt.Sprintf("there is no such user as %s on this machine, by %s", user, userDatabase), account.ErrNotFound)
}

func impossible(reason events.Reason, identity, answer string, err error) error {
	return &execute.Impossible{Reason: reason, Identity: identity, Resource: "to run the program", Answer: answer, Err: err}
}
