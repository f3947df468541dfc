package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/target"
)

func newCollection(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "collection", Short: "Sets of agents"}
	cmd.AddCommand(collectionSet(a), collectionPreview(a), collectionList(a), collectionShow(a), collectionWindows(a), collectionRemove(a))
	return cmd
}

// checkExpression compiles a CEL expression here, so that a mistake is told with its place and without a
// connection. An empty one is none.
func checkExpression(what, expression string) error {
	if expression == "" {
		return nil
	}
	if _, err := target.Compile(expression); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// collectionFlags are those of set and preview.
type collectionFlags struct {
	where, comment   string
	include, exclude []string
}

func (f *collectionFlags) add(a *app, cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.where, "where", "", "agents whose facts satisfy this CEL expression")
	cmd.Flags().StringSliceVar(&f.include, "include", nil, "agents that belong to it whatever their facts (id or host name)")
	cmd.Flags().StringSliceVar(&f.exclude, "exclude", nil, "agents that never belong to it (id or host name)")
	cmd.Flags().StringVar(&f.comment, "comment", "", "what it is for")
	a.completeFlag(cmd, "include", completeAgents)
	a.completeFlag(cmd, "exclude", completeAgents)
}

func (f *collectionFlags) collection(ctx context.Context, c *client, name string) (events.Collection, error) {
	out := events.Collection{Name: name, Expression: f.where, Comment: f.comment}
	if err := events.ValidToken(name); err != nil {
		return out, fmt.Errorf("collection: %w", err)
	}
	if err := checkExpression("--where", f.where); err != nil {
		return out, err
	}
	if f.where == "" && len(f.include) == 0 {
		return out, fmt.Errorf("collection %q would reach nobody: say who belongs to it with --where or --include (--where true: everybody)", name)
	}
	if n := len(f.include) + len(f.exclude); n > events.MaxListed {
		return out, fmt.Errorf("--include and --exclude name %s agents, at most %s can be: describe them by --where, for instance over tags", count(n), count(events.MaxListed))
	}
	var err error
	if out.Include, err = resolveAgents(ctx, c, f.include); err != nil {
		return out, fmt.Errorf("--include: %w", err)
	}
	if out.Exclude, err = resolveAgents(ctx, c, f.exclude); err != nil {
		return out, fmt.Errorf("--exclude: %w", err)
	}
	slices.Sort(out.Include)
	slices.Sort(out.Exclude)
	return out, nil
}

