package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"chandler/events"
)

// freezeScope is what the flags of freeze and unfreeze name; neither is the whole fleet.
type freezeScope struct{ collection, site string }

func (s *freezeScope) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&s.collection, "collection", "", "only the machines of this collection")
	cmd.Flags().StringVar(&s.site, "site", "", "only the machines of this site")
}

// freeze gives the scope with its id: "fleet", "collection-<name>" or "site-<name>".
func (s *freezeScope) freeze() (events.Freeze, error) {
	f := events.Freeze{ID: "fleet", Scope: "fleet"}
	switch {
	case s.collection != "" && s.site != "":
		return f, errors.New("give --collection or --site, not both: set two freezes")
	case s.collection != "":
		f = events.Freeze{ID: "collection-" + s.collection, Scope: "collection", Name: s.collection}
	case s.site != "":
		f = events.Freeze{ID: "site-" + s.site, Scope: "site", Name: s.site}
	}
	if err := events.ValidToken(f.ID); err != nil {
		return f, fmt.Errorf("what to freeze: %w", err)
	}
	return f, nil
}

func newFreeze(a *app) *cobra.Command {
	var scope freezeScope
	var why string
	cmd := &cobra.Command{
		Use: "freeze", Short: "Start no programs: in the fleet, a collection or a site", Args: cobra.NoArgs,
		Long: `No program is started in the scope until the freeze is lifted; what runs goes on. A freeze needs no
signature, and holds on every machine that hears of it.`,
		RunE: a.connected(func(cmd *cobra.Command, c *client, _ []string) error {
			f, err := scope.freeze()
			if err != nil {
				return err
			}
			f.Why = why
			if f.Collection, err = frozenCollection(cmd.Context(), c, scope.collection); err != nil {
				return err
			}
			set, err := ask(cmd.Context(), c, events.ExecutionFreeze, f)
			if err != nil {
				return err
			}
			note(cmd.OutOrStdout(), "%s is frozen; lift it with: chandler unfreeze%s", scopeText(set), unfreezeFlags(set))
			return nil
		}),
	}
	scope.add(cmd)
	cmd.Flags().StringVar(&why, "why", "", "why, shown to whoever asks what a machine waits for")
	cmd.AddCommand(freezeList(a))
	return cmd
}

// frozenCollection is the definition that goes with the freeze: agents evaluate it themselves.
func frozenCollection(ctx context.Context, c *client, name string) (*events.Collection, error) {
	if name == "" {
		return nil, nil
	}
	view, err := ask(ctx, c, events.CollectionShow, events.Named{Name: name})
	if err != nil {
		return nil, fmt.Errorf("freezing a collection needs its definition (the fleet or a site can be frozen without): %w", err)
	}
	return &view.Collection, nil
}

func newUnfreeze(a *app) *cobra.Command {
	var scope freezeScope
	cmd := &cobra.Command{
		Use: "unfreeze", Short: "Lift a freeze", Args: cobra.NoArgs,
		RunE: a.connected(func(cmd *cobra.Command, c *client, _ []string) error {
			f, err := scope.freeze()
			if err != nil {
				return err
			}
			lifted, err := ask(cmd.Context(), c, events.ExecutionUnfreeze, events.Named{Name: f.ID})
			if err != nil {
				return err
			}
			note(cmd.OutOrStdout(), "%s is no longer frozen", scopeText(lifted))
			return nil
		}),
	}
	scope.add(cmd)
	return cmd
}

func scopeText(f events.Freeze) string {
	if f.Scope == "fleet" {
		return "the fleet"
	}
	return f.Scope + " " + f.Name
}

func unfreezeFlags(f events.Freeze) string {
	if f.Scope == "fleet" {
		return ""
	}
	return " --" + f.Scope + " " + f.Name
}

func freezeList(a *app) *cobra.Command {
	type v = events.Freeze
	columns := listing[v]{
		name: func(r v) string { return r.ID },
		columns: []column[v]{
			{"ID", false, func(r v) any { return r.ID }},
			{"SCOPE", false, func(r v) any { return scopeText(r) }},
			{"SINCE", false, func(r v) any { return a.longTime(r.At) }},
			{"BY", false, func(r v) any { return r.By }},
			{"WHY", false, func(r v) any { return r.Why }},
		},
	}
	return &cobra.Command{
		Use: "ls", Short: "List what is frozen", Args: cobra.NoArgs,
		RunE: a.connected(func(cmd *cobra.Command, c *client, _ []string) error {
			all, err := ask(cmd.Context(), c, events.ExecutionFreezes, events.Nothing{})
			if err != nil {
				return err
			}
			return columns.write(cmd.OutOrStdout(), a.output, all.Freezes)
		}),
	}
}
