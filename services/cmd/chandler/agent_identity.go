package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"chandler/events"
	"chandler/events/target"
)

// maxAgentsAtOnce is how many agents one request may be about.
const maxAgentsAtOnce = 1000

func enrolmentStates() []events.EnrolmentState {
	return []events.EnrolmentState{events.EnrolmentPending, events.EnrolmentActive, events.EnrolmentLapsed, events.EnrolmentArchived, events.EnrolmentRevoked}
}

func (a *app) enrolmentColumns() listing[events.EnrolmentView] {
	type v = events.EnrolmentView
	return listing[v]{
		name: func(r v) string { return r.Agent },
		columns: []column[v]{
			{"HOST", false, func(r v) any { return r.Hostname }},
			{"ID", false, func(r v) any { return r.Agent }},
			{"STATE", false, func(r v) any { return r.State }},
			{"TOKEN", false, func(r v) any { return r.Token }},
			{"OS", false, func(r v) any { return strings.TrimSpace(r.Facts.OSName + " " + r.Facts.OSVersion) }},
			{"SITE", true, func(r v) any { return r.Conferred.Site }},
			{"TAGS", true, func(r v) any { return r.Conferred.Tags }},
			{"KIND", true, func(r v) any { return r.Conferred.ClientKind }},
			{"ADDRESSES", true, func(r v) any { return r.Facts.Addresses }},
			{"TRUST", true, func(r v) any { return countCell(r.Trust) }},
			{"KEY", true, func(r v) any { return r.Key }},
			{"CHANGED", false, func(r v) any { return a.agoCell(r.At) }},
			{"IDENTITY UNTIL", false, func(r v) any { return a.timeCell(r.Expires) }},
			{"BY", true, func(r v) any { return r.By }},
			{"WHY", true, func(r v) any { return r.Why }},
		},
	}
}

// enrolments reads every identity in a state ("": any).
func enrolments(ctx context.Context, c *client, state events.EnrolmentState) ([]events.EnrolmentView, error) {
	var all []events.EnrolmentView
	query := events.EnrolmentQuery{State: state}
	for {
		page, err := ask(ctx, c, events.EnrolmentList, query)
		if err != nil {
			return nil, err
		}
		all = append(all, page.Enrolments...)
		if !page.More || len(page.Enrolments) == 0 {
			return all, nil
		}
		query.After = page.Enrolments[len(page.Enrolments)-1].Agent
	}
}

// whose keeps those identities whose facts at enrolment satisfy an expression ("": all). One on whose facts it
// cannot be evaluated is not meant: fault tells the first of them.
func whose(all []events.EnrolmentView, where string) (kept []events.EnrolmentView, fault, err error) {
	if where == "" {
		return all, nil, nil
	}
	expression, err := target.Compile(where)
	if err != nil {
		return nil, nil, fmt.Errorf("--where: %w", err)
	}
	for _, e := range all {
		fits, err := expression.Eval(e.Facts)
		if err != nil && fault == nil {
			fault = fmt.Errorf("left out, since the expression fails on its facts: %s (%s): %w", e.Agent, e.Hostname, err)
		}
		if err == nil && fits {
			kept = append(kept, e)
		}
	}
	return kept, fault, nil
}

// resolveEnrolments finds identities by agent id or host name. A machine's present name may be another than
// that at its enrolment; both are understood.
func resolveEnrolments(ctx context.Context, c *client, names []string) ([]events.EnrolmentView, error) {
	all, err := enrolments(ctx, c, "")
	if err != nil {
		return nil, err
	}
	var found []events.EnrolmentView
	for _, name := range names {
		candidates := slices.DeleteFunc(slices.Clone(all), func(e events.EnrolmentView) bool { return e.Agent != name && e.Hostname != name })
		if len(candidates) == 0 {
			if seen, err := resolveAgent(ctx, c, name); err == nil {
				candidates = slices.DeleteFunc(slices.Clone(all), func(e events.EnrolmentView) bool { return e.Agent != seen.Facts.ID })
			}
		}
		one, err := pickEnrolment(name, candidates)
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(found, func(e events.EnrolmentView) bool { return e.Agent == one.Agent }) {
			found = append(found, one)
		}
	}
	return found, nil
}

// gone says of an identity that its machine is not meant to come back with it. One that took its host name is
// meant before it.
func gone(e events.EnrolmentView) bool {
	return e.State == events.EnrolmentRevoked || e.State == events.EnrolmentArchived
}

