// Package supervise runs one program under a small process of its own, the supervisor, that outlives a killed agent.
//
// The agent calls Start; the supervisor (Main, as `chandler-agent supervise DIR`) starts the program, captures its
// output, enforces the run time, and writes what happened. A new agent finds the run again with Attach.
//
// Everything about a run is in its directory, so nothing is lost with a process:
//
//	lock           held by the agent while it starts the supervisor, and from then on by the supervisor
//	spec.json      what to run
//	started        written and synced before the program is executed
//	process.json   the program's process id and start time
//	kill           asks the supervisor to kill the program; it also prevents a start that has not happened yet
//	withdrawn      leases that are over, a line each, by which the supervisor reads no more
//	output         the captured output: its first and its last part
//	accesses.jsonl what came of reading the program's references, a line each, as it happens
//	outcome.json   written atomically: what happened
//	supervisor.log what the supervisor could not write elsewhere
//
// Promises under failure. The lock is held by an open file that the supervisor inherits, so the kernel frees it when the
// last of the two dies, however it dies. Hence, once the lock is free: an outcome is the truth; without "started" the
// program was certainly never executed and may be started again; with "started" and no outcome the run is Lost: it may
// have run, wholly or in part, and is never started again (Start refuses). The room for the outcome is reserved on the
// disk before the start, so that a full disk prevents a run rather than loses its outcome. SIGTERM, SIGINT and SIGHUP do
// not end a supervisor before its program has ended.
//
// Only a time-out or Kill kills, and then the whole process tree: on Linux a cgroup v2 that setsid does not leave; where
// none can be made the descendants of the supervisor, which adopts orphans (PR_SET_CHILD_SUBREAPER); on Windows a job
// object, or, where Windows takes none (a user's session is not the supervisor's), the program and its descendants; on
// macOS the process group and all descendants (in both, a process that left a dead parent, on macOS its session too,
// escapes). A daemon that a program leaves behind lives on: while it still holds the program's output, the supervisor
// stays to drain it, so that the daemon neither blocks nor dies of a broken pipe; the run has ended nevertheless.
//
// References (Spec.Net) are mounted in a mount namespace that only the program's processes are in, by the supervisor,
// which gets the accounts from the agent by package lending: also from the next one, if it is restarted. The
// mount ends with the program, by itself, by a time-out or a kill, and what is left behind gets errors from it; with
// StopMonitoring it stays as long as the program, but no further account is lent after the outcome. A program whose
// references cannot be mounted is not started. No memory of a supervisor that may hold a secret is ever dumped.
//
// Service managers: the supervisor has a session of its own and, where one can be made, a cgroup outside the agent's
// unit. Where none can be made it stays in the agent's, so the unit of the agent needs KillMode=process, and none of
// the sandboxing (ProtectSystem=, PrivateTmp=, …), which programs would inherit.
package supervise

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// What to do when MaxRunTime has passed.
const (
	KillOnTimeout  = "kill"            // kill the whole process tree
	StopMonitoring = "stop-monitoring" // leave it running and report so
)

// Kinds of Outcome.ErrorKind.
const (
	NotFound       = "not_found"        // no such program, or its interpreter is missing
	NotExecutable  = "not_executable"   // a directory, without execute permission, or not a program
	BadDirectory   = "bad_directory"    // the working directory is missing or is not one
	Denied         = "denied"           // the operating system refused
	NoNetworkMount = "no_network_mount" // the program's references cannot be mounted on this machine
	NoLogon        = "no_logon"         // the Windows session has no user any more, or the token is none
	Other          = "other"
)

// Limits of a Spec.
const (
	maxArguments   = 2 << 20 // bytes of arguments and environment together
	maxOutputLimit = 1 << 30
)

// Spec says what to run. It is kept in the run's directory as spec.json, mode 0600.
type Spec struct {
	Job     string   `json:"job"`
	Attempt int      `json:"attempt"`
	Argv    []string `json:"argv"` // resolved: Argv[0] is an absolute path; never a shell string
	// CommandLine is passed verbatim on Windows, where a program splits its own command line (msiexec, cmd); Argv[0]
	// still names the program. Empty: made from Argv by the usual rule. Refused elsewhere.
	CommandLine string        `json:"command_line,omitempty"`
	Dir         string        `json:"dir"`          // working directory, absolute
	Env         []string      `json:"env"`          // complete environment of the program, as name=value
	MaxRunTime  time.Duration `json:"max_run_time"` // nanoseconds in JSON; 0 = no limit; time asleep does not count
	OnTimeout   string        `json:"on_timeout"`   // KillOnTimeout (also when empty) or StopMonitoring
	OutputLimit int64         `json:"output_limit"` // bytes kept of standard output and error together: the first half and the last half
	Credential  *Credential   `json:"credential,omitempty"`
	Logon       *Logon        `json:"logon,omitempty"`
	// Window is how a Visible program's first window is shown on Windows, a word of events.Program.Window; "" is normal.
	Window string `json:"window,omitempty"`
	Net    *Net   `json:"net,omitempty"` // nil: the program has no references
	// Kept means nothing to the supervisor: what the agent wants to find again with the run (Run.Spec).
	Kept json.RawMessage `json:"kept,omitempty"`
}

