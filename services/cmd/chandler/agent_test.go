package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

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

func identityOf(id, host string, state events.EnrolmentState) events.EnrolmentView {
	return events.EnrolmentView{EnrolmentNotice: events.EnrolmentNotice{Agent: id, Hostname: host}, State: state}
}

func TestAHostNameMeansTheMachineThatIsInTheFleet(t *testing.T) {
	f := newFakeFleet(t)
	f.set(func() {
		f.agents = []events.AgentView{agentNamed("agent0001", "ws-1", "oslo"), agentNamed("agent0002", "ws-1", "oslo")}
	})
	where, err := f.app.current()
	if err != nil {
		t.Fatal(err)
	}
	c, err := dial(where, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.bus.Conn().Close()
	for name, s := range map[string]struct {
		asked, found string // found "": neither
		states       []events.EnrolmentState
	}{
		"the other one is revoked":         {"ws-1", "agent0002", []events.EnrolmentState{events.EnrolmentRevoked, events.EnrolmentActive}},
		"the other one is archived":        {"ws-1", "agent0001", []events.EnrolmentState{events.EnrolmentLapsed, events.EnrolmentArchived}},
		"both are in it":                   {"ws-1", "", []events.EnrolmentState{events.EnrolmentActive, events.EnrolmentActive}},
		"neither is":                       {"ws-1", "", []events.EnrolmentState{events.EnrolmentRevoked, events.EnrolmentRevoked}},
		"a revoked one is named by its id": {"agent0001", "agent0001", []events.EnrolmentState{events.EnrolmentRevoked, events.EnrolmentActive}},
	} {
		t.Run(name, func(t *testing.T) {
			identities := []events.EnrolmentView{identityOf("agent0001", "ws-1", s.states[0]), identityOf("agent0002", "ws-1", s.states[1])}
			f.set(func() { f.enrolments = identities })
			agent, err := resolveAgent(t.Context(), c, s.asked)
			if agent.Facts.ID != s.found || (err == nil) != (s.found != "") {
				t.Errorf("an agent: %q, %v", agent.Facts.ID, err)
			}
			identity, err := resolveEnrolments(t.Context(), c, []string{s.asked})
			if (err == nil) != (s.found != "") || err == nil && identity[0].Agent != s.found {
				t.Errorf("an identity: %v, %v", identity, err)
			}
		})
	}
}

func TestARefusedChangeOfAgentsSaysNothingButTheRefusal(t *testing.T) {
	refused := errors.New("your role, viewer, may not")
	for name, c := range map[string]struct {
		answer events.AgentsAnswer
		err    error
		says   string
	}{
		"refused":                 {events.AgentsAnswer{}, refused, ""},
		"there was none":          {events.AgentsAnswer{}, nil, "none\n"},
		"refused after some":      {events.AgentsAnswer{Changed: []events.EnrolmentView{identityOf("agent0001", "ws-1", events.EnrolmentActive)}}, refused, "ws-1 (agent0001) is approved\n"},
		"there was nothing to do": {events.AgentsAnswer{Unchanged: []string{"agent0001"}}, nil, "no change was needed for: agent0001\n"},
	} {
		t.Run(name, func(t *testing.T) {
			var said strings.Builder
			cmd := &cobra.Command{}
			cmd.SetOut(&said)
			cmd.SetErr(&said)
			if err := testApp(nil).tellOutcome(cmd, c.answer, became("is approved"), c.err); !errors.Is(err, c.err) || said.String() != c.says {
				t.Errorf("got %v, and it says %q", err, said.String())
			}
		})
	}
	if _, err := changeAgents([]string{"agent0001"}, func([]string) (events.AgentsAnswer, error) { return events.AgentsAnswer{}, refused }); err != refused {
		t.Errorf("got %v", err)
	}
}

func TestAChangeOfKindIsSaidAsWhatWillBe(t *testing.T) {
	a := testApp(nil)
	for name, c := range map[string]struct {
		said    events.Conferred
		expires time.Time
		want    string
	}{
		"legacy":                     {events.Conferred{ClientKind: events.Legacy, Site: "oslo"}, testNow.Add(2 * time.Hour), "will be legacy from its next identity on, by 2026-12-01 11:00:00 CET"},
		"a domain controller":        {events.Conferred{ClientKind: events.Legacy, DomainController: true}, testNow.Add(time.Hour), "will be legacy, domain controller from its next identity on, by 2026-12-01 10:00:00 CET"},
		"its identity ended already": {events.Conferred{ClientKind: events.Advanced}, testNow.Add(-time.Hour), "will be advanced from its next identity on"},
		"its identity never ends":    {events.Conferred{ClientKind: events.Advanced}, time.Time{}, "will be advanced from its next identity on"},
	} {
		e := identityOf("agent0001", "ws-1", events.EnrolmentActive)
		e.Conferred, e.Expires = c.said, c.expires
		if got := a.willBe(e); got != c.want {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}

func TestAnAgentThatRunsTwiceIsShownWithWhatToDo(t *testing.T) {
	a := testApp(nil)
	for name, c := range map[string]struct {
		twins time.Time
		seen  string
		says  []string // nil: nothing
	}{
		"it never did":       {time.Time{}, "now", nil},
		"it does":            {testNow.Add(-3 * time.Minute), "now, twice!", []string{"now", "chandler agent revoke agent0001", "chandler-agent enrol --anew"}},
		"it did an hour ago": {testNow.Add(-time.Hour), "now", []string{"ran with this identity until", "1h ago"}},
	} {
		t.Run(name, func(t *testing.T) {
			v := agentNamed("agent0001", "ws-1", "oslo")
			v.Twins = c.twins
			if got := a.seenCell(v).text; got != c.seen {
				t.Errorf("seen %q, not %q", got, c.seen)
			}
			said := a.twinsText(v)
			if (said == "") != (c.says == nil) {
				t.Errorf("it says %q", said)
			}
			for _, part := range c.says {
				if !strings.Contains(said, part) {
					t.Errorf("%q does not say %q", said, part)
				}
			}
		})
	}
}
