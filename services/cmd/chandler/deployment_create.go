package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/manifest"
	"chandler/events/order"
)

// confirmAbove is the number of machines from which on the deployment's name must be typed, or --yes given.
const confirmAbove = 1000

// createFlags are those of deployment create, as typed.
type createFlags struct {
	packageRef, program, to                    string
	available, deadline, expires, rerun, valid string
	yes, dryRun, watch, revise                 bool
	revision                                   uint64 // 0: the one that follows
}

func deploymentCreate(a *app) *cobra.Command {
	var f createFlags
	cmd := &cobra.Command{
		Use: "create NAME --package PACKAGE[@VERSION] --program PROGRAM --to COLLECTION", Short: "Sign a deployment and send it", Args: cobra.ExactArgs(1),
		Long: `The order is signed here, with the key of the context. Agents obey the signature, not the services.

Times are RFC 3339 (2026-12-01T08:00:00Z), local with a zone ("2026-12-01T08:00 Europe/Oslo"), or from now
(+36h).`,
		Example: `  chandler deployment create hello-everywhere --package hello --program install --to workstations --watch`,
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := a.proposal(args[0], f)
			if err != nil {
				return err
			}
			return a.connected(func(cmd *cobra.Command, c *client, _ []string) error { return a.create(cmd, c, o, f) })(cmd, args)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.packageRef, "package", "", "package, and its version; without one the newest published")
	flags.StringVar(&f.program, "program", "", "program of the package")
	flags.StringVar(&f.to, "to", "", "collection")
	flags.StringVar(&f.available, "available", "", "not before this time (default: now)")
	flags.StringVar(&f.deadline, "deadline", "", "start at this time, with the content fetched before (default: as soon as possible)")
	flags.StringVar(&f.expires, "expires", "", "start nothing after this time")
	flags.StringVar(&f.rerun, "rerun", string(order.RerunIfFailed), "where the program ran before: never, always, if-failed or if-succeeded")
	flags.StringVar(&f.valid, "valid", "90d", "how long the signature is valid")
	flags.BoolVar(&f.yes, "yes", false, fmt.Sprintf("do not ask, also for %s machines and more", count(confirmAbove)))
	flags.BoolVar(&f.dryRun, "dry-run", false, "show what would be signed, and for how many machines; send nothing")
	flags.BoolVar(&f.watch, "watch", false, "follow the deployment to its end, as `deployment watch`")
	flags.Uint64Var(&f.revision, "revision", 0, "sign this revision: for a name that was used and removed, where agents refuse to go back")
	flags.BoolVar(&f.revise, "revise", false, "replace the deployment of this name by its next revision")
	for _, name := range []string{"package", "program", "to"} {
		_ = cmd.MarkFlagRequired(name)
	}
	a.completeFlag(cmd, "package", completePackages)
	a.completeFlag(cmd, "program", completePrograms)
	a.completeFlag(cmd, "to", completeCollections)
	completeWords(cmd, "rerun", reruns()...)
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
	name := o.Deployment
	signer, err := loadSigner(c.connection)
	if err != nil {
		return err
	}
	o.Fleet = signer.trust.Fleet
	collection, err := fillOrder(cmd.Context(), c, &o, f)
	if err != nil {
		return err
	}
	envelope, err := signer.sign(o)
	if err != nil {
		return err
	}
	note(cmd.ErrOrStderr(), "%s@%s/%s (run %s) to %s: %s now", o.Package, o.Version, o.Program, o.Run, o.Collection, plural(len(collection.Members), "machine", "machines"))
	note(cmd.ErrOrStderr(), "manifest %s; target %s", o.Manifest, cellOr(o.Expression, "the included agents only"))
	tellFaults(cmd.ErrOrStderr(), collection)
	if o.Run == events.RunUser {
		note(cmd.ErrOrStderr(), "WARNING: agents of this version refuse programs with run: user (%s): they run administrative ones only", events.ContextUnsupported)
	}
	if f.dryRun {
		return a.writeOrder(cmd, o)
	}
	if err := a.confirm(cmd, name, len(collection.Members), f.yes); err != nil {
		return err
	}
	view, err := ask(bus.WithTrace(cmd.Context(), newTrace()), c, events.DeploymentCreate, events.DeploymentRequest{Envelope: envelope, Include: collection.Include, Exclude: collection.Exclude})
	if err != nil {
		return err
	}
	if f.watch {
		return a.watch(cmd, c, name, false)
	}
	return a.answer(cmd, view, view.Deployment, "deployment %s is %s; follow with: %s deployment watch %s", name, view.Life, a.self, name)
}

