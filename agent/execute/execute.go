// Package execute runs a program of a package: it resolves the command, gives it a clean environment and an identity,
// bounds its time and output, and says what its exit code means.
//
// Executor has the logic; who the program runs as comes from a Runner, one method, a package each (systemrunner, …), each
// passing the suite of runnertest. The processes themselves are package supervise's.
//
// Promises under failure. A request is executed at most once: Start on a directory whose program was executed, or may have
// been, gives supervise.ErrAlreadyStarted. A killed agent finds the execution again with Resume and gets the same Result.
// If the supervisor is lost too the Result says OutcomeUnknown, which is never to be answered by running again. What could
// not be started, for whatever reason, is a Result with the kind of the error, not an error; an error of Start means that
// nothing was and nothing will be executed.
package execute

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"chandler/agent/lease"
	"chandler/agent/logon"
	"chandler/agent/supervise"
	"chandler/events"
)

// What a zero in a Request means.
const (
	DefaultMaxRunTime  = 120 * time.Minute // domain-facts.md §0.6
	DefaultOutputLimit = 1 << 20           // bytes
)

// Request is one attempt at running one program.
type Request struct {
	Job        string
	Attempt    int    // counted from 1
	As         string // which of the Executor's runners
	Deployment string // of the job, and
	Program    string // package, version and program: for those who are told what an account was used for
	// Session is the logged-on user's: a program that runs as the user runs as its, and Interactive ones are
	// shown there.
	Session     *logon.Session
	Interactive bool
	Window      string // on Windows: how the window of an Interactive program is shown, a word of events.Program.Window
	Account     string // the software installation account, by the name that the order gives
	Domain      bool   // the client token account is the domain's copy of it: the machine is a domain controller
	// Created is told of a local account that was made for the run, by a note without agent and host name; nil: nobody
	// wants to know.
	Created func(events.AccountNote) error
	// Lease asks the credential service for an account; nil: there is none to ask. The runner clears what it gets.
	Lease func(context.Context, lease.Wanted) (*lease.Lease, error)
	// NetLogin asks for the account that the program is on the network, on systems where that is one for the whole
	// process; nil: the program has none but its own. It may give no lease. The runner clears what it gets.
	NetLogin    func(context.Context) (*lease.Lease, error)
	Dir         string // the run's own directory, absolute; made if need be, removed by the caller when all is reported
	Command     Command
	ContentDir  string          // the package's files, absolute; "" when it has none
	Writable    bool            // on Windows: the user in whose session it runs may change ContentDir; elsewhere its modes say so
	WorkDir     string          // absolute, or relative to ContentDir; "" is ContentDir, or without one the run's temporary directory
	Env         []string        // name=value, over the runner's environment; CHANDLER_… is ours and wins
	MaxRunTime  time.Duration   // 0 = DefaultMaxRunTime
	OnTimeout   string          // supervise.KillOnTimeout (also when empty) or supervise.StopMonitoring
	ReturnCodes map[int]Meaning // over DefaultReturnCodes
	OutputLimit int64           // bytes; 0 = DefaultOutputLimit
	// Net lets the program read its references as files below Net.Mount, of which CHANDLER_NET tells it; nil: it has none,
	// or reads them otherwise.
	Net *supervise.Net
}

// Runner says who runs a request. Prepare is called once for an attempt, before anything is executed; an error fails the
// attempt: an *Impossible says why in words for an administrator.
type Runner interface {
	Prepare(ctx context.Context, req Request) (Prepared, error)
}

// Prepared is the identity in which a program runs.
type Prepared struct {
	Executor   string                // name of the user: root, SYSTEM, alice
	Credential *supervise.Credential // nil: the agent's own identity
	Logon      *supervise.Logon      // the same on Windows
	Env        []string              // complete base environment of that user, as name=value; nothing of the agent's
	Note       string                // what an administrator should know about the choice; "" if nothing
	// ElevatedTo is what the account is raised to for the run (root, Administrators); "" if it is not.
	ElevatedTo string
	// Elevate gives the account rights for exactly this program, and returns what is executed instead (sudo with the
	// program). It is the last thing before the start; Rights takes back what it gave. nil: nothing is to be given.
	Elevate func(ctx context.Context, dir string, spec supervise.Spec) (supervise.Spec, error)
	// Release lets go of what was made for the start, as a token, once the program was started or will not be; nil:
	// nothing was made.
	Release func()
}

// Rights takes back what runners gave.
type Rights interface {
	// Return takes back what was given for the run with that directory. It may be called again; nothing given is no
	// error.
	Return(ctx context.Context, dir string) error
}

// Impossible says why a program cannot be run in the context asked for.
type Impossible struct {
	Reason   events.Reason
	Identity string // the account in question
	Resource string // what it was to do or to get
	Answer   string // what the operating system, or a service, answered
	Err      error  // may be nil
}

