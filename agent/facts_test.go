package agent

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"chandler/events"
)

func TestWhatTheFleetConfersWinsOverTheConfiguration(t *testing.T) {
	configured := events.Facts{Site: "oslo", Tags: []string{"lab", "office"}, ClientKind: events.Advanced}
	for name, c := range map[string]struct {
		conferred events.Conferred
		want      events.Facts
	}{
		"nothing is conferred": {events.Conferred{}, configured},
		"everything is": {events.Conferred{Site: "bergen", Tags: []string{"office", "dc"}, ClientKind: events.Legacy, DomainController: true},
			events.Facts{Site: "bergen", Tags: []string{"lab", "office", "dc"}, ClientKind: events.Legacy, DomainController: true}},
		"a tag alone": {events.Conferred{Tags: []string{"new"}}, events.Facts{Site: "oslo", Tags: []string{"lab", "office", "new"}, ClientKind: events.Advanced}},
	} {
		t.Run(name, func(t *testing.T) {
			got := configured
			confer(&got, c.conferred)
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
			if len(configured.Tags) != 2 {
				t.Error("the configuration was changed")
			}
		})
	}
}