// times fills what the flags say about time into an order.
func (a *app) times(f createFlags) (order.Order, error) {
	o := order.Order{Format: order.Format, Rerun: order.Rerun(f.rerun), Issued: a.now().UTC().Truncate(time.Second), Assignments: []order.Assignment{{ASAP: true}}}
	valid, err := parseSpan(f.valid)
	if err != nil {
		return o, fmt.Errorf("--valid: %w", err)
	}
	if valid == 0 {
		return o, errors.New("--valid 0: an order without validity would reach nobody")
	}
	o.NotAfter = o.Issued.Add(valid)
	var deadline *time.Time
	for _, t := range []struct {
		flag, text string
		into       **time.Time
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
		*t.into = &when
	}
	if deadline != nil {
		o.Assignments = []order.Assignment{{At: deadline}}
	}
	for _, before := range []struct {
		flag string
		time *time.Time
	}{{"available", o.Available}, {"deadline", deadline}} {
		if o.Expires != nil && before.time != nil && !o.Expires.After(*before.time) {
			return o, fmt.Errorf("--expires lies before --%s: nothing would ever start", before.flag)
		}
	}
	return o, nil
}

// fillOrder looks up what the order binds: the package's manifest, the collection's definition, the
// revision that follows.
func fillOrder(ctx context.Context, c *client, o *order.Order, f createFlags) (events.CollectionView, error) {
	name, version, _ := strings.Cut(f.packageRef, "@")
	found, err := ask(ctx, c, events.ContentShow, events.Named{Name: name, Version: version})
	if err != nil {
		return events.CollectionView{}, fmt.Errorf("--package: %w", err)
	}
	if err := checkFound(found, name, version); err != nil {
		return events.CollectionView{}, err
	}
	program, ok := found.Manifest.Programs[f.program]
	if !ok {
		return events.CollectionView{}, fmt.Errorf("package %s@%s has no program %q; it has %s", found.Manifest.Package, found.Manifest.Version, f.program,
			strings.Join(slices.Sorted(maps.Keys(found.Manifest.Programs)), ", "))
	}
	o.Package, o.Version, o.Manifest, o.Run = found.Manifest.Package, found.Manifest.Version, found.Digest, program.Run
	collection, err := ask(ctx, c, events.CollectionShow, events.Named{Name: f.to})
	if err != nil {
		return collection, fmt.Errorf("--to: %w", err)
	}
	o.Collection, o.Expression = collection.Name, collection.Expression
	o.IncludeDigest, o.ExcludeDigest = order.ListDigest(collection.Include), order.ListDigest(collection.Exclude)
	if o.Revision = f.revision; o.Revision == 0 {
		o.Revision, err = nextRevision(ctx, c, o.Deployment, f.revise)
	}
	return collection, err
}

// checkFound makes sure that what is about to be signed is what was asked for: whoever can speak on the
// broker can answer in place of the content service.
func checkFound(found events.PackageInfo, name, version string) error {
	m := found.Manifest
	if m.Package != name || version != "" && m.Version != version {
		return fmt.Errorf("--package: asked for %s, the content service answered with %s@%s: nothing was signed", packageText(name, version), m.Package, m.Version)
	}
	data, err := manifest.Encode(m)
	if err != nil {
		return fmt.Errorf("--package: the answer is no manifest: %w", err)
	}
	if digest := events.DigestOf(data); digest != found.Digest {
		return fmt.Errorf("--package: the answer for %s@%s does not hash to its digest (%.12s, not %.12s): nothing was signed", m.Package, m.Version, digest, found.Digest)
	}
	return nil
}

func packageText(name, version string) string {
	if version == "" {
		return name
	}
	return name + "@" + version
}

// nextRevision is 1 for a new deployment. Replacing one must be meant.
func nextRevision(ctx context.Context, c *client, name string, revise bool) (uint64, error) {
	there, err := ask(ctx, c, events.DeploymentShow, events.Named{Name: name})
	if errors.Is(err, bus.ErrNotFound) {
		return 1, nil
	}
	if err != nil {
		return 0, err
	}
	if !revise {
		return 0, fmt.Errorf("there is a deployment %q (%s, %s): choose another name, or replace it with --revise", name, programText(there.DeploymentNotice), there.Life)
	}
	return there.Revision + 1, nil
}

// writeOrder shows what would be signed.
func (a *app) writeOrder(cmd *cobra.Command, o order.Order) error {
	assignment := "as soon as possible"
	if at := o.Deadline(); at != nil {
		assignment = a.longTime(*at)
	}
	return writeDetail(cmd.OutOrStdout(), a.output, o, o.Deployment, []field{
		{"Deployment", o.Deployment}, {"Revision", o.Revision}, {"Fleet", o.Fleet}, {"Program", fmt.Sprintf("%s@%s/%s", o.Package, o.Version, o.Program)},
		{"Manifest", o.Manifest}, {"Run", o.Run}, {"Collection", o.Collection}, {"Target", o.Expression}, {"Included agents", o.IncludeDigest},
		{"Excluded agents", o.ExcludeDigest}, {"Available", a.optionalTime(o.Available)}, {"Starts", assignment}, {"Expires", a.optionalTime(o.Expires)},
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
