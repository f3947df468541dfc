package systemrunner

import (
	"os"
	"slices"
	"strings"
	"testing"

	"chandler/agent/account"
	"chandler/agent/execute"
	"chandler/agent/logon"
)

func TestAnInteractiveProgramIsGivenTheSessionsDisplay(t *testing.T) {
	own, err := account.LookupUID(t.Context(), uint32(os.Getuid()))
	if err != nil {
		t.Fatal(err)
	}
	session := &logon.Session{ID: "1", User: own.Name, UID: own.UID, Type: "x11", Display: ":9"}
	prepared, err := New().Prepare(t.Context(), execute.Request{Interactive: true, Session: session})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(prepared.Env, "DISPLAY=:9") || strings.Contains(prepared.Note, "not shown") {
		t.Errorf("%+v", prepared)
	}
	session.UID++
	prepared, err = New().Prepare(t.Context(), execute.Request{Interactive: true, Session: session})
	if err != nil || slices.Contains(prepared.Env, "DISPLAY=:9") || !strings.Contains(prepared.Note, "not shown: the session is uid") {
		t.Errorf("a session of another number: %+v, %v", prepared, err)
	}
}
