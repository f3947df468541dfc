package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"chandler/events"
	"chandler/events/rollout"
	"chandler/services/declared"
)

func deploymentApprove(a *app) *cobra.Command {
	return deploymentChange(a, "approve", "Say that the next phase may open, where its gate waits for that", events.DeploymentApprove, "is approved: its next phase opens when nothing else is waited for")
}

func deploymentSkip(a *app) *cobra.Command {
	var why string
	var yes bool
	cmd := &cobra.Command{
		Use: "skip NAME", Short: "Open the next phase whatever the gate says", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeArguments(completeDeployments),
		RunE: a.connected(func(cmd *cobra.Command, c *client, args []string) error {
			view, err := ask(cmd.Context(), c, events.DeploymentShow, events.Named{Name: args[0]})
			if err != nil {
				return err
			}
			p, question, err := a.skipped(view)
			if err != nil {
				return err
			}
			if err := a.agree(cmd, question, yes); err != nil {
				return err
			}
			if view, err = ask(cmd.Context(), c, events.DeploymentSkip, events.Named{Name: args[0], Why: why}); err != nil {
				return err
			}
			return a.answer(cmd, view, args[0], "deployment %s: the gate of phase %s is skipped", args[0], p.Name)
		}),
	}
	cmd.Flags().StringVar(&why, "why", "", "why, kept with the event")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

// skipped is the phase that would be passed, and what is asked before that: the newest that is open, or one that cannot open
// since nobody is in it.
func (a *app) skipped(view events.DeploymentView) (events.PhaseView, string, error) {
	open := openPhase(view)
	if len(view.Phases) < 2 || open == len(view.Phases)-1 {
		return events.PhaseView{}, "", fmt.Errorf("deployment %s has no phase that is still to open", view.Deployment)
	}
	if next := view.Phases[open+1]; open < 0 || next.Says != "" {
		return next, fmt.Sprintf("This passes phase %s, which is not open (%s).", next.Name, cellOr(a.localTimes(next.Says), "its time has not come")), nil
	}
	p := view.Phases[open]
	return p, fmt.Sprintf("This opens phase %s whatever the gate of %s says (%s).", view.Phases[open+1].Name, p.Name, cellOr(a.localTimes(p.Says), "it waits for nothing")), nil
}

// openPhase is the newest phase that is open; -1: none.
func openPhase(view events.DeploymentView) int {
	open := -1
	for i, p := range view.Phases {
		if !p.Opened.IsZero() {
			open = i
		}
	}
	return open
}

// planFlags are those of deployment plan, as typed.
type planFlags struct {
	createFlags // of these the phases and the limits
	file        string
	dryRun      bool
}

func deploymentPlan(a *app) *cobra.Command {
	var f planFlags
	cmd := &cobra.Command{
		Use: "plan NAME", Short: "Change the phases that are not open yet, and the limits; nothing is signed", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeArguments(completeDeployments),
		Long: `Replaces the plan of a live deployment by a file with phases:, max-in-flight: and the like, as a deployment's document has
them (that will do too). Or replaces of it what flags name: all phases by --phase, as deployment create has it, and the
limits. Phases that are open stay as they were.`,
		Example: `  chandler deployment plan hello-everywhere -f plan.yaml
  chandler deployment plan hello-everywhere --max-in-flight 500`,
		RunE: a.connected(func(cmd *cobra.Command, c *client, args []string) error {
			plan, err := plannedAnew(cmd, c, args[0], f)
			if err != nil {
				return err
			}
			if f.dryRun {
				if err := a.checkPlanned(cmd, c, args[0], &plan); err != nil {
					return err
				}
				note(cmd.OutOrStdout(), "%s", cellOr(planText(&plan), "everybody at once"))
				return nil
			}
			view, err := ask(cmd.Context(), c, events.DeploymentPlan, events.PlanRequest{Deployment: args[0], Plan: plan})
			if err != nil {
				return err
			}
			return a.writeDeployment(cmd, view)
		}),
	}
	flags := cmd.Flags()
	flags.StringVarP(&f.file, "file", "f", "", "file with the plan; -: standard input")
	flags.StringArrayVar(&f.phases, "phase", nil, "a phase of the rollout, as deployment create has it")
	flags.IntVar(&f.maxInFlight, "max-in-flight", 0, "at most so many jobs at a time; 0: no bound")
	flags.IntVar(&f.maxPerSite, "max-in-flight-per-site", 0, "at most so many jobs at a time on each site; 0: no bound")
	flags.BoolVar(&f.dryRun, "dry-run", false, "show how the plan is read; change nothing")
	for _, flag := range []string{"phase", "max-in-flight", "max-in-flight-per-site"} {
		cmd.MarkFlagsMutuallyExclusive("file", flag)
	}
	cmd.MarkFlagsOneRequired("file", "phase", "max-in-flight", "max-in-flight-per-site")
	return cmd
}

// checkPlanned finds the collections that a plan names, and makes the phases that are open what they stay.
func (a *app) checkPlanned(cmd *cobra.Command, c *client, name string, plan *events.Plan) error {
	ctx := cmd.Context()
	view, err := ask(ctx, c, events.DeploymentShow, events.Named{Name: name})
	if err != nil {
		return err
	}
	for _, phase := range plan.Phases {
		if phase.Collection == "" {
			continue
		}
		if _, err := ask(ctx, c, events.CollectionShow, events.Named{Name: phase.Collection}); err != nil {
			return fmt.Errorf("phase %s: collection %s: %w", phase.Name, phase.Collection, err)
		}
	}
	(&planner{app: a, cmd: cmd}).keepOpen(name, standing{plan: view.Plan, open: openPhase(view)}, plan)
	return nil
}

// plannedAnew is the plan of a file; without one the present plan with what flags change of it.
func plannedAnew(cmd *cobra.Command, c *client, name string, f planFlags) (events.Plan, error) {
	if f.file != "" {
		data, err := readDeclared(cmd.InOrStdin(), f.file)
		if err != nil {
			return events.Plan{}, err
		}
		return declared.ParsePlan(f.file, data)
	}
	var said declared.Deployment
	if err := flagPlan(cmd.InOrStdin(), &said, f.createFlags); err != nil {
		return events.Plan{}, err
	}
	view, err := ask(cmd.Context(), c, events.DeploymentShow, events.Named{Name: name})
	if err != nil {
		return events.Plan{}, err
	}
	plan := said.Plan
	if view.Plan != nil {
		plan = *view.Plan
	}
	given := cmd.Flags().Changed
	if given("phase") {
		plan.Phases = said.Phases
	}
	if given("max-in-flight") {
		plan.MaxInFlight = said.MaxInFlight
	}
	if given("max-in-flight-per-site") {
		plan.MaxInFlightPerSite = said.MaxInFlightPerSite
	}
	return plan, rollout.Check(plan)
}

// phaseFields say where each phase of a rollout stands.
func (a *app) phaseFields(view events.DeploymentView) (fields []field) {
	for i, p := range view.Phases {
		text := a.phaseState(view, i)
		if view.Plan != nil && i < len(view.Plan.Phases) {
			_, gate, _ := strings.Cut(phaseText(view.Plan.Phases[i]), ": ")
			text += "\n" + gate
		}
		fields = append(fields, field{"Phase " + p.Name, text})
	}
	if view.Plan != nil {
		limits := *view.Plan
		limits.Phases = nil
		fields = append(fields, field{"Limits", planText(&limits)})
	}
	return fields
}

// phaseState is where a phase stands, in words: the numbers, and what it waits for.
func (a *app) phaseState(view events.DeploymentView, i int) string {
	p := view.Phases[i]
	if p.Opened.IsZero() {
		return strings.TrimSuffix("not open yet: "+a.localTimes(p.Says), ": ")
	}
	parts := []string{"open since " + a.longTime(p.Opened), plural(p.Size, "machine", "machines"), count(p.Released) + " released"}
	if p.Joined > 0 {
		parts = append(parts, count(p.Joined)+" joined later")
	}
	for _, n := range []struct {
		what  string
		value int64
	}{{"succeeded", p.Counts.Succeeded}, {"failed", p.Counts.Failed}, {"not applicable", p.Counts.NotApplicable}, {"waiting", p.Counts.Waiting}, {"silent", p.Counts.Silent}, {"in flight", p.Counts.InFlight}} {
		if n.value > 0 {
			parts = append(parts, count(n.value)+" "+n.what)
		}
	}
	text := strings.Join(parts, " · ")
	if p.Approved != "" {
		text += "\napproved by " + p.Approved
	}
	if p.Skipped != "" {
		text += "\nskipped by " + p.Skipped
	}
	if p.Says != "" && i == openPhase(view) {
		text += "\n" + a.localTimes(p.Says)
	}
	return text
}

// rolloutLine is where a rollout stands, for its watcher; "" of one without phases.
func (a *app) rolloutLine(view events.DeploymentView) string {
	open := openPhase(view)
	if len(view.Phases) == 0 {
		return ""
	}
	if open < 0 {
		return strings.TrimSuffix("no phase is open yet: "+a.localTimes(view.Phases[0].Says), ": ")
	}
	p := view.Phases[open]
	text := fmt.Sprintf("phase %s (%d of %d): %s of %s succeeded, %s failed", p.Name, open+1, len(view.Phases), count(p.Counts.Succeeded), plural(p.Size, "machine", "machines"), count(p.Counts.Failed))
	if p.Says != "" {
		text += "; " + a.localTimes(p.Says)
	}
	return text
}

// rollbackState says what takes a deployment back, or would.
func rollbackState(view events.DeploymentView) string {
	switch {
	case view.RolledBack:
		return "taken back by " + view.Rollback
	case view.Rollback != "":
		return strings.TrimSpace(view.RollbackTo+" signed with it as "+view.Rollback) + ": `chandler deployment rollback " + view.Deployment + "`"
	}
	return ""
}
