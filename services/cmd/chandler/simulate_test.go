package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chandler/services/checker"
)

func TestPercentilesAreTheShortestTimesWithinWhichSoManyWereDone(t *testing.T) {
	hundred := make([]time.Duration, 100)
	for i := range hundred {
		hundred[len(hundred)-1-i] = time.Duration(i+1) * time.Second // not sorted
	}
	for name, c := range map[string]struct {
		times []time.Duration
		want  [3]float64
	}{
		"of none they are 0":             {nil, [3]float64{}},
		"of one they are that":           {[]time.Duration{3 * time.Second}, [3]float64{3, 3, 3}},
		"of two, half is the first":      {[]time.Duration{4 * time.Second, time.Second}, [3]float64{1, 4, 4}},
		"of a hundred they are by count": {hundred, [3]float64{50, 90, 99}},
	} {
		t.Run(name, func(t *testing.T) {
			a, b, d := percentiles(c.times)
			if diff := cmp.Diff(c.want, [3]float64{a, b, d}); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestTheRatioIsOfTheRunsRateToTheRawBrokers(t *testing.T) {
	for name, c := range map[string]struct {
		events  int64
		seconds float64
		raw     float64
		want    simulated
	}{
		"half":               {20_000, 2, 20_000, simulated{EventsPerSecond: 10_000, RawRatio: 0.5}},
		"nothing was stored": {0, 2, 20_000, simulated{}},
		"no time went by":    {10, 0, 20_000, simulated{}},
		"no raw rate":        {20_000, 2, 0, simulated{EventsPerSecond: 10_000}},
	} {
		t.Run(name, func(t *testing.T) {
			r := simulated{Events: c.events, Seconds: c.seconds, RawPerSecond: c.raw}
			r.rates()
			c.want.Events, c.want.Seconds, c.want.RawPerSecond = c.events, c.seconds, c.raw
			if diff := cmp.Diff(c.want, r, cmp.AllowUnexported(simulated{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestASimulationIsInOrderOnlyIfEveryJobEndedOnce(t *testing.T) {
	for name, c := range map[string]struct {
		r    simulated
		says string
	}{
		"all succeeded":                            {simulated{Jobs: 3, Succeeded: 3}, ""},
		"failures are an end":                      {simulated{Jobs: 3, Succeeded: 2, Failed: 1}, ""},
		"one is lost":                              {simulated{Jobs: 3, Succeeded: 2, Lost: 1}, "1 jobs are lost"},
		"one was done twice":                       {simulated{Jobs: 3, Succeeded: 3, Duplicated: 1}, "1 were done twice"},
		"one was cancelled without a stop":         {simulated{Jobs: 3, Succeeded: 2, Cancelled: 1}, "1 job was cancelled"},
		"what a stop withdraws is an end":          {simulated{Jobs: 3, Succeeded: 1, Cancelled: 1, stopped: &stopped{NotOffered: 1}}, ""},
		"a stop makes nothing disappear":           {simulated{Jobs: 3, Succeeded: 1, Cancelled: 1, stopped: &stopped{}}, "1 jobs did not end, and 0 were never offered"},
		"a program started long after the stop":    {simulated{Jobs: 1, Succeeded: 1, stopped: &stopped{LastMax: 2.1}}, "2.1 s after the stop"},
		"what ran since the backup ran everywhere": {simulated{Agents: 3, restored: &restored{RanSince: 3}}, ""},
		"one agent lost what it ran":               {simulated{Agents: 3, restored: &restored{RanSince: 2}}, "2 of 3 agents ran"},
		"one has no end":                           {simulated{Jobs: 3, Succeeded: 2}, "2 of 3 jobs ended"},
		"a rule was violated":                      {simulated{Jobs: 3, Succeeded: 3, Violations: []string{"runs: …"}}, "1 rule was violated"},
	} {
		t.Run(name, func(t *testing.T) {
			err := c.r.verdict()
			if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want %q", err, c.says)
			}
		})
	}
}

func TestFlagsOfASimulationThatMakeNoSenseAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		args string
		says string
	}{
		"no agents":                        {"--agents 0", "at least 1"},
		"more agents than files":           {"--agents 15001", "at most 15,000"},
		"more than a machine holds":        {"--agents 200001 --token x", "at most 200,000"},
		"no deployments":                   {"--deployments 0", "between 1 and 1,000"},
		"unknown execution":                {"--exec real", "scripted or fork"},
		"negative duration":                {"--duration -1s", "less than 0"},
		"spread of nothing":                {"--spread 0.5", "say --duration too"},
		"a wild spread":                    {"--duration 1s --spread 4", "between 0 and 3"},
		"more failures than attempts":      {"--failures 1.5", "a share is between 0 and 1"},
		"not a number":                     {"--flap NaN", "a share is between 0 and 1"},
		"nobody there":                     {"--offline 1", "somebody must be there"},
		"much output":                      {"--output-bytes 65537", "between 0 and 65536"},
		"no time":                          {"--timeout 0s", "more than 0"},
		"clear text elsewhere":             {"--token x --no-tls", "leave them out with --token"},
		"elsewhere without a token":        {"--context other", "say --token FILE too"},
		"a form that it does not have":     {"-o csv", "only table, json, yaml"},
		"a token that is not there":        {"--token /nowhere/token", "--token: open"},
		"unknown scenario":                 {"--scenario flood", "one of install, stop, restart, reconnect, restore"},
		"in order, and nothing ends":       {"--scenario stop --graceful", "--graceful is of --scenario restart"},
		"a stop of those who are away":     {"--scenario stop --offline 0.1", "all agents are there"},
		"the end of another's broker":      {"--scenario restore --token x", "one of its own"},
		"more leaf nodes than make sense":  {"--leaves 15", "between 0 and 14"},
		"leaf nodes without identities":    {"--leaves 1 --no-identities", "leave out --token and --no-identities"},
		"leaf nodes of another's broker":   {"--leaves 1 --token x", "leave out --token and --no-identities"},
		"more agents than two leaves take": {"--leaves 2 --agents 30001", "at most 30,000"},
		"an argument":                      {"more", "there is no command"},
		"a part without who would tell it": {"broker", "this is a part of"},
	} {
		t.Run(name, func(t *testing.T) {
			home := t.TempDir()
			app := testApp(map[string]string{"XDG_CONFIG_HOME": home})
			var out, err strings.Builder
			code := app.run(t.Context(), streams{strings.NewReader(""), &out, &err}, append([]string{"simulate"}, strings.Fields(c.args)...))
			if code != 1 || !strings.Contains(err.String(), c.says) || out.String() != "" {
				t.Errorf("code %d, said %q and %q, want %q", code, err.String(), out.String(), c.says)
			}
		})
	}
}

func TestStartsAfterAStopAreMeasuredFromTheMomentItWasAskedFor(t *testing.T) {
	asked := time.Date(2026, 12, 1, 9, 0, 0, 0, time.UTC)
	started := func(at ...time.Duration) (runs []checker.Run) {
		for _, d := range at {
			runs = append(runs, checker.Run{At: asked.Add(d)})
		}
		return runs
	}
	for name, c := range map[string]struct {
		runs []checker.Run
		want stopped
	}{
		"nothing ran":                   {nil, stopped{}},
		"all before":                    {started(-time.Second, 0), stopped{StartedBefore: 2}},
		"some after, in whatever order": {started(time.Second, -time.Second, 1500*time.Millisecond, 500*time.Millisecond), stopped{StartedBefore: 1, StartedAfter: 3, LastP99: 1.5, LastMax: 1.5}},
	} {
		t.Run(name, func(t *testing.T) {
			got := stopped{asked: asked}
			got.count(c.runs)
			got.asked = time.Time{}
			if diff := cmp.Diff(c.want, got, cmp.AllowUnexported(stopped{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAgentsAreSpreadEvenlyOverLeafNodesAndNoneHasTooMany(t *testing.T) {
	for _, c := range []struct{ agents, leaves, each int }{{100, 0, 100}, {12_000, 0, 5_000}, {100, 2, 50}, {7, 2, 4}, {30_000, 2, 5_000}, {14_999, 3, 5_000}} {
		s := &simulation{simulateFlags: simulateFlags{size: c.agents, leafNodes: c.leaves}}
		each := s.agentsEach()
		if each != c.each {
			t.Errorf("%d agents behind %d leaf nodes: %d a process, want %d", c.agents, c.leaves, each, c.each)
		}
		processes := (c.agents + each - 1) / each
		if most := (processes + max(1, c.leaves) - 1) / max(1, c.leaves) * each; most > maxOwnAgents {
			t.Errorf("%d agents behind %d leaf nodes: one of them has %d", c.agents, c.leaves, most)
		}
	}
}

func TestAProcessThatTakesTheOtherPlaceIsMeasuredWithIt(t *testing.T) {
	m, err := newMeter(&child{name: "this", cmd: &exec.Cmd{Process: &os.Process{Pid: os.Getpid()}}})
	if err != nil {
		t.Fatal(err)
	}
	m.cpu = m.seconds() - 5 // as if it had used 5 seconds
	m.leave()
	began := m.seconds()
	if used := m.used() - began; used < 4.5 || used > 6 {
		t.Errorf("after another took its place it has used %.1f s more than that one, want 5", used)
	}
}

func TestTheSameSeedGivesTheSameAgents(t *testing.T) {
	ids := func(seed uint64, first int) (all []string) {
		members, err := memberMaker{First: first, Count: 3, Prefix: "sim-", Seed: seed}.members(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range members {
			all = append(all, m.ID+" "+m.Facts.Hostname)
		}
		return all
	}
	if diff := cmp.Diff(ids(1, 1), ids(1, 1)); diff != "" {
		t.Error(diff)
	}
	if a, b := ids(1, 1), ids(1, 2); a[1] != b[0] || a[0] == b[0] {
		t.Errorf("agents are told apart by their numbers: %q and %q", a, b)
	}
	if a, b := ids(1, 1), ids(2, 1); a[0] == b[0] {
		t.Errorf("another seed gives the same agent %s", a[0])
	}
}

func TestAboutTheGivenShareOfAgentsIsAway(t *testing.T) {
	m := memberMaker{Seed: 7, Offline: 0.2}
	away := 0
	for i := range 10_000 {
		if m.away(m.host(i)) {
			away++
		}
	}
	if away < 1_800 || away > 2_200 {
		t.Errorf("%d of 10,000 are away", away)
	}
	if m.Offline = 0; m.away("anybody") {
		t.Error("somebody is away though nobody is to be")
	}
}
