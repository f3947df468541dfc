package detect

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"chandler/events"
)

// says is a Kind that answers with what the rule's script is called.
type says map[string]State

func (s says) Detect(_ context.Context, rule events.Detect) Result {
	return Result{s[rule.Script], "script " + rule.Script}
}

func newDetector(t *testing.T, opt Options) *Detector {
	t.Helper()
	d, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// want checks a result and that its explanation holds a word an administrator needs.
func want(t *testing.T, got Result, state State, explanation string) {
	t.Helper()
	if got.State != state {
		t.Errorf("state %v, want %v (%s)", got.State, state, got.Explanation)
	}
	if !strings.Contains(got.Explanation, explanation) {
		t.Errorf("explanation %q does not say %q", got.Explanation, explanation)
	}
}

func TestSeveralRulesMustAllHold(t *testing.T) {
	yes, no, dontKnow := events.Detect{Script: "yes"}, events.Detect{Script: "no"}, events.Detect{Script: "dontknow"}
	d := newDetector(t, Options{Kinds: map[string]Kind{KindScript: says{"yes": Installed, "no": NotInstalled}}})
	tests := []struct {
		name        string
		rules       []events.Detect
		state       State
		explanation string
	}{
		{"no rules claim nothing", nil, Unknown, "no detection rule"},
		{"one rule decides alone", []events.Detect{yes}, Installed, "script yes"},
		{"rules that all hold mean installed", []events.Detect{yes, yes}, Installed, "rule 1: script yes; rule 2: script yes"},
		{"one that does not hold means not installed", []events.Detect{yes, no}, NotInstalled, "rule 2: script no"},
		{"not installed outweighs unknown", []events.Detect{dontKnow, no, yes}, NotInstalled, "rule 2: script no"},
		{"unknown outweighs installed", []events.Detect{yes, dontKnow, yes}, Unknown, "rule 2: script dontknow"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			want(t, d.Detect(t.Context(), tt.rules), tt.state, tt.explanation)
		})
	}
}

func TestARuleThatCannotBeCheckedAsAWholeIsUnknown(t *testing.T) {
	kinds := map[string]Kind{}
	for _, name := range KindNames() {
		if name != KindMSI {
			kinds[name] = says{"": Installed, "x": Installed}
		}
	}
	d := newDetector(t, Options{Kinds: kinds})
	tests := []struct {
		name        string
		rule        events.Detect
		explanation string
	}{
		{"an empty rule", events.Detect{}, "none of file, dpkg"},
		{"a rule of two kinds", events.Detect{File: "/x", Rpm: "x"}, "file and rpm"},
		{"a digest of a package", events.Detect{Dpkg: "x", SHA256: "00"}, "sha256"},
		{"a version of a file", events.Detect{File: "/x", Version: "1"}, "version"},
		{"a version of a script", events.Detect{Script: "x", Version: "1"}, "version"},
		{"a shell without a script", events.Detect{Rpm: "x", Shell: "sh"}, "shell"},
		{"a kind that the agent has not", events.Detect{MSI: "x"}, "cannot detect by msi"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			want(t, d.Detect(t.Context(), []events.Detect{tt.rule}), Unknown, tt.explanation)
		})
	}
}

// slow is a Kind that never ends by itself.
type slow struct{}

func (slow) Detect(ctx context.Context, _ events.Detect) Result {
	<-ctx.Done()
	return unknown("%v", ctx.Err())
}

func TestEveryRuleHasATimeLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDetector(t, Options{Kinds: map[string]Kind{KindScript: slow{}}})
		start := time.Now()
		want(t, d.Detect(t.Context(), []events.Detect{{Script: "x"}, {Script: "x"}}), Unknown, "deadline")
		if took := time.Since(start); took != 2*defaultTimeout {
			t.Errorf("two rules took %v, want %v", took, 2*defaultTimeout)
		}
	})
}

func TestNewRefusesTablesThatCannotBeMeant(t *testing.T) {
	for name, opt := range map[string]Options{
		"a kind of a name no rule has": {Kinds: map[string]Kind{"registry": says{}}},
		"a missing kind":               {Kinds: map[string]Kind{KindFile: nil}},
		"a negative time limit":        {Timeout: -1},
	} {
		if _, err := New(opt); err == nil {
			t.Errorf("New took %s", name)
		}
	}
}
