package systemrunner

import (
	"os"
	"strings"
	"testing"

	"chandler/agent/execute"
	"chandler/agent/execute/runnertest"
	"chandler/agent/logon"
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

func TestAnInteractiveProgramThatIsNotShownSaysWhy(t *testing.T) {
	for _, test := range []struct {
		name    string
		session *logon.Session
		why     string // on every system
	}{
		{"nobody is logged on", nil, "no user is logged on"},
		{"the session's user is unknown", &logon.Session{ID: "1", User: "no such user of this machine", Type: "x11", Display: ":0"}, ""},
	} {
		prepared, err := New().Prepare(t.Context(), execute.Request{Interactive: true, Session: test.session})
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(prepared.Note, "not shown: "+test.why) || strings.HasPrefix(prepared.Note, ";") {
			t.Errorf("%s: note %q", test.name, prepared.Note)
		}
		quiet, err := New().Prepare(t.Context(), execute.Request{Session: test.session})
		if err != nil || strings.Contains(quiet.Note, "not shown") {
			t.Errorf("%s, not interactive: note %q, %v", test.name, quiet.Note, err)
		}
	}
}
