package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"chandler/events"
	"chandler/events/access"
)

func agentApprove(a *app) *cobra.Command {
	var where, why string
	var pending, yes bool
	cmd := &cobra.Command{
		Use: "approve [AGENT…]", Short: "Let agents in that wait for approval, lapsed or were archived", Args: cobra.ArbitraryArgs,
		Long: `Lets machines in whose token asks for approval, and lets those back that were away for longer than 90 days
or were archived. Name them, or choose among those that wait: all with --pending, or by an expression over
what they said of themselves with --where. A machine can say anything of itself before it is let in.`,
		Example: `  chandler agent approve ws-0412
  chandler agent approve --where 'agent.domain == "example" && agent.os == "windows"'`,
		ValidArgsFunction: a.completing(completePending),
		RunE: a.connected(func(cmd *cobra.Command, c *client, args []string) error {
			about, err := chooseAgents(cmd.Context(), c, args, pending || where != "", func(ctx context.Context) ([]events.EnrolmentView, error) {
				waiting, err := enrolments(ctx, c, events.EnrolmentPending)
				if err != nil {
					return nil, err
				}
				meant, fault, err := whose(waiting, where)
				if fault != nil {
					note(cmd.ErrOrStderr(), "%v", fault)
				}
				return meant, err
			})
			if err != nil {
				return err
			}
			if err := refuseRevoked(about); err != nil {
				return err
			}
			if len(args) == 0 && len(about) > 0 {
				if err := a.showWhom(cmd, about); err != nil {
					return err
				}
				if err := a.agree(cmd, fmt.Sprintf("This lets %s in.", plural(len(about), "machine", "machines")), yes); err != nil {
					return err
				}
			}
			answer, err := agentsChange(cmd.Context(), c, events.AgentApprove, agentIDs(about), why)
			return a.tellOutcome(cmd, answer, became("is approved"), err)
		}),
	}
	cmd.Flags().StringVar(&where, "where", "", "those that wait and whose facts satisfy this CEL expression")
	cmd.Flags().BoolVar(&pending, "pending", false, "all that wait")
	cmd.Flags().StringVar(&why, "why", "", "why, kept with the event")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

// refuseRevoked says that nothing brings a revoked agent back.
func refuseRevoked(about []events.EnrolmentView) error {
	for _, e := range about {
		if e.State == events.EnrolmentRevoked {
			return fmt.Errorf("%s (%s) is revoked, and that is for good: let the machine enrol anew with a token", e.Hostname, e.Agent)
		}
	}
	return nil
}

// chooseAgents takes those that are named, or those that flags describe, never both.
func chooseAgents(ctx context.Context, c *client, names []string, described bool, find func(context.Context) ([]events.EnrolmentView, error)) ([]events.EnrolmentView, error) {
	switch {
	case len(names) > 0 && described:
		return nil, errors.New("name agents, or describe them by flags: not both")
	case len(names) > 0:
		return resolveEnrolments(ctx, c, names)
	case !described:
		return nil, errors.New("say which agents: by id or host name, or by flags; see --help")
	}
	return find(ctx)
}

func agentRevoke(a *app) *cobra.Command {
	var why string
	var yes bool
	cmd := &cobra.Command{
		Use: "revoke AGENT…", Short: "Put agents out of the fleet, at once and for good", Args: cobra.MinimumNArgs(1), ValidArgsFunction: a.completing(completeAgents),
		Long: `The credential service gives a revoked agent no identity any more, and the broker is told to end its
connection and to take its key no more: for the latter the administrator's keys of the context are needed.
The machine comes back only by enrolling anew, with another key and a token.`,
		RunE: a.connected(func(cmd *cobra.Command, c *client, args []string) error {
			about, err := resolveEnrolments(cmd.Context(), c, args)
			if err != nil {
				return err
			}
			if err := a.showWhom(cmd, about); err != nil {
				return err
			}
			if err := a.agree(cmd, fmt.Sprintf("This revokes %s for good.", plural(len(about), "agent", "agents")), yes); err != nil {
				return err
			}
			return a.revokeAgents(cmd, c, about, why)
		}),
	}
	cmd.Flags().StringVar(&why, "why", "", "why, kept with the event")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

// revokeAgents tells the credential service first: an agent whose connection ends asks for a new identity at
// once. Done again, it completes what was cut off.
func (a *app) revokeAgents(cmd *cobra.Command, c *client, about []events.EnrolmentView, why string) error {
	answer, err := agentsChange(cmd.Context(), c, events.AgentRevoke, agentIDs(about), why)
	if err != nil {
		return err
	}
	keys := collect(about, func(e events.EnrolmentView) string { return e.Key })
	if c.Credentials != "" { // a broker that asks for no identity has nothing to revoke
		if err := a.revokeKeys(cmd.Context(), c.connection, access.Agents, keys...); err != nil {
			return fmt.Errorf("the credential service gives %s no identity any more, but the broker was not told, so that the present one goes on for up to a day: %w", strings.Join(agentIDs(about), ", "), err)
		}
	}
	return a.tellAgents(cmd, answer, became("is revoked"))
}

func agentArchive(a *app) *cobra.Command {
	var silent, why string
	var yes bool
	cmd := &cobra.Command{
		Use: "archive [AGENT…]", Short: "Put agents away whose machines are gone; they need approval to come back", Args: cobra.ArbitraryArgs,
		Example: `  chandler agent archive ws-0412
  chandler agent archive --silent 90d`,
		ValidArgsFunction: a.completing(completeAgents),
		RunE: a.connected(func(cmd *cobra.Command, c *client, args []string) error {
			about, err := chooseAgents(cmd.Context(), c, args, silent != "", func(ctx context.Context) ([]events.EnrolmentView, error) {
				return a.silentEnrolments(ctx, c, silent)
			})
			if err != nil {
				return err
			}
			if len(args) == 0 && len(about) > 0 {
				if err := a.showWhom(cmd, about); err != nil {
					return err
				}
				if err := a.agree(cmd, fmt.Sprintf("This puts %s away.", plural(len(about), "agent", "agents")), yes); err != nil {
					return err
				}
			}
			answer, err := agentsChange(cmd.Context(), c, events.AgentArchive, agentIDs(about), why)
			return a.tellOutcome(cmd, answer, became("is archived"), err)
		}),
	}
	cmd.Flags().StringVar(&silent, "silent", "", "all that were last seen longer ago than this (90d)")
	cmd.Flags().StringVar(&why, "why", "", "why, kept with the event")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

// silentEnrolments gives the live identities of agents that neither were seen nor renewed it for a span. One
// of which scheduling knows nothing counts by its identity alone.
func (a *app) silentEnrolments(ctx context.Context, c *client, span string) ([]events.EnrolmentView, error) {
	silent, err := parseSpan(span)
	if err != nil {
		return nil, fmt.Errorf("--silent: %w", err)
	}
	found, err := ask(ctx, c, events.AgentList, events.AgentQuery{})
	if err != nil {
		return nil, err
	}
	since := a.now().Add(-silent)
	heard := map[string]bool{}
	for _, v := range found.Agents {
		heard[v.Facts.ID] = v.LastSeen.After(since)
	}
	all, err := enrolments(ctx, c, "")
	return slices.DeleteFunc(all, func(e events.EnrolmentView) bool {
		live := e.State == events.EnrolmentActive || e.State == events.EnrolmentLapsed
		return !live || heard[e.Agent] || e.Renewed.After(since) || e.At.After(since)
	}), err
}

func agentSetKind(a *app) *cobra.Command {
	var why string
	var controller, yes bool
	cmd := &cobra.Command{
		Use: "set-kind AGENT… KIND", Short: "Change how agents realise administrative programs: advanced or legacy", Args: cobra.MinimumNArgs(2),
		Long: `An advanced client runs administrative programs as the system, a legacy client as an account that is
elevated while they run; on a domain controller that is the domain's client token account. Without
--domain-controller the machines are none, whatever was said before.

The change reaches an agent with its next identity, which it asks for before the present one ends, or when its
machine is back.`,
		Example: `  chandler agent set-kind ws-0412 legacy
  chandler agent set-kind dc-1 legacy --domain-controller`,
		ValidArgsFunction: a.completing(completeAgents),
		RunE: func(cmd *cobra.Command, args []string) error {
			names, kind := args[:len(args)-1], events.ClientKind(args[len(args)-1])
			if kind != events.Advanced && kind != events.Legacy {
				return fmt.Errorf("kind %q: it must be %s or %s", kind, events.Advanced, events.Legacy)
			}
			request := events.SetKindRequest{Kind: kind, DomainController: &controller, Why: why}
			warnController(cmd, kind, controller)
			return a.connected(func(cmd *cobra.Command, c *client, _ []string) error { return a.setKind(cmd, c, names, request, yes) })(cmd, args)
		},
	}
	cmd.Flags().BoolVar(&controller, "domain-controller", false, "the machines are domain controllers, which matters to legacy clients; without it they are none")
	cmd.Flags().StringVar(&why, "why", "", "why, kept with the event")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask where there are many")
	return cmd
}

func (a *app) setKind(cmd *cobra.Command, c *client, names []string, request events.SetKindRequest, yes bool) error {
	about, err := resolveEnrolments(cmd.Context(), c, names)
	if err != nil {
		return err
	}
	if len(about) >= confirmAbove {
		if err := a.agree(cmd, fmt.Sprintf("This changes %s.", plural(len(about), "agent", "agents")), yes); err != nil {
			return err
		}
	}
	answer, err := changeAgents(agentIDs(about), func(part []string) (events.AgentsAnswer, error) {
		r := request
		r.Agents = part
		return ask(cmd.Context(), c, events.AgentSetKind, r)
	})
	return a.tellOutcome(cmd, answer, a.willBe, err)
}

// willBe says what an agent becomes, and when at the latest: it knows nothing of the change before its next identity.
func (a *app) willBe(e events.EnrolmentView) string {
	kind := events.Conferred{ClientKind: e.Conferred.ClientKind, DomainController: e.Conferred.DomainController}
	text := fmt.Sprintf("will be %s from its next identity on", conferredText(kind))
	if e.Expires.After(a.now()) {
		return text + ", by " + a.longTime(e.Expires)
	}
	return text
}

// warnController says where marking a domain controller changes nothing.
func warnController(cmd *cobra.Command, kind events.ClientKind, controller bool) {
	if controller && kind == events.Advanced {
		note(cmd.ErrOrStderr(), "WARNING: --domain-controller means nothing for %s clients, which run administrative programs as the system: it is kept for when they become legacy", events.Advanced)
	}
}

func completePending(ctx context.Context, c *client) ([]string, error) {
	all, err := enrolments(ctx, c, events.EnrolmentPending)
	return collect(all, func(e events.EnrolmentView) string { return e.Agent + "\t" + e.Hostname }), err
}
