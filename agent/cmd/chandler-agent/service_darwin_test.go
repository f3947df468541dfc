package main

import (
	"slices"
	"strings"
	"testing"
)

func TestTheCommandIsReadFromLaunchdsFile(t *testing.T) {
	words := strings.NewReplacer("{{Path | html}}", "/opt/a &amp; b/chandler-agent", "{{range Arguments}}", "", "{{. | html}}", "run", "{{end}}", "")
	for name, c := range map[string]struct {
		text string
		want []string
	}{
		"as it is installed": {words.Replace(launchd), []string{"/opt/a & b/chandler-agent", "run"}},
		"another's file":     {"<plist><dict></dict></plist>", nil},
		"no file of launchd": {"ProgramArguments", nil},
	} {
		t.Run(name, func(t *testing.T) {
			if got := programArguments([]byte(c.text)); !slices.Equal(got, c.want) {
				t.Errorf("read %q, want %q", got, c.want)
			}
		})
	}
}
