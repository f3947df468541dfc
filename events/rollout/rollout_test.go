package rollout_test

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"chandler/events"
	"chandler/events/rollout"
	"chandler/events/timing"
)

var now = time.Date(2026, 12, 1, 8, 0, 0, 0, time.UTC)

// plan is of three phases, the first with every gate.
func plan() events.Plan {
	return events.Plan{Phases: []events.Phase{
		{Name: "canary", Percent: 1, AdvanceWhen: &events.Advance{Succeeded: &events.Limit{Percent: 95}, For: events.Duration(24 * time.Hour)},
			HaltWhen: &events.Halt{Failed: &events.Limit{Percent: 5}, Silent: &events.Silence{Share: events.Limit{Percent: 20}, After: events.Duration(4 * time.Hour)}}},
		{Name: "early", Percent: 10, AdvanceWhen: &events.Advance{Approval: true}},
		{Name: "rest", Percent: 100, HaltWhen: &events.Halt{Failed: &events.Limit{Count: 12}}},
	}}
}

func TestWhatAGateDecides(t *testing.T) {
	counts := func(succeeded, failed, notApplicable, waiting, silent int64) events.WaveCounts {
		return events.WaveCounts{Succeeded: succeeded, Failed: failed, NotApplicable: notApplicable, Waiting: waiting, Silent: silent}
	}
	for name, c := range map[string]struct {
		view rollout.View
		want rollout.Step
		met  time.Time
		says string
	}{
		"nothing is known yet":                                 {view: rollout.View{Size: 100}, want: rollout.Wait, says: "0 of 100 machines succeeded (0%), the gate opens at 95%"},
		"one too few succeeded":                                {view: rollout.View{Size: 100, Counts: counts(94, 0, 0, 0, 0)}, want: rollout.Wait, says: "94 of 100"},
		"as many succeeded as the gate says: it bakes":         {view: rollout.View{Size: 100, Counts: counts(95, 0, 0, 0, 0)}, want: rollout.Wait, met: now, says: "bake time to end at 2026-12-02T08:00:00Z"},
		"it has baked":                                         {view: rollout.View{Size: 100, Counts: counts(95, 0, 0, 0, 0), Met: now.Add(-24 * time.Hour)}, want: rollout.Open, met: now.Add(-24 * time.Hour)},
		"a success that was taken back begins the bake anew":   {view: rollout.View{Size: 100, Counts: counts(94, 1, 0, 0, 0), Met: now.Add(-23 * time.Hour)}, want: rollout.Wait, says: "94 of 100"},
		"the not applicable do not count":                      {view: rollout.View{Size: 100, Counts: counts(19, 0, 80, 0, 0)}, want: rollout.Wait, met: now, says: "bake"},
		"the waiting are neither success nor failure":          {view: rollout.View{Size: 100, Counts: counts(94, 0, 0, 6, 0)}, want: rollout.Wait, says: "94 of 100"},
		"one failure too few to halt":                          {view: rollout.View{Size: 100, Counts: counts(0, 4, 0, 0, 0)}, want: rollout.Wait, says: "0 of 100"},
		"as many failed as halt it":                            {view: rollout.View{Size: 100, Counts: counts(95, 5, 0, 0, 0)}, want: rollout.Stop, says: "5 of 100 machines failed (5%) in phase canary; the gate halts at 5%"},
		"as many are silent as halt it":                        {view: rollout.View{Size: 100, Counts: counts(0, 0, 0, 0, 20)}, want: rollout.Stop, says: "20 of 100 machines said nothing (20%) in phase canary for 4h0m0s since the offer; the gate halts at 20%"},
		"the shares are of those it applies to":                {view: rollout.View{Size: 100, Counts: counts(0, 1, 80, 0, 0)}, want: rollout.Stop, says: "1 of 20 machines failed (5%)"},
		"forgiven failures do not halt it again":               {view: rollout.View{Size: 100, Counts: counts(0, 9, 0, 0, 0), Forgiven: rollout.Forgiven{Failed: 5}}, want: rollout.Wait, says: "0 of 100"},
		"failures since then do":                               {view: rollout.View{Size: 100, Counts: counts(0, 10, 0, 0, 0), Forgiven: rollout.Forgiven{Failed: 5}}, want: rollout.Stop, says: "beside 5 that somebody resumed in spite of"},
		"a skip comes before a bad gate":                       {view: rollout.View{Size: 100, Counts: counts(0, 50, 0, 0, 0), Skipped: true}, want: rollout.Open, says: "skipped"},
		"an approval is waited for":                            {view: rollout.View{Index: 1, Size: 10, Opened: now.Add(-time.Hour)}, want: rollout.Wait, met: now.Add(-time.Hour), says: "somebody's approval"},
		"an approval is enough":                                {view: rollout.View{Index: 1, Size: 10, Opened: now.Add(-time.Hour), Approved: true}, want: rollout.Open, met: now.Add(-time.Hour)},
		"without a success gate it bakes since it went on":     {view: rollout.View{Index: 1, Size: 10, Opened: now.Add(-time.Hour), Resumed: now.Add(-time.Minute), Approved: true}, want: rollout.Open, met: now.Add(-time.Minute)},
		"nobody is in the phase":                               {view: rollout.View{Met: now.Add(-24 * time.Hour)}, want: rollout.Open, met: now.Add(-24 * time.Hour)},
		"the last phase goes on":                               {view: rollout.View{Index: 2, Size: 90, Counts: counts(80, 9, 0, 0, 0)}, want: rollout.Wait, says: "89 of 90 machines have ended"},
		"the last phase is over":                               {view: rollout.View{Index: 2, Size: 90, Counts: counts(79, 11, 0, 0, 0)}, want: rollout.Done},
		"the last phase halts too, by a number of machines":    {view: rollout.View{Index: 2, Size: 90, Counts: counts(78, 12, 0, 0, 0)}, want: rollout.Stop, says: "the gate halts at 12"},
		"what comes after the last phase cannot be skipped to": {view: rollout.View{Index: 2, Size: 90, Skipped: true}, want: rollout.Wait, says: "0 of 90"},
	} {
		t.Run(name, func(t *testing.T) {
			v := rollout.Judge(plan(), c.view, now)
			if v.Step != c.want || !v.Met.Equal(c.met) || !strings.Contains(v.Says, c.says) || c.says == "" && v.Says != "" {
				t.Errorf("%+v, want step %d since %s: %s", v, c.want, c.met, c.says)
			}
		})
	}
	if v := rollout.Judge(events.Plan{}, rollout.View{}, now); v.Step != rollout.Done {
		t.Errorf("without phases: %+v", v)
	}
}

