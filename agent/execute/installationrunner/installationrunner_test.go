package installationrunner

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"chandler/agent/account/accounttest"
	"chandler/agent/elevate"
	"chandler/agent/execute"
	"chandler/agent/execute/runnertest"
	"chandler/agent/lease"
	"chandler/agent/supervise/supervisetest"
	"chandler/events"
)

const user = "corp-inst"

func TestMain(m *testing.M) {
	supervisetest.Main()
	accounttest.Main()
	os.Exit(m.Run())
}

func newRunner(t *testing.T) (*Runner, *elevate.Keeper) {
	t.Helper()
	keeper, err := elevate.New(elevate.Options{Dir: filepath.Join(t.TempDir(), "records")})
	if err != nil {
		t.Fatal(err)
	}
	runner, err := New(Options{Keeper: keeper})
	if err != nil {
		t.Fatal(err)
	}
	return runner, keeper
}

func lend(_ context.Context, wanted lease.Wanted) (*lease.Lease, error) {
	if wanted.Account != "corp-installer" || wanted.Kind != "" {
		return nil, &lease.Denied{Reason: events.CredentialDenied, Why: "not asked for as it should be"}
	}
	return &lease.Lease{Account: "corp-installer", Kind: events.SoftwareInstallation, User: user, Secret: []byte("secret")}, nil
}

func TestRunner(t *testing.T) {
	accounttest.Need(t)
	accounttest.User(t, user, "--no-create-home", "--home-dir", "/nowhere/at/all") // what runs as root needs no home of his
	runner, keeper := newRunner(t)
	runnertest.Run(t, func(*testing.T) execute.Runner { return runner }, runnertest.Options{
		UID: 0, Rights: keeper, Serial: true, Elevated: true,
		Complete: func(req *execute.Request) { req.Account, req.Lease = "corp-installer", lend },
	})
}

func TestAnAdministratorIsUsedAndWarnedAboutAndKeepsWhatItHas(t *testing.T) {
	accounttest.Need(t)
	accounttest.User(t, user, "-M", "-G", "sudo")
	runner, keeper := newRunner(t)
	executor, err := execute.New(execute.Options{Supervisor: supervisetest.Supervisor(), Runners: map[string]execute.Runner{"installation": runner}, Rights: keeper})
	if err != nil {
		t.Fatal(err)
	}
	x, err := executor.Start(t.Context(), execute.Request{
		Job: "job1", Attempt: 1, As: "installation", Dir: filepath.Join(t.TempDir(), "run"), Account: "corp-installer", Lease: lend,
		Command: execute.Command{Argv: []string{"/bin/sh", "-c", `test "$SUDO_USER" = ` + user + ` && test "$(id -u)" = 0`}},
	})
	if err != nil {
		t.Fatal(err)
	}
	result, err := x.Wait(t.Context())
	if err != nil || result.Meaning != execute.Success || result.Executor != user || result.ElevatedTo != "root" || !strings.Contains(result.Note, "is an administrator of this machine already") {
		t.Errorf("%+v, %v", result, err)
	}
	accounttest.Do(t, "sh", "-c", "id -nG "+user+" | grep -qw sudo")
}

func TestWhatIsNotForAnInstallationAccountAsksForNoLease(t *testing.T) {
	runner, _ := newRunner(t)
	for name, req := range map[string]execute.Request{
		"an interactive program": {Account: "corp-installer", Interactive: true},
		"no account":             {},
	} {
		req.Lease = func(context.Context, lease.Wanted) (*lease.Lease, error) {
			t.Errorf("%s: a lease is asked for", name)
			return nil, nil
		}
		var impossible *execute.Impossible
		if _, err := runner.Prepare(t.Context(), req); !errors.As(err, &impossible) || impossible.Reason != events.ContextUnsupported {
			t.Errorf("%s: %v", name, err)
		}
	}
}
