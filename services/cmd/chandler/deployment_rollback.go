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
	"chandler/events/manifest"
	"chandler/events/order"
	"chandler/services/declared"
)

// rollbackSuffix ends the name of the deployment that takes another one back.
const rollbackSuffix = "-rollback"

// rollback is the order that takes a deployment back where its program ran: by the program of its package that undoes it
// (uninstall), or another one, such as that of the version it superseded. It runs also where that program ran before,
// which is what the machines had.
func (l *lookups) rollback(ctx context.Context, forward order.Order, with string) (order.Order, error) {
	ref, err := l.takesBack(ctx, forward, with)
	if err != nil {
		return order.Order{}, err
	}
	if ref == (declared.Reference{Package: forward.Package, Version: forward.Version, Program: forward.Program}) {
		return order.Order{}, fmt.Errorf("%s is the very program that is to be taken back: name the one that undoes it", ref)
	}
	o := order.Order{
		Format: order.Format, Fleet: forward.Fleet, Deployment: forward.Deployment + rollbackSuffix, Package: ref.Package, Version: ref.Version, Program: ref.Program,
		Collection: forward.Collection, Expression: forward.Expression, IncludeDigest: forward.IncludeDigest, ExcludeDigest: forward.ExcludeDigest,
		Zone: forward.Zone, Assignments: []order.Assignment{{ASAP: true}}, Rerun: order.RerunAlways,
		Windows: forward.Windows, IgnoreWindows: forward.IgnoreWindows, RestartOutside: forward.RestartOutside,
		Rolls:  &order.Rolls{Deployment: forward.Deployment, Revision: forward.Revision, Package: forward.Package, Version: forward.Version, Program: forward.Program},
		Issued: forward.Issued, NotAfter: forward.NotAfter,
	}
	if err := events.ValidToken(o.Deployment); err != nil {
		return o, err
	}
	_, err = l.bindProgram(ctx, &o)
	return o, err
}

// takesBack is the program that with names; uninstall is the one of the same package that undoes the order's.
func (l *lookups) takesBack(ctx context.Context, forward order.Order, with string) (declared.Reference, error) {
	if with != declared.RollbackUninstall {
		return declared.ParseReference(with)
	}
	found, err := l.pkg(ctx, forward.Package, forward.Version)
	if err != nil {
		return declared.Reference{}, err
	}
	if name := undoing(found.manifest, forward.Program); name != "" {
		return declared.Reference{Package: forward.Package, Version: forward.Version, Program: name}, nil
	}
	return declared.Reference{}, fmt.Errorf("package %s@%s has no program that undoes %s: name the one that does as PACKAGE@VERSION/PROGRAM", forward.Package, forward.Version, forward.Program)
}

// undoing is the first program of a package that undoes another; "" if none does.
func undoing(m events.Manifest, program string) string {
	for _, name := range programNames(m) {
		if m.Programs[name].Undoes == program {
			return name
		}
	}
	return ""
}

// usualRollback is what takes an order's program back where nobody says: the program that undoes it, else the same
// program of the newest version published that its package supersedes.
func (l *lookups) usualRollback(ctx context.Context, o order.Order) (string, error) {
	found, err := l.pkg(ctx, o.Package, o.Version)
	if err != nil {
		return "", err
	}
	if undoing(found.manifest, o.Program) != "" {
		return declared.RollbackUninstall, nil
	}
	all, err := ask(ctx, l.c, events.ContentList, events.Nothing{})
	if err != nil {
		return "", err
	}
	candidates := slices.DeleteFunc(all.Packages, func(p events.PackageInfo) bool {
		_, has := p.Manifest.Programs[o.Program]
		return !has || !manifest.Supersedes(found.manifest, p.Manifest.Package, p.Manifest.Version)
	})
	if len(candidates) == 0 {
		return "", fmt.Errorf("package %s@%s has no program that undoes %s, and supersedes no published version that has one: say --with PACKAGE@VERSION/PROGRAM", o.Package, o.Version, o.Program)
	}
	newest := slices.MaxFunc(candidates, func(a, b events.PackageInfo) int { return a.Manifest.Published.Compare(b.Manifest.Published) })
	return declared.Reference{Package: newest.Manifest.Package, Version: newest.Manifest.Version, Program: o.Program}.String(), nil
}

// rollbackFlags are those of deployment rollback.
type rollbackFlags struct {
	with, why, valid string
	draft, yes       bool
	asked            *asking
}

