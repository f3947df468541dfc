package scheduling

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/eventstest"
)

func TestTwinsAreRunsThatAreHeardInTurns(t *testing.T) {
	type beat struct {
		instance string
		minute   float64
	}
	for name, c := range map[string]struct {
		beats []beat
		want  []string // other@minute of what was found
	}{
		"one agent alone":                               {[]beat{{"a", 0}, {"a", 2}, {"a", 4}}, nil},
		"a restart":                                     {[]beat{{"a", 0}, {"b", 1}, {"b", 3}, {"b", 5}, {"b", 7}, {"b", 9}}, nil},
		"many restarts in a row":                        {[]beat{{"a", 0}, {"b", 1}, {"c", 2}, {"d", 3}, {"e", 4}, {"f", 5}, {"g", 6}, {"g", 8}}, nil},
		"a copy":                                        {[]beat{{"a", 0}, {"b", 1}, {"a", 2}, {"b", 3}, {"a", 4}}, []string{"b@2", "b@4"}},
		"a copy, and one heartbeat is lost":             {[]beat{{"a", 0}, {"b", 1}, {"b", 3}, {"a", 4}}, []string{"b@4"}},
		"a copy that starts much later":                 {[]beat{{"a", 0}, {"a", 60}, {"b", 61}, {"a", 62}}, []string{"b@62"}},
		"a copy of an agent that restarts meanwhile":    {[]beat{{"a", 0}, {"b", 1}, {"c", 2}, {"b", 3}, {"c", 4}, {"b", 5}, {"c", 6}, {"b", 7}, {"c", 8}, {"b", 9}, {"c", 10}}, []string{"b@8", "b@10"}},
		"three copies, of which no two speak in turns":  {[]beat{{"a", 0}, {"b", 0.5}, {"c", 1}, {"a", 2}, {"b", 2.5}, {"c", 3}}, []string{"c@2"}},
		"a machine that slept while another one ran":    {[]beat{{"a", 0}, {"b", 1}, {"a", 30}, {"a", 32}}, nil},
		"one that woke while the other is still there":  {[]beat{{"a", 0}, {"b", 1}, {"a", 30}, {"b", 31}, {"a", 32}}, []string{"b@32"}},
		"copies that end are not found again":           {[]beat{{"a", 0}, {"b", 1}, {"a", 2}, {"a", 4}, {"a", 6}}, []string{"b@2"}},
		"a clock that goes back does not hide the copy": {[]beat{{"a", 60}, {"b", 61}, {"a", 2}}, []string{"b@2"}},
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Date(2026, 12, 1, 8, 0, 0, 0, time.UTC)
			var w watch
			var got []string
			for _, b := range c.beats {
				var twin string
				if w, twin = w.hear(b.instance, start.Add(time.Duration(b.minute*float64(time.Minute)))); twin != "" {
					got = append(got, fmt.Sprintf("%s@%v", twin, b.minute))
				}
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestWhatIsNoInstanceIsNotRemembered(t *testing.T) {
	var r runs
	at := time.Date(2026, 12, 1, 8, 0, 0, 0, time.UTC)
	for _, instance := range []string{"", "short", "aaaaaaaaaaaaaaaaa", "AAAAAAAAAAAAAAAA"} {
		if other, tell := r.hear(instance, at); other != "" || tell || r.watch != (watch{}) {
			t.Errorf("%q is remembered: %+v", instance, r.watch)
		}
	}
}

const originalRun, copiedRun = "aaaaaaaaaaaaaaa1", "bbbbbbbbbbbbbbb2"

// beats sends a heartbeat and waits until each of the replicas has heard it.
func (s *story) beats(agent, instance string, replicas ...*Service) {
	s.t.Helper()
	now := s.clock.now()
	for _, r := range replicas { // a replica that has just started may not listen yet
		s.eventually("the heartbeat is heard", func() bool {
			if a, ok := r.fleet.get(agent); ok && a.heard.Load() >= now.UnixNano() {
				return true
			}
			id := events.DeriveID("beat", agent, instance, fmt.Sprint(s.clock.now().UnixNano()))
			if err := bus.Send(s.t.Context(), s.bus(events.AgentSource(agent)), events.Heartbeat, events.Event[events.HeartbeatNote]{ID: id, Subject: agent,
				Data: events.HeartbeatNote{Agent: agent, At: now, Instance: instance}}); err != nil {
				s.t.Fatal(err)
			}
			return false
		})
	}
}

func (s *story) shown(agent string) events.AgentView {
	s.t.Helper()
	return must(s, events.AgentList, events.AgentQuery{Name: agent}).Agents[0]
}

func TestTwoAgentsWithOneIdentityAreToldOnceAnHourByAllReplicas(t *testing.T) {
	s := newStory(t)
	s.clock.advance(time.Until(time.Now().Truncate(time.Hour).Add(time.Hour + time.Minute))) // the story stays within one hour of the clock
	one, two := s.running(), s.running()
	s.report(facts("agent001"), facts("agent002"))
	s.knows(one, 2)
	s.knows(two, 2)
	hear := func(agent string, instances ...string) {
		for _, i := range instances {
			s.clock.advance(time.Minute)
			s.beats(agent, i, one, two)
		}
	}
	hear("agent002", originalRun, copiedRun, copiedRun, copiedRun) // a restart
	hear("agent001", originalRun, copiedRun)
	if v := s.shown("agent001"); !v.Twins.IsZero() {
		t.Fatalf("twins at %s, after what may be a restart", v.Twins)
	}
	hear("agent001", originalRun, copiedRun, originalRun, copiedRun, originalRun)
	told := eventstest.ExpectExactly(t, s.admin, events.AgentTwins, nil, 1)[0]
	want := events.TwinsNotice{Agent: "agent001", Hostname: "host-agent001", Instances: []string{originalRun, copiedRun}, At: told.Data.At}
	if diff := cmp.Diff(want, told.Data); diff != "" || told.Subject != "agent001" {
		t.Errorf("told of %s: %s", told.Subject, diff)
	}
	for _, r := range []*Service{one, two} {
		if n := r.countTwins(); n != 1 {
			t.Errorf("%v agents are counted", n)
		}
	}
	if v := s.shown("agent001"); v.Twins.IsZero() || s.clock.now().Sub(v.Twins) > 3*time.Minute {
		t.Errorf("twins at %s", v.Twins)
	}
	if v := s.shown("agent002"); !v.Twins.IsZero() {
		t.Errorf("a restart is shown as twins of %s", v.Twins)
	}
	s.report(facts("agent001", windows)) // new facts do not make it forgotten
	s.eventually("the report is known", func() bool { return s.shown("agent001").Facts.OS == "windows" })
	if s.shown("agent001").Twins.IsZero() {
		t.Error("a report made the twins forgotten")
	}

	s.clock.advance(time.Hour)
	if n := one.countTwins(); n != 0 {
		t.Errorf("%v agents are counted an hour later", n)
	}
	hear("agent001", originalRun, copiedRun, originalRun, copiedRun, originalRun)
	eventstest.ExpectExactly(t, s.admin, events.AgentTwins, nil, 2)
}

func TestAReplicaThatStartsAfterTheTwinsWereToldDoesNotTellThemAgain(t *testing.T) {
	s := newStory(t)
	s.report(facts("agent001"))
	for range 2 { // the second one begins with nothing in memory
		r := s.replica()
		stop := s.run(r)
		s.knows(r, 1)
		for _, i := range []string{originalRun, copiedRun, originalRun} {
			s.clock.advance(time.Minute)
			s.beats("agent001", i, r)
		}
		a, _ := r.fleet.get("agent001")
		s.eventually("it is taken for told", func() bool { a.runs.mu.Lock(); defer a.runs.mu.Unlock(); return !a.runs.told.IsZero() })
		eventstest.ExpectExactly(t, s.admin, events.AgentTwins, nil, 1)
		stop()
	}
}

// logged hands on what is logged, a line at a time.
type logged chan string

func (l logged) Write(line []byte) (int, error) {
	l <- string(line)
	return len(line), nil
}

func TestTwinsThatCannotBeToldAreToldWhenTheyAreFoundAgain(t *testing.T) {
	s := newStory(t)
	lines := make(logged, 10)
	r := s.replica(func(o *Options) { o.Log = slog.New(slog.NewTextHandler(lines, nil)) })
	if err := s.admin.JetStream().DeleteStream(t.Context(), events.StreamEvents); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.tellTwins(ctx) }()
	found := &twins{runs: &runs{}, notice: events.TwinsNotice{Agent: "agent001", Instances: []string{originalRun, copiedRun}, At: s.clock.now()}}
	expect := func(part string) {
		t.Helper()
		select {
		case line := <-lines:
			if !strings.Contains(line, part) {
				t.Fatalf("logged %q, not that %s", line, part)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("never logged that %s", part)
		}
	}
	r.twinsFound <- found
	expect("cannot be told of")
	eventstest.Provision(t, s.admin)
	for range 2 { // the second one was told
		r.twinsFound <- found
	}
	expect("several agents run with one identity")
	eventstest.ExpectExactly(t, s.admin, events.AgentTwins, nil, 1)
	cancel()
	if err := <-ended; err != nil || len(lines) > 0 {
		t.Errorf("ended with %v, %d more lines", err, len(lines))
	}
}

func TestTheGaugeOfTwinsIsRegistered(t *testing.T) {
	s := newStory(t)
	registry := prometheus.NewRegistry()
	s.replica(func(o *Options) { o.Registerer = registry })
	if n, err := testutil.GatherAndCount(registry, "chandler_scheduling_twins"); err != nil || n != 1 {
		t.Errorf("%d series, %v", n, err)
	}
}
