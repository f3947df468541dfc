package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"chandler/events"
	"chandler/services/declared"
)

// applyFlags are those of apply, as typed.
type applyFlags struct {
	file               string
	dryRun, prune, yes bool
	again              bool
	source             sourceFlags
	asked              *asking
}

func newApply(a *app) *cobra.Command {
	var f applyFlags
	cmd := &cobra.Command{
		Use: "apply -f DIR|FILE", Short: "Make the fleet as documents declare it", Args: cobra.NoArgs,
		Long: `Reads the documents (strict YAML) of a file, of standard input (-), or of all files *.yaml and *.yml in a directory and
below it, and makes packages, collections, deployments and limits as they say. A directory with a package.yaml is a
package, and published from there; nothing else in it is read.

What is as declared already is left alone, and nothing is signed for it: applied a second time, nothing changes. A
deployment of which something changed that is signed becomes its next revision; of one whose plan alone changed, the plan
is replaced. What no document declares stays, unless --prune is given: then deployments, collections and packages of which
kind some are declared, and which are not, are stopped and removed.

A deployment that was stopped or taken back is not made anew because its document is still there: where one of them differs
from its document, apply refuses, unless --again is given, which begins all of those anew that are declared.

Where several must sign, each deployment becomes a draft that others sign with deployment sign.`,
		Example: `  chandler apply -f fleet/ --dry-run
  chandler apply -f fleet/`,
	}
	f.asked = a.asksPassphrase(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		set, err := readSet(cmd.InOrStdin(), f.file)
		if err != nil {
			return err
		}
		return a.connected(func(cmd *cobra.Command, c *client, _ []string) error { return a.apply(cmd, c, set, f) })(cmd, args)
	}
	cmd.Flags().StringVarP(&f.file, "file", "f", "", "file or directory of documents; -: standard input")
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "show what would change; change nothing")
	cmd.Flags().BoolVar(&f.prune, "prune", false, "remove what no document declares; asks")
	cmd.Flags().BoolVar(&f.again, "again", false, "deploy anew what was stopped or taken back and is declared still")
	cmd.Flags().BoolVar(&f.yes, "yes", false, "do not ask")
	f.source.register(cmd)
	_ = cmd.MarkFlagRequired("file")
	return cmd
}

func newDiff(a *app) *cobra.Command {
	var f applyFlags
	cmd := &cobra.Command{
		Use: "diff -f DIR|FILE", Short: "Show what apply would change; exit code 1 where that is something", Args: cobra.NoArgs,
		Long: "Shows field by field what `chandler apply` would change. Exit codes: 0 nothing, 1 something, or an error.",
		RunE: func(cmd *cobra.Command, args []string) error {
			set, err := readSet(cmd.InOrStdin(), f.file)
			if err != nil {
				return err
			}
			return a.connected(func(cmd *cobra.Command, c *client, _ []string) error {
				changes, err := a.planned(cmd, c, set, f)
				if err != nil {
					return err
				}
				if err := a.showChanges(cmd, changes); err != nil {
					return err
				}
				if len(changes) > 0 {
					return exitCode(1)
				}
				return nil
			})(cmd, args)
		},
	}
	cmd.Flags().StringVarP(&f.file, "file", "f", "", "file or directory of documents; -: standard input")
	cmd.Flags().BoolVar(&f.prune, "prune", false, "show also what --prune would remove")
	cmd.Flags().BoolVar(&f.again, "again", false, "show what --again would deploy anew")
	f.source.register(cmd)
	_ = cmd.MarkFlagRequired("file")
	return cmd
}

// The verbs of a change.
const (
	verbPublish = "publish"
	verbCreate  = "create"
	verbChange  = "change"
	verbRemove  = "remove"
	verbRefuse  = "refuse" // nothing is done, neither that nor anything else
)

// change is one thing that apply does.
type change struct {
	Verb   string        `json:"verb"`
	Kind   string        `json:"kind"` // package, collection, deployment, limits
	Name   string        `json:"name"`
	Fields []fieldChange `json:"fields,omitempty"`
	Says   string        `json:"says,omitempty"`
	Reach  []reach       `json:"reach,omitempty"` // machines of each phase now
	// machines it reaches at once; 0 where it reaches none that was not reached before.
	machines int
	do       func(ctx context.Context) (string, error) // what it says when done
}

func (a *app) apply(cmd *cobra.Command, c *client, set declared.Set, f applyFlags) error {
	changes, err := a.planned(cmd, c, set, f)
	if err != nil {
		return err
	}
	if f.dryRun || len(changes) == 0 {
		return a.showChanges(cmd, changes)
	}
	if people(a.output) {
		if err := a.showChanges(cmd, changes); err != nil {
			return err
		}
	}
	if err := errors.Join(refused(changes)...); err != nil {
		return fmt.Errorf("%w\nnothing was changed", err)
	}
	if err := a.confirmChanges(cmd, changes, f.yes); err != nil {
		return err
	}
	for i, change := range changes {
		said, err := change.do(cmd.Context())
		if err != nil {
			return fmt.Errorf("%s %s: %w; %d of %s before it were made; apply goes on from there", change.Kind, change.Name, err, i, plural(len(changes), "change", "changes"))
		}
		if people(a.output) {
			note(cmd.OutOrStdout(), "%s", said)
		}
	}
	if !people(a.output) {
		return a.showChanges(cmd, changes)
	}
	return nil
}

