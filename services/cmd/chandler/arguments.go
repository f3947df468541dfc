package main

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/spf13/cobra"
)

// prepare gives every command of the tree what cobra leaves out: an unknown subcommand of a group is an
// error with suggestions, and wrong arguments are told by their names.
func prepare(root *cobra.Command) {
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fmt.Errorf("%w: see `%s --help`", err, cmd.CommandPath())
	})
	each(root, func(cmd *cobra.Command) {
		if cmd.HasSubCommands() && cmd.RunE == nil {
			cmd.Args = cobra.ArbitraryArgs
			cmd.RunE = group
		}
		if check := cmd.Args; check != nil {
			cmd.Args = func(cmd *cobra.Command, args []string) error {
				if check(cmd, args) == nil {
					return nil
				}
				return wrongArguments(cmd, args)
			}
		}
	})
}

// each visits a command and all below it.
func each(cmd *cobra.Command, visit func(*cobra.Command)) {
	visit(cmd)
	for _, sub := range cmd.Commands() {
		each(sub, visit)
	}
}

// group runs a command that only holds others.
func group(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return cmd.Help()
	}
	return unknownCommand(cmd, args[0])
}

func unknownCommand(cmd *cobra.Command, name string) error {
	cmd.SuggestionsMinimumDistance = 2
	var meant []string
	for _, s := range cmd.SuggestionsFor(name) {
		meant = append(meant, fmt.Sprintf("`%s %s`", cmd.CommandPath(), s))
	}
	if len(meant) == 0 {
		each(cmd.Root(), func(other *cobra.Command) {
			if other.Name() == name && other.IsAvailableCommand() {
				meant = append(meant, "`"+other.CommandPath()+"`")
			}
		})
	}
	if len(meant) > 0 {
		return fmt.Errorf("there is no command %q in %q: did you mean %s?", name, cmd.CommandPath(), strings.Join(meant, " or "))
	}
	return fmt.Errorf("there is no command %q in %q: see `%s --help`", name, cmd.CommandPath(), cmd.CommandPath())
}

// argument matches the arguments in a usage line: NAME, SERVICE…, [AGENT].
var argument = regexp.MustCompile(`^\[?[A-Z][A-Z@\[\]]*…?\]?$`)

// arguments are the names of a command's arguments in its usage line; those in brackets may be left out.
func arguments(use string) (names []string, required int) {
	for _, word := range strings.Fields(use)[1:] {
		if strings.HasPrefix(word, "-") || !argument.MatchString(word) {
			break
		}
		if !strings.HasPrefix(word, "[") {
			required++
		}
		names = append(names, word)
	}
	return names, required
}

// wrongArguments says which argument is missing or too much.
func wrongArguments(cmd *cobra.Command, args []string) error {
	names, required := arguments(cmd.Use)
	if len(args) < required {
		return fmt.Errorf("%s is missing: `%s %s`; see `%s --help`", names[len(args)], cmd.CommandPath(), strings.Join(names, " "), cmd.CommandPath())
	}
	if cmd.HasSubCommands() {
		return unknownCommand(cmd, args[0])
	}
	extra := args[min(len(names), len(args)-1)]
	return fmt.Errorf("%q is one argument too many: `%s`; see `%s --help`", extra, strings.Join(append([]string{cmd.CommandPath()}, names...), " "), cmd.CommandPath())
}