// pickEnrolment chooses as [pickAgent]: an id beats host names, and several machines of one name are listed.
func pickEnrolment(name string, candidates []events.EnrolmentView) (events.EnrolmentView, error) {
	for _, e := range candidates {
		if e.Agent == name {
			return e, nil
		}
	}
	if present := slices.DeleteFunc(slices.Clone(candidates), gone); len(present) > 0 {
		candidates = present
	}
	switch len(candidates) {
	case 0:
		return events.EnrolmentView{}, fmt.Errorf("no agent with the id or host name %q has enrolled: `chandler agent ls` shows those there are, `chandler agent ls --pending` those that wait", name)
	case 1:
		return candidates[0], nil
	}
	var list strings.Builder
	for _, e := range candidates {
		fmt.Fprintf(&list, "\n  %s  %s  %s since %s", e.Agent, e.Hostname, e.State, e.At.UTC().Format(time.RFC3339))
	}
	return events.EnrolmentView{}, fmt.Errorf("%d agents have the host name %q: say which by its id%s", len(candidates), name, list.String())
}

// silentSince keeps the agents that were last seen more than a span ago.
func (a *app) silentSince(all []events.AgentView, span string) ([]events.AgentView, error) {
	silent, err := parseSpan(span)
	if err != nil {
		return nil, fmt.Errorf("--silent: %w", err)
	}
	since := a.now().Add(-silent)
	return slices.DeleteFunc(all, func(v events.AgentView) bool { return v.LastSeen.After(since) }), nil
}

// agree asks whether to go on, and takes nothing but yes for it.
func (a *app) agree(cmd *cobra.Command, question string, yes bool) error {
	if yes {
		return nil
	}
	if !a.interactive(cmd) {
		return fmt.Errorf("%s Say --yes if that is meant", question)
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "%s Type yes to go on: ", printable(question))
	typed, err := readLine(cmd.InOrStdin())
	if err != nil {
		return err
	}
	if !strings.EqualFold(typed, "yes") {
		return errors.New("not confirmed: nothing was changed")
	}
	return nil
}

// showWhom lists agents on standard error before a question about them.
func (a *app) showWhom(cmd *cobra.Command, about []events.EnrolmentView) error {
	return a.enrolmentColumns().write(cmd.ErrOrStderr(), formTable, about)
}

func agentIDs(about []events.EnrolmentView) []string {
	return collect(about, func(e events.EnrolmentView) string { return e.Agent })
}

// changeAgents makes one request after another until all agents have been named.
func changeAgents(ids []string, change func(ids []string) (events.AgentsAnswer, error)) (events.AgentsAnswer, error) {
	all := events.AgentsAnswer{Changed: []events.EnrolmentView{}}
	for part := range slices.Chunk(ids, maxAgentsAtOnce) {
		answer, err := change(part)
		all.Changed = append(all.Changed, answer.Changed...)
		all.Unchanged = append(all.Unchanged, answer.Unchanged...)
		all.Unknown = append(all.Unknown, answer.Unknown...)
		if err != nil && len(ids) <= maxAgentsAtOnce {
			return all, err
		}
		if err != nil {
			return all, fmt.Errorf("after %s of %s: %w", plural(len(all.Changed), "agent", "agents"), count(len(ids)), err)
		}
	}
	return all, nil
}

// agentsChange is a call about agents by id.
func agentsChange(ctx context.Context, c *client, call events.Call[events.AgentsRequest, events.AgentsAnswer], ids []string, why string) (events.AgentsAnswer, error) {
	return changeAgents(ids, func(part []string) (events.AgentsAnswer, error) {
		return ask(ctx, c, call, events.AgentsRequest{Agents: part, Why: why})
	})
}

// became says the same of each agent.
func became(what string) func(events.EnrolmentView) string {
	return func(events.EnrolmentView) string { return what }
}

// tellOutcome ends a command that changed agents' identities, or some of them until err.
func (a *app) tellOutcome(cmd *cobra.Command, answer events.AgentsAnswer, done func(events.EnrolmentView) string, err error) error {
	if err != nil && len(answer.Changed)+len(answer.Unchanged)+len(answer.Unknown) == 0 {
		return err
	}
	return errors.Join(err, a.tellAgents(cmd, answer, done))
}

// tellAgents ends a command that changed agents' identities; an error where some were not known.
func (a *app) tellAgents(cmd *cobra.Command, answer events.AgentsAnswer, done func(events.EnrolmentView) string) error {
	var err error
	if people(a.output) {
		for _, e := range answer.Changed {
			note(cmd.OutOrStdout(), "%s (%s) %s", e.Hostname, e.Agent, done(e))
		}
		if len(answer.Unchanged) > 0 {
			note(cmd.ErrOrStderr(), "no change was needed for: %s", strings.Join(answer.Unchanged, ", "))
		}
		if len(answer.Changed)+len(answer.Unchanged)+len(answer.Unknown) == 0 {
			note(cmd.ErrOrStderr(), "none")
		}
	} else if a.output == formName || a.output == formCSV {
		err = a.enrolmentColumns().write(cmd.OutOrStdout(), a.output, answer.Changed)
	} else {
		err = writeData(cmd.OutOrStdout(), a.output, answer)
	}
	if err == nil && len(answer.Unknown) > 0 {
		err = fmt.Errorf("not known to the credential service: %s", strings.Join(answer.Unknown, ", "))
	}
	return err
}
