package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"chandler/events"
	"chandler/events/order"
	"chandler/events/resource"
	"chandler/events/sign"
)

func deploymentSign(a *app) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "sign NAME", Short: "Add your signature to a draft; complete, it begins", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeArguments(completeDrafts),
		Long: `Shows what the draft will run, with whose rights and on how many machines, asks, and adds the signature of
the context's key. What is shown was read from the signed bytes themselves, not from what a service says of them.`,
	}
	asked := a.asksPassphrase(cmd)
	cmd.RunE = a.connected(func(cmd *cobra.Command, c *client, args []string) error {
		return a.signDraft(cmd, c, args[0], asked, yes)
	})
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

func (a *app) signDraft(cmd *cobra.Command, c *client, name string, asked *asking, yes bool) error {
	if err := c.may(events.DeploymentSign.CallDeclaration); err != nil {
		return err
	}
	draft, err := ask(cmd.Context(), c, events.DeploymentDraft, events.Named{Name: name})
	if err != nil {
		return err
	}
	s, err := a.signer(cmd.Context(), c, asked)
	if err != nil {
		return err
	}
	if err := s.mayDeploy(); err != nil {
		return err
	}
	o, err := s.openDraft(draft, name, a.now())
	if err != nil {
		return err
	}
	signed, complete, err := order.Signed(draft.Envelope, s.trust)
	if err != nil {
		return err
	}
	note(cmd.ErrOrStderr(), "deployment %s, revision %d: signed by %s, %s needed", name, o.Revision, cellOr(strings.Join(signed, ", "), "nobody yet"), plural(s.trust.Threshold, "signature is", "signatures are"))
	if err := a.describe(cmd.Context(), cmd.ErrOrStderr(), c, s, o, draft.Include, draft.Exclude); err != nil {
		return err
	}
	if s.signed(draft.Envelope) && !complete {
		return a.answer(cmd, draft, name, "deployment %s bears your signature already; others have to sign it", name)
	}
	if err := a.agree(cmd, "This signs the above.", yes); err != nil {
		return err
	}
	envelope, err := sign.Add(draft.Envelope, s.key)
	if err != nil {
		return err
	}
	if err := (signedRevisions{s.dir}).note(name, o.Revision); err != nil {
		return err
	}
	view, err := ask(cmd.Context(), c, events.DeploymentSign, events.SignRequest{Envelope: envelope})
	if err != nil {
		return err
	}
	return a.tellCreated(cmd, c, view, false)
}

// signed says whether this key has signed an envelope.
func (s signer) signed(envelope []byte) bool {
	alone := s.trust
	alone.Keys, alone.Threshold = []sign.PublicKey{s.key.Public().Named("own")}, 1
	_, mine, err := order.Signed(envelope, alone)
	return err == nil && mine
}

// openDraft reads a draft as agents will once it is complete. It need not have been signed by anybody yet.
func (s signer) openDraft(draft events.DraftView, name string, now time.Time) (order.Order, error) {
	o, digest, err := order.Open(draft.Envelope)
	if err != nil {
		return o, err
	}
	switch {
	case o.Deployment != name || digest != draft.Order:
		return o, fmt.Errorf("asked for the draft of %s, the scheduling service answered with revision %d of %s: nothing was signed", name, o.Revision, o.Deployment)
	case o.Fleet != s.trust.Fleet:
		return o, fmt.Errorf("the draft is for fleet %s, this is %s: nothing was signed", o.Fleet, s.trust.Fleet)
	case !now.Before(o.NotAfter):
		return o, fmt.Errorf("the draft was to be valid until %s: create it anew", o.NotAfter.Format(time.RFC3339))
	}
	return o, nil
}

