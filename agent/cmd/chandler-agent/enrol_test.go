package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"chandler/agent"
	"chandler/agent/enrol"
	"chandler/agent/journal"
	"chandler/events"
)

// keep gives what a state directory holds, by file.
func keep(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		data, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all[f.Name()] = string(data)
	}
	return all
}

func same(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for name := range a {
		if a[name] != b[name] {
			return false
		}
	}
	return true
}

func TestEnrollingTwiceChangesNothing(t *testing.T) {
	f := newFleet(t)
	file, state := configure(t, "")
	token := f.tokenFile(t)
	out, err := said(t, "enrol", "-c", file, "--token-file", token)
	if err != nil || !strings.Contains(out, "of fleet test, enrolled") {
		t.Fatalf("%v\n%s", err, out)
	}
	before := keep(t, state)
	if err := os.Remove(token); err != nil { // nor is the token needed
		t.Fatal(err)
	}
	out, err = said(t, "enrol", "-c", file, "--token-file", token)
	if err != nil || !strings.Contains(out, "nothing changed") {
		t.Errorf("%v\n%s", err, out)
	}
	if !same(before, keep(t, state)) {
		t.Error("something changed")
	}
	if got := f.verbs(); !slices.Equal(got, []string{"enrol", "return"}) {
		t.Errorf("asked %v", got)
	}
}

func TestTheTokenComesByFileEnvironmentOrStandardInput(t *testing.T) {
	f := newFleet(t)
	for name, c := range map[string]struct {
		args        []string
		stdin, env  string
		refusedWith string
	}{
		"standard input, named":      {[]string{"--token-file", "-"}, f.token, "", ""},
		"standard input":             {nil, f.token, "", ""},
		"the environment":            {nil, "", f.token, ""},
		"nowhere":                    {nil, "", "", "no token"},
		"a file that is not there":   {[]string{"--token-file", filepath.Join(t.TempDir(), "none")}, f.token, f.token, "none"},
		"an argument":                {[]string{f.token}, "", "", "unknown command"},
		"something that is no token": {nil, "secret-of-mine", "", "does not begin"},
		"half of a token":            {nil, f.token[:len(f.token)/2], "", "damaged"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(tokenVariable, c.env)
			file, _ := configure(t, "")
			out, err := saidTo(t, c.stdin, append([]string{"enrol", "-c", file}, c.args...)...)
			if c.refusedWith == "" && err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			if c.refusedWith != "" && (err == nil || !strings.Contains(err.Error(), c.refusedWith)) {
				t.Errorf("says %v, want %q", err, c.refusedWith)
			}
			if err != nil && len(c.args) != 1 && strings.Contains(err.Error(), "secret-of-mine") {
				t.Errorf("tells the secret: %v", err)
			}
			if os.Getenv(tokenVariable) != "" {
				t.Error("programs would inherit the token")
			}
		})
	}
}

func TestATokenThatIsNotNeededIsTakenOutOfTheEnvironmentToo(t *testing.T) {
	f := newFleet(t)
	file, _ := configure(t, "")
	for range 2 {
		t.Setenv(tokenVariable, f.token)
		if out, err := said(t, "enrol", "-c", file); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if os.Getenv(tokenVariable) != "" {
			t.Error("programs would inherit the token")
		}
	}
}