// refused are the changes that apply does not make.
func refused(changes []change) (problems []error) {
	for _, c := range changes {
		if c.Verb == verbRefuse {
			problems = append(problems, fmt.Errorf("%s %s %s", c.Kind, c.Name, c.Says))
		}
	}
	return problems
}

// confirmChanges asks before something is removed, and before very many machines are reached.
func (a *app) confirmChanges(cmd *cobra.Command, changes []change, yes bool) error {
	removed := 0
	for _, c := range changes {
		if c.Verb == verbRemove {
			removed++
		}
	}
	if removed > 0 {
		if err := a.agree(cmd, fmt.Sprintf("This removes %s for good.", plural(removed, "object", "objects")), yes); err != nil {
			return err
		}
	}
	for _, c := range changes {
		if err := a.confirm(cmd, c.Name, c.machines, yes); err != nil {
			return fmt.Errorf("deployment %s: %w", c.Name, err)
		}
	}
	return nil
}

// planned finds out what is to be done, in the order in which it is: packages with what they need before them,
// collections, deployments, limits; removals last, in the other order.
func (a *app) planned(cmd *cobra.Command, c *client, set declared.Set, f applyFlags) ([]change, error) {
	bundle, err := a.followTrust(cmd.Context(), c)
	if err != nil {
		return nil, err
	}
	p := &planner{app: a, cmd: cmd, lookups: newLookups(c, bundle), flags: f, c: c}
	var problems []error
	for _, step := range []func(context.Context, declared.Set) error{p.packages, p.collections, p.deployments, p.limits} {
		problems = append(problems, step(cmd.Context(), set))
		if err := errors.Join(problems...); err != nil {
			return nil, err
		}
	}
	if f.prune {
		if err := p.prune(cmd.Context(), set); err != nil {
			return nil, err
		}
	}
	return p.changes, nil
}

// showChanges prints them: unified by object and field for people, the structs otherwise.
func (a *app) showChanges(cmd *cobra.Command, changes []change) error {
	if err := a.only(formTable, formWide, formJSON, formYAML, formName); err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	if !people(a.output) && a.output != formName {
		if changes == nil {
			changes = []change{}
		}
		return writeData(out, a.output, changes)
	}
	if len(changes) == 0 {
		note(cmd.ErrOrStderr(), "nothing changes")
	}
	for _, c := range changes {
		if a.output == formName {
			note(out, "%s/%s", c.Kind, c.Name)
			continue
		}
		for _, line := range c.lines() {
			note(out, "%s", line)
		}
	}
	return nil
}

func (c change) lines() []string {
	head := strings.TrimSpace(fmt.Sprintf("%s %s %s", c.Verb, c.Kind, c.Name))
	if c.Says != "" {
		head += ": " + c.Says
	}
	lines := []string{head}
	for _, f := range c.Fields {
		if f.Before != "" {
			lines = append(lines, "  - "+f.Field+": "+f.Before)
		}
		if f.After != "" {
			lines = append(lines, "  + "+f.Field+": "+f.After)
		}
	}
	for _, r := range c.Reach {
		lines = append(lines, fmt.Sprintf("  phase %s: %s now", r.Phase, plural(r.Machines, "machine", "machines")))
	}
	return lines
}

// limits of the fleet.
func (p *planner) limits(ctx context.Context, set declared.Set) error {
	if set.Limits == nil {
		return nil
	}
	there, err := ask(ctx, p.c, events.LimitsShow, events.Nothing{})
	if err != nil {
		return fmt.Errorf("limits: %w", err)
	}
	wanted := events.Limits{MaxInFlight: set.Limits.Limits.MaxInFlight, MaxInFlightPerSite: set.Limits.Limits.MaxInFlightPerSite, RetriesPerMinute: set.Limits.Limits.RetriesPerMinute}
	fields, err := differing(there, wanted, "by", "at")
	if err != nil || len(fields) == 0 {
		return err
	}
	p.changes = append(p.changes, change{Verb: verbChange, Kind: "limits", Fields: fields, do: func(ctx context.Context) (string, error) {
		_, err := ask(ctx, p.c, events.LimitsSet, wanted)
		return "limits are set", err
	}})
	return nil
}

// notDeclared are the names that are there and not declared, in order.
func notDeclared(there, declared []string) []string {
	return slices.DeleteFunc(unique(slices.Clone(there)), func(name string) bool { return slices.Contains(declared, name) })
}
