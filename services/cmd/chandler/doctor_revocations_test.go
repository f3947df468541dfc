package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"chandler/agent/enrol"
	"chandler/events"
	"chandler/events/access"
	"chandler/events/enrolment"
)

func TestDoctorNamesThoseWhomTheBrokerWasNotToldOf(t *testing.T) {
	f := newRealFleet(t)
	where, err := f.app.current()
	if err != nil {
		t.Fatal(err)
	}
	f.user(t, "kari", "--role", "deployer")
	f.user(t, "ada", "--role", "viewer", "--expires", "1d")
	f.run(t, "context", "add", "second", "--server", where.Server, "--credentials", f.user(t, "second", "--role", string(access.Administrator)))
	for _, name := range []string{"kari", "ada"} { // where the operator's key is not: half of it is done
		f.refuse(t, "still lets them in", "--context", "second", "user", "revoke", name)
	}
	f.app.context = ""
	if got := says(f.examine(t), "revocation", stateProblem); len(got) != 2 || !strings.Contains(got[1], "user kari (deployer)") && !strings.Contains(got[0], "user kari (deployer)") {
		t.Fatalf("got %v", got)
	} else if all := strings.Join(got, "\n"); !strings.Contains(all, "`chandler user revoke kari`") || !strings.Contains(all, "`chandler user revoke ada`") {
		t.Errorf("it does not say what to run: %s", all)
	}
	f.app.context = "second"
	if found := f.examine(t); len(says(found, "revocations", stateSkipped)) != 1 || len(says(found, "revocation", stateProblem)) > 0 {
		t.Errorf("without the directory: %+v", found)
	}
	away := where
	away.Administrator = filepath.Join(t.TempDir(), "gone")
	if got := says(f.app.examineFiles(away), "administrator", stateWarning); len(got) != 1 || !strings.Contains(got[0], "gone is not there") {
		t.Errorf("a directory that is not there: %v", got)
	}
	f.app.context = ""
	f.run(t, "user", "revoke", "kari")
	began := f.app.now
	f.app.now = func() time.Time { return began().Add(48 * time.Hour) } // ada's credentials have ended meanwhile
	if found := f.examine(t); len(says(found, "revocation", stateProblem)) > 0 || len(says(found, "revocations", stateOK)) != 1 {
		t.Errorf("once that is done: %+v", found)
	}
}

func TestDoctorCountsMachinesThatWaitForApproval(t *testing.T) {
	f := newRealFleet(t)
	f.run(t, "trust", "init")
	file := filepath.Join(t.TempDir(), "one.token")
	f.run(t, "token", "create", "one", "--approval", "--out", file)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	token, err := enrolment.ParseToken(string(text))
	if err != nil {
		t.Fatal(err)
	}
	machine, err := enrol.New(enrol.Options{Dir: filepath.Join(t.TempDir(), "ws-1")})
	if err != nil {
		t.Fatal(err)
	}
	if err := machine.BindMachine("machine of ws-1"); err != nil {
		t.Fatal(err)
	}
	err = machine.Enrol(t.Context(), token, events.Facts{ID: machine.ID(), Hostname: "ws-1", OS: "linux", OSName: "debian", OSVersion: "12", Arch: "amd64", Addresses: []string{}, Tags: []string{}, Version: "0.1.0"})
	if refused, ok := errors.AsType[*enrol.RefusedError](err); !ok || refused.Refused != events.RefusedPending {
		t.Fatalf("it does not wait: %v", err)
	}
	if got := says(f.examine(t), "approvals", stateWarning); len(got) != 1 || got[0] != "1 machine waits for approval: chandler agent ls --pending" {
		t.Errorf("got %v", got)
	}
}