func TestAnExternalEventIsWaitedFor(t *testing.T) {
	p := plan()
	p.Phases[0].AdvanceWhen = &events.Advance{Event: &events.ExternalGate{Type: "com.example.passed", Subject: "hello"}}
	v := rollout.Judge(p, rollout.View{Size: 3, Opened: now}, now)
	if v.Step != rollout.Wait || v.Says != "waits for the event com.example.passed about hello" {
		t.Errorf("before: %+v", v)
	}
	if v := rollout.Judge(p, rollout.View{Size: 3, Opened: now, Signalled: true}, now); v.Step != rollout.Open {
		t.Errorf("after: %+v", v)
	}
}

// countsOf draws counts of a phase that can be.
func countsOf(t *rapid.T, size int64) events.WaveCounts {
	var c events.WaveCounts
	left := size
	for _, n := range []*int64{&c.Succeeded, &c.Failed, &c.NotApplicable, &c.Waiting, &c.Silent} {
		*n = rapid.Int64Range(0, left).Draw(t, "share")
		left -= *n
	}
	return c
}

func TestGatesAreMonotone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.Int64Range(1, 2000).Draw(t, "size")
		limit := events.Limit{Percent: rapid.Float64Range(0.1, 100).Draw(t, "limit")}
		if rapid.Bool().Draw(t, "a number") {
			limit = events.Limit{Count: rapid.IntRange(1, 100).Draw(t, "count")}
		}
		p := plan()
		p.Phases[0].HaltWhen, p.Phases[0].AdvanceWhen = &events.Halt{Failed: &limit}, &events.Advance{Succeeded: &limit}
		view := rollout.View{Size: int(size), Counts: countsOf(t, size), Opened: now}
		before := rollout.Judge(p, view, now).Step
		pending := size - view.Counts.Succeeded - view.Counts.Failed - view.Counts.NotApplicable
		worse, better := view, view
		more := rapid.Int64Range(0, pending).Draw(t, "more")
		worse.Counts.Failed += more
		better.Counts.Succeeded += more
		if before == rollout.Stop && rollout.Judge(p, worse, now).Step != rollout.Stop {
			t.Fatalf("halted at %+v, not with more failures", view.Counts)
		}
		if before == rollout.Open && rollout.Judge(p, better, now).Step != rollout.Open {
			t.Fatalf("open at %+v, not with more successes", view.Counts)
		}
		if view.Counts.Failed == 0 && before == rollout.Stop {
			t.Fatalf("halted though nobody failed: %+v", view.Counts)
		}
		forgiven := view
		forgiven.Forgiven = rollout.Forgiven{Failed: view.Counts.Failed}
		if rollout.Judge(p, forgiven, now).Step == rollout.Stop {
			t.Fatalf("halted in spite of what was forgiven: %+v", view.Counts)
		}
	})
}

