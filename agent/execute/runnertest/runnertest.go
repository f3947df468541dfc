// Package runnertest is the suite that every runner of package execute passes: it runs real programs under a real
// supervisor and shows that identity, environment, limits and results hold whoever runs them.
//
// The TestMain of a package that uses it begins with supervisetest.Main. It leaves no process and no file behind, also when
// it fails.
package runnertest

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chandler/agent/execute"
	"chandler/agent/supervise"
	"chandler/agent/supervise/supervisetest"
)

const underTest = "runner-under-test"

// Options of Run. The zero value is right for a runner whose programs run as the user of the test, except for UID.
type Options struct {
	// UID is the user id that programs see themselves have, -1 on Windows: os.Getuid() for the user of the test.
	UID int
	// Base is an absolute directory that every user may pass and only the user of the test may write to. Everything that
	// programs run, read, or work in is below it, open to all. "" where programs run as the user of the test.
	Base string
	// Rights takes back what the runner gives; nil: it gives nothing.
	Rights execute.Rights
	// Complete adds to every request what the runner needs: a session, an account, a lease. May be nil.
	Complete func(req *execute.Request)
	// Serial runs the tests one after the other, for runners that let an account have one run at a time.
	Serial bool
	// Elevated: another program (sudo) stands between the supervisor and the program. Then a control character in an
	// argument is refused; an error of the start itself, an *execute.Impossible, is as good as a kind for what cannot be
	// executed, and so is a failure that says in its output what was not executed.
	Elevated bool
}

// Run runs the suite. newRunner is called once for each of its tests.
func Run(t *testing.T, newRunner func(t *testing.T) execute.Runner, options Options) {
	program := ""
	if options.Base != "" {
		program = openCopy(t, options.Base)
	}
	for name, test := range map[string]func(*bench){
		"the exit code arrives with its meaning":                    (*bench).exitCodes,
		"the program has the user id of its user":                   (*bench).userID,
		"the environment is clean and complete":                     (*bench).environment,
		"arguments arrive byte for byte":                            (*bench).arguments,
		"a shell runs a script, when asked for":                     (*bench).shell,
		"the working directory is the content's or the one asked":   (*bench).workDirs,
		"a program can write its temporary files":                   (*bench).temporary,
		"output is captured and capped":                             (*bench).output,
		"the time limit kills the tree with its orphans":            (*bench).timeOut,
		"stop-monitoring leaves the program alone":                  (*bench).stopMonitoring,
		"a daemon lives on after a normal exit":                     (*bench).daemon,
		"what cannot be started has a kind":                         (*bench).refusals,
		"a new agent finds the execution and its result":            (*bench).resume,
		"nothing is executed twice in one directory":                (*bench).once,
		"a kill ends it, as a failure whatever the code would mean": (*bench).kill,
	} {
		t.Run(name, func(t *testing.T) {
			if name != "the environment is clean and complete" && !options.Serial { // that one sets the agent's
				t.Parallel()
			}
			executor, err := execute.New(execute.Options{
				Supervisor: supervisetest.Supervisor(),
				Runners:    map[string]execute.Runner{underTest: newRunner(t)},
				Rights:     options.Rights,
			})
			if err != nil {
				t.Fatal(err)
			}
			test(&bench{T: t, executor: executor, options: options, executable: program})
		})
	}
}

func (b *bench) exitCodes() {
	for _, test := range []struct {
		code string
		want execute.Meaning
	}{{"0", execute.Success}, {"1", execute.Failure}, {"42", execute.SoftReboot}} {
		req := b.request(b.program("exit", test.code))
		req.ReturnCodes = map[int]execute.Meaning{42: execute.SoftReboot}
		if got := b.run(req); got.Meaning != test.want || !got.Outcome.Started || got.Executor == "" {
			b.Errorf("exit code %s: %+v", test.code, got)
		}
	}
}

