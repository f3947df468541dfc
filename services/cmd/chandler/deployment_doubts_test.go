package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chandler/events"
	"chandler/events/calendar"
	"chandler/events/order"
)

func TestWhatCanHardlyBeMeantIsSaid(t *testing.T) {
	cron, asap, at := order.Assignment{Cron: "0 2 * * *"}, order.Assignment{ASAP: true}, order.Assignment{At: new(calendar.At(testNow))}
	for name, c := range map[string]struct {
		order order.Order
		says  string
	}{
		"cron that runs once":         {order.Order{Assignments: []order.Assignment{cron}, Rerun: order.RerunIfFailed}, "say --rerun always"},
		"cron that never runs again":  {order.Order{Assignments: []order.Assignment{cron}, Rerun: order.RerunNever}, "say --rerun always"},
		"cron that runs each time":    {order.Order{Assignments: []order.Assignment{cron}, Rerun: order.RerunAlways}, ""},
		"what runs once as it should": {order.Order{Assignments: []order.Assignment{asap}, Rerun: order.RerunIfFailed}, ""},
		"grace after no time":         {order.Order{Assignments: []order.Assignment{asap}, Grace: events.Duration(time.Hour)}, "there is no time"},
		"grace after a time":          {order.Order{Assignments: []order.Assignment{at}, Grace: events.Duration(time.Hour)}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got := strings.Join(doubts(c.order), "; "); !strings.Contains(got, c.says) || (got == "") != (c.says == "") {
				t.Errorf("it says %q", got)
			}
		})
	}
}

func TestAWindowThatNeverOpensAgainIsSaid(t *testing.T) {
	once := func(at time.Time) calendar.Window {
		return calendar.Window{Once: calendar.At(at), For: calendar.Duration(time.Hour)}
	}
	var said bytes.Buffer
	tellPastWindows(&said, "office", []calendar.Window{once(testNow.Add(-72 * time.Hour)), once(testNow.Add(72 * time.Hour)), {Daily: 1, At: "02:00", For: calendar.Duration(time.Hour)}}, testNow)
	if strings.Count(said.String(), "lies in the past") != 1 {
		t.Error(said.String())
	}
}

func TestMachinesWhoseWindowsOpenTooLateAreCounted(t *testing.T) {
	machine := events.Facts{ID: "agent0001", Hostname: "ws-1", OS: "linux", Zone: "UTC"}
	for name, c := range map[string]struct {
		expires time.Duration
		need    time.Duration
		want    misfits
	}{
		"before the end":     {72 * time.Hour, time.Hour, misfits{}},
		"only after the end": {time.Minute, time.Hour, misfits{late: 1, first: "ws-1"}},
		"never long enough":  {72 * time.Hour, 5 * time.Hour, misfits{never: 1, first: "ws-1"}},
	} {
		t.Run(name, func(t *testing.T) {
			opens := testNow.Add(2 * time.Hour).UTC().Format("15:04")
			o := order.Order{Issued: testNow, NotAfter: testNow.Add(90 * 24 * time.Hour), Expires: new(calendar.At(testNow.Add(c.expires))), Assignments: []order.Assignment{{ASAP: true}},
				Windows: []order.Windows{{Collection: "all", Expression: "true", Windows: []calendar.Window{{Daily: 1, At: opens, For: calendar.Duration(3 * time.Hour)}}}}}
			var got misfits
			got.add(o, machine, testNow, c.need)
			if diff := cmp.Diff(c.want, got, cmp.AllowUnexported(misfits{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestTheNextTimesOfARecurringDeployment(t *testing.T) {
	a := &app{now: func() time.Time { return time.Date(2026, 12, 1, 8, 0, 0, 0, time.UTC) }}
	o := order.Order{Issued: a.now(), NotAfter: a.now().Add(90 * 24 * time.Hour), Assignments: []order.Assignment{{Cron: "0 2 * * SAT"}}}
	for zone, want := range map[calendar.Zone][]string{
		"":                 {"Sat 2026-12-05 02:00 UTC", "Sat 2026-12-12 02:00 UTC"},
		"Europe/Oslo":      {"Sat 2026-12-05 02:00 CET", "Sat 2026-12-12 02:00 CET"},
		calendar.ZoneAgent: {"Sat 2026-12-05 02:00, each machine's own time", "Sat 2026-12-12 02:00, each machine's own time"},
	} {
		o.Zone = zone
		if diff := cmp.Diff(want, a.nextStarts(o, time.UTC, 2)); diff != "" {
			t.Errorf("%s: %s", zone, diff)
		}
	}
	o.Expires = new(calendar.At(a.now().Add(5 * 24 * time.Hour)))
	o.Zone = ""
	if got := a.nextStarts(o, time.UTC, 3); len(got) != 1 {
		t.Errorf("after its end: %q", got)
	}
	o.Assignments = []order.Assignment{{ASAP: true}}
	if got := a.nextStarts(o, time.UTC, 3); got != nil {
		t.Errorf("what does not recur: %q", got)
	}
}

func TestRolloutsThatAreStuckAreNamed(t *testing.T) {
	a := &app{now: func() time.Time { return testNow }, zone: time.UTC}
	opened := func(size int) []events.PhaseView {
		return []events.PhaseView{{Name: "canary", Opened: testNow, Size: size}, {Name: "rest"}}
	}
	for name, c := range map[string]struct {
		view events.DeploymentView
		says string
	}{
		"halted":                {events.DeploymentView{Life: events.LifeHalted, DeploymentNotice: events.DeploymentNotice{Why: "5 failed"}, Phases: opened(1)}, "it is halted: 5 failed"},
		"taken back":            {events.DeploymentView{Life: events.LifeHalted, RolledBack: true, Phases: opened(1)}, ""},
		"a phase for nobody":    {events.DeploymentView{Life: events.LifeActive, Phases: opened(0)}, "phase canary holds nobody"},
		"one that did not open": {events.DeploymentView{Life: events.LifeActive, Phases: []events.PhaseView{{Name: "canary"}}}, "does not open"},
		"one that goes on":      {events.DeploymentView{Life: events.LifeActive, Phases: opened(1)}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got := a.stuck(c.view); !strings.Contains(got, c.says) || (got == "") != (c.says == "") {
				t.Errorf("it says %q", got)
			}
		})
	}
}

func TestFailuresOfProgramsThatNeverStartedDoNotCount(t *testing.T) {
	got := programFailures(events.OutcomeAnswer{Succeeded: 5, Failed: 7, Reasons: map[events.Reason]int64{events.WindowNeverFits: 4, events.ExitCode: 3}})
	if want := (failures{3, map[events.Reason]int64{events.ExitCode: 3}}); got.failed != want.failed || !cmp.Equal(got.reasons, want.reasons) {
		t.Errorf("%+v", got)
	}
}
