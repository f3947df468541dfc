package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"chandler/events"
	"chandler/services/declared"
)

func newExport(a *app) *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use: "export", Short: "Write what the fleet is as documents that apply reads", Args: cobra.NoArgs,
		Long: `Writes collections, deployments that are not over, limits, and packages by name and digest as documents (strict YAML):
applied again, nothing changes. What was signed to take a deployment back is written as it would be chosen now. Without --directory they go to standard output. The bytes of packages are not exported: to
have them published elsewhere, put a path into their documents.`,
		Example: `  chandler export > fleet.yaml
  chandler export --directory fleet/`,
		RunE: a.connected(func(cmd *cobra.Command, c *client, _ []string) error {
			documents, err := a.documents(cmd, c)
			if err != nil {
				return err
			}
			if dir == "" {
				return writeDocuments(cmd, documents)
			}
			if err := writeDirectory(dir, documents); err != nil {
				return err
			}
			note(cmd.ErrOrStderr(), "%s written to %s", plural(len(documents), "document is", "documents are"), dir)
			return nil
		}),
	}
	cmd.Flags().StringVar(&dir, "directory", "", "directory to write to, a file for each object; what is there already is not overwritten")
	return cmd
}

// exported is one document and the file it goes to, below the directory.
type exported struct {
	file     string
	document any
}

// documents are what the fleet is. What takes a deployment back is part of it, not a document of its own.
func (a *app) documents(cmd *cobra.Command, c *client) (all []exported, err error) {
	ctx := cmd.Context()
	packages, err := ask(ctx, c, events.ContentList, events.Nothing{})
	if err != nil {
		return nil, err
	}
	for _, p := range packages.Packages {
		all = append(all, exported{filepath.Join("packages", packageName(p)+".yaml"), declared.OfPackage(p.Manifest.Package, p.Manifest.Version, p.Digest)})
	}
	collections, err := ask(ctx, c, events.CollectionList, events.Nothing{})
	if err != nil {
		return nil, err
	}
	for _, v := range collections.Collections {
		all = append(all, exported{filepath.Join("collections", v.Name+".yaml"), declared.OfCollection(v.Collection)})
	}
	deployments, err := a.deploymentDocuments(ctx, cmd, c)
	if err != nil {
		return nil, err
	}
	all = append(all, deployments...)
	limits, err := ask(ctx, c, events.LimitsShow, events.Nothing{})
	if err != nil {
		return nil, err
	}
	if l := declared.OfLimits(limits); l.Limits != (declared.FleetLimits{}) {
		all = append(all, exported{"limits.yaml", l})
	}
	return all, nil
}

func (a *app) deploymentDocuments(ctx context.Context, cmd *cobra.Command, c *client) (all []exported, err error) {
	bundle, err := a.followTrust(ctx, c)
	if err != nil {
		return nil, err
	}
	listed, err := ask(ctx, c, events.DeploymentList, events.Nothing{})
	if err != nil {
		return nil, err
	}
	p := &planner{app: a, cmd: cmd, lookups: newLookups(c, bundle), c: c}
	for _, view := range listed.Deployments {
		if view.Life == events.LifeStopped || view.Life == events.LifeExpired {
			note(cmd.ErrOrStderr(), "deployment %s is %s: left out", view.Deployment, view.Life)
			continue
		}
		there, err := p.live(ctx, view.Deployment)
		switch {
		case err != nil:
			return nil, err
		case there.order.Deployment == "":
			note(cmd.ErrOrStderr(), "WARNING: the order of deployment %s is not stored any more: left out", view.Deployment)
			continue
		case there.order.Rolls != nil:
			continue
		}
		with := ""
		if there.rollback != "" {
			if with, err = p.usualRollback(ctx, there.order); err != nil {
				note(cmd.ErrOrStderr(), "WARNING: deployment %s: what was signed to take it back cannot be named: %v", view.Deployment, err)
			}
		}
		all = append(all, exported{filepath.Join("deployments", view.Deployment+".yaml"), declared.OfOrder(there.order, there.plan, with)})
	}
	return all, nil
}

func writeDocuments(cmd *cobra.Command, documents []exported) error {
	plain := make([]any, len(documents))
	for i, d := range documents {
		plain[i] = d.document
	}
	text, err := declared.WriteAll(plain...)
	if err != nil {
		return err
	}
	_, err = cmd.OutOrStdout().Write(text)
	return err
}

// writeDirectory writes each document to a file of its own, and none where something is there already.
func writeDirectory(dir string, documents []exported) error {
	taken := slices.IndexFunc(documents, func(d exported) bool {
		_, err := os.Lstat(filepath.Join(dir, d.file))
		return !errors.Is(err, fs.ErrNotExist)
	})
	if taken >= 0 {
		return fmt.Errorf("%s is there already: export to an empty directory", filepath.Join(dir, documents[taken].file))
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, d := range documents {
		text, err := declared.Write(d.document)
		if err == nil {
			err = root.MkdirAll(filepath.Dir(d.file), 0o755)
		}
		if err == nil {
			err = root.WriteFile(d.file, text, 0o644)
		}
		if err != nil {
			return fmt.Errorf("write %s: %w", d.file, err)
		}
	}
	return nil
}
