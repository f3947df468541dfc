// Package systemrunner runs programs as the machine: root, or LocalSystem on Windows. That is who the agent is; where it is
// not, as in a trial without root, programs run as the agent's own user, and a note says so.
//
// A program that interacts with the user is given the display of the request's session where the system shows programs of
// the machine to users, which Linux does. Windows does not: LocalSystem has a session of its own, where nobody sees it, and
// a program that could be steered from a user's desktop would lend the user its rights. A note says why it is not shown.
//
// What a program refers to on the network it reads by the network access account. On Windows one token has one identity on the
// network, so the program is started with one that is the system's on this machine and that account's everywhere
// else (LOGON32_LOGON_NEW_CREDENTIALS); references that need several accounts are refused, see [OneLogin]. Windows keeps the secret for
// as long as the program or its children live, and uses it only when they reach for the network: nobody here sees what they read, or
// whether the secret was right. Elsewhere the supervisor mounts the references, and the program has no account.
//
// It changes nothing on the machine, so there is nothing to undo after a failure; a token that was made for the start
// is closed by Release, and its secret is cleared before Prepare returns. The environment is the user's own as the
// system defines it, never the agent's.
package systemrunner

import (
	"context"
	"fmt"
	"strings"

	"chandler/agent/execute"
	"chandler/agent/logon"
)

// Runner is an execute.Runner.
type Runner struct {
	logOn  netLogOn // nil: programs have no account on the network
	whoAmI func() (name string, isSystem bool, err error)
}

// New has nothing to validate.
func New() *Runner { return &Runner{logOn: newNetLogOn(), whoAmI: whoAmI} }

// Prepare names the user of this process, and gives the program its account on the network if it is to have one.
func (r *Runner) Prepare(ctx context.Context, req execute.Request) (execute.Prepared, error) {
	name, isSystem, err := r.whoAmI()
	if err != nil {
		return execute.Prepared{}, fmt.Errorf("find the agent's own user: %w", err)
	}
	env, err := environment(name)
	if err != nil {
		return execute.Prepared{}, fmt.Errorf("make the environment of %s: %w", name, err)
	}
	prepared := execute.Prepared{Executor: name, Env: env}
	if !isSystem {
		prepared.Note = fmt.Sprintf("the agent does not run as %s: the program runs as %s, with no more rights than that user has", systemName, name)
	}
	if req.Interactive {
		env, hidden := show(ctx, req.Session)
		prepared.Env = append(prepared.Env, env...)
		if hidden != "" {
			prepared.Note = strings.TrimPrefix(prepared.Note+"; not shown: "+hidden, "; ")
		}
	}
	if err := r.join(ctx, req, isSystem, &prepared); err != nil {
		return execute.Prepared{}, err
	}
	return prepared, nil
}

// show is the environment by which a program of the system finds the display of a session; hidden says why it does not.
func show(ctx context.Context, session *logon.Session) (env []string, hidden string) {
	if session == nil {
		return nil, "no user is logged on"
	}
	return showIn(ctx, *session)
}
