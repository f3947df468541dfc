package systemrunner

import (
	"os"
	"strings"
	"testing"

	"chandler/agent/execute"
	"chandler/agent/execute/runnertest"
	"chandler/agent/supervise/supervisetest"
)

func TestMain(m *testing.M) {
	supervisetest.Main()
	os.Exit(m.Run())
}

func TestRunner(t *testing.T) {
	runnertest.Run(t, func(*testing.T) execute.Runner { return New() }, runnertest.Options{UID: os.Getuid()})
}

func TestOnlyAnAgentThatIsNotTheSystemGivesANote(t *testing.T) {
	prepared, err := New().Prepare(t.Context(), execute.Request{})
	if err != nil {
		t.Fatal(err)
	}
	_, isSystem, err := whoAmI()
	if err != nil {
		t.Fatal(err)
	}
	if prepared.Credential != nil || prepared.Executor == "" {
		t.Errorf("prepared %+v", prepared)
	}
	if isSystem != (prepared.Note == "") || isSystem != (prepared.Executor == systemName) {
		t.Errorf("as %s, system %v, the note is %q", prepared.Executor, isSystem, prepared.Note)
	}
	if !isSystem && !strings.Contains(prepared.Note, prepared.Executor) {
		t.Errorf("the note %q does not name %s", prepared.Note, prepared.Executor)
	}
}
