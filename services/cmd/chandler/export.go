package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"chandler/events"
	"chandler/services/declared"
)

func newExport(a *app) *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use: "export", Short: "Write what the fleet is as documents that apply reads", Args: cobra.NoArgs,
		Long: `Writes collections, deployments that are not over nor taken back, limits, and packages by name and digest as documents (strict YAML):
applied again, nothing changes. Where it would, because a collection was changed after the order was signed, that is said.
Without --directory they go to standard output. The bytes of packages are not exported: to have them published elsewhere,
put a path into their documents.`,
		Example: `  chandler export > fleet.yaml
  chandler export --directory fleet/`,
		RunE: a.connected(func(cmd *cobra.Command, c *client, _ []string) error {
			documents, comments, err := a.documents(cmd, c)
			if err != nil {
				return err
			}
			if dir == "" {
				return writeDocuments(cmd, documents, comments)
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

// documents are what the fleet is, and comments on what is left out of it. What takes a deployment back is part of it, not
// a document of its own.
func (a *app) documents(cmd *cobra.Command, c *client) (all []exported, comments []string, err error) {
	ctx := cmd.Context()
	packages, err := ask(ctx, c, events.ContentList, events.Nothing{})
	if err != nil {
		return nil, nil, err
	}
	for _, p := range packages.Packages {
		all = append(all, exported{file: filepath.Join("packages", packageName(p)+".yaml"), document: declared.OfPackage(p.Manifest.Package, p.Manifest.Version, p.Digest)})
	}
	collections, err := ask(ctx, c, events.CollectionList, events.Nothing{})
	if err != nil {
		return nil, nil, err
	}
	for _, v := range collections.Collections {
		all = append(all, exported{file: filepath.Join("collections", v.Name+".yaml"), document: declared.OfCollection(v.Collection)})
	}
	deployments, comments, err := a.deploymentDocuments(ctx, cmd, c)
	if err != nil {
		return nil, nil, err
	}
	all = append(all, deployments...)
	limits, err := ask(ctx, c, events.LimitsShow, events.Nothing{})
	if err != nil {
		return nil, nil, err
	}
	if l := declared.OfLimits(limits); l.Limits != (declared.FleetLimits{}) {
		all = append(all, exported{file: "limits.yaml", document: l})
	}
	return all, comments, nil
}

func (a *app) deploymentDocuments(ctx context.Context, cmd *cobra.Command, c *client) (all []exported, comments []string, err error) {
	bundle, err := a.followTrust(ctx, c)
	if err != nil {
		return nil, nil, err
	}
	listed, err := ask(ctx, c, events.DeploymentList, events.Nothing{})
	if err != nil {
		return nil, nil, err
	}
	p := &planner{app: a, cmd: cmd, lookups: newLookups(c, bundle), c: c}
	takers := map[string]bool{} // what took one back is over as soon as that is done
	for _, view := range listed.Deployments {
		takers[view.Rollback] = true
	}
	for _, view := range listed.Deployments {
		if why := leftOut(view); why != "" {
			note(cmd.ErrOrStderr(), "deployment %s %s: left out", view.Deployment, why)
			if !takers[view.Deployment] {
				comments = append(comments, fmt.Sprintf("# deployment %s %s: left out\n", view.Deployment, why))
			}
			continue
		}
		there, err := p.live(ctx, view.Deployment)
		switch {
		case err != nil:
			return nil, nil, err
		case there.order.Deployment == "":
			note(cmd.ErrOrStderr(), "WARNING: the order of deployment %s is not stored any more: left out", view.Deployment)
			continue
		case there.order.Rolls != nil:
			continue
		}
		d := declared.OfOrder(there.order, there.plan, p.saidRollback(ctx, there))
		p.tellOutdated(ctx, there, d)
		all = append(all, exported{file: filepath.Join("deployments", view.Deployment+".yaml"), document: d})
	}
	return all, comments, nil
}

// leftOut says why a deployment is not exported; applied, it would begin anew.
func leftOut(view events.DeploymentView) string {
	switch {
	case view.RolledBack:
		return "was taken back by " + view.Rollback
	case view.Life == events.LifeStopped || view.Life == events.LifeExpired:
		return "is " + string(view.Life)
	}
	return ""
}

// saidRollback is how a document says what takes a deployment back: uninstall, where that is the program that it names.
func (p *planner) saidRollback(ctx context.Context, there standing) string {
	usual, err := p.takesBack(ctx, there.order, declared.RollbackUninstall)
	if err == nil && there.back == usual.String() {
		return declared.RollbackUninstall
	}
	return there.back
}

// tellOutdated says where apply would sign an exported deployment anew, and why: what the order took over from elsewhere is
// not what is there now.
func (p *planner) tellOutdated(ctx context.Context, there standing, d declared.Deployment) {
	wanted, err := p.propose(ctx, d, p.app.now())
	var fields []fieldChange
	if err == nil {
		fields, err = p.signedDiffers(ctx, there, wanted)
	}
	switch {
	case err != nil:
		note(p.cmd.ErrOrStderr(), "WARNING: deployment %s could not be signed today: %v", d.Deployment, err)
	case len(fields) > 0:
		note(p.cmd.ErrOrStderr(), "WARNING: deployment %s was signed with another %s than there is now: apply signs it anew", d.Deployment, fieldNames(fields))
	}
}

func writeDocuments(cmd *cobra.Command, documents []exported, comments []string) error {
	plain := make([]any, len(documents))
	for i, d := range documents {
		plain[i] = d.document
	}
	text, err := declared.WriteAll(plain...)
	if err != nil {
		return err
	}
	_, err = io.WriteString(cmd.OutOrStdout(), strings.Join(comments, "")+string(text))
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
