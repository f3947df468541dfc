package execution

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"chandler/events"
	"chandler/events/eventstest"
)

func TestTheAuditSaysWhatRequestsChanged(t *testing.T) {
	w := newWorld(t)
	r := w.start()
	w.release(w.deploy("d", 1), 1, agents(1)...)
	w.states(r, "d", map[events.State]int64{events.Offered: 1})
	must[events.StopAnswer](w)(ask(w, events.ExecutionStop, events.StopRequest{Deployment: "d"}))
	must[events.StopAnswer](w)(ask(w, events.ExecutionStop, events.StopRequest{Deployment: "d"}))
	must[events.StopAnswer](w)(ask(w, events.ExecutionStop, events.StopRequest{Deployment: "d", Kill: true}))
	must[events.Freeze](w)(ask(w, events.ExecutionFreeze, events.Freeze{Scope: "fleet"}))
	must[events.Freeze](w)(ask(w, events.ExecutionFreeze, events.Freeze{Scope: "fleet", Why: "longer"}))
	must[events.Freeze](w)(ask(w, events.ExecutionUnfreeze, events.Named{Name: "fleet"}))
	must[events.RetellAnswer](w)(ask(w, events.ExecutionRetell, events.Nothing{}))
	if _, err := ask(w, events.ExecutionUnfreeze, events.Named{Name: "fleet"}); err == nil {
		t.Error("what is not frozen was unfrozen")
	}
	type digests struct{ Verb, Before, After string }
	names := map[string]string{"": ""}
	name := func(digest string) string {
		if _, known := names[digest]; !known {
			names[digest] = "state " + string(rune('a'+len(names)-1))
		}
		return names[digest]
	}
	var got []digests
	for _, e := range eventstest.ExpectExactly(t, w.bus, events.AuditRecorded, nil, 8) {
		got = append(got, digests{e.Data.Verb, name(e.Data.Before), name(e.Data.After)})
	}
	want := []digests{
		{"stop", "", "state a"}, {"stop", "state a", "state a"}, {"stop", "state a", "state b"},
		{"freeze", "", "state c"}, {"freeze", "state c", "state d"}, {"unfreeze", "state d", ""},
		{"retell", "state e", "state f"}, {"unfreeze", "", ""},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
