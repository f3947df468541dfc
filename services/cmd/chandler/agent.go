package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"chandler/events"
)

// silentAfter is how long an agent may say nothing before it is shown as silent: several heartbeats.
const silentAfter = 15 * time.Minute

func newAgent(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "agent", Short: "The machines of the fleet"}
	cmd.AddCommand(agentList(a), agentShow(a), agentHistory(a), agentApprove(a), agentSetKind(a), agentArchive(a), agentRevoke(a))
	return cmd
}

func (a *app) agentColumns() listing[events.AgentView] {
	type v = events.AgentView
	return listing[v]{
		name: func(r v) string { return r.Facts.ID },
		columns: []column[v]{
			{"HOST", false, func(r v) any { return r.Facts.Hostname }},
			{"ID", false, func(r v) any { return r.Facts.ID }},
			{"SITE", false, func(r v) any { return r.Facts.Site }},
			{"OS", false, func(r v) any { return strings.TrimSpace(r.Facts.OSName + " " + r.Facts.OSVersion) }},
			{"ARCH", false, func(r v) any { return r.Facts.Arch }},
			{"KIND", true, func(r v) any { return r.Facts.ClientKind }},
			{"TAGS", true, func(r v) any { return r.Facts.Tags }},
			{"ADDRESSES", true, func(r v) any { return r.Facts.Addresses }},
			{"VERSION", true, func(r v) any { return r.Facts.Version }},
			{"SEEN", false, func(r v) any { return a.seenCell(r) }},
			{"TWINS", true, func(r v) any { return a.agoCell(r.Twins) }},
		},
	}
}

// twins says whether several agents run with this identity, as far as the last heartbeats tell.
func (a *app) twins(v events.AgentView) bool { return a.now().Sub(v.Twins) < silentAfter }

// seenCell shows when the agent was seen, and whether more than one was.
func (a *app) seenCell(v events.AgentView) cell {
	seen := a.agoCell(v.LastSeen)
	if a.twins(v) {
		seen.text += ", twice!"
	}
	return seen
}

// agentFlags choose what agent ls lists.
type agentFlags struct {
	where, state, silent string
	pending              bool
}

func agentList(a *app) *cobra.Command {
	var f agentFlags
	cmd := &cobra.Command{
		Use: "ls", Short: "List agents", Args: cobra.NoArgs,
		Long: `Lists the agents that have told their facts. With --pending or --state it lists identities instead: who
has enrolled, and what became of it.`,
		Example: `  chandler agent ls --where 'agent.os == "linux" && "office" in agent.tags'
  chandler agent ls --silent 30d
  chandler agent ls --pending`,
		RunE: a.connected(func(cmd *cobra.Command, c *client, _ []string) error {
			if err := checkExpression("--where", f.where); err != nil {
				return err
			}
			if f.pending {
				f.state = string(events.EnrolmentPending)
			}
			if f.state != "" {
				return a.listEnrolments(cmd, c, f)
			}
			return a.listAgents(cmd, c, f)
		}),
	}
	cmd.Flags().StringVar(&f.where, "where", "", "only agents whose facts satisfy this CEL expression")
	cmd.Flags().BoolVar(&f.pending, "pending", false, "those that wait for approval")
	cmd.Flags().StringVar(&f.state, "state", "", "identities in this state: "+joined(enrolmentStates())+", or any")
	cmd.Flags().StringVar(&f.silent, "silent", "", "only agents that were last seen longer ago than this (30d)")
	cmd.MarkFlagsMutuallyExclusive("pending", "state", "silent")
	completeWords(cmd, "state", append(collect(enrolmentStates(), func(s events.EnrolmentState) string { return string(s) }), anyState)...)
	return cmd
}

// anyState stands for identities in every state.
const anyState = "any"

func (a *app) listAgents(cmd *cobra.Command, c *client, f agentFlags) error {
	found, err := ask(cmd.Context(), c, events.AgentList, events.AgentQuery{Where: f.where})
	if err == nil && f.silent != "" {
		found.Agents, err = a.silentSince(found.Agents, f.silent)
	}
	if err != nil {
		return err
	}
	return a.agentColumns().show(cmd, a.output, found.Agents)
}

func (a *app) listEnrolments(cmd *cobra.Command, c *client, f agentFlags) error {
	state := events.EnrolmentState(f.state)
	switch {
	case f.state == anyState:
		state = ""
	case !slices.Contains(enrolmentStates(), state):
		return fmt.Errorf("--state %q: it must be one of %s, %s", f.state, joined(enrolmentStates()), anyState)
	}
	all, err := enrolments(cmd.Context(), c, state)
	if err != nil {
		return err
	}
	kept, fault, err := whose(all, f.where)
	if err != nil {
		return err
	}
	if fault != nil {
		note(cmd.ErrOrStderr(), "%v", fault)
	}
	return a.enrolmentColumns().show(cmd, a.output, kept)
}

