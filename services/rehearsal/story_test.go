package rehearsal

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chandler/events"
	"chandler/events/order"
)

// phased is the plan of the story: a canary, a pilot, everybody.
func phased(t testing.TB) events.Plan {
	silence := func(share string) *events.Silence {
		return &events.Silence{Share: *limit(t, share), After: events.Duration(4 * time.Hour)}
	}
	gate := func(share string) *events.Advance {
		return &events.Advance{Succeeded: limit(t, share), For: events.Duration(24 * time.Hour)}
	}
	return events.Plan{MaxInFlight: 50, Phases: []events.Phase{
		{Name: "canary", Percent: 5, AdvanceWhen: gate("70%"), HaltWhen: &events.Halt{Failed: limit(t, "30%"), Silent: silence("50%")}},
		{Name: "pilot", Percent: 25, AdvanceWhen: gate("90%"), HaltWhen: &events.Halt{Failed: limit(t, "5%"), Silent: silence("1")}},
		{Name: "all", Percent: 100, HaltWhen: &events.Halt{Failed: limit(t, "20%"), Silent: silence("20%")}},
	}}
}

// Of 200 machines 10 fail and 6 say nothing. The pilot's gate halts the first revision; the second installs a package that
// is mended, halts because a machine of the pilot says nothing, and goes on when somebody resumes it.
func TestTheRolloutOf200Machines(t *testing.T) {
	in := everybody(200)
	in.Plan = phased(t)
	dumb, fails := map[string]bool{}, map[string]bool{}
	for i, m := range in.Fleet {
		dumb[m.Facts.ID], fails[m.Facts.ID] = i%33 == 5, i%20 == 7
	}
	in.Outcome = func(agent string, _ int) Result {
		switch {
		case dumb[agent]:
			return Result{Silent: true}
		case fails[agent]:
			return Result{Took: 5 * time.Minute, Reason: events.ExitCode}
		}
		return Result{Took: 10 * time.Minute}
	}
	want(t, in, []string{
		"canary opens after 0s with 10: 10 released, 7 succeeded, 2 failed, 1 silent",
		"  left after 24h10m0s",
		"pilot opens after 24h10m0s with 40: 40 released, 35 succeeded, 4 failed, 1 silent",
		"  halts after 24h15m0s: 4 of 40 machines failed (10%) in phase pilot; the gate halts at 5%",
		"all does not open",
		"failed 6, not_released 150, offered 2, succeeded 42",
		"150 times nothing: the rollout is halted before its phase opens",
		"2 times nothing: it says nothing after the offer, as a share of machines does",
	})

	in.Start = at(8+24+2, 15)
	in.Order.Revision, in.Order.Version, in.Order.Issued = 2, "2.10-4", in.Start
	in.People.Resume = new(time.Hour)
	clear(fails)
	want(t, in, []string{
		"canary opens after 26h15m0s with 10: 10 released, 9 succeeded, 0 failed, 1 silent",
		"  left after 50h25m0s",
		"pilot opens after 50h25m0s with 40: 40 released, 39 succeeded, 0 failed, 1 silent",
		"  halts after 54h25m1s: 1 of 40 machines said nothing (2.5%) in phase pilot for 4h0m0s since the offer; the gate halts at 1",
		"  resumed after 55h25m1s",
		"  left after 79h25m1s",
		"all opens after 79h25m1s with 150: 150 released, 146 succeeded, 0 failed, 4 silent",
		"offered 6, succeeded 194",
		"6 times nothing: it says nothing after the offer, as a share of machines does",
	})
}

func want(t *testing.T, in Input, lines []string) {
	t.Helper()
	if diff := cmp.Diff(lines, told(played(t, in))); diff != "" {
		t.Fatal(diff)
	}
}

