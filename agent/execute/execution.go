package execute

import (
	"context"
	"errors"
	"fmt"
	"os"

	"chandler/agent/supervise"
	"chandler/events"
)

// ErrNotTakenBack says that an account still has rights that it had for a run which has ended.
var ErrNotTakenBack = errors.New("rights given for the run are not taken back yet")

// Execution is a program that was, is or will be running under its supervisor.
type Execution struct {
	run    *supervise.Run
	dir    string
	rights Rights // nil: nobody gives any
	memory memory
}

// memory is what a Result needs beyond the outcome; it is kept with the run, so that a new agent finds it.
type memory struct {
	Executor   string `json:"executor"`
	ElevatedTo string `json:"elevated_to,omitempty"`
	Note       string `json:"note,omitempty"`
	// Argv and WorkDir are the program's, which an elevated run's supervisor is not given as they are.
	Argv        []string        `json:"argv"`
	WorkDir     string          `json:"work_dir"`
	Log         string          `json:"log,omitempty"`
	ReturnCodes map[int]Meaning `json:"return_codes"`
}

// written is the path of the program's log, if there is one.
func (m memory) written() string {
	if info, err := os.Lstat(m.Log); err != nil || !info.Mode().IsRegular() || info.Size() == 0 {
		return ""
	}
	return m.Log
}

// Result is what came of a Request.
type Result struct {
	Outcome supervise.Outcome
	Meaning Meaning // Failure for everything but an exit code that the table calls otherwise
	// TimedOut: the run time was exceeded; the program was killed, or (Outcome.StillRunning) is no longer watched.
	TimedOut bool
	// OutcomeUnknown: the program was executed, and what came of it is lost. Never run it again because of that.
	OutcomeUnknown bool
	Explanation    string   // why the outcome is unknown
	Executor       string   // name of the user that ran it
	ElevatedTo     string   // what that user was raised to, "" if it was not
	Note           string   // the runner's
	Argv           []string // as resolved
	WorkDir        string
	OutputPath     string // standard output and error together, the middle left out above the limit; may be absent
	// LogPath is the log that the program wrote where LogPlaceholder or CHANDLER_LOG said, "" if it wrote none. The program's
	// user owns the directory: open it as package msilog does, which follows no link out of there.
	LogPath string
}

// Wait returns the result once the execution has ended. An error that wraps supervise.ErrNotStarted says that the program
// was certainly never executed, and that Start may be called with the same directory; any other is that of ctx or of
// reading the disk, and the execution goes on. Whichever way it has ended, what was given for it is taken back first; where
// that is impossible the error wraps ErrNotTakenBack. No outcome is lost by that: Wait is to be called again.
func (x *Execution) Wait(ctx context.Context) (Result, error) {
	result := Result{
		Meaning: Failure, Executor: x.memory.Executor, ElevatedTo: x.memory.ElevatedTo, Note: x.memory.Note,
		Argv: x.memory.Argv, WorkDir: x.memory.WorkDir, OutputPath: x.run.OutputPath(),
	}
	outcome, err := x.run.Wait(ctx)
	if ctx.Err() != nil && err != nil {
		return Result{}, err
	}
	if x.rights != nil {
		if err := x.rights.Return(ctx, x.dir); err != nil {
			return Result{}, fmt.Errorf("%w: %w", ErrNotTakenBack, err)
		}
	}
	if errors.Is(err, supervise.ErrLost) {
		result.OutcomeUnknown, result.Explanation = true, err.Error()
		return result, nil
	}
	if err != nil {
		return Result{}, err
	}
	result.Outcome, result.TimedOut, result.LogPath = outcome, outcome.TimedOut, x.memory.written()
	result.Meaning = meaningOf(outcome, x.memory.ReturnCodes)
	return result, nil
}

// Kill asks for the death of the whole process tree; Wait tells when it is done. What has not started yet will not.
func (x *Execution) Kill() error { return x.run.Kill() }

// InUse says whether the program, or its supervisor, is still alive.
func (x *Execution) InUse() bool { return x.run.InUse() }

// State says how far the execution is.
func (x *Execution) State() supervise.State { return x.run.State() }

// Executor is the name of the user that the program runs as.
func (x *Execution) Executor() string { return x.memory.Executor }

// ElevatedTo is what that user is raised to for the run, "" if it is not.
func (x *Execution) ElevatedTo() string { return x.memory.ElevatedTo }

// Note is what the runner says about that choice, "" if nothing.
func (x *Execution) Note() string { return x.memory.Note }

// Accesses are what came of the program's references so far, from the given one on, and the number of the next; see
// supervise.Run.
func (x *Execution) Accesses(after int) ([]events.Access, int, error) { return x.run.Accesses(after) }

// OutputPath is where the output is captured; it grows while the program runs, up to its first half.
func (x *Execution) OutputPath() string { return x.run.OutputPath() }
