package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/resource"
)

func newLease(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "lease", Short: "Accounts that are lent to agents now"}
	cmd.AddCommand(leaseList(a), leaseRevoke(a))
	return cmd
}

// leaseRow is a lease as listings show it: with the name of its machine, where scheduling tells.
type leaseRow struct {
	events.LeaseNotice
	Host string `json:"host,omitempty"`
}

// leaseCell shows the beginning of an id; any that is unique is understood.
func leaseCell(id string) cell { return jobCell(id) }

func (a *app) leaseColumns() listing[leaseRow] {
	type v = leaseRow
	return listing[v]{
		name: func(r v) string { return r.Lease },
		columns: []column[v]{
			{"LEASE", false, func(r v) any { return leaseCell(r.Lease) }},
			{"ACCOUNT", false, func(r v) any { return r.Account }},
			{"KIND", true, func(r v) any { return r.Kind }},
			{"VERSION", true, func(r v) any { return r.Version }},
			{"HOST", false, func(r v) any { return r.Host }},
			{"AGENT", false, func(r v) any { return r.Agent }},
			{"JOB", false, func(r v) any { return jobCell(r.Job) }},
			{"ATTEMPT", true, func(r v) any { return r.Attempt }},
			{"TO", false, func(r v) any { return r.Purpose }},
			{"RESOURCE", false, func(r v) any { return shownResource(r.Resource) }},
			{"LENT", true, func(r v) any { return a.timeCell(r.At) }},
			{"EXPIRES", false, func(r v) any { return a.optionalCell(r.Expires) }},
			{"ID", true, func(r v) any { return r.Lease }},
		},
	}
}

// shownResource shows an address as people write it, and gives programs the address.
func shownResource(address string) cell {
	if address == "" {
		return cell{}
	}
	return cell{resource.Shown(address), address}
}

// leaseFlags choose leases, as typed.
type leaseFlags struct{ agent, job, account string }

func (f *leaseFlags) add(a *app, cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.agent, "agent", "", "only those lent to this agent (id or host name)")
	cmd.Flags().StringVar(&f.job, "job", "", "only those lent for this job (its id, or the beginning of it)")
	cmd.Flags().StringVar(&f.account, "account", "", "only those of this account")
	a.completeFlag(cmd, "agent", completeAgents)
	a.completeFlag(cmd, "job", completeJobs)
	a.completeFlag(cmd, "account", completeAccounts)
}

func (f *leaseFlags) given() bool { return f.agent+f.job+f.account != "" }

func leaseList(a *app) *cobra.Command {
	var f leaseFlags
	cmd := &cobra.Command{
		Use: "ls", Short: "List what is lent to whom", Args: cobra.NoArgs,
		Long: `Lists the leases that have not expired: which account is lent to which agent, for which job and
resource, and until when. Nobody is shown a secret.`,
		Example: `  chandler lease ls --agent ws-0412`,
		RunE: a.connected(func(cmd *cobra.Command, c *client, _ []string) error {
			_, rows, err := leases(cmd.Context(), c, f)
			if err != nil {
				return err
			}
			return a.leaseColumns().show(cmd, a.output, rows)
		}),
	}
	f.add(a, cmd)
	return cmd
}

// leases lists those that agree with the flags, and gives the query that chooses them.
func leases(ctx context.Context, c *client, f leaseFlags) (events.LeaseQuery, []leaseRow, error) {
	query := events.LeaseQuery{Account: f.account}
	if f.agent != "" {
		id, err := leaseAgent(ctx, c, f.agent)
		if err != nil {
			return query, nil, err
		}
		query.Agent = id
	}
	found, err := ask(ctx, c, events.LeaseList, query)
	if err != nil {
		return query, nil, err
	}
	// The service knows jobs by their whole ids alone.
	kept := slices.DeleteFunc(found.Leases, func(l events.LeaseNotice) bool { return !strings.HasPrefix(l.Job, f.job) })
	if f.job == "" {
		return query, named(ctx, c, kept), nil
	}
	query.Job = f.job
	if jobs := collect(kept, func(l events.LeaseNotice) string { return l.Job }); len(jobs) == 1 {
		query.Job = jobs[0]
	} else if len(jobs) > 1 {
		return query, nil, fmt.Errorf("several jobs begin with %q: say more of the id\n  %s", f.job, strings.Join(jobs, "\n  "))
	}
	return query, named(ctx, c, kept), nil
}

// leaseAgent finds the agent of a name. An id is understood while scheduling is away too: leases must be withdrawn then.
func leaseAgent(ctx context.Context, c *client, name string) (string, error) {
	found, err := resolveAgent(ctx, c, name)
	if errors.Is(err, bus.ErrUnavailable) && events.ValidAgent(name) == nil {
		return name, nil
	}
	return found.Facts.ID, err
}

