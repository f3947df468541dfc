package main

import (
	"github.com/spf13/cobra"

	"chandler/events"
)

func accountRekey(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "rekey", Short: "Encrypt every account's secret by a new key", Args: cobra.NoArgs,
		Long: `Adds a key to the keyset of accounts and encrypts every secret by it, those too that are kept for a while after
a rotation. Some minutes later the service removes the keys before. It may be repeated at any time, whatever happened
to the one before, and neither agents nor leases notice.

Copies of the broker's files from before open only with the copy of the keyset (DATA/keys) that was made with them.
If a copy of the keyset and its key-encryption key came into other hands, rekeying is not enough: with a copy of the
bucket they read the secrets, so rotate those too.

The key-encryption key, which encrypts the keyset itself, is changed by starting the server once with the new one
as --key-encryption and the one before as --former-key-encryption.`,
		RunE: a.connected(func(cmd *cobra.Command, c *client, _ []string) error {
			done, err := ask(cmd.Context(), c, events.AccountRekey, events.Nothing{})
			if err != nil {
				return err
			}
			if !people(a.output) {
				return writeData(cmd.OutOrStdout(), a.output, done)
			}
			note(cmd.OutOrStdout(), "%s: encrypted by key %s, in a keyset that is encrypted by %s. The keys before are removed in some minutes. Keep a copy of the keyset, and one of what encrypts it elsewhere",
				plural(done.Accounts, "account", "accounts"), done.Key, done.KeptBy)
			return nil
		}),
	}
}
