package main

import (
	"context"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"chandler/events"
	"chandler/events/order"
)

// completionTime bounds a completion: whoever presses a key waits for it.
const completionTime = time.Second

// names lists what a shell may offer; a name and its description are separated by a tab.
type names func(ctx context.Context, c *client) ([]string, error)

// completing offers names to a shell. Without an answer in time there are none, and nothing is said: the
// line that is being typed would be spoilt.
func (a *app) completing(list names) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		const silent = cobra.ShellCompDirectiveNoFileComp
		ctx, cancel := context.WithTimeout(cmd.Context(), completionTime)
		defer cancel()
		where, err := a.current()
		if err != nil {
			return nil, silent
		}
		c, err := dial(where, completionTime)
		if err != nil {
			return nil, silent
		}
		defer c.bus.Conn().Close()
		found, err := list(ctx, c)
		if err != nil {
			return nil, silent
		}
		return found, silent
	}
}

// completeFlag offers names for a flag that the command has.
func (a *app) completeFlag(cmd *cobra.Command, flag string, list names) {
	_ = cmd.RegisterFlagCompletionFunc(flag, a.completing(list))
}

// completeWords offers fixed words for a flag that the command has.
func completeWords(cmd *cobra.Command, flag string, words ...string) {
	_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
}

// completeArguments offers one kind of names for each argument, and nothing after the last.
func (a *app) completeArguments(kinds ...names) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if len(args) >= len(kinds) {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return a.completing(kinds[len(args)])(cmd, args, typed)
	}
}

func completeDeployments(ctx context.Context, c *client) ([]string, error) {
	all, err := ask(ctx, c, events.DeploymentList, events.Nothing{})
	return collect(all.Deployments, func(d events.DeploymentView) string {
		return d.Deployment + "\t" + programText(d.DeploymentNotice) + " to " + d.Collection
	}), err
}

func completeCollections(ctx context.Context, c *client) ([]string, error) {
	all, err := ask(ctx, c, events.CollectionList, events.Nothing{})
	return collect(all.Collections, func(v events.CollectionView) string { return v.Name + "\t" + plural(len(v.Members), "agent", "agents") }), err
}

func completePackages(ctx context.Context, c *client) ([]string, error) {
	all, err := ask(ctx, c, events.ContentList, events.Nothing{})
	return collect(all.Packages, packageName), err
}

func completePrograms(ctx context.Context, c *client) ([]string, error) {
	all, err := ask(ctx, c, events.ContentList, events.Nothing{})
	var found []string
	for _, p := range all.Packages {
		found = append(found, programNames(p.Manifest)...)
	}
	return unique(found), err
}

func completeAgents(ctx context.Context, c *client) ([]string, error) {
	all, err := ask(ctx, c, events.AgentList, events.AgentQuery{})
	return collect(all.Agents, func(v events.AgentView) string { return v.Facts.Hostname + "\t" + v.Facts.ID }), err
}

func completeSites(ctx context.Context, c *client) ([]string, error) {
	all, err := ask(ctx, c, events.AgentList, events.AgentQuery{})
	return slices.DeleteFunc(collect(all.Agents, func(v events.AgentView) string { return v.Facts.Site }), func(s string) bool { return s == "" }), err
}

func completeJobs(ctx context.Context, c *client) ([]string, error) {
	all, err := ask(ctx, c, events.ExecutionJobs, events.JobQuery{})
	return collect(all.Jobs, func(j events.JobRow) string {
		return j.Job[:min(shownJob, len(j.Job))] + "\t" + j.Deployment + " " + string(j.State)
	}), err
}

func completeAccounts(ctx context.Context, c *client) ([]string, error) {
	all, err := ask(ctx, c, events.AccountList, events.Nothing{})
	return collect(all.Accounts, func(v events.AccountView) string { return v.Account + "\t" + string(v.Kind) }), err
}

// eventTypes are the short names of all events.
func eventTypes() []string {
	return collect(events.Types(), func(d events.Declaration) string { return shortType(d.Name) + "\t" + d.Summary })
}

func reruns() []string {
	return []string{string(order.RerunNever), string(order.RerunAlways), string(order.RerunIfFailed), string(order.RerunIfSucceeded)}
}

// collect gives one text for each row, sorted, each once.
func collect[T any](rows []T, text func(T) string) []string {
	found := make([]string, 0, len(rows))
	for _, r := range rows {
		found = append(found, text(r))
	}
	return unique(found)
}

func unique(words []string) []string {
	slices.Sort(words)
	return slices.Compact(words)
}
