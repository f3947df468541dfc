package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"chandler/events"
	"chandler/events/bus"
)

// shownAgent is what is known of one machine. One that has enrolled and told nothing yet is known by what it
// said of itself when it enrolled.
type shownAgent struct {
	events.AgentView
	Identity *events.EnrolmentView `json:"identity,omitempty"` // nil: this fleet has no identities, or nobody says
}

func agentShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "show AGENT", Short: "Show one agent's facts and its identity", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeArguments(completeAgents),
		RunE: a.connected(func(cmd *cobra.Command, c *client, args []string) error {
			found, err := findAgent(cmd.Context(), c, args[0])
			if errors.Is(err, bus.ErrUnavailable) && found.Facts.ID != "" {
				note(cmd.ErrOrStderr(), "its identity is not known now: %v", err)
			} else if err != nil {
				return err
			}
			return writeDetail(cmd.OutOrStdout(), a.output, found, found.Facts.ID, a.agentFields(found))
		}),
	}
}

// findAgent looks for what the machine tells, and for its identity. With an error of the latter alone it gives
// the former.
func findAgent(ctx context.Context, c *client, name string) (shownAgent, error) {
	listed, err := ask(ctx, c, events.AgentList, events.AgentQuery{Name: name})
	if err != nil {
		return shownAgent{}, err
	}
	if len(listed.Agents) == 0 {
		enrolled, err := resolveEnrolments(ctx, c, []string{name})
		if err != nil {
			return shownAgent{}, err
		}
		return shownAgent{events.AgentView{Facts: enrolled[0].Facts}, &enrolled[0]}, nil
	}
	told, err := pickAgent(name, withoutGone(ctx, c, name, listed.Agents))
	if err != nil {
		return shownAgent{}, err
	}
	page, err := ask(ctx, c, events.EnrolmentList, events.EnrolmentQuery{Agents: []string{told.Facts.ID}})
	if err != nil || len(page.Enrolments) == 0 {
		return shownAgent{AgentView: told}, err
	}
	return shownAgent{told, &page.Enrolments[0]}, nil
}

func (a *app) agentFields(found shownAgent) []field {
	f := found.Facts
	fields := []field{
		{"ID", f.ID}, {"Host", f.Hostname}, {"Domain", f.Domain}, {"Site", f.Site}, {"Tags", f.Tags},
		{"System", strings.TrimSpace(f.OSName + " " + f.OSVersion)}, {"OS", f.OS}, {"Architecture", f.Arch}, {"Kernel", f.Kernel},
		{"Addresses", f.Addresses}, {"Memory", byteSize(f.MemoryBytes)}, {"Zone", f.Zone}, {"Client kind", f.ClientKind},
		{"Domain controller", mark(f.DomainController, "yes")}, {"Privileged", mark(f.Privileged, "yes")}, {"Agent version", f.Version},
		{"Facts not read", f.Incomplete}, {"Facts of", a.longTime(found.Reported)},
	}
	seen := "never: the facts are those of its enrolment"
	if !found.LastSeen.IsZero() {
		seen = fmt.Sprintf("%s (%s)", a.longTime(found.LastSeen), a.ago(found.LastSeen))
	}
	fields = append(fields, field{"Last seen", seen}, field{"Twins", a.twinsText(found.AgentView)})
	e := found.Identity
	if e == nil {
		return fields
	}
	held := cmp.Or(f.Trust, e.Trust) // as the machine said last
	return append(fields, []field{
		{"Identity", a.identityState(*e)}, {"Identity until", a.longTime(e.Expires)}, {"Identity of", a.longTime(e.Renewed)},
		{"Trust bundle", mark(held > 0, fmt.Sprintf("version %d", held))},
		{"Enrolled with token", e.Token}, {"Conferred", conferredText(e.Conferred)},
		{"Last change", a.longTime(e.At)}, {"Changed by", e.By}, {"Why", e.Why}, {"Key", e.Key},
	}...)
}

// twinsText says that several agents run with one identity and what an administrator can do about it; "": they
// never did.
func (a *app) twinsText(v events.AgentView) string {
	switch {
	case v.Twins.IsZero():
		return ""
	case !a.twins(v):
		return fmt.Sprintf("several agents ran with this identity until %s (%s)", a.longTime(v.Twins), a.ago(v.Twins))
	}
	return fmt.Sprintf("several agents run with this identity now: its machine or state directory was copied, and a job may run on each. "+
		"Stop the copy and enrol it with `chandler-agent enrol --anew`; if nobody knows which is the copy, %s agent revoke %s, and enrol all of them anew", a.self, v.Facts.ID)
}

// identityState says also what an administrator can do about it.
func (a *app) identityState(e events.EnrolmentView) string {
	switch e.State {
	case events.EnrolmentPending, events.EnrolmentLapsed, events.EnrolmentArchived:
		return fmt.Sprintf("%s: %s agent approve %s lets it in", e.State, a.self, e.Agent)
	case events.EnrolmentRevoked:
		return fmt.Sprintf("%s: the machine comes back only by enrolling anew", e.State)
	}
	return string(e.State)
}

// conferredText is what the fleet says of a machine, in words.
func conferredText(c events.Conferred) string {
	var said []string
	if c.ClientKind != "" {
		said = append(said, string(c.ClientKind))
	}
	if c.DomainController {
		said = append(said, "domain controller")
	}
	if c.Site != "" {
		said = append(said, "site "+c.Site)
	}
	if len(c.Tags) > 0 {
		said = append(said, "tags "+strings.Join(c.Tags, " "))
	}
	return strings.Join(said, ", ")
}
