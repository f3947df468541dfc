package supervise_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"chandler/agent/supervise"
	"chandler/agent/supervise/supervisetest"
)

func TestMain(m *testing.M) {
	supervisetest.Main()
	actAsAgent()
	os.Exit(m.Run())
}

type starter func([]string, string, supervise.Spec) (*supervise.Run, error)

// everyWay runs a test with whatever group this machine can make, and without any.
func everyWay(t *testing.T, test func(t *testing.T, start starter)) {
	for name, start := range map[string]starter{
		"in a group if the system has one": supervise.Start,
		"without a group":                  supervise.StartWithoutGroup,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, start)
		})
	}
}

func specOf(t *testing.T, argv []string) supervise.Spec {
	return supervise.Spec{Job: "j1", Attempt: 1, Argv: argv, Dir: supervisetest.TempDir(t), Env: []string{}, OutputLimit: 1 << 20}
}

func begin(t *testing.T, start starter, dir string, spec supervise.Spec) *supervise.Run {
	t.Helper()
	run, err := start(supervisetest.Supervisor(), dir, spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { settle(t, run, dir) })
	return run
}

// settle keeps a directory from being removed under a supervisor that still writes there.
func settle(t *testing.T, run *supervise.Run, dir string) {
	if err := run.Kill(); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), supervisetest.Patience)
	defer cancel()
	if _, err := run.Wait(ctx); errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("run in %s does not end", dir)
	}
}

func wait(t *testing.T, run *supervise.Run) supervise.Outcome {
	t.Helper()
	outcome, err := waitFor(t, run)
	if err != nil {
		t.Fatal(err)
	}
	return outcome
}

func waitFor(t *testing.T, run *supervise.Run) (supervise.Outcome, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), supervisetest.Patience)
	defer cancel()
	return run.Wait(ctx)
}

func wantState(t *testing.T, run *supervise.Run, want supervise.State) {
	t.Helper()
	if got := run.State(); got != want {
		t.Errorf("state %s, want %s", got, want)
	}
}

var ignoreTimes = cmpopts.IgnoreFields(supervise.Outcome{}, "PID", "StartedAt", "EndedAt")

func TestTheExitCodeArrives(t *testing.T) {
	t.Parallel()
	everyWay(t, func(t *testing.T, start starter) {
		dir := filepath.Join(supervisetest.TempDir(t), "run")
		before := time.Now()
		run := begin(t, start, dir, specOf(t, supervisetest.Program("exit", "41")))
		got := wait(t, run)
		if diff := cmp.Diff(supervise.Outcome{Started: true, ExitCode: 41}, got, ignoreTimes); diff != "" {
			t.Error(diff)
		}
		if got.PID == 0 || got.StartedAt.Before(before) || got.EndedAt.Before(got.StartedAt) {
			t.Errorf("process %d from %v to %v", got.PID, got.StartedAt, got.EndedAt)
		}
		wantState(t, run, supervise.Ended)
		if _, err := start(supervisetest.Supervisor(), dir, specOf(t, supervisetest.Program("exit", "0"))); !errors.Is(err, supervise.ErrAlreadyStarted) {
			t.Errorf("a second start: %v", err)
		}
	})
}

func TestTheStartIsOnRecordBeforeTheProgramRuns(t *testing.T) {
	t.Parallel()
	meeting, dir := supervisetest.Meet(t), filepath.Join(supervisetest.TempDir(t), "run")
	run := begin(t, supervise.Start, dir, specOf(t, meeting.Program("p")))
	guest := meeting.Guest(t, "p")
	guest.Do(t, "stat "+filepath.Join(dir, "started"))
	wantState(t, run, supervise.Running)
	if _, err := supervise.Start(supervisetest.Supervisor(), dir, specOf(t, meeting.Program("p"))); !errors.Is(err, supervise.ErrAlreadyStarted) {
		t.Errorf("a second start: %v", err)
	}
	guest.Exit(t, 0)
	wait(t, run)
	meeting.Absent(t, "p")
}

