package main

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"
)

func newContext(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "context", Short: "Which fleet the other commands speak to"}
	cmd.AddCommand(contextAdd(a), contextUse(a), contextList(a), contextShow(a), contextRemove(a))
	return cmd
}

func contextAdd(a *app) *cobra.Command {
	c := connection{}
	cmd := &cobra.Command{
		Use: "add NAME --server URL", Short: "Make or change a context, and select it if there is no other", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			store, err := a.contexts()
			if err != nil {
				return err
			}
			c.Name = args[0]
			for _, file := range []*string{&c.SigningKey, &c.Trust} {
				if *file == "" {
					continue
				}
				if *file, err = filepath.Abs(*file); err != nil {
					return err
				}
			}
			if err := store.save(c); err != nil {
				return err
			}
			if selected, err := store.selected(); err != nil || selected != "" {
				return err
			}
			return store.choose(c.Name)
		},
	}
	cmd.Flags().StringVar(&c.Server, "server", "", "address of the broker, or several separated by commas")
	cmd.Flags().StringVar(&c.Caller, "caller", defaultCaller, "name that the services' audit shows")
	cmd.Flags().StringVar(&c.SigningKey, "signing-key", "", "file of the key that signs orders")
	cmd.Flags().StringVar(&c.Trust, "trust", "", "file of the trust bundle that the fleet's agents hold")
	_ = cmd.MarkFlagRequired("server")
	return cmd
}

func contextUse(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "use NAME", Short: "Select a context", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeContext,
		RunE: func(cmd *cobra.Command, args []string) error {
			store, err := a.contexts()
			if err != nil {
				return err
			}
			if err := store.choose(args[0]); err != nil {
				return err
			}
			note(cmd.ErrOrStderr(), "context %s is selected", args[0])
			return nil
		},
	}
}

// contextRow is a context as listings show it.
type contextRow struct {
	connection
	Selected bool `json:"selected"`
}

var contextColumns = listing[contextRow]{
	name: func(r contextRow) string { return r.Name },
	columns: []column[contextRow]{
		{"", false, func(r contextRow) any { return mark(r.Selected, "*") }},
		{"NAME", false, func(r contextRow) any { return r.Name }},
		{"SERVER", false, func(r contextRow) any { return r.Server }},
		{"CALLER", false, func(r contextRow) any { return r.Caller }},
		{"SIGNING KEY", true, func(r contextRow) any { return r.SigningKey }},
		{"TRUST", true, func(r contextRow) any { return r.Trust }},
	},
}

func contextList(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "ls", Short: "List contexts", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			store, err := a.contexts()
			if err != nil {
				return err
			}
			all, err := store.list()
			if err != nil {
				return err
			}
			selected, err := store.selected()
			if err != nil {
				return err
			}
			rows := make([]contextRow, 0, len(all))
			for _, c := range all {
				rows = append(rows, contextRow{c, c.Name == selected})
			}
			return contextColumns.write(cmd.OutOrStdout(), a.output, rows)
		},
	}
}

func contextShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "show [NAME]", Short: "Show a context", Args: cobra.MaximumNArgs(1), ValidArgsFunction: a.completeContext,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				a.context = args[0]
			}
			c, err := a.current()
			if err != nil {
				return err
			}
			return writeDetail(cmd.OutOrStdout(), a.output, c, c.Name, []field{
				{"Name", c.Name}, {"Server", c.Server}, {"Caller", c.Caller}, {"Signing key", c.SigningKey}, {"Trust", c.Trust},
			})
		},
	}
}

func contextRemove(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "rm NAME", Short: "Forget a context", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeContext,
		RunE: func(cmd *cobra.Command, args []string) error {
			store, err := a.contexts()
			if err != nil {
				return err
			}
			if err := store.remove(args[0]); err != nil {
				return err
			}
			note(cmd.ErrOrStderr(), "context %s is forgotten", args[0])
			return nil
		},
	}
}

func (a *app) completeContext(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	store, err := a.contexts()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	all, err := store.list()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var names []string
	for _, c := range all {
		names = append(names, fmt.Sprintf("%s\t%s", c.Name, c.Server))
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