func deploymentRollback(a *app) *cobra.Command {
	var f rollbackFlags
	cmd := &cobra.Command{
		Use: "rollback NAME", Short: "Take a deployment back where its program ran", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeArguments(completeDeployments),
		Long: `Runs, on the machines on which the deployment ran its program, the program that takes it back, as a deployment
NAME` + rollbackSuffix + ` of its own. Where that was signed together with the deployment (--with-rollback) it begins
at once. Otherwise it is signed here: by the program of the same package that undoes the deployment's, or else the
same program of the version that its package superseded; --with names another.`,
		Example: `  chandler deployment rollback hello-everywhere
  chandler deployment rollback hello-everywhere --with hello@2.9/install`,
	}
	f.asked = a.asksPassphrase(cmd)
	cmd.RunE = a.connected(func(cmd *cobra.Command, c *client, args []string) error { return a.rollBack(cmd, c, args[0], f) })
	flags := cmd.Flags()
	flags.StringVar(&f.with, "with", "", "what takes it back, instead of what was signed with it: uninstall, or PACKAGE@VERSION/PROGRAM")
	flags.StringVar(&f.why, "why", "", "why, kept with the event")
	flags.StringVar(&f.valid, "valid", "90d", "how long the signature is valid")
	flags.BoolVar(&f.draft, "draft", false, "keep the order until others have signed it too: where one signature is not enough")
	flags.BoolVar(&f.yes, "yes", false, "do not ask")
	return cmd
}

func (a *app) rollBack(cmd *cobra.Command, c *client, name string, f rollbackFlags) error {
	ctx := cmd.Context()
	view, err := ask(ctx, c, events.DeploymentShow, events.Named{Name: name})
	if err != nil {
		return err
	}
	if view.RolledBack {
		return fmt.Errorf("deployment %s is being taken back already, by %s: `%s deployment show %s`", name, view.Rollback, a.self, view.Rollback)
	}
	if view.Rollback != "" && f.with == "" {
		question := fmt.Sprintf("This takes %s back on the machines on which it ran, of %s released.", name, plural(view.Released, "machine", "machines"))
		if err := a.agree(cmd, question, f.yes); err != nil {
			return err
		}
		view, err = ask(ctx, c, events.DeploymentRollback, events.Named{Name: name, Why: f.why})
		if err != nil {
			return err
		}
		return a.answer(cmd, view, name, "deployment %s is taken back by %s; follow with: %s deployment watch %s", name, view.Rollback, a.self, view.Rollback)
	}
	return a.signRollback(cmd, c, view, f)
}

// signRollback signs the order that takes a deployment back, where that was not signed with it.
func (a *app) signRollback(cmd *cobra.Command, c *client, view events.DeploymentView, f rollbackFlags) error {
	ctx := cmd.Context()
	if err := c.may(events.DeploymentCreate.CallDeclaration); err != nil {
		return err
	}
	valid, err := parseSpan(f.valid)
	if err == nil && valid == 0 {
		err = errors.New("an order without validity would reach nobody")
	}
	if err != nil {
		return fmt.Errorf("--valid: %w", err)
	}
	s, err := a.signer(ctx, c, f.asked)
	if err != nil {
		return err
	}
	back := view.Deployment + rollbackSuffix
	if err := errors.Join(s.mayDeploy(), a.checkDraft(s, back, f.draft)); err != nil {
		return err
	}
	p, err := a.proposeRollback(ctx, c, s, view, f.with, valid)
	if err != nil {
		return err
	}
	note(cmd.ErrOrStderr(), "deployment %s takes back revision %d of %s, on the machines on which that ran:", back, view.Revision, view.Deployment)
	if err := a.describe(ctx, cmd.ErrOrStderr(), c, s, p.order, p.collection.Include, p.collection.Exclude); err != nil {
		return err
	}
	if err := a.agree(cmd, "This signs the above.", f.yes); err != nil {
		return err
	}
	sent, err := sendOrder(ctx, c, s, p, f.draft)
	if err != nil {
		return err
	}
	return a.tellCreated(cmd, c, sent, false)
}

func (a *app) proposeRollback(ctx context.Context, c *client, s signer, view events.DeploymentView, with string, valid time.Duration) (p proposal, err error) {
	signed, err := signedOrder(ctx, c, view)
	if err != nil {
		return p, err
	}
	forward, err := presentOrder(signed, s, view)
	if err != nil {
		return p, err
	}
	l := newLookups(c, s.trust)
	if with == "" {
		if with, err = l.usualRollback(ctx, forward); err != nil {
			return p, err
		}
	}
	if p.order, err = l.rollback(ctx, forward, with); err != nil {
		return p, err
	}
	p.order.Issued = a.now().UTC().Truncate(time.Second)
	p.order.NotAfter = p.order.Issued.Add(valid)
	// Whom the forward order reached it names itself, whatever its collection has become.
	p.collection = events.CollectionView{Collection: events.Collection{Name: forward.Collection, Include: signed.Include, Exclude: signed.Exclude}}
	p.order.Revision, err = a.nextRevision(ctx, c, s, p.order.Deployment, true)
	return p, err
}

// rollbackText says in words what takes a deployment back.
func rollbackText(o *order.Order) string {
	if o == nil {
		return ""
	}
	text := fmt.Sprintf("%s@%s/%s, where revision %d ran", o.Package, o.Version, o.Program, o.Rolls.Revision)
	if steps := stepsText(o.First); steps != "" {
		text += "; before it " + strings.ReplaceAll(steps, "\n", ", ")
	}
	return text
}
