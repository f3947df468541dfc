package rehearsal

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"chandler/events"
	"chandler/events/calendar"
	"chandler/events/order"
	"chandler/events/timing"
)

// drawn is any rollout of a small fleet: machines that are there at times, or never, windows, limits, failures.
func drawn(t *rapid.T) Input {
	in := everybody(rapid.IntRange(1, 60).Draw(t, "machines"))
	zones := []string{"UTC", "Europe/Oslo", "Asia/Tokyo", "America/Los_Angeles", "nowhere"}
	for i := range in.Fleet {
		m := &in.Fleet[i]
		m.Facts.Site = fmt.Sprintf("site-%d", rapid.IntRange(0, 2).Draw(t, "site"))
		m.Facts.Zone = rapid.SampledFrom(zones).Draw(t, "zone")
		m.Facts.OS = rapid.SampledFrom([]string{"linux", "linux", "windows"}).Draw(t, "os")
		m.Last = timing.Last(rapid.IntRange(0, 2).Draw(t, "last"))
		m.LastSeen = t0.AddDate(0, 0, -rapid.IntRange(0, 20).Draw(t, "days"))
		for range rapid.IntRange(0, 20).Draw(t, "hours") {
			hour := rapid.IntRange(0, hoursOfWeek-1).Draw(t, "hour")
			m.Presence[hour/8] |= 0x80 >> (hour % 8)
		}
	}
	in.Order.Assignments = rapid.SampledFrom([][]order.Assignment{{{ASAP: true}}, {{At: moment(at(20, 0))}}, {{Cron: "30 2 * * *"}}, {{ASAP: true}, {Logon: true}, {At: moment(at(30, 0))}}, nil}).Draw(t, "assignments")
	in.Order.Rerun = rapid.SampledFrom([]order.Rerun{order.RerunNever, order.RerunAlways, order.RerunIfFailed, order.RerunIfSucceeded}).Draw(t, "rerun")
	in.Order.Grace = events.Duration(rapid.IntRange(0, 3).Draw(t, "grace")) * events.Duration(time.Hour)
	in.Order.Jitter = events.Duration(rapid.IntRange(0, 3).Draw(t, "jitter")) * events.Duration(time.Hour)
	if rapid.Bool().Draw(t, "windows") {
		in.Order.Windows = []order.Windows{
			{Collection: "first", Expression: `agent.site == "site-0"`, Windows: []calendar.Window{{Daily: 1, At: "02:00", For: calendar.Duration(4 * time.Hour), Zone: "agent"}}},
			{Collection: "both", Expression: `agent.site != "site-2"`, Windows: []calendar.Window{{Weekly: []string{"sat"}, At: "10:00", For: calendar.Duration(3 * time.Hour)}}},
		}
	}
	in.Limits = events.Limits{MaxInFlight: rapid.IntRange(0, 9).Draw(t, "fleet"), MaxInFlightPerSite: rapid.IntRange(0, 4).Draw(t, "per site")}
	in.Plan.MaxInFlight = rapid.IntRange(0, 9).Draw(t, "in flight")
	if rapid.Bool().Draw(t, "phased") {
		in.Plan.Phases = []events.Phase{
			{Name: "first", Percent: 20, MaxInFlight: rapid.IntRange(0, 3).Draw(t, "of the phase"), AdvanceWhen: &events.Advance{Succeeded: &events.Limit{Percent: 50}, For: events.Duration(time.Hour)},
				HaltWhen: &events.Halt{Failed: &events.Limit{Percent: 60}, Silent: &events.Silence{Share: events.Limit{Percent: 60}, After: events.Duration(time.Hour)}}},
			{Name: "rest", Percent: 100},
		}
	}
	if rapid.Bool().Draw(t, "resume") {
		in.People.Resume = new(time.Hour)
	}
	in.Outcome = Model{Seed: rapid.Uint64().Draw(t, "seed"), Failed: 0.3, Silent: 0.1, Reasons: map[events.Reason]int64{events.ExitCode: 2, events.SourceUnreachable: 1},
		Seconds: []float64{1, 600, 7000}}.Outcome
	in.Until = t0.AddDate(0, 0, 14)
	return in
}

func TestWhateverIsPlayed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := drawn(t)
		line, err := Run(in)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Run(in)
		if diff := cmp.Diff(line, again); err != nil || diff != "" {
			t.Fatalf("played twice it differs: %v %s", err, diff)
		}
		sum := 0
		for _, n := range line.Totals {
			sum += n
		}
		if sum != len(line.Agents) || sum+line.Outside != len(in.Fleet) {
			t.Fatalf("%d machines: %d in totals, %d outside", len(in.Fleet), sum, line.Outside)
		}
		if most := least(in.Plan.MaxInFlight, in.Limits.MaxInFlight); most > 0 && line.Most > most {
			t.Fatalf("%d in flight after a release, at most %d", line.Most, most)
		}
		byID := map[string]Machine{}
		for _, m := range in.Fleet {
			byID[m.Facts.ID] = m
		}
		idle := 0
		for _, a := range line.Agents {
			checkAgent(t, in, byID[a.Agent], a)
			if a.Runs == 0 {
				idle++
			}
		}
		for _, n := range line.Never {
			idle -= n.Agents
		}
		if idle != 0 {
			t.Fatalf("of those on which nothing ran %d are not told of, or told of twice", idle)
		}
	})
}

