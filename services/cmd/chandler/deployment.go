package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"chandler/events"
)

func newDeployment(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "deployment", Short: "One program to one collection"}
	cmd.AddCommand(deploymentCreate(a), deploymentSign(a), deploymentResign(a), deploymentList(a), deploymentShow(a), deploymentWatch(a),
		deploymentChange(a, "pause", "Release no further agents; what was released goes on", events.DeploymentPause, "is paused: no further agents are released; to withdraw those released, use stop"),
		deploymentChange(a, "resume", "Go on releasing agents; after a halt, in spite of what failed or fell silent so far", events.DeploymentResume, "goes on"),
		deploymentApprove(a), deploymentSkip(a), deploymentPlan(a), deploymentStop(a), deploymentRetry(a), deploymentRollback(a), deploymentRehearse(a), deploymentRemove(a))
	return cmd
}

func programText(n events.DeploymentNotice) string {
	return fmt.Sprintf("%s@%s/%s", n.Package, n.Version, n.Program)
}

func (a *app) deploymentColumns() listing[events.DeploymentView] {
	type v = events.DeploymentView
	state := func(s events.State) func(v) any {
		return func(r v) any {
			if r.Progress == nil {
				return ""
			}
			return count(r.Progress.States[s])
		}
	}
	return listing[v]{
		name: func(r v) string { return r.Deployment },
		columns: []column[v]{
			{"NAME", false, func(r v) any { return r.Deployment }},
			{"PROGRAM", false, func(r v) any { return programText(r.DeploymentNotice) }},
			{"COLLECTION", false, func(r v) any { return r.Collection }},
			{"LIFE", false, func(r v) any { return r.Life }},
			{"MEMBERS", false, func(r v) any { return countCell(r.Members) }},
			{"RELEASED", true, func(r v) any { return countCell(r.Released) }},
			{"SUCCEEDED", false, state(events.Succeeded)},
			{"FAILED", false, state(events.Failed)},
			{"SIGNERS", true, func(r v) any { return r.Signers }},
			{"REVISION", true, func(r v) any { return r.Revision }},
			{"DEADLINE", true, func(r v) any { return a.momentCell(r.Deadline, r.Zone) }},
			{"EXPIRES", true, func(r v) any { return a.momentCell(r.Expires, r.Zone) }},
			{"BY", true, func(r v) any { return r.By }},
			{"CREATED", false, func(r v) any { return a.agoCell(r.At) }},
		},
	}
}

func deploymentList(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "ls", Short: "List deployments", Args: cobra.NoArgs,
		RunE: a.connected(func(cmd *cobra.Command, c *client, _ []string) error {
			all, err := ask(cmd.Context(), c, events.DeploymentList, events.Nothing{})
			if err != nil {
				return err
			}
			return a.deploymentColumns().show(cmd, a.output, all.Deployments)
		}),
	}
}

func deploymentShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "show NAME", Short: "Show one deployment", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeArguments(completeDeployments),
		RunE: a.connected(func(cmd *cobra.Command, c *client, args []string) error {
			view, err := ask(cmd.Context(), c, events.DeploymentShow, events.Named{Name: args[0]})
			if err != nil {
				return err
			}
			return a.writeDeployment(cmd, view, field{"Next occurrence", a.nextOccurrence(cmd.Context(), c, view, time.UTC)})
		}),
	}
}

func (a *app) writeDeployment(cmd *cobra.Command, view events.DeploymentView, more ...field) error {
	fields := []field{
		{"Name", view.Deployment}, {"Program", programText(view.DeploymentNotice)}, {"Collection", view.Collection}, {"Target", view.Expression},
		{"Life", view.Life}, {"Why", view.Why}, {"Signed by", signersText(view)}, {"Revision", view.Revision}, {"Order", view.Order},
		{"Available", a.moment(view.Available, view.Zone)}, {"Deadline", a.moment(view.Deadline, view.Zone)}, {"Expires", a.moment(view.Expires, view.Zone)},
		{"Order valid until", a.longTime(view.NotAfter)}, {"Created", a.longTime(view.At)}, {"By", view.By},
		{"Members", count(view.Members)}, {"Released", count(view.Released)}, {"Rollback", rollbackState(view)},
	}
	fields = append(fields, more...)
	fields = append(fields, a.phaseFields(view)...)
	if view.Progress != nil {
		fields = append(fields, field{"Jobs", progressText(*view.Progress)}, field{"Reasons", reasonsText(*view.Progress)})
	}
	return writeDetail(cmd.OutOrStdout(), a.output, view, view.Deployment, fields)
}

// signersText names who signed, and of a draft how many are needed.
func signersText(view events.DeploymentView) string {
	text := strings.Join(view.Signers, ", ")
	if view.Life == events.LifeDraft {
		return fmt.Sprintf("%s; %s needed", cellOr(text, "nobody"), plural(view.Needed, "signature is", "signatures are"))
	}
	return text
}

// deploymentChange makes a command that asks for one change of a deployment.
func deploymentChange(a *app, verb, short string, call events.Call[events.Named, events.DeploymentView], done string) *cobra.Command {
	var why string
	cmd := &cobra.Command{
		Use: verb + " NAME", Short: short, Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeArguments(completeDeployments),
		RunE: a.connected(func(cmd *cobra.Command, c *client, args []string) error {
			view, err := ask(cmd.Context(), c, call, events.Named{Name: args[0], Why: why})
			if err != nil {
				return err
			}
			return a.answer(cmd, view, view.Deployment, "deployment %s %s", view.Deployment, done)
		}),
	}
	cmd.Flags().StringVar(&why, "why", "", "why, kept with the event")
	return cmd
}

func deploymentRetry(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "retry NAME", Short: "Offer a deployment's failed jobs once more", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeArguments(completeDeployments),
		RunE: a.connected(func(cmd *cobra.Command, c *client, args []string) error {
			answer, err := askHeard(cmd.Context(), c, events.ExecutionRetry, events.Named{Name: args[0]}, args[0])
			if err != nil {
				return err
			}
			if answer.Offered == 0 {
				return a.answer(cmd, answer, args[0], "deployment %s: no job failed, so none is offered again", args[0])
			}
			return a.answer(cmd, answer, args[0], "deployment %s: %s offered again; follow with: %s deployment watch %s", args[0], plural(answer.Offered, "job is", "jobs are"), a.self, args[0])
		}),
	}
}

func deploymentRemove(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "rm NAME", Short: "Forget a deployment that is stopped, expired or done; its history stays", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeArguments(completeDeployments),
		RunE: a.connected(func(cmd *cobra.Command, c *client, args []string) error {
			if _, err := ask(cmd.Context(), c, events.DeploymentRemove, events.Named{Name: args[0]}); err != nil {
				return err
			}
			note(cmd.ErrOrStderr(), "deployment %s is forgotten", args[0])
			return nil
		}),
	}
}
