package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/calendar"
	"chandler/events/manifest"
	"chandler/events/order"
	"chandler/events/trust"
)

// confirmAbove is the number of machines from which on the deployment's name must be typed, or --yes given.
const confirmAbove = 1000

// createFlags are those of deployment create, as typed.
type createFlags struct {
	packageRef, program, to           string
	available, at, deadline, expires  string
	rerun, valid                      string
	yes, dryRun, watch, revise, draft bool
	revision                          uint64 // 0: the one that follows
	asked                             *asking
}

func deploymentCreate(a *app) *cobra.Command {
	var f createFlags
	cmd := &cobra.Command{
		Use: "create NAME --package PACKAGE[@VERSION] --program PROGRAM --to COLLECTION", Short: "Sign a deployment and send it", Args: cobra.ExactArgs(1),
		Long: `The order is signed here, with the key of the context. Agents obey the signature, not the services. Where the
fleet's trust asks for several signatures, --draft keeps the order until others have signed it too, with
deployment sign.

Times are RFC 3339 (2026-12-01T08:00:00Z), local with a zone ("2026-12-01T08:00 Europe/Oslo"), or from now
(+36h).`,
		Example: `  chandler deployment create hello-everywhere --package hello --program install --to workstations --watch`,
	}
	f.asked = a.asksPassphrase(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		o, err := a.proposal(args[0], f)
		if err != nil {
			return err
		}
		return a.connected(func(cmd *cobra.Command, c *client, _ []string) error { return a.create(cmd, c, o, f) })(cmd, args)
	}
	flags := cmd.Flags()
	flags.StringVar(&f.packageRef, "package", "", "package, and its version; without one the newest published")
	flags.StringVar(&f.program, "program", "", "program of the package")
	flags.StringVar(&f.to, "to", "", "collection")
	flags.StringVar(&f.available, "available", "", "not before this time (default: now)")
	flags.StringVar(&f.at, "at", atASAP, "when it starts: asap, logon (when next a user logs on) or logoff (when the last one has logged off; for programs with logon: none)")
	flags.StringVar(&f.deadline, "deadline", "", "start at this time, with the content fetched before, instead of --at")
	flags.StringVar(&f.expires, "expires", "", "start nothing after this time")
	flags.StringVar(&f.rerun, "rerun", string(order.RerunIfFailed), "where the program ran before: never, always, if-failed or if-succeeded")
	flags.StringVar(&f.valid, "valid", "90d", "how long the signature is valid")
	flags.BoolVar(&f.yes, "yes", false, fmt.Sprintf("do not ask, also for %s machines and more", count(confirmAbove)))
	flags.BoolVar(&f.dryRun, "dry-run", false, "show what would be signed, and for how many machines; send nothing")
	flags.BoolVar(&f.watch, "watch", false, "follow the deployment to its end, as deployment watch does")
	flags.Uint64Var(&f.revision, "revision", 0, "sign this revision instead of the one that follows")
	flags.BoolVar(&f.draft, "draft", false, "keep the order until others have signed it too: where one signature is not enough")
	flags.BoolVar(&f.revise, "revise", false, "replace the deployment of this name by its next revision")
	for _, name := range []string{"package", "program", "to"} {
		_ = cmd.MarkFlagRequired(name)
	}
	a.completeFlag(cmd, "package", completePackages)
	a.completeFlag(cmd, "program", completePrograms)
	a.completeFlag(cmd, "to", completeCollections)
	completeWords(cmd, "rerun", reruns()...)
	completeWords(cmd, "at", atASAP, atLogon, atLogoff)
	return cmd
}

// proposal is the order as far as the command line says it; mistakes in that are told before anybody is asked.
func (a *app) proposal(name string, f createFlags) (order.Order, error) {
	for _, n := range []struct{ what, name string }{{"deployment", name}, {"--program", f.program}, {"--to", f.to}} {
		if err := events.ValidToken(n.name); err != nil {
			return order.Order{}, fmt.Errorf("%s: %w", n.what, err)
		}
	}
	if name, _, _ := strings.Cut(f.packageRef, "@"); events.ValidPackage(name) != nil {
		return order.Order{}, fmt.Errorf("--package: %w", events.ValidPackage(name))
	}
	if !slices.Contains(reruns(), f.rerun) {
		return order.Order{}, fmt.Errorf("--rerun %q: it must be one of %s", f.rerun, joined(reruns()))
	}
	o, err := a.times(f)
	o.Deployment, o.Program = name, f.program
	return o, err
}