// named adds the names of machines, which only scheduling knows.
func named(ctx context.Context, c *client, found []events.LeaseNotice) []leaseRow {
	hosts := map[string]string{}
	if len(found) > 0 {
		if all, err := ask(ctx, c, events.AgentList, events.AgentQuery{}); err == nil {
			for _, v := range all.Agents {
				hosts[v.Facts.ID] = v.Facts.Hostname
			}
		}
	}
	rows := make([]leaseRow, len(found))
	for i, l := range found {
		rows[i] = leaseRow{l, hosts[l.Agent]}
	}
	return rows
}

func leaseRevoke(a *app) *cobra.Command {
	var f leaseFlags
	var yes bool
	cmd := &cobra.Command{
		Use: "revoke [LEASE…]", Short: "Withdraw leases, by their ids or by whom and what for", Args: cobra.ArbitraryArgs, ValidArgsFunction: a.completeLeases,
		Long: `Withdraws leases by their ids (or the beginnings of them), or all that agree with --agent, --job and
--account. An agent that hears of it clears what it holds at once; one that is cut off has the secret until its lease
ends. Whoever may have learnt a secret keeps it: "chandler account rotate" makes it worthless.

Asks before more than one lease is withdrawn, unless --yes is given.`,
		Example: `  chandler lease revoke --account corp-reader --agent ws-0412`,
		RunE: a.connected(func(cmd *cobra.Command, c *client, args []string) error {
			if (len(args) > 0) == f.given() {
				return errors.New("say which leases: by their ids, or by --agent, --job and --account; `chandler lease ls` lists them")
			}
			query, chosen, err := leases(cmd.Context(), c, f)
			queries := []events.LeaseQuery{query}
			if err == nil && len(args) > 0 {
				chosen, err = pickLeases(args, chosen)
				queries = leaseQueries(chosen)
			}
			if err != nil {
				return err
			}
			return a.revokeLeases(cmd, c, chosen, queries, yes)
		}),
	}
	f.add(a, cmd)
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

// pickLeases finds the one lease of each id or its beginning.
func pickLeases(ids []string, all []leaseRow) ([]leaseRow, error) {
	var picked []leaseRow
	for _, id := range unique(slices.Clone(ids)) {
		found := slices.DeleteFunc(slices.Clone(all), func(r leaseRow) bool { return !strings.HasPrefix(r.Lease, id) })
		switch {
		case id == "" || len(found) == 0:
			return nil, fmt.Errorf("no lease has an id that begins with %q: `chandler lease ls` lists them", id)
		case len(found) > 1:
			return nil, fmt.Errorf("several leases begin with %q: say more of the id\n  %s", id, strings.Join(collect(found, func(r leaseRow) string { return r.Lease }), "\n  "))
		}
		if !slices.ContainsFunc(picked, func(r leaseRow) bool { return r.Lease == found[0].Lease }) {
			picked = append(picked, found[0])
		}
	}
	return picked, nil
}

func leaseQueries(chosen []leaseRow) (queries []events.LeaseQuery) {
	for _, r := range chosen {
		queries = append(queries, events.LeaseQuery{Lease: r.Lease})
	}
	return queries
}

// revokeLeases shows what was chosen, and withdraws what agrees with the queries by then: a lease that was made meanwhile
// too, and one that has expired meanwhile is withdrawn enough.
func (a *app) revokeLeases(cmd *cobra.Command, c *client, chosen []leaseRow, queries []events.LeaseQuery, yes bool) error {
	if len(chosen) == 0 {
		return a.leaseColumns().show(cmd, a.output, chosen)
	}
	if len(chosen) > 1 {
		if err := a.leaseColumns().write(cmd.ErrOrStderr(), formTable, chosen); err != nil {
			return err
		}
		if err := a.agree(cmd, fmt.Sprintf("This withdraws %s.", plural(len(chosen), "lease", "leases")), yes); err != nil {
			return err
		}
	}
	var gone []events.LeaseNotice
	var failed error
	for _, query := range queries {
		revoked, err := ask(cmd.Context(), c, events.LeaseRevoke, query)
		gone = append(gone, revoked.Leases...)
		if err != nil && !errors.Is(err, bus.ErrNotFound) {
			failed = err
			break
		}
	}
	if people(a.output) {
		note(cmd.ErrOrStderr(), "%s withdrawn", plural(len(gone), "lease is", "leases are"))
	}
	return errors.Join(failed, a.leaseColumns().show(cmd, a.output, named(cmd.Context(), c, gone)))
}

// completeLeases offers those that were not named yet.
func (a *app) completeLeases(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	return a.completing(func(ctx context.Context, c *client) ([]string, error) {
		all, err := ask(ctx, c, events.LeaseList, events.LeaseQuery{})
		left := slices.DeleteFunc(all.Leases, func(l events.LeaseNotice) bool {
			return slices.ContainsFunc(args, func(id string) bool { return strings.HasPrefix(l.Lease, id) })
		})
		return collect(left, func(l events.LeaseNotice) string {
			return leaseCell(l.Lease).text + "\t" + l.Account + " to " + l.Agent
		}), err
	})(cmd, args, typed)
}
