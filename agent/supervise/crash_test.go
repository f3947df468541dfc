package supervise_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"chandler/agent/supervise"
	"chandler/agent/supervise/supervisetest"
)

const asAgent = "act-as-agent"

// actAsAgent is the agent of these tests: it starts a run and waits to be killed.
func actAsAgent() {
	if len(os.Args) != 4 || os.Args[1] != asAgent {
		return
	}
	var spec supervise.Spec
	if err := json.Unmarshal([]byte(os.Args[3]), &spec); err != nil {
		panic(err)
	}
	if _, err := supervise.Start(supervisetest.Supervisor(), os.Args[2], spec); err != nil {
		panic(err)
	}
	select {}
}

// startByAgent returns the process of an agent that has started the run, or is about to.
func startByAgent(t *testing.T, dir string, spec supervise.Spec) *exec.Cmd {
	t.Helper()
	encoded, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	agent := exec.Command(supervisetest.Supervisor()[0], asAgent, dir, string(encoded))
	agent.Stderr = os.Stderr
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		agent.Process.Kill()
		agent.Wait()
	})
	return agent
}

func attach(t *testing.T, dir string) *supervise.Run {
	t.Helper()
	run, err := supervise.Attach(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { settle(t, run, dir) })
	return run
}

func TestAKilledAgentFindsItsRunAgain(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		killed bool // before the agent is back
	}{{"while the program runs", false}, {"after the program has ended", true}} {
		t.Run(test.name, func(t *testing.T) {
			meeting, dir := supervisetest.Meet(t), filepath.Join(supervisetest.TempDir(t), "run")
			agent := startByAgent(t, dir, specOf(t, meeting.Program("p")))
			guest := meeting.Guest(t, "p")
			agent.Process.Kill()
			agent.Wait()
			guest.Do(t, "print hello")
			run := attach(t, dir)
			wantState(t, run, supervise.Running)
			if test.killed {
				guest.Exit(t, 17)
				wait(t, run)
				run = attach(t, dir)
				wantState(t, run, supervise.Ended)
			} else {
				defer wantState(t, run, supervise.Ended)
				guest.Exit(t, 17)
			}
			if got := wait(t, run); got.ExitCode != 17 || !got.Started || got.OutputBytes != int64(len("hello\n")) {
				t.Errorf("outcome %+v", got)
			}
		})
	}
}

func TestAKilledSupervisorIsARunLost(t *testing.T) {
	t.Parallel()
	everyWay(t, func(t *testing.T, start starter) {
		meeting, dir := supervisetest.Meet(t), filepath.Join(supervisetest.TempDir(t), "run")
		run := begin(t, start, dir, specOf(t, meeting.Program("p")))
		guest := meeting.Guest(t, "p")
		guest.Do(t, "orphan q")
		orphan := meeting.Guest(t, "q")
		if err := supervise.SupervisorOf(t, dir).Kill(); err != nil {
			t.Fatal(err)
		}
		if _, err := waitFor(t, run); !errors.Is(err, supervise.ErrLost) {
			t.Errorf("wait: %v", err)
		}
		wantState(t, run, supervise.Lost)
		guest.Do(t, "ping")
		if _, err := start(supervisetest.Supervisor(), dir, specOf(t, meeting.Program("p"))); !errors.Is(err, supervise.ErrAlreadyStarted) {
			t.Errorf("a second start: %v", err)
		}
		if err := run.Kill(); err != nil {
			t.Error(err)
		}
		guest.Gone(t)
		if supervise.GroupOf(t, dir) != "" {
			orphan.Gone(t)
		}
		meeting.Absent(t, "p")
	})
}