func collectionSet(a *app) *cobra.Command {
	var f collectionFlags
	cmd := &cobra.Command{
		Use: "set NAME", Short: "Make or change a collection", Args: cobra.ExactArgs(1),
		Long: "Makes a collection, or replaces its definition; its maintenance windows stay. --where is a CEL expression over what a machine says of itself:\n\n" + factsHelp() +
			"\n\nTexts are compared with == and !=, joined with && and ||; \"office\" in agent.tags looks into a list;\nagent.hostname.startsWith(\"ws-\") is a function of texts.",
		ValidArgsFunction: a.completeArguments(completeCollections),
		Example: `  chandler collection set workstations --where 'agent.os == "windows" && "office" in agent.tags'
  chandler collection set pilot --include ws-0412,ws-0413`,
		RunE: a.connected(func(cmd *cobra.Command, c *client, args []string) error {
			wanted, err := f.collection(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			there, err := known(ask(cmd.Context(), c, events.CollectionShow, events.Named{Name: args[0]}))
			if err != nil {
				return err
			}
			wanted.Windows = there.Windows // collection windows changes those
			view, err := ask(cmd.Context(), c, events.CollectionSet, wanted)
			if err != nil {
				return err
			}
			return a.tellCollection(cmd, view)
		}),
	}
	f.add(a, cmd)
	return cmd
}

// tellCollection answers set: in words for people, the struct otherwise.
func (a *app) tellCollection(cmd *cobra.Command, view events.CollectionView) error {
	tellFaults(cmd.ErrOrStderr(), view)
	if err := a.answer(cmd, view, view.Name, "collection %s: %s", view.Name, plural(len(view.Members), "agent", "agents")); err != nil {
		return err
	}
	if len(view.Outdated) > 0 {
		note(cmd.ErrOrStderr(), "These deployments keep the target that was signed for them: %s. Create them again with --revise to reach the changed collection.", strings.Join(view.Outdated, ", "))
	}
	return nil
}

func tellFaults(w io.Writer, view events.CollectionView) {
	if view.Faults > 0 {
		note(w, "On %s the expression cannot be evaluated, so they do not belong to it. The first: %s", plural(view.Faults, "agent", "agents"), view.Fault)
	}
}

func collectionPreview(a *app) *cobra.Command {
	var f collectionFlags
	cmd := &cobra.Command{
		Use: "preview [NAME]", Short: "Show who would belong to a collection; nothing is kept", Args: cobra.MaximumNArgs(1),
		Long: `Shows who belongs to the collection NAME, as it would be with what the flags change; or, without a name,
who would belong to a collection of what the flags say. The facts: chandler collection set --help.`,
		Example: `  chandler collection preview --where 'agent.site == "oslo"'
  chandler collection preview workstations --exclude ws-0412`,
		ValidArgsFunction: a.completeArguments(completeCollections),
		RunE: a.connected(func(cmd *cobra.Command, c *client, args []string) error {
			wanted, err := f.previewed(cmd, c, args)
			if err != nil {
				return err
			}
			view, err := ask(cmd.Context(), c, events.CollectionPreview, wanted)
			if err != nil {
				return err
			}
			tellFaults(cmd.ErrOrStderr(), view)
			return a.writeMembers(cmd, c, view.Members)
		}),
	}
	f.add(a, cmd)
	return cmd
}

// previewed is an existing collection with what the flags change, or one of the flags alone.
func (f *collectionFlags) previewed(cmd *cobra.Command, c *client, args []string) (events.Collection, error) {
	given := func(flag string) bool { return cmd.Flags().Changed(flag) }
	changed := given("where") || given("include") || given("exclude")
	if len(args) == 0 {
		if !changed {
			return events.Collection{}, errors.New("say a collection's NAME, or who is meant with --where or --include; see `chandler collection preview --help`")
		}
		return f.collection(cmd.Context(), c, "preview")
	}
	there, err := ask(cmd.Context(), c, events.CollectionShow, events.Named{Name: args[0]})
	if err != nil && !(errors.Is(err, bus.ErrNotFound) && changed) {
		return there.Collection, err
	}
	merged := *f
	if !given("where") {
		merged.where = there.Expression
	}
	if !given("include") {
		merged.include = there.Include
	}
	if !given("exclude") {
		merged.exclude = there.Exclude
	}
	return merged.collection(cmd.Context(), c, args[0])
}

// writeMembers lists agents by their ids, with their facts.
func (a *app) writeMembers(cmd *cobra.Command, c *client, members []string) error {
	all, err := ask(cmd.Context(), c, events.AgentList, events.AgentQuery{})
	if err != nil {
		return err
	}
	all.Agents = slices.DeleteFunc(all.Agents, func(v events.AgentView) bool {
		_, member := slices.BinarySearch(members, v.Facts.ID)
		return !member
	})
	return a.agentColumns().show(cmd, a.output, all.Agents)
}

func (a *app) collectionColumns() listing[events.CollectionView] {
	type v = events.CollectionView
	return listing[v]{
		name: func(r v) string { return r.Name },
		columns: []column[v]{
			{"NAME", false, func(r v) any { return r.Name }},
			{"AGENTS", false, func(r v) any { return countCell(len(r.Members)) }},
			{"WHERE", false, func(r v) any { return r.Expression }},
			{"INCLUDE", true, func(r v) any { return len(r.Include) }},
			{"EXCLUDE", true, func(r v) any { return len(r.Exclude) }},
			{"CHANGED", false, func(r v) any { return a.agoCell(r.Changed) }},
			{"BY", true, func(r v) any { return r.By }},
			{"COMMENT", true, func(r v) any { return r.Comment }},
		},
	}
}

func collectionList(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "ls", Short: "List collections", Args: cobra.NoArgs,
		RunE: a.connected(func(cmd *cobra.Command, c *client, _ []string) error {
			all, err := ask(cmd.Context(), c, events.CollectionList, events.Nothing{})
			if err != nil {
				return err
			}
			return a.collectionColumns().show(cmd, a.output, all.Collections)
		}),
	}
}

func collectionShow(a *app) *cobra.Command {
	var members bool
	cmd := &cobra.Command{
		Use: "show NAME", Short: "Show one collection", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeArguments(completeCollections),
		RunE: a.connected(func(cmd *cobra.Command, c *client, args []string) error {
			view, err := ask(cmd.Context(), c, events.CollectionShow, events.Named{Name: args[0]})
			if err != nil {
				return err
			}
			if members {
				return a.writeMembers(cmd, c, view.Members)
			}
			tellFaults(cmd.ErrOrStderr(), view)
			return writeDetail(cmd.OutOrStdout(), a.output, view, view.Name, []field{
				{"Name", view.Name}, {"Where", view.Expression}, {"Include", view.Include}, {"Exclude", view.Exclude}, {"Comment", view.Comment}, {"Maintenance windows", windowLines(view.Windows)},
				{"Agents", count(len(view.Members))}, {"Changed", a.longTime(view.Changed)}, {"By", view.By}, {"Deployments with an older target", view.Outdated}, {"Deployments with older maintenance windows", view.OutdatedWindows},
			})
		}),
	}
	cmd.Flags().BoolVar(&members, "members", false, "list the agents that belong to it")
	return cmd
}

func collectionRemove(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "rm NAME", Short: "Remove a collection that no live deployment names", Args: cobra.ExactArgs(1),
		ValidArgsFunction: a.completeArguments(completeCollections),
		RunE: a.connected(func(cmd *cobra.Command, c *client, args []string) error {
			if _, err := ask(cmd.Context(), c, events.CollectionRemove, events.Named{Name: args[0]}); err != nil {
				return err
			}
			note(cmd.ErrOrStderr(), "collection %s is removed", args[0])
			return nil
		}),
	}
}
