package main

import (
	"errors"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"chandler/events"
	"chandler/events/resource"
)

// readableSchemes are those of the addresses that agents have readers for.
func readableSchemes() []string { return []string{resource.SMB, resource.HTTPS, resource.File} }

// checkReadable refuses what no agent could read by an account. It quotes nothing: what is no address may be a secret.
func checkReadable(text string) error {
	scheme, _, _ := strings.Cut(text, "://")
	if strings.HasPrefix(text, `\\`) || slices.Contains(readableSchemes(), strings.ToLower(scheme)) {
		return nil
	}
	return errors.New(`must begin with smb://, https:// or file://, or with \\: agents read nothing else`)
}

// tellUnknownCollections warns of a scope that no deployment is in, as a misspelt name makes it. It is no error: a collection
// may be made later.
func (a *app) tellUnknownCollections(cmd *cobra.Command, c *client, names []string) {
	if len(names) == 0 {
		return
	}
	all, err := ask(cmd.Context(), c, events.CollectionList, events.Nothing{})
	if err != nil {
		note(cmd.ErrOrStderr(), "note: whether there are the collections %s is not known: %v", strings.Join(names, ", "), err)
		return
	}
	for _, name := range names {
		if !slices.ContainsFunc(all.Collections, func(v events.CollectionView) bool { return v.Name == name }) {
			note(cmd.ErrOrStderr(), "WARNING: there is no collection %s: the account is lent for no deployment by that (`%s collection ls`)", name, a.self)
		}
	}
}
