package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"chandler/events"
)

func TestADeploymentThatEndedEverywhereIsNotLeftBehind(t *testing.T) {
	f := newFakeFleet(t)
	where, err := f.app.current()
	if err != nil {
		t.Fatal(err)
	}
	c, err := dial(where, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.bus.Conn().Close()
	d := events.DeploymentView{Life: events.LifeActive, Members: 2}
	d.Deployment, d.Revision = "hello", 3
	for name, of := range map[string]struct {
		progress *events.Progress
		want     bool
	}{
		"execution knows nothing":     {nil, false},
		"all have ended":              {&events.Progress{Revision: 3, Total: 2, States: map[events.State]int64{events.Succeeded: 1, events.Failed: 1}}, true},
		"one is open":                 {&events.Progress{Revision: 3, Total: 2, States: map[events.State]int64{events.Succeeded: 1, events.Waiting: 1}}, false},
		"one was not offered it":      {&events.Progress{Revision: 3, Total: 1, States: map[events.State]int64{events.Succeeded: 1}}, false},
		"that was the order before":   {&events.Progress{Revision: 2, Total: 2, States: map[events.State]int64{events.Succeeded: 2}}, false},
		"nobody has been offered any": {&events.Progress{Revision: 3}, false},
	} {
		t.Run(name, func(t *testing.T) {
			f.set(func() { f.progress = of.progress })
			if got := hasEnded(t.Context(), c, d); got != of.want {
				t.Errorf("got %v", got)
			}
		})
	}
	var out bytes.Buffer
	i := impact{Done: []string{"hello"}}
	if err := f.app.tellImpact(&out, i); err != nil || !i.harmless() || !strings.Contains(out.String(), "deployment hello has ended on all its machines") {
		t.Errorf("%v: %s", err, out.String())
	}
}
