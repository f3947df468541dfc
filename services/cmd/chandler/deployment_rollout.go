package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"chandler/events"
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
			open := openPhase(view)
			if open < 0 || open == len(view.Phases)-1 {
				return fmt.Errorf("deployment %s has no phase that is still to open", args[0])
			}
			p := view.Phases[open]
			question := fmt.Sprintf("This opens phase %s whatever the gate of %s says (%s).", view.Phases[open+1].Name, p.Name, cellOr(a.localTimes(p.Says), "it waits for nothing"))
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

func deploymentPlan(a *app) *cobra.Command {
	var file string
	var dryRun bool
	var phases []string
	cmd := &cobra.Command{
		Use: "plan NAME", Short: "Change the phases that are not open yet, and the limits; nothing is signed", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeArguments(completeDeployments),
		Long: `Replaces the plan of a live deployment: by a file with phases:, max-in-flight: and the like, as a deployment's document has
them (that will do too), or by --phase as deployment create has it. Phases that are open stay as they were.`,
		Example: `  chandler deployment plan hello-everywhere -f plan.yaml`,
		RunE: a.connected(func(cmd *cobra.Command, c *client, args []string) error {
			d := declared.Deployment{}
			if file != "" {
				data, err := readDeclared(cmd.InOrStdin(), file)
				if err != nil {
					return err
				}
				if d.Plan, err = declared.ParsePlan(file, data); err != nil {
					return err
				}
			} else if err := flagPlan(&d, createFlags{phases: phases}); err != nil {
				return err
			}
			if dryRun {
				note(cmd.OutOrStdout(), "%s", cellOr(planText(&d.Plan), "everybody at once"))
				return nil
			}
			view, err := ask(cmd.Context(), c, events.DeploymentPlan, events.PlanRequest{Deployment: args[0], Plan: d.Plan})
			if err != nil {
				return err
			}
			return a.writeDeployment(cmd, view)
		}),
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "file with the plan; -: standard input")
	cmd.Flags().StringArrayVar(&phases, "phase", nil, "a phase of the rollout, as deployment create has it")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "show how the plan is read; change nothing")
	cmd.MarkFlagsMutuallyExclusive("file", "phase")
	cmd.MarkFlagsOneRequired("file", "phase")
	return cmd
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
		return "not open yet"
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
		return "no phase is open yet"
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
		return "signed with it as " + view.Rollback + ": `chandler deployment rollback " + view.Deployment + "`"
	}
	return ""
}
