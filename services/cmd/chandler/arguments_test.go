package main

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func TestAWrongCommandLineIsToldInItsOwnWords(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		says []string
	}{
		"a misspelt command of a group":        {[]string{"package", "publsh", "x"}, []string{`"publsh"`, "chandler package publish"}},
		"a command of another group":           {[]string{"job", "retry", "x"}, []string{`"retry"`, "chandler deployment retry"}},
		"a command that is nowhere":            {[]string{"job", "explode"}, []string{`"explode"`, "chandler job --help"}},
		"a misspelt command":                   {[]string{"depployment", "ls"}, []string{`"depployment"`, "chandler deployment"}},
		"a misspelt command of one that does":  {[]string{"freeze", "lss"}, []string{`"lss"`, "chandler freeze ls"}},
		"a missing argument":                   {[]string{"agent", "show"}, []string{"AGENT is missing", "chandler agent show --help"}},
		"a missing argument with a version":    {[]string{"package", "rm"}, []string{"NAME@VERSION is missing"}},
		"an argument too many":                 {[]string{"agent", "show", "a", "b"}, []string{`"b" is one argument too many`, "chandler agent show AGENT"}},
		"an argument where there is none":      {[]string{"agent", "ls", "a"}, []string{`"a" is one argument too many`}},
		"an unknown flag":                      {[]string{"agent", "ls", "--were", "x"}, []string{"--were", "chandler agent ls --help"}},
		"a missing argument of several things": {[]string{"serve"}, []string{"SERVICE… is missing"}},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := command(t, testApp(map[string]string{"XDG_CONFIG_HOME": t.TempDir()}), "", c.args...)
			if code != 1 || stdout != "" {
				t.Fatalf("exit code %d, standard output %q", code, stdout)
			}
			for _, s := range c.says {
				if !strings.Contains(stderr, s) {
					t.Errorf("it does not say %q: %s", s, stderr)
				}
			}
		})
	}
}

func TestEveryArgumentOfEveryCommandIsReadFromItsUsageLine(t *testing.T) {
	each(newRoot(testApp(nil)), func(cmd *cobra.Command) {
		names, required := arguments(cmd.Use)
		enough := make([]string, required)
		if cmd.Args == nil || cmd.Args(cmd, enough) != nil {
			t.Errorf("%s: the usage line %q names %v, which it does not take", cmd.CommandPath(), cmd.Use, names)
		}
		if required > 0 && cmd.Args(cmd, enough[1:]) == nil {
			t.Errorf("%s: it does without %s", cmd.CommandPath(), names[required-1])
		}
	})
}
