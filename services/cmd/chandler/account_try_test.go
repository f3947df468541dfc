package main

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"chandler/events"
)

func TestATestOfAnAccountSaysWhatItMeets(t *testing.T) {
	f := newFakeFleet(t)
	f.set(func() {
		f.agents = []events.AgentView{agentNamed(testAgent, "ws-1", "oslo")}
		f.agents[0].LastSeen = testNow.Add(-3 * time.Hour)
		f.answer = events.Access{Reason: events.SourceNotFound, When: events.AccessContent}
	})
	code, stdout, stderr := command(t, f.app, "", "account", "test", "corp-reader", "--resource", "smb://files/apps", "--agent", "ws-1", "--again")
	if code != 1 || !strings.Contains(stderr, "WARNING: ws-1 (agent0001) is offline since 2026-12-01 06:00:00 CET: it answers only if it comes back within") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	if !strings.Contains(stdout, "advice: check the path") || strings.Contains(stdout, "publish") {
		t.Errorf("got %s", stdout)
	}
	f.set(func() {
		if len(f.tests) != 1 || !f.tests[0].Again {
			t.Errorf("asked: %+v", f.tests)
		}
	})
}

func TestALongWaitIsToldOfOnATerminal(t *testing.T) {
	for _, c := range []struct {
		name     string
		terminal bool
		takes    time.Duration
		told     bool
	}{
		{"long", true, 2 * waitTold, true}, {"short", true, waitTold / 2, false}, {"long, and no terminal", false, 2 * waitTold, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := testApp(nil)
				a.isTerminal = func(any) bool { return c.terminal }
				var out bytes.Buffer
				stop := a.tellWait(&out, waitTold, "waiting for ws-1")
				time.Sleep(c.takes) // of the bubble's clock
				stop()
				if (out.String() == "waiting for ws-1\n") != c.told {
					t.Errorf("told %q", out.String())
				}
			})
		})
	}
}