func TestTimeAloneOnlyOpensAndSaysWhen(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.Int64Range(0, 500).Draw(t, "size")
		view := rollout.View{Size: int(size), Counts: countsOf(t, size), Opened: now}
		v := rollout.Judge(plan(), view, now)
		view.Met = v.Met
		if v.Until.IsZero() {
			if later := rollout.Judge(plan(), view, now.Add(1000*time.Hour)); later.Step != v.Step {
				t.Fatalf("%+v became %+v by time alone", v, later)
			}
			return
		}
		if just := rollout.Judge(plan(), view, v.Until.Add(-time.Second)); just.Step != rollout.Wait {
			t.Fatalf("before %s: %+v", v.Until, just)
		}
		if due := rollout.Judge(plan(), view, v.Until); due.Step != rollout.Open {
			t.Fatalf("at %s: %+v", v.Until, due)
		}
	})
}

func placesOf(ids []string) (places []float64) {
	for _, id := range ids {
		places = append(places, timing.Place("hello", id))
	}
	return places
}

func inside(cut float64, ids []string) (in []string) {
	for i, p := range placesOf(ids) {
		if p <= cut {
			in = append(in, ids[i])
		}
	}
	return in
}

func TestPhasesAreRoundedUpAndJoinersReshuffleNobody(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n, late := rapid.IntRange(1, 300).Draw(t, "agents"), rapid.IntRange(0, 300).Draw(t, "joiners")
		var ids []string
		for i := range n + late {
			ids = append(ids, "agent"+strconv.Itoa(i))
		}
		thousandths := rapid.IntRange(1, 100_000).Draw(t, "thousandths of a percent")
		phase := events.Phase{Percent: float64(thousandths) / 1000}
		want := (thousandths*n + 99_999) / 100_000
		if rapid.Bool().Draw(t, "a number") {
			phase = events.Phase{Count: rapid.IntRange(1, 400).Draw(t, "count")}
			want = min(n, phase.Count)
		}
		cut := rollout.Cut(phase, placesOf(ids[:n]))
		drawn := inside(cut, ids[:n])
		if len(drawn) != max(1, want) {
			t.Fatalf("%d of %d are in the phase %+v, want %d", len(drawn), n, phase, want)
		}
		after := inside(cut, ids)
		for _, id := range drawn {
			if !slices.Contains(after, id) {
				t.Fatalf("%s left the phase since others joined", id)
			}
		}
		for _, id := range after {
			if slices.Contains(ids[:n], id) && !slices.Contains(drawn, id) {
				t.Fatalf("%s came into the phase since others joined", id)
			}
		}
		bigger := events.Phase{Percent: phase.Percent * 1.5, Count: phase.Count * 2}
		if bigger.Percent <= 100 && rollout.Cut(bigger, placesOf(ids[:n])) < cut {
			t.Fatalf("a larger phase does not hold the smaller one: %+v", phase)
		}
	})
	if got := inside(rollout.Cut(events.Phase{Percent: 1}, nil), []string{"agent1", "agent2"}); got != nil {
		t.Errorf("drawn from nobody: %v", got)
	}
	if rollout.Cut(events.Phase{Percent: 100}, nil) != 1 {
		t.Error("everybody is not everybody")
	}
}

func TestSharesAreExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		// A share of tenths of a percent that is a whole number of machines.
		tenths := rapid.IntRange(1, 1000).Draw(t, "tenths of a percent")
		size := 1000 * rapid.IntRange(1, 100).Draw(t, "thousands")
		n := int64(tenths * size / 1000)
		limit := events.Limit{Percent: float64(tenths) / 10}
		places := make([]float64, size)
		for i := range places {
			places[i] = float64(i) / float64(size)
		}
		if cut := rollout.Cut(events.Phase{Percent: limit.Percent}, places); limit.Percent < 100 && cut != places[n-1] {
			t.Fatalf("%s of %d machines: up to %v, not %v", limit, size, cut, places[n-1])
		}
		p := plan()
		p.Phases[0].HaltWhen, p.Phases[0].AdvanceWhen = &events.Halt{Failed: &limit}, &events.Advance{Succeeded: &limit}
		for failed, want := range map[int64]rollout.Step{n - 1: rollout.Wait, n: rollout.Stop} {
			if v := rollout.Judge(p, rollout.View{Size: size, Counts: events.WaveCounts{Failed: failed}}, now); v.Step != want {
				t.Fatalf("%d of %d failed, limit %s: %+v", failed, size, limit, v)
			}
		}
		for succeeded, want := range map[int64]rollout.Step{n - 1: rollout.Wait, n: rollout.Open} {
			if v := rollout.Judge(p, rollout.View{Size: size, Counts: events.WaveCounts{Succeeded: succeeded}}, now); v.Step != want {
				t.Fatalf("%d of %d succeeded, limit %s: %+v", succeeded, size, limit, v)
			}
		}
	})
}

func TestWhatIsWrongWithAPlanIsSaid(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*events.Plan)
		says   string
	}{
		"nothing":                     {func(*events.Plan) {}, ""},
		"a single phase":              {func(p *events.Plan) { p.Phases = p.Phases[2:] }, ""},
		"no name":                     {func(p *events.Plan) { p.Phases[0].Name = "" }, "phase 1"},
		"two of one name":             {func(p *events.Plan) { p.Phases[1].Name = "canary" }, "two of the name canary"},
		"percent that goes back":      {func(p *events.Plan) { p.Phases[1].Percent = 0.5 }, "cumulative"},
		"percent above 100":           {func(p *events.Plan) { p.Phases[2].Percent = 101 }, "at most 100"},
		"no number":                   {func(p *events.Plan) { p.Phases[2].Percent = math.NaN() }, "at most 100"},
		"nobody":                      {func(p *events.Plan) { p.Phases[0].Percent = 0 }, "exactly one"},
		"two rules":                   {func(p *events.Plan) { p.Phases[0].Count = 3 }, "exactly one"},
		"a collection with no name":   {func(p *events.Plan) { p.Phases[0].Percent, p.Phases[0].Collection = 0, "a.b" }, "a.b"},
		"no gate":                     {func(p *events.Plan) { p.Phases[0].AdvanceWhen = nil }, "advance-when"},
		"an empty gate":               {func(p *events.Plan) { p.Phases[0].AdvanceWhen = &events.Advance{} }, "advance-when"},
		"a gate behind the last":      {func(p *events.Plan) { p.Phases[2].AdvanceWhen = &events.Advance{Approval: true} }, "nothing comes after"},
		"an empty halt":               {func(p *events.Plan) { p.Phases[0].HaltWhen = &events.Halt{} }, "neither failed nor silent"},
		"silence without a time":      {func(p *events.Plan) { p.Phases[0].HaltWhen.Silent.After = 0 }, "needs a share and a time"},
		"an event without a subject":  {func(p *events.Plan) { p.Phases[0].AdvanceWhen.Event = &events.ExternalGate{Type: "x"} }, "type and a subject"},
		"a negative limit":            {func(p *events.Plan) { p.MaxInFlight = -1 }, "negative"},
		"a negative limit of a phase": {func(p *events.Plan) { p.Phases[0].MaxInFlight = -1 }, "negative"},
		"an unknown way to halt":      {func(p *events.Plan) { p.OnHalt = "explode" }, "explode"},
		"too many phases":             {func(p *events.Plan) { p.Phases = make([]events.Phase, events.MaxPhases+1) }, "at most 200"},
	} {
		t.Run(name, func(t *testing.T) {
			p := plan()
			c.change(&p)
			err := rollout.Check(p)
			if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
				t.Errorf("error %v, want %q", err, c.says)
			}
		})
	}
}
