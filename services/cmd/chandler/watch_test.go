package main

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"chandler/events"
)

func TestWatchingEndsWhenEveryMachineHasEnded(t *testing.T) {
	type states = map[events.State]int64
	type reasons = map[events.Reason]int64
	for name, c := range map[string]struct {
		life    events.Life
		members int
		states  states
		reasons reasons
		done    bool
		want    exitCode
	}{
		"all succeeded":                                {events.LifeActive, 3, states{events.Succeeded: 3}, nil, true, 0},
		"some had it already":                          {events.LifeActive, 3, states{events.Succeeded: 2, events.WillNotRerun: 1}, nil, true, 0},
		"it does not apply to some":                    {events.LifeActive, 3, states{events.Succeeded: 2, events.Rejected: 1}, reasons{events.RequirementsNotMet: 1}, true, 0},
		"it never ran on some that a rollback reached": {events.LifeActive, 3, states{events.Succeeded: 2, events.Rejected: 1}, reasons{events.NothingToRollBack: 1}, true, 0},
		"one refused the order":                        {events.LifeActive, 3, states{events.Succeeded: 2, events.Rejected: 1}, reasons{events.OrderAltered: 1}, true, exitPartlyFailed},
		"one failed":                                   {events.LifeActive, 3, states{events.Succeeded: 2, events.Failed: 1}, nil, true, exitPartlyFailed},
		"one is still running":                         {events.LifeActive, 3, states{events.Failed: 2, events.Running: 1}, nil, false, 0},
		"one waits for a restart":                      {events.LifeActive, 1, states{events.RebootPending: 1}, nil, false, 0},
		"one was not offered it yet":                   {events.LifeActive, 4, states{events.Succeeded: 3}, nil, false, 0},
		"nobody was offered it yet":                    {events.LifePending, 3, nil, nil, false, 0},
		"nobody is meant yet":                          {events.LifeActive, 0, nil, nil, false, 0},
		"one left the target after its end":            {events.LifeActive, 2, states{events.Succeeded: 3}, nil, true, 0},
		"stopped while one runs":                       {events.LifeStopped, 3, states{events.Running: 1, events.Cancelled: 2}, nil, true, exitStopped},
		"expired with one that was not reached":        {events.LifeExpired, 3, states{events.Succeeded: 2}, nil, true, exitPartlyFailed},
		"expired while one runs":                       {events.LifeExpired, 1, states{events.Running: 1}, nil, false, 0},
		"expired when all were done":                   {events.LifeExpired, 2, states{events.Succeeded: 2}, nil, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			view := events.DeploymentView{Life: c.life, Members: c.members}
			if c.states != nil {
				view.Progress = &events.Progress{States: c.states, Reasons: c.reasons}
				for _, n := range c.states {
					view.Progress.Total += n
				}
			}
			done, err := watchOutcome(view)
			var code exitCode
			errors.As(err, &code)
			if done != c.done || code != c.want {
				t.Fatalf("got done %v, exit code %d; want %v, %d", done, code, c.done, c.want)
			}
		})
	}
}

func TestOnlyATargetWithoutAnybodyEndsTheWatchEarly(t *testing.T) {
	for name, c := range map[string]struct {
		view events.DeploymentView
		want bool
	}{
		"nobody is meant":             {events.DeploymentView{}, true},
		"nobody, and counts of none":  {events.DeploymentView{Progress: &events.Progress{}}, true},
		"somebody is meant":           {events.DeploymentView{Members: 1}, false},
		"somebody was released":       {events.DeploymentView{Released: 1}, false},
		"somebody has a job (leaver)": {events.DeploymentView{Progress: &events.Progress{Total: 1}}, false},
	} {
		if got := nobodyMeant(c.view); got != c.want {
			t.Errorf("%s: got %v", name, got)
		}
	}
}

func TestTheTableIsDrawnOverTheOneBefore(t *testing.T) {
	var out bytes.Buffer
	r := &redrawn{w: &out}
	for _, text := range []string{"one\ntwo", "three"} {
		if err := r.draw(text); err != nil {
			t.Fatal(err)
		}
	}
	if want := "one\ntwo\n\x1b[2A\x1b[Jthree\n"; out.String() != want {
		t.Fatalf("got %q, want %q", out.String(), want)
	}
}

func TestProgressIsTextInTheOrderOfStates(t *testing.T) {
	p := events.Progress{Total: 9288, States: map[events.State]int64{events.Succeeded: 9214, events.Running: 73, events.WillNotRerun: 1, events.Failed: 0}, Silent: 2,
		Reasons: map[events.Reason]int64{events.ExitCode: 1, events.DiskFull: 4, events.AgentFault: 0}}
	if got, want := progressText(p), "will not rerun 1 · running 73 · succeeded 9,214 · silent 2"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := reasonsText(p), "disk_full ×4 · exit_code ×1"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if table := testApp(nil).watchTable(events.DeploymentView{Progress: &p, Members: 3}); !strings.Contains(table, "9,214") {
		t.Errorf("got %s", table)
	}
}

func TestAWatchThatIsInterruptedSaysOnlyThat(t *testing.T) {
	f := newFakeFleet(t)
	f.set(func() { f.deployment = &events.DeploymentView{Life: events.LifeActive, Members: 1} })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var stdout, stderr bytes.Buffer
	code := f.app.run(ctx, streams{strings.NewReader(""), &stdout, &stderr}, []string{"deployment", "watch", "hello"})
	if code != 1 || stderr.String() != "chandler: stopped watching; the deployment goes on\n" {
		t.Errorf("exit code %d: %s", code, stderr.String())
	}
}
