// Package tokenrunner runs the administrative programs of legacy clients, by the client token account: a local account
// that the agent makes, an ordinary user but while a program runs. On a domain controller it is the domain's copy, which
// the credential service lends.
//
// Promises under failure. Preparing gives the account no rights; they are given at the very start of the program and taken
// back by the Keeper, whatever happens. An account that is or has more than it should is never used. That the account was
// made is told once; if telling fails it is told at the next run.
package tokenrunner

import (
	"context"
	"errors"
	"sync"
	"time"

	"chandler/agent/account"
	"chandler/agent/elevate"
	"chandler/agent/execute"
	"chandler/agent/execute/raised"
	"chandler/agent/lease"
	"chandler/events"
)

// DefaultAccount is the local account's name where nothing else is said (domain-facts.md §2.1).
const DefaultAccount = "SMSCliToknLocalAcct&"

// Options of New.
type Options struct {
	Keeper         raised.Keeper
	Account        string                     // of this machine; "": DefaultAccount
	Administrators []string                   // groups; none: account.Administrators()
	Spell          func(user string) []string // of the domain's copy; nil: raised.Spell
	Clock          func() time.Time           // nil: time.Now
}

// Runner is an execute.Runner.
type Runner struct {
	options Options

	mu     sync.Mutex
	untold *events.AccountNote
}

// New validates the options.
func New(o Options) (*Runner, error) {
	if o.Keeper == nil {
		return nil, errors.New("token runner: nobody to give rights")
	}
	if o.Account == "" {
		o.Account = DefaultAccount
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	return &Runner{options: o}, nil
}

// Prepare makes the account if need be, or leases the domain's copy.
func (r *Runner) Prepare(ctx context.Context, req execute.Request) (execute.Prepared, error) {
	run := raised.Run{Keeper: r.options.Keeper, Kind: elevate.ClientToken}
	var err error
	if req.Domain {
		run.Kind = elevate.ClientTokenDomain
		run.Account, run.Logon, run.Forget, err = raised.Borrow(ctx, req, lease.Wanted{Kind: events.ClientTokenDomain}, events.ClientTokenDomain, r.options.Spell)
	} else {
		run.Account, err = r.local(ctx, req)
		run.Logon = logon(run.Account)
	}
	if err != nil {
		return execute.Prepared{}, err
	}
	return run.Prepare(ctx, req)
}

// local holds up a second run, which could otherwise make the account twice.
func (r *Runner) local(ctx context.Context, req execute.Request) (account.Account, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	found, created, err := account.Ensure(ctx, r.options.Account, account.Options{Administrators: r.options.Administrators})
	if created {
		r.untold = &events.AccountNote{
			Account: r.options.Account, Kind: elevate.ClientToken, Job: req.Job, Deployment: req.Deployment, Attempt: req.Attempt,
			Program: req.Program, Means: account.Ordinary, At: r.options.Clock(),
		}
	}
	if err != nil {
		return account.Account{}, explained(r.options.Account, err)
	}
	if r.untold != nil && req.Created != nil {
		if err := req.Created(*r.untold); err != nil {
			return account.Account{}, err
		}
		r.untold = nil
	}
	return found, nil
}

// explained makes what an administrator can mend an *execute.Impossible.
func explained(name string, err error) error {
	answer := &execute.Impossible{Identity: name, Resource: "to run the program", Err: err}
	var unusable *account.Unusable
	var missing *account.CannotMake
	switch {
	case errors.As(err, &unusable):
		answer.Reason, answer.Answer = events.AccountUnusable, unusable.Error()
	case errors.As(err, &missing):
		answer.Reason, answer.Answer = events.ElevationImpossible, missing.Error()
	default:
		return err
	}
	return answer
}