func (b *bench) userID() {
	d, result := b.describe(b.request(b.program("describe")))
	if d.UID != b.options.UID {
		b.Errorf("user id %d, want %d; the result says %s", d.UID, b.options.UID, result.Executor)
	}
}

func (b *bench) environment() {
	b.Setenv("CHANDLER_TOKEN", "secret of the agent")
	b.Setenv("LD_PRELOAD_OF_THE_AGENT", "x")
	req := b.request(b.program("describe"))
	req.Env = []string{"PRODUCT=a b", "CHANDLER_JOB=forged"}
	d, _ := b.describe(req)
	env := map[string]string{}
	for _, entry := range d.Env {
		name, value, _ := strings.Cut(entry, "=")
		env[strings.ToUpper(name)] = value
	}
	for name, want := range map[string]string{
		"PRODUCT": "a b", "CHANDLER_JOB": "job1", "CHANDLER_ATTEMPT": "1", "CHANDLER_PACKAGE": req.ContentDir,
	} {
		if env[name] != want {
			b.Errorf("%s=%q, want %q", name, env[name], want)
		}
	}
	for _, name := range []string{"CHANDLER_TOKEN", "LD_PRELOAD_OF_THE_AGENT"} {
		if value, found := env[name]; found {
			b.Errorf("the agent's %s=%s got through", name, value)
		}
	}
	needed := []string{"PATH", "HOME", "LANG", "TMPDIR"}
	if runtime.GOOS == "windows" {
		needed = []string{"PATH", "SYSTEMROOT", "TEMP", "TMP"}
	}
	for _, name := range needed {
		if env[name] == "" {
			b.Errorf("no %s", name)
		}
	}
	if d.Input != "" || len(d.Files) > 0 {
		b.Errorf("it inherited input %q and files %v", d.Input, d.Files)
	}
}