func TestKillSparesAProcessThatTookOverTheID(t *testing.T) {
	t.Parallel()
	meeting, dir := supervisetest.Meet(t), filepath.Join(supervisetest.TempDir(t), "run")
	run := begin(t, supervise.StartWithoutGroup, dir, specOf(t, meeting.Program("p")))
	guest := meeting.Guest(t, "p")
	if err := supervise.SupervisorOf(t, dir).Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := waitFor(t, run); !errors.Is(err, supervise.ErrLost) {
		t.Errorf("wait: %v", err)
	}
	begin(t, supervise.StartWithoutGroup, filepath.Join(supervisetest.TempDir(t), "other"), specOf(t, meeting.Program("stranger")))
	stranger := meeting.Guest(t, "stranger")
	supervise.WriteProcess(t, dir, supervise.Record{PID: stranger.PID, Start: "an earlier time"})
	if err := run.Kill(); err != nil {
		t.Error(err)
	}
	stranger.Do(t, "ping")
	guest.Exit(t, 0)
}

func TestASupervisorKilledBeforeTheStartIsARunNotStarted(t *testing.T) {
	t.Parallel()
	meeting, dir := supervisetest.Meet(t), filepath.Join(supervisetest.TempDir(t), "run")
	// A "supervisor" that holds the lock, as the real one does from its first instant, and gets no further.
	stuck := meeting.Program("stuck")
	run, err := supervise.Start(stuck, dir, specOf(t, meeting.Program("p")))
	if err != nil {
		t.Fatal(err)
	}
	guest := meeting.Guest(t, "stuck")
	wantState(t, run, supervise.Running)
	guest.Exit(t, 1)
	if _, err := waitFor(t, run); !errors.Is(err, supervise.ErrNotStarted) {
		t.Errorf("wait: %v", err)
	}
	wantState(t, run, supervise.NotStarted)
	got := wait(t, begin(t, supervise.Start, dir, specOf(t, supervisetest.Program("exit", "5"))))
	if got.ExitCode != 5 {
		t.Errorf("outcome of the second start %+v", got)
	}
}

func TestARunThatWasNeverBegunIsNotStarted(t *testing.T) {
	t.Parallel()
	run, err := supervise.Attach(filepath.Join(supervisetest.TempDir(t), "none"))
	if err != nil {
		t.Fatal(err)
	}
	wantState(t, run, supervise.NotStarted)
	if _, err := waitFor(t, run); !errors.Is(err, supervise.ErrNotStarted) {
		t.Errorf("wait: %v", err)
	}
}

func TestAServiceManagersSignalLosesNoOutcome(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no such signals")
	}
	meeting, dir := supervisetest.Meet(t), filepath.Join(supervisetest.TempDir(t), "run")
	run := begin(t, supervise.Start, dir, specOf(t, meeting.Program("p")))
	guest := meeting.Guest(t, "p")
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
		if err := supervise.SupervisorOf(t, dir).Signal(sig); err != nil {
			t.Fatal(err)
		}
	}
	guest.Do(t, "ping")
	guest.Exit(t, 7)
	if got := wait(t, run); got.ExitCode != 7 {
		t.Errorf("outcome %+v", got)
	}
}

func TestASupervisorStartedByHandRefuses(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(supervisetest.TempDir(t), "run")
	command := append(supervisetest.Supervisor(), dir)
	for _, prepare := range []func() error{
		func() error { return nil },
		func() error {
			return errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(filepath.Join(dir, "lock"), nil, 0o600))
		},
	} {
		if err := prepare(); err != nil {
			t.Fatal(err)
		}
		output, err := exec.Command(command[0], command[1:]...).CombinedOutput()
		if err == nil {
			t.Errorf("it ran: %s", output)
		}
	}
}

func TestADamagedOutcomeIsARunLost(t *testing.T) {
	t.Parallel()
	for _, content := range []string{"", "{", `{"started":3}`} {
		t.Run(fmt.Sprintf("%q", content), func(t *testing.T) {
			dir := supervisetest.TempDir(t)
			if err := os.WriteFile(filepath.Join(dir, "outcome.json"), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			run, err := supervise.Attach(dir)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := waitFor(t, run); !errors.Is(err, supervise.ErrLost) {
				t.Errorf("wait: %v", err)
			}
			if _, err := supervise.Start(supervisetest.Supervisor(), dir, specOf(t, supervisetest.Program("exit", "0"))); !errors.Is(err, supervise.ErrAlreadyStarted) {
				t.Errorf("a second start: %v", err)
			}
		})
	}
}
