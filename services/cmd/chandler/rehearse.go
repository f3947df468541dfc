package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"chandler/events"
	"chandler/events/order"
	"chandler/services/rehearsal"
)

// rehearseFlags are those of deployment rehearse, as typed.
type rehearseFlags struct {
	file, from, span                    string
	approveAfter, signalAfter, resumeIn string
	seed                                uint64
	events                              bool
}

func deploymentRehearse(a *app) *cobra.Command {
	var f rehearseFlags
	cmd := &cobra.Command{
		Use: "rehearse [NAME]", Short: "Play a rollout in virtual time against the recorded fleet", Args: cobra.MaximumNArgs(1), ValidArgsFunction: a.completeArguments(completeDeployments),
		Long: `Plays a deployment as a document declares it, or a live one once more from its beginning, by the same decisions that
services and agents make: who would get it when, which gate opens or halts when, what each site would download, what
would never run and why. Machines are there in the hours of the week in which they were heard of late; programs end, and
take as long, as they did of late, drawn by the seed. What is supposed besides is said at the end.

Nothing is signed, sent or changed. People are taken to do nothing, unless it is said how long they take: with
--approve-after, --signal-after (the events that gates wait for) and --resume-after (a halt).

-o json gives the whole timeline; each machine's story with --events, as also in tables and in csv.`,
		Example: `  chandler deployment rehearse -f hello-everywhere.yaml --resume-after 4h
  chandler deployment rehearse hello-everywhere --from +7d --for 14d --events -o csv`,
		RunE: a.connected(func(cmd *cobra.Command, c *client, args []string) error { return a.rehearse(cmd, c, args, f) }),
	}
	flags := cmd.Flags()
	flags.StringVarP(&f.file, "file", "f", "", "a document of the deployment; -: standard input")
	flags.Uint64Var(&f.seed, "seed", 1, "what is drawn: another number draws other machines that fail")
	flags.StringVar(&f.from, "from", "", "when it would be created (default: now)")
	flags.StringVar(&f.span, "for", "30d", "how much time is played")
	flags.StringVar(&f.approveAfter, "approve-after", "", "how long somebody takes to approve a phase, such as 2h (default: nobody does)")
	flags.StringVar(&f.signalAfter, "signal-after", "", "how long after a phase opened the event comes that its gate waits for (default: it does not)")
	flags.StringVar(&f.resumeIn, "resume-after", "", "how long somebody takes to resume a halted rollout (default: nobody does)")
	flags.BoolVar(&f.events, "events", false, "tell each machine's story too")
	return cmd
}

func (a *app) rehearse(cmd *cobra.Command, c *client, args []string, f rehearseFlags) error {
	if err := a.only(formTable, formWide, formJSON, formYAML, formCSV); err != nil {
		return err
	}
	if (f.file == "") == (len(args) == 0) {
		return errors.New("name a live deployment, or a document with -f")
	}
	in, err := a.playing(f)
	if err != nil {
		return err
	}
	bundle, err := a.followTrust(cmd.Context(), c)
	if err != nil {
		return err
	}
	r := rehearsing{lookups: newLookups(c, bundle), in: in}
	if f.file != "" {
		err = r.declared(cmd, f.file)
	} else {
		err = r.live(cmd.Context(), args[0])
	}
	if err != nil {
		return err
	}
	if err := r.gather(cmd.Context(), f.seed); err != nil {
		return err
	}
	line, err := rehearsal.Run(r.in)
	if err != nil {
		return err
	}
	line.Supposes = append(r.supposes, line.Supposes...)
	return a.writeRehearsal(cmd, rehearsed{Deployment: r.in.Order.Deployment, Program: fmt.Sprintf("%s@%s/%s", r.in.Order.Package, r.in.Order.Version, r.in.Order.Program),
		Collection: r.in.Order.Collection, Seed: f.seed, Timeline: line}, f.events)
}

// playing is what the flags say of time and people.
func (a *app) playing(f rehearseFlags) (in rehearsal.Input, err error) {
	in.Recorded = a.now().UTC()
	if in.Start = in.Recorded.Truncate(time.Second); f.from != "" {
		if in.Start, err = parseWhen(f.from, a.now()); err != nil {
			return in, fmt.Errorf("--from: %w", err)
		}
	}
	span, err := parseSpan(f.span)
	if err == nil && span == 0 {
		err = errors.New("no time is played")
	}
	if err != nil {
		return in, fmt.Errorf("--for: %w", err)
	}
	in.Until = in.Start.Add(span)
	for _, patience := range []struct {
		flag, text string
		into       **time.Duration
	}{{"approve-after", f.approveAfter, &in.People.Approve}, {"signal-after", f.signalAfter, &in.People.Signal}, {"resume-after", f.resumeIn, &in.People.Resume}} {
		if patience.text == "" {
			continue
		}
		span, err := parseSpan(patience.text)
		if err != nil {
			return in, fmt.Errorf("--%s: %w", patience.flag, err)
		}
		*patience.into = &span
	}
	return in, nil
}

// rehearsing gathers what is played.
type rehearsing struct {
	*lookups
	in       rehearsal.Input
	proposed proposal
	again    string // the live deployment that is played again; "": one that is declared
	supposes []string
}

// declared plays what a document declares, as deployment create would make it.
func (r *rehearsing) declared(cmd *cobra.Command, file string) error {
	d, err := readDeployment(cmd.InOrStdin(), file)
	if err != nil {
		return err
	}
	if r.proposed, err = r.propose(cmd.Context(), d, r.in.Start); err != nil {
		return err
	}
	r.proposed.order.Revision = 1 // which one it will be matters to nothing that is played
	return nil
}

// live plays a deployment once more as it was signed.
func (r *rehearsing) live(ctx context.Context, name string) error {
	view, err := ask(ctx, r.c, events.DeploymentShow, events.Named{Name: name})
	if err != nil {
		return err
	}
	signed, err := signedOrder(ctx, r.c, view)
	if err != nil {
		return err
	}
	p := proposal{plan: view.Plan}
	if p.order, _, err = order.Open(signed.Envelope); err != nil {
		return err
	}
	found, err := r.pkg(ctx, p.order.Package, p.order.Version)
	if err != nil {
		return err
	}
	if found.digest != p.order.Manifest {
		return fmt.Errorf("the order binds manifest %.12s of %s, the package published is %.12s", p.order.Manifest, packageText(p.order.Package, p.order.Version), found.digest)
	}
	p.manifest = found.manifest
	p.collection.Include, p.collection.Exclude = signed.Include, signed.Exclude
	r.proposed, r.again = p, name
	return nil
}
