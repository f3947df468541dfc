package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

type ship struct {
	Name string   `json:"name"`
	Tons int      `json:"tons"`
	Flag []string `json:"flag,omitempty"`
}

var ships = listing[ship]{
	name: func(s ship) string { return s.Name },
	columns: []column[ship]{
		{"NAME", false, func(s ship) any { return s.Name }},
		{"TONS", false, func(s ship) any { return s.Tons }},
		{"FLAG", true, func(s ship) any { return s.Flag }},
	},
}

func TestEveryListingHasEveryForm(t *testing.T) {
	rows := []ship{{"fram", 402, []string{"no", "se"}}, {"gjøa, old", 67, nil}}
	for form, want := range map[string]string{
		formTable: "NAME       TONS\nfram       402\ngjøa, old  67\n",
		formWide:  "NAME       TONS  FLAG\nfram       402   no, se\ngjøa, old  67\n",
		formName:  "fram\ngjøa, old\n",
		formCSV:   "name,tons,flag\nfram,402,\"no, se\"\n\"gjøa, old\",67,\n",
		formYAML:  "- name: fram\n  tons: 402\n  flag:\n  - \"no\"\n  - se\n- name: gjøa, old\n  tons: 67\n",
	} {
		t.Run(form, func(t *testing.T) {
			var out strings.Builder
			if err := ships.write(&out, form, rows); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, out.String()); diff != "" {
				t.Fatal(diff)
			}
		})
	}
	var out strings.Builder
	if err := ships.write(&out, formJSON, rows); err != nil {
		t.Fatal(err)
	}
	var back []ship
	if err := json.Unmarshal([]byte(out.String()), &back); err != nil || !cmp.Equal(rows, back) {
		t.Fatalf("got %s, %v", out.String(), err)
	}
}

func TestAnEmptyListIsAListInJSON(t *testing.T) {
	var out strings.Builder
	if err := ships.write(&out, formJSON, nil); err != nil || out.String() != "[]\n" {
		t.Fatalf("got %q, %v", out.String(), err)
	}
}

func TestWhatOthersWroteCannotSteerTheTerminal(t *testing.T) {
	evil := "\x1b]0;owned\x07\u202ename"
	for _, form := range []string{formTable, formWide, formName, formCSV} {
		var out strings.Builder
		if err := ships.write(&out, form, []ship{{Name: evil}}); err != nil {
			t.Fatal(err)
		}
		if strings.ContainsAny(out.String(), "\x1b\x07\u202e") {
			t.Errorf("%s: %q", form, out.String())
		}
	}
	var out strings.Builder
	note(&out, "%s", evil)
	if strings.ContainsAny(out.String(), "\x1b\x07\u202e") {
		t.Errorf("note: %q", out.String())
	}
}

func TestADetailLeavesOutWhatIsEmpty(t *testing.T) {
	var out strings.Builder
	if err := writeDetail(&out, formTable, ship{}, "fram", []field{{"Name", "fram"}, {"Owner", ""}, {"Tons", 402}}); err != nil {
		t.Fatal(err)
	}
	if want := "Name  fram\nTons  402\n"; out.String() != want {
		t.Fatalf("got %q, want %q", out.String(), want)
	}
}

func TestAnUnknownFormIsRefusedBeforeAnythingIsDone(t *testing.T) {
	code, _, stderr := command(t, testApp(map[string]string{"XDG_CONFIG_HOME": t.TempDir()}), "", "context", "ls", "-o", "xml")
	if code != 1 || !strings.Contains(stderr, "table, wide, json, yaml, name, csv") {
		t.Fatalf("exit code %d, %s", code, stderr)
	}
}