// Credential is the unix identity that a program runs as; nil in a Spec means the supervisor's own.
type Credential struct {
	UID    uint32   `json:"uid"`
	GID    uint32   `json:"gid"`
	Groups []uint32 `json:"groups"` // complete: an empty list leaves no supplementary group
}

// Logon is the Windows identity that a program runs as; nil in a Spec means the supervisor's own. It has a Session or a
// Token. The agent must be LocalSystem.
type Logon struct {
	// Session is that of a logged-on user: the program runs with its user's token, on its desktop, and is seen there
	// if it is Visible. When the user logs off Windows ends the program, with an exit code as any other.
	Session uint32 `json:"session,omitempty"`
	Visible bool   `json:"visible,omitempty"`
	// Token is a handle of a primary token in the process that calls Start. The supervisor inherits it and uses it once;
	// it means nothing in any other process. The caller closes its own when Start has returned, and starts one run with
	// it at a time. A Visible program is shown on the desktop of the token's session, another has a desktop of its own.
	Token uint64 `json:"token,omitempty"`
}

// Outcome says what happened to the program.
type Outcome struct {
	Started       bool      `json:"started"` // false: never executed; Error and ErrorKind, or Killed, say why
	PID           int       `json:"pid,omitempty"`
	StartedAt     time.Time `json:"started_at,omitzero"`
	EndedAt       time.Time `json:"ended_at,omitzero"` // with StillRunning: when monitoring stopped
	ExitCode      int       `json:"exit_code"`         // -1 when it did not exit by itself; a signed 32-bit number on Windows
	Signal        string    `json:"signal,omitempty"`  // name of the signal that ended it, as SIGKILL
	TimedOut      bool      `json:"timed_out,omitempty"`
	Killed        bool      `json:"killed,omitempty"`        // by the supervisor: time-out or Kill
	StillRunning  bool      `json:"still_running,omitempty"` // monitoring stopped, or it could not be killed
	Error         string    `json:"error,omitempty"`         // the operating system's words
	ErrorKind     string    `json:"error_kind,omitempty"`
	OutputBytes   int64     `json:"output_bytes"`   // written by the program
	OutputDropped int64     `json:"output_dropped"` // of these, not kept
}

// State of a run.
type State string

// The states of a run.
const (
	NotStarted State = "not_started" // the program was certainly never executed
	Running    State = "running"     // the supervisor lives (the program may be about to start)
	Ended      State = "ended"       // there is an outcome
	Lost       State = "lost"        // the supervisor died without an outcome after the start
)

// Errors of Start and Wait.
var (
	ErrNotStarted     = errors.New("the supervisor ended before it started the program")
	ErrLost           = errors.New("the supervisor ended without an outcome")
	ErrAlreadyStarted = errors.New("the run was started already")
)

// Validate reports the first thing that makes a Spec unusable.
func (s Spec) Validate() error {
	if len(s.Argv) == 0 || !filepath.IsAbs(s.Argv[0]) {
		return errors.New("spec: the program is not an absolute path")
	}
	if !filepath.IsAbs(s.Dir) {
		return fmt.Errorf("spec: working directory %q is not absolute", s.Dir)
	}
	if s.MaxRunTime < 0 || s.OutputLimit < 0 || s.OutputLimit > maxOutputLimit {
		return fmt.Errorf("spec: run time %v or output limit %d out of range", s.MaxRunTime, s.OutputLimit)
	}
	if !slices.Contains([]string{"", KillOnTimeout, StopMonitoring}, s.OnTimeout) {
		return fmt.Errorf("spec: on-timeout %q is neither %s nor %s", s.OnTimeout, KillOnTimeout, StopMonitoring)
	}
	if l := s.Logon; l != nil && (s.Credential != nil || (l.Session == 0) == (l.Token == 0)) { // session 0 is the services'
		return errors.New("spec: a logon has either a session or a token, and no credential beside it")
	}
	if s.Net != nil {
		if err := s.Net.validate(s); err != nil {
			return err
		}
	}
	size := 0
	for _, text := range slices.Concat(s.Argv, s.Env, []string{s.Dir, s.CommandLine}) {
		// JSON would silently change what is not UTF-8.
		if strings.ContainsRune(text, 0) || !utf8.ValidString(text) {
			return fmt.Errorf("spec: %q holds a NUL or is not UTF-8", text)
		}
		size += len(text) + 1
	}
	size += len(s.Kept)
	if size > maxArguments {
		return fmt.Errorf("spec: arguments and environment of %d bytes are over the limit of %d", size, maxArguments)
	}
	for _, entry := range s.Env {
		if strings.IndexByte(entry, '=') < 1 {
			return fmt.Errorf("spec: environment entry %q is not name=value", entry)
		}
	}
	return nil
}
