package execute

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"chandler/agent/supervise"
	"chandler/agent/supervise/supervisetest"
	"chandler/events"
)

// fakeRunner answers with what it holds and counts.
type fakeRunner struct {
	prepared Prepared
	err      error
	calls    int
}

func (f *fakeRunner) Prepare(context.Context, Request) (Prepared, error) {
	f.calls++
	return f.prepared, f.err
}

func newExecutor(t *testing.T, runner Runner) *Executor {
	t.Helper()
	e, err := New(Options{Supervisor: []string{filepath.Join(supervisetest.TempDir(t), "no-supervisor")}, Runners: map[string]Runner{"x": runner}})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestAnUnusableRequestStartsNothing(t *testing.T) {
	for name, spoil := range map[string]func(*Request){
		"no job":                    func(r *Request) { r.Job = "" },
		"no attempt":                func(r *Request) { r.Attempt = 0 },
		"a relative run directory":  func(r *Request) { r.Dir = "run" },
		"a relative content":        func(r *Request) { r.ContentDir = "content" },
		"no command":                func(r *Request) { r.Command = Command{} },
		"an unknown runner":         func(r *Request) { r.As = "y" },
		"an unknown meaning":        func(r *Request) { r.ReturnCodes = map[int]Meaning{1: "fine"} },
		"a negative run time":       func(r *Request) { r.MaxRunTime = -1 },
		"an unknown time-out":       func(r *Request) { r.OnTimeout = "pray" },
		"an argument with a NUL":    func(r *Request) { r.Command.Argv = append(r.Command.Argv, "\x00") },
		"an environment of nothing": func(r *Request) { r.Env = []string{"novalue"} },
	} {
		t.Run(name, func(t *testing.T) {
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			req := Request{Job: "j", Attempt: 1, As: "x", Dir: filepath.Join(supervisetest.TempDir(t), "run"), ContentDir: supervisetest.TempDir(t), Command: Command{Argv: []string{self}}}
			spoil(&req)
			if _, err := newExecutor(t, &fakeRunner{}).Start(t.Context(), req); err == nil || errors.Is(err, os.ErrNotExist) {
				t.Errorf("start: %v", err)
			}
		})
	}
}

func TestARunnersErrorIsTheStarts(t *testing.T) {
	runner := &fakeRunner{err: errors.New("no such account")}
	req := Request{Job: "j", Attempt: 1, As: "x", Dir: filepath.Join(supervisetest.TempDir(t), "run"), Command: Command{Argv: []string{"a"}}}
	if _, err := newExecutor(t, runner).Start(t.Context(), req); !errors.Is(err, runner.err) || !strings.Contains(err.Error(), "job j") {
		t.Errorf("start: %v", err)
	}
}

func TestNothingIsPreparedForARunThatWasStarted(t *testing.T) {
	runner := &fakeRunner{prepared: Prepared{Executor: "nobody", Note: "a note"}}
	e := newExecutor(t, runner)
	req := Request{Job: "j", Attempt: 1, As: "x", Dir: filepath.Join(supervisetest.TempDir(t), "run"), Command: Command{Argv: []string{"no-such-program"}}}
	execution, err := e.Start(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	result, err := execution.Wait(t.Context())
	if err != nil || result.Outcome.ErrorKind != supervise.NotFound || result.Executor != "nobody" || result.Note != "a note" {
		t.Errorf("result %+v, %v", result, err)
	}
	if _, err := e.Start(t.Context(), req); !errors.Is(err, supervise.ErrAlreadyStarted) || runner.calls != 1 {
		t.Errorf("start: %v after %d preparations", err, runner.calls)
	}
}

// leftRights cannot be taken back.
type leftRights struct{ err error }

func (l leftRights) Return(context.Context, string) error { return l.err }

func TestRightsGivenForAProgramThatDidNotStartAreTakenBackOrSaidToBeLeft(t *testing.T) {
	for name, left := range map[string]error{"taken back": nil, "left": errors.New("the disk is full")} {
		t.Run(name, func(t *testing.T) {
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			impossible := &Impossible{Reason: events.ElevationImpossible, Answer: "no sudo"}
			runner := &fakeRunner{prepared: Prepared{Executor: "token", Elevate: func(context.Context, string, supervise.Spec) (supervise.Spec, error) {
				return supervise.Spec{}, impossible
			}}}
			e := newExecutor(t, runner)
			e.rights = leftRights{left}
			req := Request{Job: "j", Attempt: 1, As: "x", Dir: filepath.Join(supervisetest.TempDir(t), "run"), Command: Command{Argv: []string{self}}}
			_, err = e.Start(t.Context(), req)
			if found, ok := errors.AsType[*Impossible](err); !ok || found != impossible {
				t.Errorf("why it did not start is lost: %v", err)
			}
			if errors.Is(err, ErrNotTakenBack) != (left != nil) {
				t.Errorf("start: %v", err)
			}
		})
	}
}

func TestWhatWasMadeForAStartIsLetGoOfOnceWhateverCameOfIt(t *testing.T) {
	for name, command := range map[string]string{"the supervisor is missing": "", "the program is missing": "no-such-program"} {
		t.Run(name, func(t *testing.T) {
			if command == "" {
				self, err := os.Executable()
				if err != nil {
					t.Fatal(err)
				}
				command = self
			}
			released := 0
			req := Request{Job: "j", Attempt: 1, As: "x", Dir: filepath.Join(supervisetest.TempDir(t), "run"), Command: Command{Argv: []string{command}}}
			_, err := newExecutor(t, &fakeRunner{prepared: Prepared{Release: func() { released++ }}}).Start(t.Context(), req)
			if (err == nil) != (command == "no-such-program") || released != 1 {
				t.Errorf("start: %v, let go of %d times", err, released)
			}
		})
	}
}

func TestALostSupervisorIsAnUnknownOutcome(t *testing.T) {
	dir := supervisetest.TempDir(t)
	for name, content := range map[string]string{"started": "{}", "spec.json": `{"argv":["/x"],"kept":{"executor":"root","return_codes":{"0":"success"}}}`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	execution, err := newExecutor(t, &fakeRunner{}).Resume(dir)
	if err != nil {
		t.Fatal(err)
	}
	result, err := execution.Wait(t.Context())
	if err != nil || !result.OutcomeUnknown || result.Meaning != Failure || result.Executor != "root" || result.Explanation == "" {
		t.Errorf("result %+v, %v", result, err)
	}
}

func TestTheExecutorsOptionsAreValidated(t *testing.T) {
	for _, options := range []Options{
		{}, {Supervisor: []string{"relative"}, Runners: map[string]Runner{"x": &fakeRunner{}}}, {Supervisor: []string{"/a"}},
	} {
		if _, err := New(options); err == nil {
			t.Errorf("accepted %+v", options)
		}
	}
}

func TestTheLaterEntryOfAnEnvironmentWins(t *testing.T) {
	got := mergeEnv([]string{"A=1", "B=2"}, nil, []string{"A=3", "C="}, []string{"C=4"})
	if diff := cmp.Diff([]string{"A=3", "B=2", "C=4"}, got); diff != "" {
		t.Error(diff)
	}
	if lookupEnv(got, "B") != "2" || lookupEnv(got, "D") != "" {
		t.Error("lookup")
	}
}
