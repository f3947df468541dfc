package main

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// The help takes what is between backquotes for the name of the flag's value.
func TestNoFlagsTextHasBackquotes(t *testing.T) {
	var look func(*cobra.Command)
	flags := 0
	look = func(cmd *cobra.Command) {
		check := func(f *pflag.Flag) {
			flags++
			if strings.Contains(f.Usage, "`") {
				t.Errorf("%s --%s: %s", cmd.CommandPath(), f.Name, f.Usage)
			}
		}
		cmd.Flags().VisitAll(check)
		cmd.PersistentFlags().VisitAll(check)
		for _, sub := range cmd.Commands() {
			look(sub)
		}
	}
	look(newRoot(testApp(nil)))
	if flags < 100 {
		t.Errorf("only %d flags were looked at", flags)
	}
}
