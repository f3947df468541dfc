package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/manifest"
	"chandler/events/order"
	"chandler/events/trust"
	"chandler/services/declared"
)

// confirmAbove is the number of machines from which on the deployment's name must be typed, or --yes given.
const confirmAbove = 1000

func deploymentCreate(a *app) *cobra.Command {
	var f createFlags
	cmd := &cobra.Command{
		Use: "create [NAME]", Short: "Sign a deployment and send it", Args: cobra.MaximumNArgs(1),
		Long: `The order is signed here, with the key of the context. Agents obey the signature, not the services. Where the
fleet's trust asks for several signatures, --draft keeps the order until others have signed it too, with
deployment sign.

What is deployed is said by --package, --program and --to, or by a document (-f FILE, - for standard input), as
chandler apply reads it.

Times are RFC 3339 (2026-12-01T08:00:00Z), local with a zone ("2026-12-01T08:00 Europe/Oslo"), or from now
(+36h); with --zone also wall-clock times of that zone (2026-12-01T08:00), where agent is each machine's own.

Phases: --phase 'NAME=WHO,advance=GATE,halt=GATE,max=N', as often as there are phases. WHO is a share (1%), a
number of machines, both of all so far, or a collection. advance opens the next phase: succeeded:95%, for:24h,
approval, event:TYPE@SUBJECT, joined by ;. halt stops the rollout: failed:5%, silent:20%@4h. max bounds the jobs
of the phase in flight. A file with phases: as documents have them: --phases FILE.`,
		Example: `  chandler deployment create hello-everywhere --package hello --program install --to workstations --watch
  chandler deployment create hello-everywhere --package hello --program install --to workstations \
    --phase 'canary=1%,advance=succeeded:95%;for:24h,halt=failed:5%' --phase 'rest=100%' --with-rollback uninstall
  chandler deployment create nightly --package scan --program run --to office --at 'cron:0 2 * * *' --zone agent --rerun always
  chandler deployment create -f hello-everywhere.yaml --dry-run`,
	}
	f.asked = a.asksPassphrase(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		d, err := a.declaredBy(cmd, args, f)
		if err != nil {
			return err
		}
		return a.connected(func(cmd *cobra.Command, c *client, _ []string) error { return a.create(cmd, c, d, f) })(cmd, args)
	}
	f.register(a, cmd)
	return cmd
}

func (a *app) create(cmd *cobra.Command, c *client, d declared.Deployment, f createFlags) error {
	if err := c.may(events.DeploymentCreate.CallDeclaration); err != nil {
		return err
	}
	s, err := a.signer(cmd.Context(), c, f.asked)
	if err != nil {
		return err
	}
	if err := s.mayDeploy(); err != nil {
		return err
	}
	if err := errors.Join(a.checkDraft(s, d.Deployment, f.draft), checkPair(s.trust, d.Rollback)); err != nil {
		return err
	}
	l := newLookups(c, s.trust)
	p, err := a.proposeNamed(cmd.Context(), l, d, f)
	if err != nil {
		return err
	}
	revision := f.revision
	if revision == 0 {
		if revision, err = a.nextRevision(cmd.Context(), c, s, d.Deployment, f.revise); err != nil {
			return err
		}
	}
	if err := a.revise(cmd.Context(), c, s, &p, revision); err != nil {
		return err
	}
	if err := a.tellProposal(cmd, l, p); err != nil {
		return err
	}
	if f.dryRun {
		if _, _, err := s.order(p.order); err != nil {
			return err
		}
		return a.writeOrder(cmd, p)
	}
	if err := a.confirm(cmd, p.order.Deployment, len(p.collection.Members), f.yes); err != nil {
		return err
	}
	view, err := sendOrder(cmd.Context(), c, s, p, f.draft)
	if err != nil {
		return err
	}
	return a.tellCreated(cmd, c, view, f.watch)
}

// proposeNamed is the proposal of a declared deployment; where flags named the package without a version, of the newest.
func (a *app) proposeNamed(ctx context.Context, l *lookups, d declared.Deployment, f createFlags) (proposal, error) {
	if f.file == "" {
		name, version, _ := strings.Cut(f.packageRef, "@")
		found, err := l.pkg(ctx, name, version)
		if err != nil {
			return proposal{}, fmt.Errorf("--package: %w", err)
		}
		d.Program = declared.Reference{Package: name, Version: found.manifest.Version, Program: f.program}.String()
	}
	return l.propose(ctx, d, a.now())
}

// revise gives the order its revision, and the one that takes it back its own.
func (a *app) revise(ctx context.Context, c *client, s signer, p *proposal, revision uint64) (err error) {
	p.order.Revision = revision
	if p.rollback == nil {
		return nil
	}
	p.rollback.Rolls.Revision = revision
	p.rollback.Revision, err = a.nextRevision(ctx, c, s, p.rollback.Deployment, true)
	return err
}

// tellProposal shows what is about to be signed, before anybody is asked.
func (a *app) tellProposal(cmd *cobra.Command, l *lookups, p proposal) error {
	o, w := p.order, cmd.ErrOrStderr()
	note(w, "%s@%s/%s (run %s) to %s: %s now", o.Package, o.Version, o.Program, o.Run, o.Collection, plural(len(p.collection.Members), "machine", "machines"))
	note(w, "manifest %s; target %s", o.Manifest, cellOr(o.Expression, "the included agents only"))
	for _, list := range []field{{"included besides", listText(p.collection.Include)}, {"excluded", listText(p.collection.Exclude)},
		{"runs first", strings.ReplaceAll(stepsText(o.First), "\n", ", ")}, {"taken back by", rollbackText(p.rollback)}} {
		if list.value != "" {
			note(w, "%s: %s", list.name, list.value)
		}
	}
	tellFaults(w, p.collection)
	tellDoubts(w, o)
	return a.tellReach(cmd.Context(), w, l, p)
}

