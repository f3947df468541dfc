package main

import (
	"encoding/json"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"chandler/events"
)

func TestEveryFactIsDescribedWithAnExampleThatAgentsCouldReport(t *testing.T) {
	texts := factTexts()
	if diff := cmp.Diff(slices.Sorted(slices.Values(factNames())), slices.Sorted(maps.Keys(texts))); diff != "" {
		t.Errorf("facts, and those described: %s", diff)
	}
	for name, text := range texts {
		var facts events.Facts
		if err := json.Unmarshal([]byte(`{"`+name+`":`+text.example+`}`), &facts); err != nil || text.what == "" {
			t.Errorf("%s: %q, %v", name, text.what, err)
		}
	}
}