func (b *bench) arguments() {
	args := []string{"%n%s%1", "två ord", `say "hi"`, `c:\dir with blank\`, "日本語", "", "a=b c", "$HOME", "`id`", "*", "'", "--"}
	if tab := "a\tb"; !b.options.Elevated {
		args = append(args, tab)
	} else if _, err := b.executor.Start(b.Context(), b.request(b.program("describe", tab))); !isImpossible(err) {
		b.Errorf("an argument with a control character: %v", err)
	}
	d, _ := b.describe(b.request(b.program("describe", args...)))
	if diff := cmp.Diff(args, d.Args); diff != "" {
		b.Errorf("as a list: %s", diff)
	}
	program := b.program("describe")
	req := b.request(nil)
	req.Command = execute.Command{Line: `"` + program[0] + `" ` + strings.Join(program[1:], " ") + ` "två ord" %n "say \"hi\"" "日本語" "" $HOME`}
	d, _ = b.describe(req)
	if diff := cmp.Diff([]string{"två ord", "%n", `say "hi"`, "日本語", "", "$HOME"}, d.Args); diff != "" {
		b.Errorf("as a string: %s", diff)
	}
}

func (b *bench) shell() {
	req := b.request(nil)
	req.Command = execute.Command{Shell: execute.Sh, Line: `test "$CHANDLER_JOB" = 'job1' && exit 3`}
	if runtime.GOOS == "windows" {
		req.Command = execute.Command{Shell: execute.Cmd, Line: `if "%CHANDLER_JOB%"=="job1" exit 3`}
	}
	if got := b.run(req); got.Outcome.ExitCode != 3 {
		b.Errorf("result %+v", got)
	}
}

func (b *bench) workDirs() {
	req := b.request(b.program("describe"))
	if err := os.Mkdir(filepath.Join(req.ContentDir, "sub dir"), 0o755); err != nil {
		b.Fatal(err)
	}
	elsewhere := b.directory()
	for _, test := range []struct{ given, want string }{
		{"", req.ContentDir}, {"sub dir", filepath.Join(req.ContentDir, "sub dir")}, {elsewhere, elsewhere},
	} {
		req.WorkDir, req.Dir = test.given, filepath.Join(b.directory(), "run")
		d, result := b.describe(req)
		want, err := filepath.EvalSymlinks(test.want)
		if err != nil {
			b.Fatal(err)
		}
		if got, err := filepath.EvalSymlinks(d.Dir); err != nil || got != want || result.WorkDir != test.want {
			b.Errorf("asked for %q it ran in %s (%v), the result says %s", test.given, got, err, result.WorkDir)
		}
	}
}

func (b *bench) temporary() {
	req := b.request(nil)
	req.Command = execute.Command{Shell: execute.Sh, Line: `cd "$TMPDIR" && echo x > written && test "$PWD" != "$CHANDLER_PACKAGE"`}
	if runtime.GOOS == "windows" {
		req.Command = execute.Command{Shell: execute.Cmd, Line: `echo x>"%TEMP%\written"`}
	}
	if got := b.run(req); got.Meaning != execute.Success {
		b.Errorf("result %+v", got)
	}
	if _, err := os.Stat(filepath.Join(req.Dir, "tmp", "written")); err != nil {
		b.Error(err)
	}
}

func (b *bench) output() {
	req := b.request(b.program("flood", "10000000"))
	req.OutputLimit = 20
	result := b.run(req)
	output, err := os.ReadFile(result.OutputPath)
	if err != nil {
		b.Fatal(err)
	}
	if want := "123456789\n\n[9999980 bytes left out here]\n1234567END"; string(output) != want {
		b.Errorf("output %q, want %q", output, want)
	}
	if result.Outcome.OutputBytes != 10_000_000 || result.Outcome.OutputDropped != 9_999_980 {
		b.Errorf("outcome %+v", result.Outcome)
	}
}

func (b *bench) timeOut() {
	if runtime.GOOS == "darwin" {
		b.Skip("macOS cannot find orphans that left their session")
	}
	meeting := supervisetest.Meet(b)
	req := b.request(b.open(meeting.Program("p")))
	req.MaxRunTime = 5 * time.Second
	execution := b.start(req)
	program := meeting.Guest(b, "p")
	program.Do(b, "orphan q")
	orphan := meeting.Guest(b, "q")
	orphan.Do(b, "ping")
	if got := b.wait(execution); !got.TimedOut || !got.Outcome.Killed || got.Outcome.StillRunning || got.Meaning != execute.Failure {
		b.Errorf("result %+v", got)
	}
	program.Gone(b)
	orphan.Gone(b)
}

func (b *bench) stopMonitoring() {
	meeting := supervisetest.Meet(b)
	req := b.request(b.open(meeting.Program("p")))
	req.MaxRunTime, req.OnTimeout = 200*time.Millisecond, supervise.StopMonitoring
	if b.options.Elevated { // what raised it must have ended with that, before the rights are taken back
		req.MaxRunTime = 5 * time.Second
	}
	got := b.run(req)
	if !got.TimedOut || got.Outcome.Killed || !got.Outcome.StillRunning || got.Meaning != execute.Failure {
		b.Errorf("result %+v", got)
	}
	meeting.Guest(b, "p").Do(b, "print still here")
}

func (b *bench) daemon() {
	meeting := supervisetest.Meet(b)
	execution := b.start(b.request(b.open(meeting.Program("p"))))
	program := meeting.Guest(b, "p")
	program.Do(b, "orphan daemon")
	daemon := meeting.Guest(b, "daemon")
	program.Exit(b, 0)
	if got := b.wait(execution); got.Meaning != execute.Success {
		b.Errorf("result %+v", got)
	}
	daemon.Do(b, "print "+strings.Repeat("x", 60000))
	daemon.Do(b, "print "+strings.Repeat("x", 60000))
}

func (b *bench) refusals() {
	req := b.request(nil)
	for name, mode := range map[string]os.FileMode{"data": 0o600, "junk.exe": 0o755} {
		if err := os.WriteFile(filepath.Join(req.ContentDir, name), []byte("junk"), mode); err != nil {
			b.Fatal(err)
		}
	}
	fine := b.program("exit", "0")
	for _, test := range []struct {
		name, workDir, want string
		argv                []string
		unixOnly            bool
	}{
		{"a name found nowhere", "", supervise.NotFound, []string{"no-such-program"}, false},
		{"a path that leaves the package", "", supervise.NotFound, []string{"../setup"}, false},
		{"an absolute path to nothing", "", supervise.NotFound, []string{filepath.Join(req.ContentDir, "none")}, false},
		{"a file of the package without execute permission", "", supervise.NotExecutable, []string{"data"}, true},
		{"a file of the package that is no program", "", supervise.NotExecutable, []string{"junk.exe"}, false},
		{"a working directory that is missing", "none", supervise.BadDirectory, fine, false},
		{"a working directory that is a file", "data", supervise.BadDirectory, fine, false},
		{"a working directory outside the package", "../..", supervise.BadDirectory, fine, false},
	} {
		if test.unixOnly && runtime.GOOS == "windows" {
			continue
		}
		req.Dir, req.WorkDir, req.Command.Argv = filepath.Join(b.directory(), "run"), test.workDir, test.argv
		execution, err := b.executor.Start(b.Context(), req)
		if b.options.Elevated && isImpossible(err) {
			continue
		}
		if err != nil {
			b.Fatalf("%s: %v", test.name, err)
		}
		got := b.wait(execution)
		if b.options.Elevated && got.Outcome.Started && got.Meaning == execute.Failure && b.says(got, test.argv[0]) {
			continue
		}
		if got.Outcome.Started || got.Outcome.ErrorKind != test.want || got.Outcome.Error == "" || got.Meaning != execute.Failure {
			b.Errorf("%s: %+v, want %s", test.name, got, test.want)
		}
	}
}

// isImpossible says that an error is for an administrator to read.
func isImpossible(err error) bool {
	var impossible *execute.Impossible
	return errors.As(err, &impossible) && impossible.Reason.Known() && impossible.Answer != ""
}

// says looks for text in the output.
func (b *bench) says(result execute.Result, text string) bool {
	output, err := os.ReadFile(result.OutputPath)
	return err == nil && strings.Contains(string(output), text)
}

func (b *bench) resume() {
	meeting := supervisetest.Meet(b)
	req := b.request(b.open(meeting.Program("p")))
	if _, err := b.executor.Resume(req.Dir); !errors.Is(err, supervise.ErrNotStarted) {
		b.Errorf("before the start: %v", err)
	}
	req.ReturnCodes = map[int]execute.Meaning{9: execute.Retry}
	first := b.start(req)
	guest := meeting.Guest(b, "p")
	second, err := b.executor.Resume(req.Dir)
	if err != nil {
		b.Fatal(err)
	}
	guest.Exit(b, 9)
	want, got := b.wait(first), b.wait(second)
	if diff := cmp.Diff(want, got); diff != "" || got.Meaning != execute.Retry {
		b.Errorf("meaning %s; %s", got.Meaning, diff)
	}
}

func (b *bench) once() {
	req := b.request(b.program("exit", "0"))
	b.run(req)
	if _, err := b.executor.Start(b.Context(), req); !errors.Is(err, supervise.ErrAlreadyStarted) {
		b.Errorf("a second start: %v", err)
	}
}

func (b *bench) kill() {
	meeting := supervisetest.Meet(b)
	req := b.request(b.open(meeting.Program("p")))
	req.ReturnCodes = map[int]execute.Meaning{-1: execute.Success, 1: execute.Success}
	execution := b.start(req)
	guest := meeting.Guest(b, "p")
	if err := execution.Kill(); err != nil {
		b.Fatal(err)
	}
	if got := b.wait(execution); !got.Outcome.Killed || got.TimedOut || got.Meaning != execute.Failure {
		b.Errorf("result %+v", got)
	}
	guest.Gone(b)
}