func (i *Impossible) Error() string { return i.Answer }
func (i *Impossible) Unwrap() error { return i.Err }

// Options of New.
type Options struct {
	Supervisor []string          // command that runs supervise.Main with a directory as last argument; [0] absolute
	Runners    map[string]Runner // by the Request's As
	Rights     Rights            // nil: no runner gives any
}

// Executor starts executions and finds them again.
type Executor struct {
	supervisor []string
	runners    map[string]Runner
	rights     Rights
}

// New validates the options.
func New(options Options) (*Executor, error) {
	if len(options.Supervisor) == 0 || !filepath.IsAbs(options.Supervisor[0]) {
		return nil, errors.New("executor: the supervisor's program is not an absolute path")
	}
	if len(options.Runners) == 0 {
		return nil, errors.New("executor: no runners")
	}
	return &Executor{supervisor: options.Supervisor, runners: options.Runners, rights: options.Rights}, nil
}

// Start begins the execution and returns when its supervisor exists. ctx bounds the preparation, not the program. An error
// that wraps ErrNotTakenBack says that an account still has rights for it: Rights.Return is to be called until they are gone.
func (e *Executor) Start(ctx context.Context, req Request) (*Execution, error) {
	if err := req.validate(); err != nil {
		return nil, err
	}
	runner := e.runners[req.As]
	if runner == nil {
		return nil, fmt.Errorf("execute job %s: this agent cannot run programs as %q", req.Job, req.As)
	}
	// Before the preparation, which may change rights on this machine.
	if run, err := supervise.Attach(req.Dir); err != nil {
		return nil, fmt.Errorf("execute job %s: %w", req.Job, err)
	} else if run.State() != supervise.NotStarted {
		return nil, fmt.Errorf("execute job %s: %w: %s", req.Job, supervise.ErrAlreadyStarted, req.Dir)
	}
	prepared, err := runner.Prepare(ctx, req)
	if err != nil {
		return nil, fmt.Errorf("execute job %s: %w", req.Job, err)
	}
	if prepared.Release != nil {
		defer prepared.Release()
	}
	temporary, err := makeDirectories(req.Dir, prepared.Credential)
	if err == nil && prepared.Logon != nil && prepared.Logon.Session != 0 {
		err = giveDirectories(prepared.Executor, temporary, req.ContentDir, req.Writable)
	}
	if err != nil {
		return nil, fmt.Errorf("execute job %s: %w", req.Job, err)
	}
	spec, err := req.spec(prepared, temporary)
	var refused *refusal
	if err != nil && !errors.As(err, &refused) {
		return nil, fmt.Errorf("execute job %s: %w", req.Job, err)
	}
	x := &Execution{rights: e.rights, dir: req.Dir, memory: memory{
		Executor: prepared.Executor, ElevatedTo: prepared.ElevatedTo, Note: prepared.Note, ReturnCodes: merged(req.ReturnCodes), Argv: spec.Argv, WorkDir: spec.Dir, Log: logPath(temporary)}}
	if spec.Kept, err = json.Marshal(x.memory); err != nil {
		return nil, err
	}
	if refused != nil {
		x.run, err = supervise.Conclude(req.Dir, spec, supervise.Outcome{ExitCode: -1, ErrorKind: refused.kind, Error: refused.Error()})
	} else {
		x.run, err = e.launch(ctx, req.Dir, spec, prepared)
	}
	if err != nil {
		return nil, fmt.Errorf("execute job %s: %w", req.Job, err)
	}
	return x, nil
}

// launch starts the supervisor, with rights for the program if it is to have some. What was given is taken back where
// nothing was started.
func (e *Executor) launch(ctx context.Context, dir string, spec supervise.Spec, prepared Prepared) (*supervise.Run, error) {
	if prepared.Elevate == nil {
		return supervise.Start(e.supervisor, dir, spec)
	}
	if e.rights == nil {
		return nil, errors.New("executor: there is nobody to take rights back")
	}
	elevated, err := prepared.Elevate(ctx, dir, spec)
	if err == nil {
		var run *supervise.Run
		if run, err = supervise.Start(e.supervisor, dir, elevated); err == nil {
			return run, nil
		}
	}
	if left := e.rights.Return(context.WithoutCancel(ctx), dir); left != nil {
		err = errors.Join(err, fmt.Errorf("%w: %w", ErrNotTakenBack, left))
	}
	return nil, err
}

