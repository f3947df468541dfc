// Package systemrunner runs programs as the machine: root, or LocalSystem on Windows. That is who the agent is; where it is
// not, as in a trial without root, programs run as the agent's own user, and a note says so.
//
// It changes nothing on the machine, so there is nothing to undo after a failure. The environment is the user's own as the
// system defines it, never the agent's.
package systemrunner

import (
	"context"
	"fmt"

	"chandler/agent/execute"
)

// Runner is an execute.Runner.
type Runner struct{}

// New has nothing to validate.
func New() *Runner { return &Runner{} }

// Prepare names the user of this process.
func (*Runner) Prepare(context.Context, execute.Request) (execute.Prepared, error) {
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
	return prepared, nil
}
