package main

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"chandler/events"
)

func newAccount(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "account", Short: "Accounts that agents run programs by, or reach external sources with"}
	cmd.AddCommand(accountSet(a), accountRotate(a), accountTest(a), accountRekey(a), accountList(a), accountRemove(a))
	return cmd
}

func accountList(a *app) *cobra.Command {
	type v = events.AccountView
	columns := listing[v]{
		name: func(r v) string { return r.Account },
		columns: []column[v]{
			{"NAME", false, func(r v) any { return r.Account }},
			{"KIND", false, func(r v) any { return r.Kind }},
			{"USER", false, func(r v) any { return r.User }},
			{"METHOD", true, func(r v) any { return cmp.Or(r.Method, events.ByPassword) }},
			{"RESOURCES", false, func(r v) any { return a.firstCell(r.Resources) }},
			{"COLLECTIONS", true, func(r v) any { return r.Collections }},
			{"DOMAIN", true, func(r v) any { return r.Domain }},
			{"VERSION", true, func(r v) any { return r.Version }},
			{"FORMER SECRET UNTIL", true, func(r v) any { return a.optionalCell(r.KeepUntil) }},
			{"STATE", false, func(r v) any { return accountState(r) }},
			{"CHANGED", false, func(r v) any { return a.agoCell(r.Changed) }},
			{"BY", true, func(r v) any { return r.By }},
		},
	}
	return &cobra.Command{
		Use: "ls", Short: "List accounts, without their secrets", Args: cobra.NoArgs,
		RunE: a.connected(func(cmd *cobra.Command, c *client, _ []string) error {
			all, err := ask(cmd.Context(), c, events.AccountList, events.Nothing{})
			if err != nil {
				return err
			}
			for _, v := range all.Accounts {
				if v.Suspended != "" {
					note(cmd.ErrOrStderr(), "WARNING: %s", v.Suspended)
				}
			}
			return columns.show(cmd, a.output, all.Accounts)
		}),
	}
}

// firstCell shows the first of several things and how many more there are; -o wide shows them all.
func (a *app) firstCell(all []string) cell {
	whole := strings.Join(all, ", ")
	if a.output == formWide || len(all) < 2 {
		return cell{whole, whole}
	}
	return cell{fmt.Sprintf("%s and %d more", all[0], len(all)-1), whole}
}

// accountState is "ok", or that an account is lent to nobody.
func accountState(v events.AccountView) string {
	if v.Suspended != "" {
		return "suspended"
	}
	return stateOK
}

func accountRemove(a *app) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "rm NAME", Short: "Remove an account and its secret", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeArguments(completeAccounts),
		Long: `Removes an account and its secret, after naming the packages and live deployments whose programs run by it on
legacy clients: those programs fail there until the account is set again.`,
		RunE: a.connected(func(cmd *cobra.Command, c *client, args []string) error {
			if err := tellAccountUses(cmd, c, args[0]); err != nil {
				return err
			}
			if err := a.agree(cmd, fmt.Sprintf("This removes account %s and its secret for good.", args[0]), yes); err != nil {
				return err
			}
			if _, err := ask(cmd.Context(), c, events.AccountRemove, events.Named{Name: args[0]}); err != nil {
				return err
			}
			note(cmd.ErrOrStderr(), "account %s is removed", args[0])
			return nil
		}),
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}
