package main

import (
	"strings"
	"testing"

	"chandler/events"
)

func TestTheWholeFleetIsFrozenOnlyWhenThatIsTyped(t *testing.T) {
	a := testApp(map[string]string{"XDG_CONFIG_HOME": t.TempDir()})
	a.isTerminal = func(any) bool { return true }
	for typed, goesOn := range map[string]bool{"fleet\n": true, "yes\n": false, "\n": false, "": false} {
		var stderr strings.Builder
		cmd := newFreeze(a)
		cmd.SetIn(strings.NewReader(typed))
		cmd.SetErr(&stderr)
		err := a.confirmFleet(cmd, events.Freeze{Scope: "fleet"}, false)
		if (err == nil) != goesOn || !strings.Contains(stderr.String(), "Type fleet") {
			t.Errorf("%q: %v, %s", typed, err, stderr.String())
		}
	}
}

func TestExactlyOneScopeIsFrozen(t *testing.T) {
	for name, c := range map[string]struct {
		scope freezeScope
		id    string
	}{
		"the fleet":               {freezeScope{fleet: true}, "fleet"},
		"a collection":            {freezeScope{collection: "office"}, "collection-office"},
		"a site":                  {freezeScope{site: "oslo"}, "site-oslo"},
		"nothing":                 {freezeScope{}, ""},
		"the fleet and a site":    {freezeScope{fleet: true, site: "oslo"}, ""},
		"a site and a collection": {freezeScope{collection: "office", site: "oslo"}, ""},
		"a name with a dot":       {freezeScope{site: "a.b"}, ""},
	} {
		f, err := c.scope.freeze()
		if (err == nil) != (c.id != "") || err == nil && f.ID != c.id {
			t.Errorf("%s: got %+v, %v", name, f, err)
		}
	}
}
