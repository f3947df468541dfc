// Package userrunner runs programs as a user who is logged on, in the session that the request names: with that user's
// rights and groups, home, environment and session bus, and, if the program is interactive and the session graphical, on
// its display (see logon.Session.Desktop for what is found of it, and what is not). On macOS a program has the user's
// rights and home, and is not attached to the login's own services.
//
// It changes nothing on the machine, so there is nothing to undo after a failure. Whatever is not certain refuses the
// program: an unknown user, one whose number is not the session's, a home directory that is missing or somebody else's.
// An agent without the machine's rights can run programs only as its own user. Nothing of the agent's environment gets
// through.
package userrunner

import (
	"context"
	"errors"
	"fmt"

	"chandler/agent/account"
	"chandler/agent/execute"
	"chandler/events"
)

// Options of New. The zero value is right outside tests.
type Options struct {
	Lookup func(ctx context.Context, name string) (account.Account, error) // nil: account.Lookup
}

// Runner is an execute.Runner.
type Runner struct {
	lookup func(ctx context.Context, name string) (account.Account, error)
}

// New has nothing to refuse.
func New(options Options) *Runner {
	if options.Lookup == nil {
		options.Lookup = func(ctx context.Context, name string) (account.Account, error) { return account.Lookup(ctx, name) }
	}
	return &Runner{lookup: options.Lookup}
}

// Prepare takes the identity of the session's user.
func (r *Runner) Prepare(ctx context.Context, req execute.Request) (execute.Prepared, error) {
	if req.Session == nil {
		return execute.Prepared{}, &execute.Impossible{
			Reason: events.UserLoggedOff, Resource: "a session of a logged-on user",
			Answer: "no user is logged on in whose session the program could run",
		}
	}
	return r.prepare(ctx, *req.Session, req.Interactive)
}

// notSeen says what hides a program that wants to be seen.
func notSeen(hidden string) string {
	if hidden == "" {
		return ""
	}
	return "the program wants to be seen, and nobody sees it: " + hidden
}

func join(note, more string) string {
	switch "" {
	case note:
		return more
	case more:
		return note
	}
	return note + "; " + more
}

// unusable says why nothing can run as the user.
func unusable(user string, err error) error {
	return &execute.Impossible{
		Reason: events.AccountUnusable, Identity: user, Resource: "the user's account",
		Answer: fmt.Sprintf("the program cannot run as user %s: %v", user, err), Err: err,
	}
}

// unprivileged refuses another user than the agent's own to an agent without rights.
func unprivileged(user, own string) error {
	return &execute.Impossible{
		Reason: events.ContextUnsupported, Identity: user, Resource: "the rights of another user",
		Answer: fmt.Sprintf("the agent runs as %s, without the rights to run programs as user %s: run the agent as the system", own, user),
	}
}

// checkHome explains a home directory that a user's program cannot do without.
func checkHome(user, home, why string) error {
	if why == "" {
		return nil
	}
	return &execute.Impossible{
		Reason: events.HomeMissing, Identity: user, Resource: home,
		Answer: fmt.Sprintf("user %s has no home directory on this machine: %q %s", user, home, why), Err: errors.New(why),
	}
}
