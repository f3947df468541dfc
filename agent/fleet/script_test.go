package fleet

import (
	"math"
	"slices"
	"testing"
	"time"

	"chandler/events"
)

func TestAScriptIsDrawnFromItsSeedAlone(t *testing.T) {
	s := Script{Seed: 7, Duration: time.Second, Spread: 0.5, Failures: 0.2, Output: 1000}
	const n = 20_000
	var took []float64
	reasons := map[events.Reason]int{}
	for i := range n {
		job := events.JobID("hello", 1, agentID(i), 0, "")
		act := s.Of(job, 1)
		if act != s.Of(job, 1) {
			t.Fatal("the same is drawn differently")
		}
		if act.Took <= 0 || act.Took > longest*s.Duration || act.Output > longest*s.Output || (act.Exit == 0) != (act.Reason == "") {
			t.Fatalf("it draws %+v", act)
		}
		took = append(took, act.Took.Seconds())
		reasons[act.Reason]++
	}
	slices.Sort(took)
	if median := took[n/2]; math.Abs(median-1) > 0.05 {
		t.Errorf("the median is %.3f s", median)
	}
	if quarter := took[n*3/4]; math.Abs(quarter-math.Exp(0.5*0.6745)) > 0.05 {
		t.Errorf("a quarter takes longer than %.3f s", quarter)
	}
	for _, reason := range []events.Reason{events.ExitCode, events.InstallerBusy} {
		if part := float64(reasons[reason]) / n; math.Abs(part-0.1) > 0.01 {
			t.Errorf("the part of %s is %.3f", reason, part)
		}
	}
	job := events.JobID("hello", 1, agentID(1), 0, "")
	if s.Of(job, 1) == s.Of(job, 2) || s.Of(job, 1) == (Script{Seed: 8, Duration: s.Duration, Spread: s.Spread, Output: s.Output}).Of(job, 1) {
		t.Error("neither attempt nor seed matter")
	}
	if act := (Script{}).Of(job, 1); act != (Act{}) {
		t.Errorf("nothing asked for gives %+v", act)
	}
}

func TestPresenceIsDrawnFromItsSeedAlone(t *testing.T) {
	p := Presence{Seed: 7, Offline: 0.3, Until: time.Minute, Spread: time.Minute, Flap: 0.2, FlapEvery: 10 * time.Second}
	const n = 20_000
	away, flap, both := 0, 0, 0
	for i := range n {
		id := agentID(i)
		comes := p.Comes(id)
		if comes != p.Comes(id) || comes != 0 && (comes < p.Until || comes > p.Until+p.Spread) {
			t.Fatalf("it comes after %s", comes)
		}
		if pause := p.Pause(id, 1); pause < p.FlapEvery/2 || pause > p.FlapEvery*3/2 || pause == p.Pause(id, 2) {
			t.Fatalf("the pause is %s", pause)
		}
		switch {
		case comes > 0 && p.Flaps(id):
			both++
			fallthrough
		case comes > 0:
			away++
			if p.Flaps(id) {
				flap++
			}
		case p.Flaps(id):
			flap++
		}
	}
	for what, c := range map[string]struct {
		n    int
		want float64
	}{"offline": {away, 0.3}, "flap": {flap, 0.2}, "both": {both, 0.06}} {
		if part := float64(c.n) / n; math.Abs(part-c.want) > 0.015 {
			t.Errorf("the share of those who are %s is %.3f", what, part)
		}
	}
}