func TestAMachineThatWaitsForApprovalExitsWithoutAnError(t *testing.T) {
	f := newFleet(t)
	file, _ := configure(t, "")
	f.refuse(events.RefusedPending)
	for range 2 {
		out, err := saidTo(t, f.token, "enrol", "-c", file)
		if err != nil || !strings.Contains(out, "waits for approval (chandler agent approve a") {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	out, err := said(t, "doctor", "-c", file)
	if err == nil || !strings.Contains(out, "waits for approval") {
		t.Errorf("%v\n%s", err, out)
	}
	f.refuse("")
	if out, err := said(t, "enrol", "-c", file); err != nil || !strings.Contains(out, "of fleet test, enrolled") {
		t.Errorf("%v\n%s", err, out)
	}
	if got := f.verbs(); !slices.Equal(got, []string{"enrol", "return", "return"}) {
		t.Errorf("asked %v", got)
	}
}

func TestARefusedMachineMayEnrolAgainByANewToken(t *testing.T) {
	f := newFleet(t)
	file, _ := configure(t, "")
	if out, err := saidTo(t, f.token, "enrol", "-c", file); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	f.refuse(events.RefusedUnknown) // the service has lost what it knew
	if out, err := said(t, "enrol", "-c", file); err == nil || !strings.Contains(err.Error(), "agent_unknown") {
		t.Errorf("%v\n%s", err, out)
	}
	f.answer = func(a *events.EnrolAnswer) {
		if len(f.asked) > 0 && <-f.asked == "return" {
			*a = events.EnrolAnswer{Nonce: a.Nonce, Refused: events.RefusedUnknown}
		}
	}
	f.verbs()
	if out, err := saidTo(t, f.token, "enrol", "-c", file); err != nil || !strings.Contains(out, "enrolled again") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestABrokerThatIsAwayIsNoReasonToFailWhereThereIsAnIdentity(t *testing.T) {
	f := newFleet(t)
	file, state := configure(t, "")
	if out, err := saidTo(t, f.token, "enrol", "-c", file); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := os.Remove(filepath.Join(state, "agent.jwt")); err != nil {
		t.Fatal(err)
	}
	f.broker.Stop()
	if out, err := saidTo(t, f.token, "enrol", "-c", file); err != nil || !strings.Contains(out, "enrolled before") {
		t.Errorf("%v\n%s", err, out)
	}
	other, _ := configure(t, "")
	if out, err := saidTo(t, f.token, "enrol", "-c", other); err == nil {
		t.Errorf("a machine without an identity says it is well: %s", out)
	}
}

func TestAnewMakesAnotherAgent(t *testing.T) {
	f := newFleet(t)
	file, state := configure(t, "")
	if out, err := saidTo(t, f.token, "enrol", "-c", file); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	before := keep(t, state)
	if out, err := said(t, "enrol", "--anew", "-c", file); err == nil || !same(before, keep(t, state)) {
		t.Fatalf("without a token the identity is gone, or: %v\n%s", err, out)
	}
	if out, err := saidTo(t, f.token, "enrol", "--anew", "-c", file); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if keep(t, state)["agent.key"] == before["agent.key"] {
		t.Error("the key is the same")
	}
}

func TestRunSaysWhatToDoWithoutAnIdentity(t *testing.T) {
	file, _ := configure(t, "")
	if _, err := said(t, "run", "-c", file, "--metrics", "127.0.0.1:0"); err == nil || !strings.Contains(err.Error(), "chandler-agent enrol") || !strings.Contains(err.Error(), "token create") {
		t.Errorf("says %v", err)
	}
}

func TestDoctorNamesClearTextBeyondThisMachine(t *testing.T) {
	for server, bad := range map[string]bool{
		"nats://broker.example:4222": true, "ws://192.0.2.1:80": true, "nats://10.0.0.1": true,
		"nats://127.0.0.1:4222": false, "nats://localhost:4222": false, "nats://[::1]:4222": false, "tls://broker.example": false, "wss://broker.example": false,
	} {
		if err := clearText(server, false); (err != nil) != bad {
			t.Errorf("%s: %v", server, err)
		}
		if err := clearText(server, true); err != nil {
			t.Errorf("%s with a pinned CA: %v", server, err)
		}
	}
}

func TestDoctorNamesMetricsThatOthersMayRead(t *testing.T) {
	for listen, bad := range map[string]bool{"0.0.0.0:9651": true, ":9651": true, "192.0.2.1:9651": true, "nothing": true, "127.0.0.1:9651": false, "[::1]:9651": false, "localhost:0": false} {
		if err := openMetrics(listen); (err != nil) != bad {
			t.Errorf("%s: %v", listen, err)
		}
	}
}

func TestDoctorBelievesARunningAgentThatItIsRefused(t *testing.T) {
	status := agent.Status{ID: "a1", PID: os.Getpid(), Identity: &enrol.State{Agent: "a1", Phase: enrol.Refused, Refused: events.RefusedRevoked, Why: "for good"}}
	data, err := json.Marshal(status)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "status.json"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	held := enrol.State{Agent: "a1", Phase: enrol.Enrolled}      // what the identity on the disk says until it expires
	store, err := journal.Open(filepath.Join(dir, "journal.db")) // as a running agent does
	if err != nil {
		t.Fatal(err)
	}
	if err := identityFault(config{StateDir: dir}, held); err == nil || !strings.Contains(err.Error(), "revoked") {
		t.Errorf("while it runs doctor says %v", err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	if err := identityFault(config{StateDir: dir}, held); err != nil {
		t.Errorf("what it said before it ended is told of an identity that was replaced: %v", err)
	}
}

func TestDoctorSaysThatAnIdentityHasExpiredOrIsRefused(t *testing.T) {
	for phase, says := range map[enrol.Phase]string{enrol.NotEnrolled: "token create", enrol.Pending: "agent approve", enrol.Expired: "expired", enrol.Refused: "revoked"} {
		err := identityFault(config{StateDir: t.TempDir()}, enrol.State{Agent: "a1", Phase: phase, Refused: events.RefusedRevoked})
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", phase, err)
		}
	}
}
