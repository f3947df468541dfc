package tokenrunner

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"chandler/agent/account/accounttest"
	"chandler/agent/elevate"
	"chandler/agent/execute"
	"chandler/agent/execute/runnertest"
	"chandler/agent/lease"
	"chandler/agent/supervise"
	"chandler/agent/supervise/supervisetest"
	"chandler/events"
)

func TestMain(m *testing.M) {
	supervisetest.Main()
	accounttest.Main()
	os.Exit(m.Run())
}

func newKeeper(t *testing.T) *elevate.Keeper {
	t.Helper()
	keeper, err := elevate.New(elevate.Options{Dir: filepath.Join(t.TempDir(), "records")})
	if err != nil {
		t.Fatal(err)
	}
	return keeper
}

func newRunner(t *testing.T, options Options) *Runner {
	t.Helper()
	accounttest.Forget(t, DefaultAccount)
	runner, err := New(options)
	if err != nil {
		t.Fatal(err)
	}
	return runner
}

func TestRunner(t *testing.T) {
	accounttest.Need(t)
	keeper := newKeeper(t)
	runnertest.Run(t, func(t *testing.T) execute.Runner {
		return newRunner(t, Options{Keeper: keeper})
	}, runnertest.Options{UID: 0, Rights: keeper, Serial: true, Elevated: true})
}

// stopKeeper grants nothing.
type stopKeeper struct{}

func (stopKeeper) Grant(context.Context, elevate.Grant, supervise.Spec) (supervise.Spec, error) {
	return supervise.Spec{}, errors.New("not in this test")
}

func TestTheAccountIsToldOnceAndUntilItIsTaken(t *testing.T) {
	accounttest.Need(t)
	var told []events.AccountNote
	deaf := errors.New("nobody listens")
	runner := newRunner(t, Options{Keeper: stopKeeper{}})
	req := execute.Request{Job: "job1", Deployment: "dep", Program: "tools 1 install", Attempt: 1, Created: func(n events.AccountNote) error {
		told = append(told, n)
		if len(told) == 1 {
			return deaf
		}
		return nil
	}}
	if _, err := runner.Prepare(t.Context(), req); !errors.Is(err, deaf) {
		t.Errorf("while nobody listens: %v", err)
	}
	for range 2 {
		prepared, err := runner.Prepare(t.Context(), req)
		if err != nil || prepared.Executor != DefaultAccount || prepared.ElevatedTo != "root" || prepared.Credential != nil {
			t.Errorf("%+v, %v", prepared, err)
		}
	}
	if len(told) != 2 || told[0] != told[1] || told[1].Account != DefaultAccount || told[1].Kind != elevate.ClientToken || told[1].Job != "job1" || told[1].At.IsZero() {
		t.Errorf("told %+v", told)
	}
}

func TestAMachineThatCannotHaveTheAccountSaysWhy(t *testing.T) {
	accounttest.Need(t)
	for name, test := range map[string]struct {
		spoil  func(t *testing.T)
		reason events.Reason
		words  string
	}{
		"useradd is missing": {func(t *testing.T) { lack(t, "/usr/sbin/useradd") }, events.ElevationImpossible, "this machine has no useradd"},
		"sudo is missing":    {func(t *testing.T) { lack(t, "/usr/bin/sudo") }, events.ElevationImpossible, "sudo is not on this machine"},
		"somebody else has the name": {func(t *testing.T) {
			accounttest.User(t, DefaultAccount, "-M", "--badname", "-c", "backup", "-s", "/bin/bash")
		},
			events.AccountUnusable, "was not made by the agent"},
		"it is an administrator": {func(t *testing.T) {
			if _, err := newRunner(t, Options{Keeper: stopKeeper{}}).Prepare(t.Context(), execute.Request{}); err != nil {
				t.Fatal(err)
			}
			accounttest.Do(t, "usermod", "-a", "-G", "sudo", DefaultAccount)
		}, events.AccountUnusable, "is in an administrators' group"},
	} {
		t.Run(name, func(t *testing.T) {
			keeper := newKeeper(t)
			runner := newRunner(t, Options{Keeper: keeper})
			test.spoil(t)
			executor := newExecutor(t, runner, keeper)
			_, err := executor.Start(t.Context(), request(t, supervisetest.Program("exit", "0")))
			var impossible *execute.Impossible
			if !errors.As(err, &impossible) || impossible.Reason != test.reason || !strings.Contains(impossible.Answer, test.words) || impossible.Identity != DefaultAccount {
				t.Errorf("%+v", err)
			}
			if rules, err := filepath.Glob("/etc/sudoers.d/chandler-*"); err != nil || len(rules) > 0 {
				t.Errorf("left behind: %q, %v", rules, err)
			}
		})
	}
}