// describe shows in words what an order does: what runs, as its signed manifest says, and where, as its signed
// target says.
func (a *app) describe(ctx context.Context, w io.Writer, c *client, s signer, o order.Order, include, exclude []string) error {
	found, err := ask(ctx, c, events.ContentShow, events.Named{Name: o.Package, Version: o.Version})
	if err != nil {
		return fmt.Errorf("find out what would run: %w", err)
	}
	m, err := checkFound(found, s.trust, o.Package, o.Version)
	if err != nil {
		return err
	}
	if found.Digest != o.Manifest {
		return fmt.Errorf("the order binds manifest %.12s, the package published is %.12s: nothing was signed", o.Manifest, found.Digest)
	}
	program, ok := m.Programs[o.Program]
	if !ok {
		return fmt.Errorf("the order names program %s, which the package does not have: nothing was signed", o.Program)
	}
	if err := o.Agrees(m); err != nil {
		return fmt.Errorf("agents would refuse the order: %w; nothing was signed", err)
	}
	meant, err := a.machines(ctx, c, o, include, exclude)
	if err != nil {
		return err
	}
	if err := describable(ctx, c, s, o); err != nil {
		return err
	}
	fields := []field{
		{"Runs", commandLine(program.Command)}, {"Program", fmt.Sprintf("%s@%s/%s", o.Package, o.Version, o.Program)}, {"Manifest", o.Manifest}, {"With the rights of", rights(o.Run)},
		{"Conditions", strings.Join(conditions(program), "; ")}, {"May be helped to read", resourceList(o.Resources)},
		{"On", plural(meant, "machine now", "machines now")}, {"Target", cellOr(o.Expression, "the included agents only")},
		{"Included besides", listText(include)}, {"Excluded", listText(exclude)}, {"Collection", o.Collection},
	}
	return writeDetail(w, formTable, nil, "", append(append(fields, a.whenFields(o)...), field{"Valid until", a.longTime(o.NotAfter)}))
}

// describable makes sure that what runs first is what its publishers signed.
func describable(ctx context.Context, c *client, s signer, o order.Order) error {
	l := newLookups(c, s.trust)
	for _, step := range o.First {
		found, err := l.pkg(ctx, step.Package, step.Version)
		if err != nil {
			return fmt.Errorf("find out what would run first: %w", err)
		}
		if found.digest != step.Manifest {
			return fmt.Errorf("the order binds manifest %.12s of %s, the package published is %.12s: nothing was signed", step.Manifest, packageText(step.Package, step.Version), found.digest)
		}
		if err := step.Agrees(found.manifest); err != nil {
			return fmt.Errorf("agents would refuse the order: %w; nothing was signed", err)
		}
	}
	return nil
}

// resourceList are addresses as people are shown them, one a line.
func resourceList(addresses []string) string {
	var shown []string
	for _, a := range addresses {
		shown = append(shown, resource.Shown(a))
	}
	return strings.Join(shown, "\n")
}

func rights(run events.RunMode) string {
	if run == events.RunUser {
		return "whoever is logged on (user)"
	}
	return "the system (administrative)"
}

// machines counts the agents in the target that is signed, whatever the collection has become.
func (a *app) machines(ctx context.Context, c *client, o order.Order, include, exclude []string) (int, error) {
	target, err := o.Target(include, exclude)
	if err != nil {
		return 0, err
	}
	found, err := ask(ctx, c, events.AgentList, events.AgentQuery{})
	if err != nil {
		return 0, err
	}
	meant := 0
	for _, v := range found.Agents {
		if in, err := target.Matches(v.Facts); err == nil && in {
			meant++
		}
	}
	return meant, nil
}

func completeDrafts(ctx context.Context, c *client) ([]string, error) {
	all, err := ask(ctx, c, events.DeploymentList, events.Nothing{})
	var drafts []events.DeploymentView
	for _, d := range all.Deployments {
		if d.Life == events.LifeDraft {
			drafts = append(drafts, d)
		}
	}
	return collect(drafts, func(d events.DeploymentView) string { return d.Deployment + "\t" + programText(d.DeploymentNotice) }), err
}