func (a *app) create(cmd *cobra.Command, c *client, o order.Order, f createFlags) error {
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
	if err := a.checkDraft(s, o.Deployment, f.draft); err != nil {
		return err
	}
	o.Fleet = s.trust.Fleet
	collection, err := a.fillOrder(cmd.Context(), c, s, &o, f)
	if err != nil {
		return err
	}
	note(cmd.ErrOrStderr(), "%s@%s/%s (run %s) to %s: %s now", o.Package, o.Version, o.Program, o.Run, o.Collection, plural(len(collection.Members), "machine", "machines"))
	note(cmd.ErrOrStderr(), "manifest %s; target %s", o.Manifest, cellOr(o.Expression, "the included agents only"))
	for _, list := range []field{{"included besides", listText(collection.Include)}, {"excluded", listText(collection.Exclude)}} {
		if list.value != "" {
			note(cmd.ErrOrStderr(), "%s: %s", list.name, list.value)
		}
	}
	tellFaults(cmd.ErrOrStderr(), collection)
	if f.dryRun {
		if _, _, err := s.order(o); err != nil {
			return err
		}
		return a.writeOrder(cmd, o)
	}
	if err := a.confirm(cmd, o.Deployment, len(collection.Members), f.yes); err != nil {
		return err
	}
	view, err := sendOrder(cmd.Context(), c, s, o, collection, f.draft)
	if err != nil {
		return err
	}
	return a.tellCreated(cmd, c, view, f.watch)
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

// sendOrder signs an order, notes that, and hands it to scheduling.
func sendOrder(ctx context.Context, c *client, s signer, o order.Order, collection events.CollectionView, draft bool) (events.DeploymentView, error) {
	envelope, _, err := s.order(o)
	if err != nil {
		return events.DeploymentView{}, err
	}
	if err := (signedRevisions{s.dir}).note(o.Deployment, o.Revision); err != nil {
		return events.DeploymentView{}, err
	}
	return ask(bus.WithTrace(ctx, newTrace()), c, events.DeploymentCreate, events.DeploymentRequest{Envelope: envelope, Include: collection.Include, Exclude: collection.Exclude, Draft: draft})
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

// times fills what the flags say about time into an order.
func (a *app) times(f createFlags) (order.Order, error) {
	o := order.Order{Format: order.Format, Rerun: order.Rerun(f.rerun), Issued: a.now().UTC().Truncate(time.Second)}
	valid, err := parseSpan(f.valid)
	if err != nil {
		return o, fmt.Errorf("--valid: %w", err)
	}
	if valid == 0 {
		return o, errors.New("--valid 0: an order without validity would reach nobody")
	}
	o.NotAfter = o.Issued.Add(valid)
	var deadline *calendar.Moment
	for _, t := range []struct {
		flag, text string
		into       **calendar.Moment
	}{{"available", f.available, &o.Available}, {"deadline", f.deadline, &deadline}, {"expires", f.expires, &o.Expires}} {
		if t.text == "" {
			continue
		}
		when, err := parseWhen(t.text, a.now())
		if err != nil {
			return o, fmt.Errorf("--%s: %w", t.flag, err)
		}
		if t.flag != "available" && !when.After(o.Issued) {
			return o, fmt.Errorf("--%s lies in the past (%s): say a later time, or leave it out", t.flag, a.longTime(when))
		}
		if !when.Before(o.NotAfter) {
			return o, fmt.Errorf("--%s lies after %s, when the signature ends to be valid: give a longer --valid", t.flag, a.longTime(o.NotAfter))
		}
		moment := calendar.At(when)
		*t.into = &moment
	}
	assignment, err := assignmentOf(f.at, deadline)
	if err != nil {
		return o, err
	}
	o.Assignments = []order.Assignment{assignment}
	for _, before := range []struct {
		flag string
		time *calendar.Moment
	}{{"available", o.Available}, {"deadline", deadline}} {
		if o.Expires != nil && before.time != nil && !o.Over().After(before.time.Latest()) {
			return o, fmt.Errorf("--expires lies before --%s: nothing would ever start", before.flag)
		}
	}
	return o, nil
}

// Words of --at.
const (
	atASAP   = "asap"
	atLogon  = "logon"
	atLogoff = "logoff"
)

// assignmentOf is the one assignment that --at and --deadline ask for; neither: as soon as possible.
func assignmentOf(at string, deadline *calendar.Moment) (order.Assignment, error) {
	at = cmp.Or(at, atASAP)
	if deadline != nil && at != atASAP {
		return order.Assignment{}, fmt.Errorf("--at %s and --deadline: a deployment starts at one of them", at)
	}
	switch {
	case deadline != nil:
		return order.Assignment{At: deadline}, nil
	case at == atASAP:
		return order.Assignment{ASAP: true}, nil
	case at == atLogon:
		return order.Assignment{Logon: true}, nil
	case at == atLogoff:
		return order.Assignment{Logoff: true}, nil
	}
	return order.Assignment{}, fmt.Errorf("--at %q: it must be %s, %s or %s; a time is a --deadline", at, atASAP, atLogon, atLogoff)
}

// starts is when an order's program starts, in words.
func (a *app) starts(o order.Order) string {
	if at := o.Deadline(); at != nil {
		return a.moment(at, o.Zone)
	}
	return o.Assignments[0].String()
}

// fillOrder looks up what the order binds: the package's manifest, the collection's definition, the
// revision that follows.
func (a *app) fillOrder(ctx context.Context, c *client, s signer, o *order.Order, f createFlags) (events.CollectionView, error) {
	name, version, _ := strings.Cut(f.packageRef, "@")
	found, err := ask(ctx, c, events.ContentShow, events.Named{Name: name, Version: version})
	if err != nil {
		return events.CollectionView{}, fmt.Errorf("--package: %w", err)
	}
	m, err := checkFound(found, s.trust, name, version)
	if err != nil {
		return events.CollectionView{}, err
	}
	program, ok := m.Programs[f.program]
	if !ok {
		return events.CollectionView{}, fmt.Errorf("package %s@%s has no program %q; it has %s", m.Package, m.Version, f.program, strings.Join(programNames(m), ", "))
	}
	o.Package, o.Version, o.Manifest, o.Run = m.Package, m.Version, found.Digest, program.Run
	o.InstallationAccount, o.Resources = program.InstallationAccount, manifest.Resources(m, f.program)
	if loose := manifest.Unpinned(program); s.trust.PinnedReferences && len(loose) > 0 {
		return events.CollectionView{}, fmt.Errorf("agents would refuse it: the trust bundle forbids references without a sha256, and program %s has %s", f.program, strings.Join(loose, ", "))
	}
	if err := o.Agrees(m); err != nil {
		return events.CollectionView{}, fmt.Errorf("agents would refuse it: %w", err)
	}
	collection, err := fillTarget(ctx, c, o, f.to)
	if err != nil {
		return collection, fmt.Errorf("--to: %w", err)
	}
	if o.Revision = f.revision; o.Revision == 0 {
		o.Revision, err = a.nextRevision(ctx, c, s, o.Deployment, f.revise)
	}
	return collection, err
}

// fillTarget takes over a collection's present definition. No more can be known of it here than what scheduling
// says, so that whoever signs is shown all of it.
func fillTarget(ctx context.Context, c *client, o *order.Order, name string) (events.CollectionView, error) {
	collection, err := ask(ctx, c, events.CollectionShow, events.Named{Name: name})
	if err != nil {
		return collection, err
	}
	if collection.Name != name {
		return collection, fmt.Errorf("asked for collection %s, the scheduling service answered with %s: nothing was signed", name, collection.Name)
	}
	o.Collection, o.Expression = collection.Name, collection.Expression
	o.IncludeDigest, o.ExcludeDigest = order.ListDigest(collection.Include), order.ListDigest(collection.Exclude)
	return collection, nil
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
		return events.Manifest{}, fmt.Errorf("--package: the answer for %s does not hash to its digest (%.12s, not %.12s): nothing was signed", packageText(name, version), digest, found.Digest)
	}
	m, err := manifest.Verify(found.Envelope, bundle)
	if err != nil {
		return m, fmt.Errorf("--package: agents would refuse %s: %w; nothing was signed", packageText(name, version), err)
	}
	if m.Package != name || version != "" && m.Version != version {
		return m, fmt.Errorf("--package: asked for %s, the content service answered with %s@%s: nothing was signed", packageText(name, version), m.Package, m.Version)
	}
	return m, nil
}

func packageText(name, version string) string {
	if version == "" {
		return name
	}
	return name + "@" + version
}

// writeOrder shows what would be signed.
func (a *app) writeOrder(cmd *cobra.Command, o order.Order) error {
	return writeDetail(cmd.OutOrStdout(), a.output, o, o.Deployment, []field{
		{"Deployment", o.Deployment}, {"Revision", o.Revision}, {"Fleet", o.Fleet}, {"Program", fmt.Sprintf("%s@%s/%s", o.Package, o.Version, o.Program)},
		{"Manifest", o.Manifest}, {"Run", o.Run}, {"Installation account", o.InstallationAccount}, {"May be helped to read", resourceList(o.Resources)}, {"Collection", o.Collection}, {"Target", o.Expression}, {"Included agents", o.IncludeDigest},
		{"Excluded agents", o.ExcludeDigest}, {"Available", a.moment(o.Available, o.Zone)}, {"Starts", a.starts(o)}, {"Expires", a.moment(o.Expires, o.Zone)},
		{"Rerun", o.Rerun}, {"Valid until", a.longTime(o.NotAfter)},
	})
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
