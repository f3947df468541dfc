package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"chandler/events"
)

// maxSecret bounds a secret in bytes.
const maxSecret = 16 << 10

func newAccount(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "account", Short: "Accounts that agents run programs by, or reach external sources with"}
	cmd.AddCommand(accountSet(a), accountList(a), accountRemove(a))
	return cmd
}

func accountSet(a *app) *cobra.Command {
	var request events.AccountRequest
	var kind, secretFile string
	cmd := &cobra.Command{
		Use: "set NAME --kind KIND --user USER", Short: "Make or change an account", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeArguments(completeAccounts),
		Long: `The secret is asked for on a terminal, or read from --secret-file or standard input. It goes into the
credential service, and comes out of it only for a job that may use it, sealed to the agent that carries the job out.

The kinds: network-access reaches external sources and never runs anything; software-installation runs the programs
of legacy clients whose package names it as installation-account; client-token-domain runs administrative programs on
legacy domain controllers, and a fleet has one.

Setting an account again changes its secret, which becomes its next version. Agents that were lent the former secret
go on with it for as long as the domain takes it.`,
		Example: `  chandler account set corp-installer --kind software-installation --user 'EXAMPLE\installer' --secret-file installer.secret
  chandler account set corp-reader --kind network-access --user 'EXAMPLE\reader' --resource 'smb://files.example/software/*'`,
		RunE: a.connected(func(cmd *cobra.Command, c *client, args []string) error {
			request.Account, request.Kind = args[0], events.AccountKind(kind)
			if err := checkAccount(request); err != nil {
				return err
			}
			var err error
			if request.Secret, err = a.readSecret(cmd, secretFile); err != nil {
				return err
			}
			set, err := ask(cmd.Context(), c, events.AccountSetCall, request)
			clear(request.Secret)
			if err != nil {
				return err
			}
			note(cmd.OutOrStdout(), "account %s is kept, version %d", set.Account, set.Version)
			return nil
		}),
	}
	cmd.Flags().StringVar(&kind, "kind", "", "network-access, software-installation or client-token-domain")
	cmd.Flags().StringVar(&request.User, "user", "", "name of the user, with its domain where there is one")
	cmd.Flags().StringSliceVar(&request.Resources, "resource", nil, "what it may be used for, such as smb://files.example/software/*")
	cmd.Flags().StringVar(&secretFile, "secret-file", "", "read the secret from this file (-: standard input)")
	_ = cmd.MarkFlagRequired("kind")
	completeWords(cmd, "kind", string(events.NetworkAccess), string(events.SoftwareInstallation), string(events.ClientTokenDomain))
	_ = cmd.MarkFlagRequired("user")
	return cmd
}

func checkAccount(r events.AccountRequest) error {
	if err := events.ValidToken(r.Account); err != nil {
		return fmt.Errorf("account: %w", err)
	}
	if !slices.Contains([]events.AccountKind{events.NetworkAccess, events.SoftwareInstallation, events.ClientTokenDomain}, r.Kind) {
		return fmt.Errorf("--kind %q: it must be network-access, software-installation or client-token-domain", r.Kind)
	}
	return nil
}

// readSecret reads one line, or a whole file, without the newline at its end.
func (a *app) readSecret(cmd *cobra.Command, file string) ([]byte, error) {
	var secret []byte
	var err error
	switch {
	case file != "" && file != "-":
		var f *os.File
		if f, err = os.Open(file); err != nil {
			return nil, fmt.Errorf("read the secret: %w", err)
		}
		defer f.Close()
		secret, err = io.ReadAll(io.LimitReader(f, maxSecret+1))
	case file == "" && a.interactive(cmd):
		fmt.Fprint(cmd.ErrOrStderr(), "Secret: ")
		secret, err = term.ReadPassword(int(cmd.InOrStdin().(*os.File).Fd()))
		fmt.Fprintln(cmd.ErrOrStderr())
	default:
		secret, err = io.ReadAll(io.LimitReader(cmd.InOrStdin(), maxSecret+1))
	}
	secret = bytes.TrimSuffix(bytes.TrimSuffix(secret, []byte("\n")), []byte("\r"))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the secret: %w", err)
	case len(secret) == 0:
		return nil, errors.New("the secret is empty: type it, or give --secret-file or standard input")
	case len(secret) > maxSecret:
		return nil, fmt.Errorf("the secret is longer than %d bytes", maxSecret)
	}
	return secret, nil
}

func accountList(a *app) *cobra.Command {
	type v = events.AccountView
	columns := listing[v]{
		name: func(r v) string { return r.Account },
		columns: []column[v]{
			{"NAME", false, func(r v) any { return r.Account }},
			{"KIND", false, func(r v) any { return r.Kind }},
			{"USER", false, func(r v) any { return r.User }},
			{"RESOURCES", false, func(r v) any { return r.Resources }},
			{"VERSION", true, func(r v) any { return r.Version }},
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
			return columns.show(cmd, a.output, all.Accounts)
		}),
	}
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