func (a *app) historyColumns() listing[events.JobEnd] {
	type v = events.JobEnd
	return listing[v]{
		name: func(r v) string { return r.Job },
		columns: []column[v]{
			{"JOB", false, func(r v) any { return jobCell(r.Job) }},
			{"ENDED", false, func(r v) any { return a.timeCell(r.At) }},
			{"DEPLOYMENT", false, func(r v) any { return r.Deployment }},
			{"PROGRAM", false, func(r v) any { return fmt.Sprintf("%s@%s/%s", r.Package, r.Version, r.Program) }},
			{"STATE", false, func(r v) any { return r.State }},
			{"REASON", false, func(r v) any { return r.Reason }},
			{"ATTEMPT", true, func(r v) any { return r.Attempt }},
			{"EXIT CODE", true, func(r v) any { return exitCodeText(r.ExitCode) }},
			{"ID", true, func(r v) any { return r.Job }},
			{"EXPLANATION", true, func(r v) any { return r.Explanation }},
		},
	}
}

func agentHistory(a *app) *cobra.Command {
	var since string
	var limit int
	cmd := &cobra.Command{
		Use: "history AGENT", Short: "What was done on one machine, newest last", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeArguments(completeAgents),
		RunE: a.connected(func(cmd *cobra.Command, c *client, args []string) error {
			start, err := a.parseSince(since)
			if err != nil {
				return err
			}
			found, err := resolveAgent(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			history, err := ask(cmd.Context(), c, events.ExecutionHistory, events.HistoryQuery{Agent: found.Facts.ID, Since: start, Limit: limit})
			if err != nil {
				return err
			}
			return a.historyColumns().show(cmd, a.output, history.Jobs)
		}),
	}
	cmd.Flags().StringVar(&since, "since", "", "only jobs that ended after this time, or within this span (30d)")
	cmd.Flags().IntVar(&limit, "limit", 0, "show at most so many (0: 100)")
	return cmd
}

// parseSince reads a span before now (12h, 30d), or a time as [parseWhen]; "" is the zero time.
func (a *app) parseSince(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if span, err := parseSpan(s); err == nil {
		return a.now().Add(-span).UTC(), nil
	}
	return parseWhen(s, a.now())
}

func exitCodeText(code *int) string {
	if code == nil {
		return ""
	}
	return fmt.Sprint(*code)
}

// resolveAgent finds the one agent of an id or a host name.
func resolveAgent(ctx context.Context, c *client, name string) (events.AgentView, error) {
	found, err := ask(ctx, c, events.AgentList, events.AgentQuery{Name: name})
	if err != nil {
		return events.AgentView{}, err
	}
	return pickAgent(name, withoutGone(ctx, c, name, found.Agents))
}

// withoutGone leaves out those of several agents of one host name that were revoked or archived, unless they all
// were. Where nobody says, all stay, so that whoever asks is asked back.
func withoutGone(ctx context.Context, c *client, name string, candidates []events.AgentView) []events.AgentView {
	if len(candidates) < 2 || slices.ContainsFunc(candidates, func(v events.AgentView) bool { return v.Facts.ID == name }) {
		return candidates
	}
	page, err := ask(ctx, c, events.EnrolmentList, events.EnrolmentQuery{Agents: collect(candidates, func(v events.AgentView) string { return v.Facts.ID })})
	if err != nil {
		return candidates
	}
	present := slices.DeleteFunc(slices.Clone(candidates), func(v events.AgentView) bool {
		return slices.ContainsFunc(page.Enrolments, func(e events.EnrolmentView) bool { return e.Agent == v.Facts.ID && gone(e) })
	})
	if len(present) == 0 {
		return candidates
	}
	return present
}

// pickAgent chooses among the agents that bear a name. An id beats host names; several machines of one
// host name are listed, never guessed between.
func pickAgent(name string, candidates []events.AgentView) (events.AgentView, error) {
	for _, v := range candidates {
		if v.Facts.ID == name {
			return v, nil
		}
	}
	switch len(candidates) {
	case 0:
		return events.AgentView{}, fmt.Errorf("no agent has the id or host name %q: `chandler agent ls` shows those there are", name)
	case 1:
		return candidates[0], nil
	}
	var list strings.Builder
	for _, v := range candidates {
		fmt.Fprintf(&list, "\n  %s  %s  site %s  last seen %s", v.Facts.ID, v.Facts.Hostname, v.Facts.Site, v.LastSeen.UTC().Format(time.RFC3339))
	}
	return events.AgentView{}, fmt.Errorf("%d agents have the host name %q: say which by its id%s", len(candidates), name, list.String())
}

// resolveAgents turns names into ids.
func resolveAgents(ctx context.Context, c *client, names []string) ([]string, error) {
	var ids []string
	for _, name := range names {
		found, err := resolveAgent(ctx, c, name)
		if err != nil {
			return nil, err
		}
		ids = append(ids, found.Facts.ID)
	}
	return ids, nil
}