// checkAgent holds one machine's story against what it may do.
func checkAgent(t *rapid.T, in Input, m Machine, a AgentStory) {
	if (a.Runs == 0) != (a.Never != "") || (a.State == NotReleased) != a.Offered.IsZero() || a.State.Terminal() == a.Ended.IsZero() {
		t.Fatalf("it contradicts itself: %+v", a)
	}
	if a.Started.IsZero() {
		return
	}
	if !m.there(in.Start, a.Started).Equal(a.Started) {
		t.Fatalf("it starts while it is off: %+v", a)
	}
	zone, err := time.LoadLocation(m.Facts.Zone)
	if err != nil {
		zone = time.UTC
	}
	who := timing.Machine{ID: m.Facts.ID, Zone: zone}
	windows, held, faults := timing.WindowsOf(in.Order, m.Facts)
	if len(faults) > 0 || !timing.Fits(windows, held, who, a.Started, in.Program.RunTime()).Open {
		t.Fatalf("it starts outside of its windows: %+v", a)
	}
	if !a.Started.Before(timing.Ends(in.Order, who)) {
		t.Fatalf("it starts after the end: %+v", a)
	}
}

func TestLimitsPerSiteAndPhaseAreKept(t *testing.T) {
	in := everybody(40)
	in.Plan = events.Plan{MaxInFlightPerSite: 3, Phases: []events.Phase{{Name: "all", Percent: 100, MaxInFlight: 5}}}
	in.Outcome = func(agent string, _ int) Result {
		return Result{Took: time.Duration(len(agent)+int(agent[9]-'0')) * time.Minute}
	}
	line := played(t, in)
	for _, a := range line.Agents {
		flying := map[string]int{}
		for _, b := range line.Agents {
			if !b.Offered.After(a.Offered) && b.Ended.After(a.Offered) {
				flying[b.Site]++
			}
		}
		if flying["oslo"] > 3 || flying["rome"] > 3 || flying["oslo"]+flying["rome"] > 5 {
			t.Fatalf("at %s there are %v in flight", a.Offered, flying)
		}
	}
	if line.Totals[events.Succeeded] != 40 || line.Most != 5 {
		t.Fatalf("%v; at most %d", line.Totals, line.Most)
	}
}

func TestTheModelDrawsWhatWasRecorded(t *testing.T) {
	m := Model{Seed: 7, Failed: 0.2, Silent: 0.05, Reasons: map[events.Reason]int64{events.ExitCode: 3, events.DiskFull: 1}, Seconds: []float64{10, 20, 100}}
	counts := map[events.Reason]int{}
	mute, short := 0, 0
	for i := range 20_000 {
		r := m.Outcome(fmt.Sprint("agent", i), 1)
		if r.Silent {
			mute++
			continue
		}
		counts[r.Reason]++
		if r.Took < 20*time.Second {
			short++
		}
		if r.Took < 10*time.Second || r.Took > 100*time.Second {
			t.Fatalf("it took %s", r.Took)
		}
		if later := m.Outcome(fmt.Sprint("agent", i), 3); later.Reason != r.Reason {
			t.Fatalf("agent %d ends as %q, at the third attempt as %q", i, r.Reason, later.Reason)
		}
	}
	near := func(what string, got, want int) {
		if got < want*9/10 || got > want*11/10 {
			t.Errorf("%s: %d, about %d were recorded", what, got, want)
		}
	}
	near("silent", mute, 1000)
	near("exit codes", counts[events.ExitCode], 2850)
	near("full disks", counts[events.DiskFull], 950)
	near("short runs", short, 9500)
	if m.Seed = 8; m.Outcome("agent1", 1) == (Model{Seed: 7, Failed: m.Failed, Silent: m.Silent, Reasons: m.Reasons, Seconds: m.Seconds}).Outcome("agent1", 1) {
		t.Error("another seed draws the same")
	}
}

func FuzzParsePresence(f *testing.F) {
	f.Add("")
	f.Add("ffffffffffffffffffffffffffffffffffffffffff")
	f.Add("0f")
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePresence(s)
		if err != nil {
			return
		}
		at := Machine{LastSeen: t0, Presence: p}.there(t0, t0)
		if at.Before(t0) || at.After(t0.AddDate(0, 0, 7)) {
			t.Fatalf("%q is there at %s", s, at)
		}
	})
}

// crowd is a rollout to 100,000 machines with windows, limits and phases.
func crowd() Input {
	in := everybody(100_000)
	zones := []string{"UTC", "Europe/Oslo", "Asia/Tokyo", "America/Los_Angeles"}
	for i := range in.Fleet {
		in.Fleet[i].Facts.Zone, in.Fleet[i].Facts.Site = zones[i%4], fmt.Sprint("site", i%300)
		if i%3 > 0 {
			in.Fleet[i].Presence = office()
		}
	}
	in.Order.Windows = daily("12:00")
	in.Order.Windows[0].Windows[0].Zone = "agent"
	in.Plan = events.Plan{MaxInFlight: 5000, MaxInFlightPerSite: 50, Phases: []events.Phase{
		{Name: "canary", Percent: 1, AdvanceWhen: &events.Advance{Succeeded: &events.Limit{Percent: 50}, For: events.Duration(24 * time.Hour)}}, {Name: "all", Percent: 100}}}
	in.Outcome = Model{Seed: 1, Failed: 0.05, Silent: 0.03, Reasons: map[events.Reason]int64{events.ExitCode: 1, events.DiskFull: 1}}.Outcome
	return in
}

func BenchmarkRehearsal(b *testing.B) {
	in := crowd()
	for b.Loop() {
		if line, err := Run(in); err != nil || line.Totals[events.Succeeded] < 50_000 {
			b.Fatal(line.Totals, err)
		}
	}
}
