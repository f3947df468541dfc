package scheduling

import (
	"strings"
	"testing"
	"time"

	"chandler/events"
	"chandler/events/bus"
)

func TestHoursOfTheWeekInWhichAnAgentWasHeard(t *testing.T) {
	monday := time.Date(2026, 11, 30, 0, 30, 0, 0, time.UTC)
	zeros := strings.Repeat("0", 42)
	for name, c := range map[string]struct {
		heard []time.Time
		at    time.Time
		want  string
	}{
		"never":                              {at: monday, want: ""},
		"the first hour of the week":         {[]time.Time{monday}, monday, "8" + zeros[1:]},
		"the last one":                       {[]time.Time{monday.Add(-time.Hour)}, monday, zeros[1:] + "1"},
		"in another zone":                    {[]time.Time{monday.In(time.FixedZone("", 7*3600))}, monday, "8" + zeros[1:]},
		"weeks ago, in the spell before":     {[]time.Time{monday}, monday.Add(presenceSpell), "8" + zeros[1:]},
		"long ago":                           {[]time.Time{monday}, monday.Add(2 * presenceSpell), ""},
		"then and now":                       {[]time.Time{monday, monday.Add(presenceSpell + 2*time.Hour)}, monday.Add(presenceSpell + 2*time.Hour), "a" + zeros[1:]},
		"by a clock that was put back since": {[]time.Time{monday.Add(presenceSpell), monday}, monday.Add(presenceSpell), "8" + zeros[1:]},
	} {
		t.Run(name, func(t *testing.T) {
			var a attendance
			for _, at := range c.heard {
				a.hear(at)
			}
			if got := a.digits(c.at); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

func TestPresenceIsSharedAndOutlivesReplicas(t *testing.T) {
	s := newStory(t)
	one := s.replica()
	stop := s.run(one)
	s.report(facts("agent001"))
	s.knows(one, 1)
	s.clock.advance(5 * 24 * time.Hour)
	heard := s.clock.now()
	agent := s.bus(events.AgentSource("agent001"))
	if err := bus.Send(t.Context(), agent, events.Heartbeat, events.Event[events.HeartbeatNote]{ID: "beat", Subject: "agent001", Data: events.HeartbeatNote{Agent: "agent001", At: heard}}); err != nil {
		t.Fatal(err)
	}
	view := func() events.AgentView {
		return must(s, events.AgentList, events.AgentQuery{Name: "agent001"}).Agents[0]
	}
	s.eventually("it is known when it was heard", func() bool { return view().Presence != "" })
	before := view().Presence
	for range 2 { // again: nothing is new
		if err := one.storePresence(t.Context(), presenceShard("agent001")); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	two := s.running()
	s.knows(two, 1)
	if got := view(); got.Presence != before || got.LastSeen.Before(heard.Add(-time.Hour)) {
		t.Errorf("after a restart: %q, last seen %s; want %q, about %s", got.Presence, got.LastSeen, before, heard)
	}
}
