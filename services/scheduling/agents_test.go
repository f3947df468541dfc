package scheduling

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/eventstest"
)

// news tells what became of an agent's identity.
func (s *story) news(kind events.Type[events.EnrolmentNotice], agent string) {
	s.t.Helper()
	publish(s, events.ServiceSource("credentials"), kind, agent, events.EnrolmentNotice{Agent: agent, Key: "U", Hostname: "host-" + agent, By: "ada", At: time.Now()})
}

func TestAnAgentThatIsPutAwayLeavesTheFleetUntilItIsLetBackAndReports(t *testing.T) {
	for _, gone := range []events.Type[events.EnrolmentNotice]{events.AgentArchived, events.AgentRevoked} {
		t.Run(gone.Name, func(t *testing.T) {
			s := newStory(t)
			r := s.running()
			s.report(facts("agent001"), facts("agent002"))
			s.published()
			must(s, events.CollectionSet, linuxMachines())
			s.knows(r, 2)
			s.deploy()
			s.released(1, nil)
			s.news(gone, "agent001")
			s.knows(r, 1)
			if got := must(s, events.AgentList, events.AgentQuery{}).Agents; len(got) != 1 || got[0].Facts.ID != "agent002" {
				t.Errorf("listed: %+v", got)
			}
			if v := must(s, events.CollectionShow, events.Named{Name: "linux"}); !cmp.Equal(v.Members, []string{"agent002"}) {
				t.Errorf("members: %v", v.Members)
			}
			s.eventually("it is no member any more", func() bool { return must(s, events.DeploymentShow, events.Named{Name: "hello"}).Members == 1 })
			if _, err := ask(s, events.Why, events.WhyRequest{Agent: "agent001"}); !errors.Is(err, bus.ErrNotFound) {
				t.Errorf("why: %v", err)
			}
			next := s.running() // what was learnt is kept
			s.knows(next, 1)

			s.news(events.AgentApproved, "agent001")
			s.report(facts("agent003"))
			s.knows(r, 2) // approved and silent is not there yet
			s.report(facts("agent001"))
			s.knows(r, 3)
			s.eventually("it is a member again", func() bool { return must(s, events.DeploymentShow, events.Named{Name: "hello"}).Members == 3 })
		})
	}
}

func TestWhetherAnAgentIsThereFollowsFromTheTimesOfTheBroker(t *testing.T) {
	at := func(n int) time.Time {
		if n == 0 {
			return time.Time{}
		}
		return time.Date(2026, 12, 1, 8, n, 0, 0, time.UTC)
	}
	for name, c := range map[string]struct {
		reported, gone, approved int
		want                     bool
	}{
		"never heard of":                                    {},
		"reported":                                          {reported: 1, want: true},
		"approved, and did not report yet":                  {approved: 1},
		"approved, and reported then":                       {approved: 1, reported: 2, want: true},
		"archived, and never reported":                      {gone: 1},
		"archived after it reported":                        {reported: 1, gone: 2},
		"a report of before that comes late":                {reported: 1, gone: 2},
		"archived, and reports without approval":            {gone: 1, reported: 2},
		"archived, approved, and did not report since":      {reported: 1, gone: 2, approved: 3},
		"archived, approved, and reported then":             {gone: 1, approved: 2, reported: 3, want: true},
		"archived, reported, and approved then":             {gone: 1, reported: 2, approved: 3, want: true},
		"approved for the first time, and archived then":    {approved: 1, reported: 2, gone: 3},
		"archived again after it came back":                 {approved: 2, reported: 3, gone: 4},
		"archived again, and reports without approval":      {approved: 2, gone: 4, reported: 5},
		"archived again, approved, and reports once more":   {gone: 4, approved: 5, reported: 6, want: true},
		"archived in the moment in which its report stored": {reported: 1, gone: 1},
	} {
		t.Run(name, func(t *testing.T) {
			r := agentRecord{Stored: at(c.reported), Gone: at(c.gone), Approved: at(c.approved)}
			if r.there() != c.want {
				t.Errorf("there: %v", !c.want)
			}
		})
	}
}