func TestATimeOutKillsTheWholeTree(t *testing.T) {
	t.Parallel()
	everyWay(t, func(t *testing.T, start starter) {
		skipWithoutOrphans(t)
		meeting, dir := supervisetest.Meet(t), filepath.Join(supervisetest.TempDir(t), "run")
		spec := specOf(t, meeting.Program("p"))
		spec.MaxRunTime = 5 * time.Second
		run := begin(t, start, dir, spec)
		program := meeting.Guest(t, "p")
		program.Do(t, "orphan q")
		orphan := meeting.Guest(t, "q")
		orphan.Do(t, "ping")
		got := wait(t, run)
		program.Gone(t)
		orphan.Gone(t)
		want := supervise.Outcome{Started: true, ExitCode: -1, Signal: "SIGKILL", TimedOut: true, Killed: true}
		if runtime.GOOS == "windows" {
			want.ExitCode, want.Signal = 1, ""
		}
		if diff := cmp.Diff(want, got, ignoreTimes); diff != "" {
			t.Error(diff)
		}
	})
}

func TestATimeOutMayStopMonitoringOnly(t *testing.T) {
	t.Parallel()
	everyWay(t, func(t *testing.T, start starter) {
		meeting, dir := supervisetest.Meet(t), filepath.Join(supervisetest.TempDir(t), "run")
		spec := specOf(t, meeting.Program("p"))
		spec.MaxRunTime, spec.OnTimeout = 500*time.Millisecond, supervise.StopMonitoring
		run := begin(t, start, dir, spec)
		got := wait(t, run)
		if diff := cmp.Diff(supervise.Outcome{Started: true, ExitCode: -1, TimedOut: true, StillRunning: true}, got, ignoreTimes); diff != "" {
			t.Error(diff)
		}
		guest := meeting.Guest(t, "p")
		guest.Do(t, "print it may still write")
		if !run.InUse() {
			t.Error("the run of a living program does not count as in use")
		}
		if err := run.Kill(); err != nil {
			t.Fatal(err)
		}
		guest.Gone(t)
		eventually(t, "the run is not in use any more", func() bool { return !run.InUse() })
	})
}

func TestADaemonLivesOnAfterANormalExit(t *testing.T) {
	t.Parallel()
	everyWay(t, func(t *testing.T, start starter) {
		meeting, dir := supervisetest.Meet(t), filepath.Join(supervisetest.TempDir(t), "run")
		run := begin(t, start, dir, specOf(t, meeting.Program("p")))
		program := meeting.Guest(t, "p")
		program.Do(t, "orphan daemon")
		daemon := meeting.Guest(t, "daemon")
		program.Exit(t, 0)
		if diff := cmp.Diff(supervise.Outcome{Started: true}, wait(t, run), ignoreTimes); diff != "" {
			t.Error(diff)
		}
		// It still holds the output pipe: it must neither block when that is full nor die of its being closed.
		for range 3 {
			daemon.Do(t, "print "+strings.Repeat("x", 60000))
		}
		if err := run.Kill(); err != nil {
			t.Fatal(err)
		}
		daemon.Do(t, "ping")
	})
}

func TestKillTakesTheWholeTree(t *testing.T) {
	t.Parallel()
	everyWay(t, func(t *testing.T, start starter) {
		skipWithoutOrphans(t)
		meeting, dir := supervisetest.Meet(t), filepath.Join(supervisetest.TempDir(t), "run")
		run := begin(t, start, dir, specOf(t, meeting.Program("p")))
		program := meeting.Guest(t, "p")
		program.Do(t, "orphan q")
		orphan := meeting.Guest(t, "q")
		if err := run.Kill(); err != nil {
			t.Fatal(err)
		}
		if got := wait(t, run); !got.Killed || got.TimedOut || got.StillRunning {
			t.Errorf("outcome %+v", got)
		}
		program.Gone(t)
		orphan.Gone(t)
	})
}