// checkDraft says what is to be done where several must sign. Where one is enough a draft would be released
// at once, which nobody means who asks for one.
func (a *app) checkDraft(s signer, name string, draft bool) error {
	switch {
	case s.trust.Threshold > 1 && !draft:
		return fmt.Errorf("each deployment needs the signatures of %d deployers: say --draft; the others then sign it with `%s deployment sign %s`", s.trust.Threshold, a.self, name)
	case s.trust.Threshold == 1 && draft:
		return errors.New("--draft: one signature is enough here, so that the deployment would begin at once: leave it out")
	}
	return nil
}

// checkPair refuses a pair where one signature is not enough: a draft gathers those of one order.
func checkPair(bundle trust.Bundle, rollback string) error {
	if bundle.Threshold > 1 && rollback != "" {
		return fmt.Errorf("a rollback cannot be signed with the deployment where each needs the signatures of %d deployers: leave it out, and create it with `chandler deployment rollback` when it is needed", bundle.Threshold)
	}
	return nil
}

// sendOrder signs an order and what takes it back, notes that, and hands them to scheduling.
func sendOrder(ctx context.Context, c *client, s signer, p proposal, draft bool) (events.DeploymentView, error) {
	request := events.DeploymentRequest{Include: p.collection.Include, Exclude: p.collection.Exclude, Draft: draft, Plan: p.plan}
	var err error
	if request.Envelope, err = s.signNoted(p.order); err != nil {
		return events.DeploymentView{}, err
	}
	if p.rollback != nil {
		if request.Rollback, err = s.signNoted(*p.rollback); err != nil {
			return events.DeploymentView{}, fmt.Errorf("rollback: %w", err)
		}
	}
	return ask(bus.WithTrace(ctx, newTrace()), c, events.DeploymentCreate, request)
}

// signNoted signs an order and notes its revision before anybody gets it.
func (s signer) signNoted(o order.Order) ([]byte, error) {
	envelope, _, err := s.order(o)
	if err != nil {
		return nil, err
	}
	return envelope, (signedRevisions{s.dir}).note(o.Deployment, o.Revision)
}

// tellCreated ends a command that sent an order.
func (a *app) tellCreated(cmd *cobra.Command, c *client, view events.DeploymentView, watch bool) error {
	if view.Life == events.LifeDraft {
		return a.answer(cmd, view, view.Deployment, "deployment %s is a draft: signed by %s, %s needed; others sign it with: %s deployment sign %s",
			view.Deployment, strings.Join(view.Signers, ", "), plural(view.Needed, "signature is", "signatures are"), a.self, view.Deployment)
	}
	if watch {
		return a.watch(cmd, c, view.Deployment, false)
	}
	return a.answer(cmd, view, view.Deployment, "deployment %s is %s; follow with: %s deployment watch %s", view.Deployment, view.Life, a.self, view.Deployment)
}

// shownAgents is how many agents of a list are named before it is signed.
const shownAgents = 5

// listText shows a list of agents that an order binds: how many, the digest that is signed, and the first ones.
func listText(agents []string) string {
	if len(agents) == 0 {
		return ""
	}
	names, more := agents, ""
	if len(agents) > shownAgents {
		names, more = agents[:shownAgents], " …"
	}
	return fmt.Sprintf("%s (list %s): %s%s", plural(len(agents), "agent", "agents"), order.ListDigest(agents), strings.Join(names, ", "), more)
}

// checkFound makes sure that what is about to be signed is what was asked for, and what a publisher signed:
// whoever can speak on the broker can answer in place of the content service.
func checkFound(found events.PackageInfo, bundle trust.Bundle, name, version string) (events.Manifest, error) {
	if digest := events.DigestOf(found.Envelope); digest != found.Digest {
		return events.Manifest{}, fmt.Errorf("the answer for %s does not hash to its digest (%.12s, not %.12s): nothing was signed", packageText(name, version), digest, found.Digest)
	}
	m, err := manifest.Verify(found.Envelope, bundle)
	if err != nil {
		return m, fmt.Errorf("agents would refuse %s: %w; nothing was signed", packageText(name, version), err)
	}
	if m.Package != name || version != "" && m.Version != version {
		return m, fmt.Errorf("asked for %s, the content service answered with %s@%s: nothing was signed", packageText(name, version), m.Package, m.Version)
	}
	return m, nil
}

func packageText(name, version string) string {
	if version == "" {
		return name
	}
	return name + "@" + version
}

// confirm asks for the name when many machines are meant.
func (a *app) confirm(cmd *cobra.Command, name string, machines int, yes bool) error {
	if yes || machines < confirmAbove {
		return nil
	}
	if !a.interactive(cmd) {
		return fmt.Errorf("this reaches %s machines: say --yes if that is meant", count(machines))
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "This reaches %s machines. Type the deployment's name to go on: ", count(machines))
	typed, err := readLine(cmd.InOrStdin())
	if err != nil {
		return err
	}
	if typed != name {
		return errors.New("not the deployment's name: nothing was sent")
	}
	return nil
}

// readLine reads what is typed in answer to a question.
func readLine(r io.Reader) (string, error) {
	line, err := bufio.NewReader(io.LimitReader(r, 4096)).ReadString('\n')
	if err != nil && !(errors.Is(err, io.EOF) && line != "") {
		return "", fmt.Errorf("read the answer: %w", err)
	}
	return strings.TrimSpace(line), nil
}