func TestAnAccountThatIsDeletedWhileItsProgramRunsIsMadeAgain(t *testing.T) {
	accounttest.Need(t)
	keeper := newKeeper(t)
	executor := newExecutor(t, newRunner(t, Options{Keeper: keeper}), keeper)
	meeting := supervisetest.Meet(t)
	x, err := executor.Start(t.Context(), request(t, meeting.Program("p")))
	if err != nil {
		t.Fatal(err)
	}
	guest := meeting.Guest(t, "p")
	accounttest.Do(t, "userdel", "--force", DefaultAccount)
	guest.Exit(t, 0)
	if result, err := x.Wait(t.Context()); err != nil || result.Meaning != execute.Success || result.Executor != DefaultAccount || result.ElevatedTo != "root" {
		t.Errorf("%+v, %v", result, err)
	}
	req := request(t, []string{"/bin/sh", "-c", `test "$SUDO_USER" = "` + DefaultAccount + `" && test "$(id -u)" = 0`})
	req.Job = "job2"
	if x, err = executor.Start(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	if result, err := x.Wait(t.Context()); err != nil || result.Meaning != execute.Success {
		t.Errorf("%+v, %v", result, err)
	}
}

func TestADomainControllerUsesTheDomainsCopy(t *testing.T) {
	accounttest.Need(t)
	const copied = "SMSCliToknAcct&"
	accounttest.User(t, copied, "-M", "--badname")
	runner := newRunner(t, Options{Keeper: stopKeeper{}})
	kind := events.ClientTokenDomain
	made := func(n events.AccountNote) error {
		t.Errorf("made %s", n.Account)
		return nil
	}
	req := execute.Request{Job: "job1", Attempt: 1, Interactive: true, Domain: true, Created: made, Lease: func(_ context.Context, wanted lease.Wanted) (*lease.Lease, error) {
		if diff := cmp.Diff(lease.Wanted{Kind: events.ClientTokenDomain}, wanted); diff != "" {
			t.Error(diff)
		}
		return &lease.Lease{Account: "dc-token", Kind: kind, User: copied, Secret: []byte("secret")}, nil
	}}
	prepared, err := runner.Prepare(t.Context(), req)
	if err != nil || prepared.Executor != copied || prepared.ElevatedTo != "root" || !strings.Contains(prepared.Note, "not shown: no user is logged on") {
		t.Errorf("%+v, %v", prepared, err)
	}
	kind = events.NetworkAccess
	var impossible *execute.Impossible
	if _, err := runner.Prepare(t.Context(), req); !errors.As(err, &impossible) || impossible.Reason != events.AccountRefused {
		t.Errorf("by a network access account: %v", err)
	}
}

func newExecutor(t *testing.T, runner execute.Runner, keeper *elevate.Keeper) *execute.Executor {
	t.Helper()
	executor, err := execute.New(execute.Options{Supervisor: supervisetest.Supervisor(), Runners: map[string]execute.Runner{"token": runner}, Rights: keeper})
	if err != nil {
		t.Fatal(err)
	}
	return executor
}

func request(t *testing.T, argv []string) execute.Request {
	return execute.Request{Job: "job1", Attempt: 1, As: "token", Dir: filepath.Join(t.TempDir(), "run"), Command: execute.Command{Argv: argv}}
}