func TestAKillBeforeTheStartPreventsIt(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(supervisetest.TempDir(t), "run")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	run, err := supervise.Attach(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := run.Kill(); err != nil {
		t.Fatal(err)
	}
	wantState(t, run, supervise.NotStarted)
	got := wait(t, begin(t, supervise.Start, dir, specOf(t, supervisetest.Program("exit", "0"))))
	if got.Started || !got.Killed {
		t.Errorf("outcome %+v", got)
	}
	if _, err := os.Stat(filepath.Join(dir, "started")); err == nil {
		t.Error("it was started")
	}
}

func TestTheProgramInheritsNothing(t *testing.T) {
	t.Setenv("AGENT_SECRET", "hunter2")
	dir, spec := filepath.Join(supervisetest.TempDir(t), "run"), specOf(t, supervisetest.Program("describe", "%n", "två ord", `"q"\`, ""))
	spec.Env = []string{"A=1"}
	run := begin(t, supervise.Start, dir, spec)
	wait(t, run)
	output, err := os.ReadFile(run.OutputPath())
	if err != nil {
		t.Fatal(err)
	}
	var got supervisetest.Description
	if err := json.Unmarshal(output, &got); err != nil {
		t.Fatalf("%v in %q", err, output)
	}
	spec.Dir, err = filepath.EvalSymlinks(spec.Dir)
	if err != nil {
		t.Fatal(err)
	}
	want := supervisetest.Description{Args: []string{"%n", "två ord", `"q"\`, ""}, Env: spec.Env, Dir: spec.Dir, UID: os.Getuid()}
	if runtime.GOOS == "windows" {
		got.Env = got.Env[:1] // Windows needs SYSTEMROOT, which os/exec adds
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestOutputIsKeptAtBothEndsAndCounted(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name         string
		bytes, limit int64
		head, tail   string
		size         int
		dropped      int64
	}{
		{"what fits is whole", 100, 100, "123456789\n", "END", 100, 0},
		{"a flood is cut in the middle", 50_000_000, 1000, "123456789\n", "END", 1000 + len("\n[49999000 bytes left out here]\n"), 49_999_000},
		{"nothing is kept with no limit given", 100_000, 0, "", "", len("\n[100000 bytes left out here]\n"), 100_000},
	} {
		t.Run(test.name, func(t *testing.T) {
			spec := specOf(t, supervisetest.Program("flood", fmt.Sprint(test.bytes)))
			spec.OutputLimit = test.limit
			run := begin(t, supervise.Start, filepath.Join(supervisetest.TempDir(t), "run"), spec)
			got := wait(t, run)
			want := supervise.Outcome{Started: true, OutputBytes: test.bytes, OutputDropped: test.dropped}
			if diff := cmp.Diff(want, got, ignoreTimes); diff != "" {
				t.Error(diff)
			}
			output, err := os.ReadFile(run.OutputPath())
			if err != nil {
				t.Fatal(err)
			}
			if len(output) != test.size || !bytes.HasPrefix(output, []byte(test.head)) || !bytes.HasSuffix(output, []byte(test.tail)) {
				t.Errorf("%d bytes from %.20q", len(output), output)
			}
		})
	}
}

func TestWhatCannotBeStartedHasAKind(t *testing.T) {
	t.Parallel()
	dir := supervisetest.TempDir(t)
	write := func(name, content string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, test := range []struct {
		name, program, dir, want string
		unix                     bool
	}{
		{"a missing program", filepath.Join(dir, "none"), dir, supervise.NotFound, false},
		{"a directory as program", dir, dir, supervise.NotExecutable, false},
		{"a file without execute permission", write("data", "x", 0o600), dir, supervise.NotExecutable, true},
		{"a file that is no program", write("junk.exe", "junk", 0o700), dir, supervise.NotExecutable, false},
		{"a script without its interpreter", write("script", "#!/none/sh\n", 0o700), dir, supervise.NotFound, true},
		{"a missing directory", supervisetest.Supervisor()[0], filepath.Join(dir, "none"), supervise.BadDirectory, false},
		{"a file as directory", supervisetest.Supervisor()[0], filepath.Join(dir, "data"), supervise.BadDirectory, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.unix && runtime.GOOS == "windows" {
				t.Skip("a matter of unix")
			}
			spec := specOf(t, []string{test.program, "x"})
			spec.Dir = test.dir
			got := wait(t, begin(t, supervise.Start, filepath.Join(supervisetest.TempDir(t), "run"), spec))
			if got.Started || got.ErrorKind != test.want || got.Error == "" {
				t.Errorf("outcome %+v, want %s", got, test.want)
			}
		})
	}
}

func TestAConcludedRunIsFoundLikeAnyOther(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(supervisetest.TempDir(t), "run")
	want := supervise.Outcome{ErrorKind: supervise.NotFound, Error: "no such program"}
	spec := supervise.Spec{Job: "j1", Argv: []string{"none"}, Kept: json.RawMessage(`{"a":1}`)}
	if _, err := supervise.Conclude(dir, spec, want); err != nil {
		t.Fatal(err)
	}
	run, err := supervise.Attach(dir)
	if err != nil {
		t.Fatal(err)
	}
	wantState(t, run, supervise.Ended)
	if diff := cmp.Diff(want, wait(t, run)); diff != "" {
		t.Error(diff)
	}
	if got, err := run.Spec(); err != nil || cmp.Diff(spec, got) != "" {
		t.Errorf("spec %+v, %v", got, err)
	}
	if _, err := supervise.Conclude(dir, spec, want); !errors.Is(err, supervise.ErrAlreadyStarted) {
		t.Errorf("a second conclusion: %v", err)
	}
}

func TestWaitEndsWithItsContextAndLeavesTheRun(t *testing.T) {
	t.Parallel()
	meeting := supervisetest.Meet(t)
	run := begin(t, supervise.Start, filepath.Join(supervisetest.TempDir(t), "run"), specOf(t, meeting.Program("p")))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := run.Wait(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("wait: %v", err)
	}
	meeting.Guest(t, "p").Exit(t, 3)
	if got := wait(t, run); got.ExitCode != 3 {
		t.Errorf("outcome %+v", got)
	}
}

func TestASpecIsValidated(t *testing.T) {
	t.Parallel()
	good := specOf(t, supervisetest.Program("exit", "0"))
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*supervise.Spec){
		"no program":                   func(s *supervise.Spec) { s.Argv = nil },
		"a program to be searched for": func(s *supervise.Spec) { s.Argv = []string{"sh"} },
		"a relative directory":         func(s *supervise.Spec) { s.Dir = "." },
		"negative time":                func(s *supervise.Spec) { s.MaxRunTime = -1 },
		"output without bound":         func(s *supervise.Spec) { s.OutputLimit = 1 << 40 },
		"an unknown word":              func(s *supervise.Spec) { s.OnTimeout = "pray" },
		"a NUL":                        func(s *supervise.Spec) { s.Argv = append(s.Argv, "a\x00b") },
		"what JSON would change":       func(s *supervise.Spec) { s.Argv = append(s.Argv, "\xff") },
		"a logon of nobody":            func(s *supervise.Spec) { s.Logon = &supervise.Logon{Visible: true} },
		"a logon of two":               func(s *supervise.Spec) { s.Logon = &supervise.Logon{Session: 1, Token: 1} },
		"a logon and a credential": func(s *supervise.Spec) {
			s.Logon, s.Credential = &supervise.Logon{Session: 1}, &supervise.Credential{UID: 1}
		},
		"an environment without names":      func(s *supervise.Spec) { s.Env = []string{"=x"} },
		"arguments that no system can take": func(s *supervise.Spec) { s.Argv = append(s.Argv, strings.Repeat("x", 4<<20)) },
	} {
		t.Run(name, func(t *testing.T) {
			spec := good
			spoil(&spec)
			if _, err := supervise.Start(supervisetest.Supervisor(), filepath.Join(supervisetest.TempDir(t), "run"), spec); err == nil {
				t.Error("accepted")
			}
		})
	}
}

func TestALogonIsForWindowsOnly(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("here it is not refused")
	}
	for name, logon := range map[string]supervise.Logon{"of a session": {Session: 1}, "by a token": {Token: 1}} {
		t.Run(name, func(t *testing.T) {
			spec := specOf(t, supervisetest.Program("exit", "0"))
			spec.Logon = &logon
			if got := wait(t, begin(t, supervise.Start, filepath.Join(supervisetest.TempDir(t), "run"), spec)); got.Started || got.Error == "" {
				t.Errorf("outcome %+v", got)
			}
		})
	}
}

func skipWithoutOrphans(t *testing.T) {
	if runtime.GOOS == "darwin" {
		t.Skip("macOS cannot find orphans that left their session")
	}
}

// eventually waits for something that other processes bring about.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(30 * time.Second); !holds(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}
