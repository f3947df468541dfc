package main

import (
	"fmt"
	"os"
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
		RunE: func(cmd *cobra.Command, args []string) error {
			c.Name = args[0]
			return a.addContext(cmd, c)
		},
	}
	cmd.Flags().StringVar(&c.Server, "server", "", "address of the broker, or several separated by commas")
	cmd.Flags().StringVar(&c.Caller, "caller", defaultCaller, "name that the services' audit shows")
	cmd.Flags().StringVar(&c.SigningKey, "signing-key", "", "file of the key that signs orders")
	cmd.Flags().StringVar(&c.Trust, "trust", "", "file of the trust bundle that the fleet's agents hold")
	_ = cmd.MarkFlagRequired("server")
	return cmd
}

// addContext keeps a context whose files are there.
func (a *app) addContext(cmd *cobra.Command, c connection) error {
	store, err := a.contexts()
	if err != nil {
		return err
	}
	if err := c.validate(); err != nil {
		return err
	}
	for _, file := range []struct {
		flag string
		name *string
	}{{"signing-key", &c.SigningKey}, {"trust", &c.Trust}} {
		if *file.name == "" {
			continue
		}
		if info, err := os.Stat(*file.name); err != nil {
			return fmt.Errorf("--%s: %w", file.flag, err)
		} else if !info.Mode().IsRegular() {
			return fmt.Errorf("--%s: %s is not a file", file.flag, *file.name)
		}
		if *file.name, err = filepath.Abs(*file.name); err != nil {
			return err
		}
	}
	there, err := exists(store.file(c.Name))
	if err != nil {
		return err
	}
	if err := store.save(c); err != nil {
		return err
	}
	selected, err := store.selected()
	if err == nil && selected == "" {
		selected, err = c.Name, store.choose(c.Name)
	}
	if err != nil {
		return err
	}
	done, chosen := "is made", ": `"+a.self+" context use "+c.Name+"` selects it"
	if there {
		done = "is changed"
	}
	if selected == c.Name {
		chosen = ", and is selected"
	}
	return a.answer(cmd, contextRow{c, selected == c.Name}, c.Name, "context %s %s: %s as %s%s", c.Name, done, c.Server, c.Caller, chosen)
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
			c, err := store.load(args[0])
			if err != nil {
				return err
			}
			return a.answer(cmd, contextRow{c, true}, c.Name, "context %s is selected: %s", c.Name, c.Server)
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
			return contextColumns.show(cmd, a.output, rows)
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
			c, err := store.load(args[0])
			if err != nil {
				return err
			}
			if err := store.remove(args[0]); err != nil {
				return err
			}
			return a.answer(cmd, contextRow{connection: c}, c.Name, "context %s is forgotten; its files stay where they are", c.Name)
		},
	}
}

func (a *app) completeContext(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	store, err := a.contexts()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	all, err := store.list()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, c := range all {
		names = append(names, fmt.Sprintf("%s\t%s", c.Name, c.Server))
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
