package main

import (
	"strings"
	"testing"

	"chandler/events"
)

func agentNamed(id, host, site string) events.AgentView {
	return events.AgentView{Facts: events.Facts{ID: id, Hostname: host, Site: site}, LastSeen: testNow}
}

func TestAnAgentIsFoundByIdOrByAHostNameOfItsOwn(t *testing.T) {
	one, two := agentNamed("agent0001", "ws-1", "oslo"), agentNamed("agent0002", "ws-1", "bergen")
	if got, err := pickAgent("ws-1", []events.AgentView{one}); err != nil || got.Facts.ID != "agent0001" {
		t.Fatalf("got %v, %v", got, err)
	}
	if got, err := pickAgent("agent0002", []events.AgentView{one, two}); err != nil || got.Facts.ID != "agent0002" {
		t.Fatalf("an id should beat host names: %v, %v", got, err)
	}
	_, err := pickAgent("ws-1", []events.AgentView{one, two})
	if err == nil {
		t.Fatal("one of two machines was guessed")
	}
	for _, part := range []string{"agent0001", "agent0002", "oslo", "bergen", "by its id"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not name %s", err, part)
		}
	}
	if _, err := pickAgent("ws-9", nil); err == nil || !strings.Contains(err.Error(), "chandler agent ls") {
		t.Fatalf("got %v", err)
	}
}
