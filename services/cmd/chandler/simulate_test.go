package main

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
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
		"all succeeded":       {simulated{Jobs: 3, Succeeded: 3}, ""},
		"failures are an end": {simulated{Jobs: 3, Succeeded: 2, Failed: 1}, ""},
		"one is lost":         {simulated{Jobs: 3, Succeeded: 2, Lost: 1}, "1 jobs are lost"},
		"one was done twice":  {simulated{Jobs: 3, Succeeded: 3, Duplicated: 1}, "1 were done twice"},
		"one has no end":      {simulated{Jobs: 3, Succeeded: 2}, "2 of 3 jobs ended"},
		"a rule was violated": {simulated{Jobs: 3, Succeeded: 3, Violations: []string{"runs: …"}}, "1 rule was violated"},
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
