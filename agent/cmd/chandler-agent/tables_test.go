package main

import (
	"log/slog"
	"path/filepath"
	"testing"

	"chandler/agent/elevate"
	"chandler/agent/identity"
)

func TestWhoeverCanRunProgramsHasARunner(t *testing.T) {
	rights, err := elevate.New(elevate.Options{Dir: filepath.Join(t.TempDir(), "rights"), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	table, err := runners(rights, "")
	if err != nil {
		t.Fatal(err)
	}
	used := map[string]bool{}
	for _, who := range identity.Everybody() {
		name := who.Runner()
		if name == "" {
			continue
		}
		used[name] = true
		if table[name] == nil {
			t.Errorf("nothing runs programs as %s: runner %q is not in the table", who, name)
		}
	}
	for name := range table {
		if !used[name] {
			t.Errorf("runner %q is nobody's", name)
		}
	}
}
