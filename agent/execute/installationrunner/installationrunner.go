// Package installationrunner runs the administrative programs of legacy clients by the software installation account that
// the order names: a domain's user, lent by the credential service, with rights on this machine only while the program
// runs. It must be known to this machine (NSS on Linux, so a machine that has not joined the domain has none); the agent
// never tests a password of the operating system.
//
// Promises under failure. Preparing gives no rights; the Keeper gives them at the very start and takes them back. There is
// one identity: if it is not to be had the run fails, and no other account is tried.
package installationrunner

import (
	"context"
	"errors"
	"fmt"

	"chandler/agent/elevate"
	"chandler/agent/execute"
	"chandler/agent/execute/raised"
	"chandler/agent/lease"
	"chandler/events"
)

// Options of New.
type Options struct {
	Keeper raised.Keeper
	Spell  func(user string) []string // ways in which this machine may know the one user; nil: raised.Spell
}

// Runner is an execute.Runner.
type Runner struct{ options Options }

// New validates the options.
func New(o Options) (*Runner, error) {
	if o.Keeper == nil {
		return nil, errors.New("installation runner: nobody to give rights")
	}
	return &Runner{options: o}, nil
}

// Prepare leases the account. One that is an administrator already is used, and keeps what it has.
func (r *Runner) Prepare(ctx context.Context, req execute.Request) (execute.Prepared, error) {
	if req.Account == "" || req.Interactive {
		return execute.Prepared{}, &execute.Impossible{
			Reason: events.ContextUnsupported, Identity: req.Account, Resource: "to run the program",
			Answer: "a program by the software installation account needs the account's name, and is never interactive",
		}
	}
	found, logon, forget, err := raised.Borrow(ctx, req, lease.Wanted{Account: req.Account}, events.SoftwareInstallation, r.options.Spell)
	if err != nil {
		return execute.Prepared{}, err
	}
	run := raised.Run{Keeper: r.options.Keeper, Account: found, Kind: elevate.SoftwareInstallation, Logon: logon, Forget: forget}
	if found.Administrator {
		run.Note = fmt.Sprintf("account %s is an administrator of this machine already, and keeps these rights: an installation account should be an ordinary user, which is raised only while a program runs", found.Name)
	}
	return run.Prepare(ctx, req)
}
