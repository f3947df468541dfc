package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"chandler/events"
	"chandler/events/bus"
)

// tellAccountUses says on standard error what would miss an account: an error where there is no such account.
// A service that is away is no reason to keep one that has to go, so that this is told too.
func tellAccountUses(cmd *cobra.Command, c *client, name string) error {
	accounts, err := ask(cmd.Context(), c, events.AccountList, events.Nothing{})
	if err != nil {
		return err
	}
	kind := events.AccountKind("")
	for _, account := range accounts.Accounts {
		if account.Account == name {
			kind = account.Kind
		}
	}
	switch kind {
	case "":
		return fmt.Errorf("there is no account %s: `chandler account ls` lists them", name)
	case events.ClientTokenDomain:
		note(cmd.ErrOrStderr(), "administrative programs on legacy domain controllers run by it")
	}
	packages, err := ask(cmd.Context(), c, events.ContentList, events.Nothing{})
	deployments, failed := ask(cmd.Context(), c, events.DeploymentList, events.Nothing{})
	if err := errors.Join(err, failed); errors.Is(err, bus.ErrUnavailable) {
		note(cmd.ErrOrStderr(), "WARNING: not all that names it is known: %v", err)
	} else if err != nil {
		return err
	}
	for _, use := range accountUses(name, packages.Packages, deployments.Deployments) {
		note(cmd.ErrOrStderr(), "%s", use)
	}
	return nil
}

// accountUses names the published programs whose installation account is the named one, and the deployments of them
// that have not ended.
func accountUses(name string, packages []events.PackageInfo, deployments []events.DeploymentView) (uses []string) {
	for _, p := range packages {
		var programs, live []string
		for _, program := range programNames(p.Manifest) {
			if p.Manifest.Programs[program].InstallationAccount != name {
				continue
			}
			programs = append(programs, program)
			for _, d := range deployments {
				ended := d.Life == events.LifeStopped || d.Life == events.LifeExpired
				if !ended && d.Package == p.Manifest.Package && d.Version == p.Manifest.Version && d.Program == program {
					live = append(live, fmt.Sprintf("%s (%s)", d.Deployment, d.Life))
				}
			}
		}
		if len(programs) == 0 {
			continue
		}
		text := fmt.Sprintf("package %s names it as installation account of %s", packageName(p), strings.Join(programs, ", "))
		if len(live) > 0 {
			text += "; deployed by " + strings.Join(live, ", ")
		}
		uses = append(uses, text)
	}
	return uses
}