func TestNewsOfAnAgentInAnyOrderComeToTheSame(t *testing.T) {
	s := newStory(t)
	r := s.running()
	meta := func(minute int) bus.Meta {
		return bus.Meta{Stored: time.Date(2026, 12, 1, 8, minute, 0, 0, time.UTC)}
	}
	about := func(agent string) events.Event[events.EnrolmentNotice] {
		return events.Event[events.EnrolmentNotice]{Subject: agent, Data: events.EnrolmentNotice{Agent: agent}}
	}
	steps := map[string]func(agent string) error{
		"report": func(agent string) error {
			return r.onReported(t.Context(), events.Event[events.AgentReport]{Subject: agent, Data: events.AgentReport{Facts: facts(agent)}}, meta(1))
		},
		"archive": func(agent string) error { return r.onGone(t.Context(), about(agent), meta(2)) },
		"approve": func(agent string) error { return r.onApproved(t.Context(), about(agent), meta(3)) },
	}
	for agent, order := range map[string][]string{
		"agent001": {"report", "archive", "approve"}, "agent002": {"report", "approve", "archive"}, "agent003": {"archive", "report", "approve"},
		"agent004": {"archive", "approve", "report"}, "agent005": {"approve", "report", "archive"}, "agent006": {"approve", "archive", "report"},
	} {
		for _, step := range append(order, order...) { // each comes twice
			if err := steps[step](agent); err != nil {
				t.Fatal(err)
			}
		}
		if _, there := r.fleet.get(agent); there {
			t.Errorf("%s is there after %v: its report is older than its archiving", agent, order)
		}
		if err := r.onReported(t.Context(), events.Event[events.AgentReport]{Subject: agent, Data: events.AgentReport{Facts: facts(agent)}}, meta(4)); err != nil {
			t.Fatal(err)
		}
		if _, there := r.fleet.get(agent); !there {
			t.Errorf("%s is not back after %v", agent, order)
		}
	}
	if err := r.onGone(t.Context(), events.Event[events.EnrolmentNotice]{Subject: "agent001", Data: events.EnrolmentNotice{Agent: "agent002"}}, meta(5)); err == nil {
		t.Error("news about another agent than the subject's were taken")
	}
}

func TestAgentsAreFoundByEveryFact(t *testing.T) {
	s := newStory(t)
	r := s.running()
	s.report(facts("agent001", func(f *events.Facts) { f.Trust = 3 }), facts("agent002"))
	s.knows(r, 2)
	for where, want := range map[string][]string{`agent.trust < 4`: {"agent001", "agent002"}, `agent.trust < 3`: {"agent002"}, `agent.trust == 3`: {"agent001"}} {
		got := []string{}
		for _, a := range must(s, events.AgentList, events.AgentQuery{Where: where}).Agents {
			got = append(got, a.Facts.ID)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", where, diff)
		}
	}
}

func TestTheAuditSaysWhatRequestsChanged(t *testing.T) {
	s := newStory(t)
	r := s.running()
	s.published()
	must(s, events.CollectionSet, linuxMachines())
	s.trusts(bundle(1), r)
	s.draft(s.order(), "ada")
	if _, err := s.addSignature(s.order(), "bob"); err == nil {
		t.Error("the draft of another time was signed")
	}
	must(s, events.DeploymentRemove, events.Named{Name: "hello"})
	o := s.order()
	must(s, events.DeploymentCreate, events.DeploymentRequest{Envelope: s.signed(o, "ada", "bob")})
	must(s, events.DeploymentPause, events.Named{Name: "hello"})
	must(s, events.DeploymentPause, events.Named{Name: "hello"})
	type digests struct{ Verb, Result, Before, After string }
	var got []digests
	names := map[string]string{"": ""}
	name := func(digest string) string {
		if _, known := names[digest]; !known {
			names[digest] = "state " + string(rune('a'+len(names)-1))
		}
		return names[digest]
	}
	for _, e := range eventstest.ExpectExactly(t, s.admin, events.AuditRecorded, nil, 7) {
		got = append(got, digests{e.Data.Verb, e.Data.Result, name(e.Data.Before), name(e.Data.After)})
	}
	want := []digests{
		{"collection_set", "ok", "", "state a"},
		{"deployment_create", "ok", "", "state b"}, // the draft
		{"deployment_sign", bus.CodeConflict, "", ""},
		{"deployment_remove", "ok", "state b", ""}, // the draft
		{"deployment_create", "ok", "", "state c"},
		{"deployment_pause", "ok", "state c", "state d"},
		{"deployment_pause", "ok", "state d", "state d"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
