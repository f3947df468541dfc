package main

import (
	"strings"
	"testing"

	"chandler/events"
)

func TestDoctorNamesAccountsThatAreLentToNobody(t *testing.T) {
	f := newFakeFleet(t)
	f.set(func() {
		f.agents = []events.AgentView{agentNamed(testAgent, "ws-1", "oslo")}
		f.accounts = []events.AccountView{{AccountNotice: events.AccountNotice{Account: "lab-web"}}}
	})
	if code, stdout, stderr := command(t, f.app, "", "doctor"); code != 0 || !strings.Contains(stdout, "1 account, none suspended") {
		t.Fatalf("exit code %d: %s%s", code, stdout, stderr)
	}
	f.set(func() {
		f.accounts = append(f.accounts, events.AccountView{AccountNotice: events.AccountNotice{Account: "corp-reader"},
			Suspended: `version 2 of account corp-reader was rejected by 3 machines, last by ws-1 at \\files\apps: set its secret again with ` + "`chandler account rotate corp-reader`"})
	})
	code, stdout, stderr := command(t, f.app, "", "doctor")
	if code != 1 || !strings.Contains(stdout, `account corp-reader`) || !strings.Contains(stdout, `rejected by 3 machines, last by ws-1 at \\files\apps: `+"`chandler account rotate corp-reader` with the right secret") ||
		strings.Count(stdout, "account rotate") != 1 || strings.Contains(stdout, "none suspended") {
		t.Fatalf("exit code %d: %s%s", code, stdout, stderr)
	}
}
