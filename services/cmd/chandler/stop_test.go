package main

import (
	"testing"
	"time"

	"chandler/events"
)

func TestTheStopLineTellsWhatWasReached(t *testing.T) {
	a := testApp(nil) // 09:00 in its zone
	for want, s := range map[string]events.StopAnswer{
		"deployment hello: stopped 9,214 · running 73 · unreachable 412, may still start until 20:00":            {Deployment: "hello", Stopped: 9214, Running: 73, Unreachable: 412, MayStart: new(testNow.Add(11 * time.Hour))},
		"deployment hello: stopped 9,214 · running 73 · unreachable 412, may still start until 2026-12-02 06:00": {Deployment: "hello", Stopped: 9214, Running: 73, Unreachable: 412, MayStart: new(testNow.Add(21 * time.Hour))},
		"deployment hello: stopped 3 · running 0 · unreachable 0":                                                {Deployment: "hello", Stopped: 3, Ended: 5, MayStart: new(testNow)},
		"deployment hello: stopped 0 · running 0 · unreachable 2":                                                {Deployment: "hello", Unreachable: 2},
	} {
		if got := a.stopLine(s); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