// told is a timeline in lines: its phases, its totals, and why nothing ran.
func told(line Timeline) (lines []string) {
	for _, p := range line.Phases {
		if p.Opened.IsZero() {
			lines = append(lines, p.Name+" does not open")
			continue
		}
		c := p.Counts
		lines = append(lines, fmt.Sprintf("%s opens after %s with %d: %d released, %d succeeded, %d failed, %d silent", p.Name, p.Opened.Sub(t0), p.Size, p.Released, c.Succeeded, c.Failed, c.Silent))
		for _, h := range p.Halts {
			lines = append(lines, fmt.Sprintf("  halts after %s: %s", h.At.Sub(t0), h.Says))
			if !h.Resumed.IsZero() {
				lines = append(lines, fmt.Sprintf("  resumed after %s", h.Resumed.Sub(t0)))
			}
		}
		if !p.Left.IsZero() {
			lines = append(lines, fmt.Sprintf("  left after %s", p.Left.Sub(t0)))
		}
	}
	var totals []string
	for _, state := range slices.Sorted(maps.Keys(line.Totals)) {
		totals = append(totals, fmt.Sprintf("%s %d", state, line.Totals[state]))
	}
	lines = append(lines, strings.Join(totals, ", "))
	for _, n := range line.Never {
		lines = append(lines, fmt.Sprintf("%d times nothing: %s", n.Agents, n.Why))
	}
	return lines
}

func TestAHaltHoldsWhatHasNotStarted(t *testing.T) {
	in := everybody(10)
	in.Plan = events.Plan{Phases: []events.Phase{{Name: "all", Percent: 100, HaltWhen: &events.Halt{Failed: limit(t, "1")}}}}
	in.Fleet[0].Facts.Hostname = "bad"
	in.Order.Assignments, in.Order.Jitter = []order.Assignment{{ASAP: true}}, events.Duration(10*time.Hour)
	in.Outcome = func(agent string, _ int) Result {
		if agent == in.Fleet[0].Facts.ID {
			return Result{Took: time.Minute, Reason: events.ExitCode}
		}
		return Result{Took: time.Minute}
	}
	line := played(t, in)
	halted := line.Phases[0].Halts[0].At
	held := 0
	for _, a := range line.Agents {
		switch {
		case a.Started.After(halted):
			t.Errorf("%s starts at %s, after the halt at %s", a.Host, a.Started, halted)
		case a.Waits == events.WaitFreeze:
			held++
		}
	}
	if held == 0 || held+line.Totals[events.Succeeded]+1 != 10 {
		t.Fatalf("%d held, %v", held, line.Totals)
	}
	in.People.Resume = new(24 * time.Hour)
	if line = played(t, in); line.Totals[events.Succeeded] != 9 || !line.Done.Equal(halted.Add(24*time.Hour+time.Minute)) {
		t.Fatalf("%v, done %s", line.Totals, line.Done)
	}
	in.Plan.OnHalt = events.OnHaltRollback
	if line = played(t, in); line.RolledBack != 10-held || !line.Done.IsZero() {
		t.Fatalf("%d rolled back, %d held", line.RolledBack, held)
	}
}

func TestBakeTimeBeginsAnewWhenAHaltedRolloutGoesOn(t *testing.T) {
	in := everybody(10)
	in.Plan = events.Plan{Phases: []events.Phase{{Name: "half", Percent: 50, AdvanceWhen: &events.Advance{For: events.Duration(24 * time.Hour)}, HaltWhen: &events.Halt{Failed: limit(t, "5")}}, {Name: "rest", Percent: 100}}}
	in.Outcome = func(string, int) Result { return Result{Took: time.Minute, Reason: events.ExitCode} }
	in.People.Resume = new(30 * time.Hour)
	line := played(t, in)
	if halts := line.Phases[0].Halts; len(halts) != 1 || !line.Phases[1].Opened.Equal(halts[0].Resumed.Add(24*time.Hour)) {
		t.Fatalf("%+v", line.Phases)
	}
}

func TestAPhaseForNobodyDoesNotOpen(t *testing.T) {
	in := everybody(3)
	for i := range in.Fleet {
		in.Fleet[i].LastSeen = t0.AddDate(0, 0, -20)
	}
	in.Plan = phased(t)
	want(t, in, []string{"canary does not open", "pilot does not open", "all does not open", "not_released 3",
		"3 times nothing: its phase, or one before it, holds nobody and does not open"})
}
