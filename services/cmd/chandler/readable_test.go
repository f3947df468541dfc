package main

import (
	"strings"
	"testing"

	"chandler/events"
)

func TestCommandsInWhatAgentsSayAreReadable(t *testing.T) {
	for text, want := range map[string]string{
		`root ran ["/usr/bin/sh" "f.sh" "a b"]: exit code 3`:  `root ran /usr/bin/sh f.sh 'a b': exit code 3`,
		`root ran ["sh" "-c" "echo \"it's\"\nexit 1"]: ended`: `root ran sh -c 'echo "it'\''s" exit 1': ended`,
		`nothing quoted`: `nothing quoted`,
		`[] and ["x]`:    `[] and ["x]`,
	} {
		if got := readable(text); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	long := readable(`root ran ["sh" "-c" "` + strings.Repeat("ø", 1000) + `"]: ended`)
	if got := len([]rune(long)); got > maxCommand+30 || !strings.HasSuffix(long, "…: ended") {
		t.Errorf("%d characters: %s", got, long)
	}
}

func TestWhatAStatusSaysAlreadyIsNotSaidAgain(t *testing.T) {
	s := events.JobStatus{State: events.Failed, Reason: events.ExitCode, ExitCode: new(3), Explanation: `root ran ["sh" "f.sh"]: exit code 3 (failure)`,
		Identity: "root", Resource: `["sh" "f.sh"]`, Answer: `root ran ["sh" "f.sh"]: exit code 3 (failure)`}
	text := strings.Join(testApp(nil).storyLines(story{Statuses: []events.JobStatus{s}}), "\n")
	for part, n := range map[string]int{"sh f.sh": 1, "exit code 3": 1, "who tried: root": 1, "which answered": 0, `["`: 0} {
		if got := strings.Count(text, part); got != n {
			t.Errorf("it says %q %d times, want %d:\n%s", part, got, n, text)
		}
	}
}

func TestTimesInWhatServicesSayAreShownAsAllOthers(t *testing.T) {
	if got, want := testApp(nil).localTimes("available at 2026-12-01T08:00:00Z, in 1h"), "available at 2026-12-01 09:00:00 CET, in 1h"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func FuzzReadable(f *testing.F) {
	for _, s := range []string{`["a" "b c"]`, `["\"" "\\"]`, `["`, "plain"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if got := readable(s); !strings.Contains(s, `["`) && got != s {
			t.Fatalf("%q became %q", s, got)
		}
	})
}