// Resume finds an execution by its directory after a restart of the agent. An error that wraps supervise.ErrNotStarted
// says that the program was certainly never executed, and that Start may be called with the same directory.
func (e *Executor) Resume(dir string) (*Execution, error) {
	run, err := supervise.Attach(dir)
	if err != nil {
		return nil, err
	}
	if run.State() == supervise.NotStarted {
		return nil, fmt.Errorf("resume %s: %w", dir, supervise.ErrNotStarted)
	}
	spec, err := run.Spec()
	if err != nil {
		return nil, fmt.Errorf("resume: %w", err)
	}
	x := &Execution{run: run, rights: e.rights, dir: dir}
	if err := json.Unmarshal(spec.Kept, &x.memory); err != nil {
		return nil, fmt.Errorf("resume %s: %w", dir, err)
	}
	return x, nil
}

func (r Request) validate() error {
	switch {
	case r.Job == "" || r.Attempt < 1:
		return fmt.Errorf("execute: job %q, attempt %d", r.Job, r.Attempt)
	case !filepath.IsAbs(r.Dir) || r.ContentDir != "" && !filepath.IsAbs(r.ContentDir):
		return fmt.Errorf("execute job %s: directories %q and %q must be absolute", r.Job, r.Dir, r.ContentDir)
	}
	if err := r.Command.Validate(); err != nil {
		return fmt.Errorf("execute job %s: %w", r.Job, err)
	}
	for code, meaning := range r.ReturnCodes {
		if !meaning.valid() {
			return fmt.Errorf("execute job %s: return code %d means %q", r.Job, code, meaning)
		}
	}
	return nil
}

// spec is what the supervisor gets; a *refusal as error comes with all that is known of it.
func (r Request) spec(prepared Prepared, temporary string) (supervise.Spec, error) {
	spec := supervise.Spec{
		Job: r.Job, Attempt: r.Attempt, Credential: prepared.Credential, Logon: prepared.Logon,
		MaxRunTime: r.MaxRunTime, OnTimeout: r.OnTimeout, OutputLimit: r.OutputLimit, Net: r.Net, Window: r.Window,
	}
	if spec.MaxRunTime == 0 {
		spec.MaxRunTime = DefaultMaxRunTime
	}
	if spec.OutputLimit == 0 {
		spec.OutputLimit = DefaultOutputLimit
	}
	var ours []string
	for _, name := range temporaryNames() {
		ours = append(ours, name+"="+temporary)
	}
	var net []string
	if r.Net != nil {
		net = []string{"CHANDLER_NET=" + r.Net.Mount}
	}
	spec.Env = mergeEnv(prepared.Env, ours, r.Env, net, []string{
		"CHANDLER_JOB=" + r.Job,
		"CHANDLER_ATTEMPT=" + strconv.Itoa(r.Attempt),
		"CHANDLER_PACKAGE=" + r.ContentDir,
		"CHANDLER_LOG=" + logPath(temporary),
	})
	var err error
	if spec.Dir, err = r.workDir(temporary); err != nil {
		return spec, err
	}
	spec.Argv, spec.CommandLine, err = r.Command.resolve(r.ContentDir, logPath(temporary), spec.Env)
	return spec, err
}

func (r Request) workDir(temporary string) (string, error) {
	switch {
	case filepath.IsAbs(r.WorkDir):
		return filepath.Clean(r.WorkDir), nil
	case r.WorkDir != "" && (r.ContentDir == "" || !filepath.IsLocal(r.WorkDir)):
		return "", &refusal{supervise.BadDirectory, fmt.Sprintf("working directory %q is not in the package", r.WorkDir)}
	case r.ContentDir == "":
		return temporary, nil
	}
	return filepath.Join(r.ContentDir, r.WorkDir), nil
}

// makeDirectories makes the run's directory and in it one for the program's temporary files. Another user may pass through
// the former, where every file is closed to him.
func makeDirectories(dir string, owner *supervise.Credential) (temporary string, err error) {
	temporary = filepath.Join(dir, "tmp")
	if err := os.MkdirAll(temporary, 0o700); err != nil {
		return "", err
	}
	if owner == nil {
		return temporary, nil
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		return "", err
	}
	return temporary, os.Chown(temporary, int(owner.UID), int(owner.GID))
}

// logPath is where the program may write a log of its own.
func logPath(temporary string) string { return filepath.Join(temporary, "program.log") }

// mergeEnv joins environments; of two entries with one name the later wins.
func mergeEnv(lists ...[]string) []string {
	at := map[string]int{}
	env := []string{}
	for _, list := range lists {
		for _, entry := range list {
			name, _, _ := strings.Cut(entry, "=")
			name = foldName(name)
			if i, found := at[name]; found {
				env[i] = entry
				continue
			}
			at[name] = len(env)
			env = append(env, entry)
		}
	}
	return env
}

// lookupEnv returns "" for what is not there.
func lookupEnv(env []string, name string) string {
	for _, entry := range env {
		if key, value, _ := strings.Cut(entry, "="); foldName(key) == foldName(name) {
			return value
		}
	}
	return ""
}
