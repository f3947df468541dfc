// Package systemrunner runs programs as the machine: root, or LocalSystem on Windows. That is who the agent is; where it is
// not, as in a trial without root, programs run as the agent's own user, and a note says so.
//
// A program that interacts with the user is given the display of the request's session where the system shows programs of
// the machine to users, which Linux does. Windows does not: LocalSystem has a session of its own, where nobody sees it, and
// a program that could be steered from a user's desktop would lend the user its rights. A note says why it is not shown.
//
// It changes nothing on the machine, so there is nothing to undo after a failure. The environment is the user's own as the
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
type Runner struct{}

// New has nothing to validate.
func New() *Runner { return &Runner{} }

// Prepare names the user of this process.
func (*Runner) Prepare(ctx context.Context, req execute.Request) (execute.Prepared, error) {
	name, isSystem, err := whoAmI()
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
	return prepared, nil
}

// show is the environment by which a program of the system finds the display of a session; hidden says why it does not.
func show(ctx context.Context, session *logon.Session) (env []string, hidden string) {
	if session == nil {
		return nil, "no user is logged on"
	}
	return showIn(ctx, *session)
}
