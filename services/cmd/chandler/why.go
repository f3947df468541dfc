package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/target"
)

func newWhy(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "why AGENT [DEPLOYMENT]", Short: "Why a machine did, does or will not do something", Args: cobra.RangeArgs(1, 2),
		Long: `Joins what scheduling decided about a machine, what execution knows of its job, and what the machine
itself said last. It answers also where there is no job: not in the target (which clause, which fact), not
yet available, paused, stopped, frozen, offline, or done before.`,
		ValidArgsFunction: a.completeArguments(completeAgents, completeDeployments),
		RunE: a.connected(func(cmd *cobra.Command, c *client, args []string) error {
			answer, err := a.why(cmd.Context(), c, args[0], slices.Concat(args[1:], []string{""})[0])
			if err != nil {
				return err
			}
			if a.output == formJSON || a.output == formYAML {
				return writeData(cmd.OutOrStdout(), a.output, answer)
			}
			for _, line := range a.whyLines(answer) {
				note(cmd.OutOrStdout(), "%s", line)
			}
			return nil
		}),
	}
}

// whyAnswer joins the services' answers about one agent.
type whyAnswer struct {
	Agent       events.AgentView      `json:"agent"`
	Identity    *events.EnrolmentView `json:"identity,omitempty"` // nil: this fleet has no identities, or nobody says
	Silent      bool                  `json:"silent"`
	Freezes     []events.Freeze       `json:"freezes,omitempty"` // that hold on the machine
	Deployments []whyDeployment       `json:"deployments"`
}

// whyDeployment is the story of one deployment on the agent; Job is absent where there is none.
type whyDeployment struct {
	events.WhyDecision
	Job  *events.JobRow    `json:"job,omitempty"`
	Last *events.JobStatus `json:"last,omitempty"` // what the agent said last
	// RunBy and ElevatedTo are whose account ran the program and what it was raised to, as it was said last.
	RunBy      string `json:"run_by,omitempty"`
	Next       string `json:"next,omitempty"` // occurrence of a deployment that recurs, in words
	ElevatedTo string `json:"elevated_to,omitempty"`
}

func (a *app) why(ctx context.Context, c *client, name, deployment string) (whyAnswer, error) {
	agent, err := resolveAgent(ctx, c, name)
	if err != nil {
		return whyAnswer{}, err
	}
	decided, err := ask(ctx, c, events.Why, events.WhyRequest{Agent: agent.Facts.ID, Deployment: deployment})
	if err != nil {
		return whyAnswer{}, err
	}
	answer := whyAnswer{Agent: agent, Silent: a.now().Sub(agent.LastSeen) > silentAfter, Deployments: []whyDeployment{}}
	identities, err := ask(ctx, c, events.EnrolmentList, events.EnrolmentQuery{Agents: []string{agent.Facts.ID}})
	if err != nil && !errors.Is(err, bus.ErrUnavailable) {
		return answer, err
	}
	if len(identities.Enrolments) > 0 {
		answer.Identity = &identities.Enrolments[0]
	}
	freezes, err := ask(ctx, c, events.ExecutionFreezes, events.Nothing{})
	if err != nil {
		return answer, err
	}
	answer.Freezes = slices.DeleteFunc(freezes.Freezes, func(f events.Freeze) bool { return !target.Holds(f, agent.Facts) })
	jobs, err := ask(ctx, c, events.ExecutionJobs, events.JobQuery{Agent: agent.Facts.ID, Deployment: deployment})
	if err != nil {
		return answer, err
	}
	for _, d := range decided.Answers {
		w := whyDeployment{WhyDecision: d, Job: newestJob(jobs.Jobs, d.Deployment)}
		if w.Job != nil {
			statuses, err := statusesOf(ctx, c, *w.Job)
			if err != nil {
				return answer, err
			}
			if len(statuses) > 0 {
				w.Last = &statuses[len(statuses)-1]
			}
			w.RunBy, w.ElevatedTo = whoRan(statuses)
			if occurrenceText(w.Job.Occurrence) != "" {
				view, err := known(ask(ctx, c, events.DeploymentShow, events.Named{Name: d.Deployment}))
				if err != nil {
					return answer, err
				}
				w.Next = a.nextOccurrence(ctx, c, view, zoneOf(agent.Facts))
			}
		}
		answer.Deployments = append(answer.Deployments, w)
	}
	return answer, nil
}

// whoRan is who ran the program of the last attempt, and raised to what; "" where no program ran yet.
func whoRan(statuses []events.JobStatus) (executor, elevated string) {
	for _, s := range slices.Backward(statuses) {
		if s.Executor != "" || s.Attempt < statuses[len(statuses)-1].Attempt {
			return s.Executor, s.ElevatedTo
		}
	}
	return "", ""
}

// newestJob is the job of the highest revision, and among those the one that changed last.
func newestJob(jobs []events.JobRow, deployment string) *events.JobRow {
	var newest *events.JobRow
	for _, j := range jobs {
		if j.Deployment != deployment {
			continue
		}
		if newest == nil || j.Revision > newest.Revision || j.Revision == newest.Revision && j.Changed.After(newest.Changed) {
			newest = &j
		}
	}
	return newest
}

// awayText says since when a silent machine is away.
func (a *app) awayText(lastSeen time.Time) string {
	if lastSeen.IsZero() {
		return "never seen"
	}
	return "offline since " + a.longTime(lastSeen)
}

func (a *app) whyLines(w whyAnswer) []string {
	f := w.Agent.Facts
	seen := "last seen " + a.ago(w.Agent.LastSeen)
	if w.Silent {
		seen = a.awayText(w.Agent.LastSeen)
	}
	lines := []string{fmt.Sprintf("%s (%s), site %s: %s", f.Hostname, f.ID, cellOr(f.Site, "none"), seen)}
	if w.Identity != nil && w.Identity.State != events.EnrolmentActive {
		lines = append(lines, "identity "+a.identityState(*w.Identity))
	}
	for _, z := range w.Freezes {
		text := fmt.Sprintf("frozen: %s starts no programs: frozen by %s at %s", scopeText(z), z.By, a.longTime(z.At))
		if z.Why != "" {
			text += " (" + z.Why + ")"
		}
		lines = append(lines, text)
	}
	if len(w.Deployments) == 0 {
		lines = append(lines, "no deployment concerns it: `chandler deployment ls` shows those there are")
	}
	for _, d := range w.Deployments {
		lines = append(lines, "", d.Deployment)
		for _, line := range a.whyDeploymentLines(d, w) {
			lines = append(lines, "  "+line)
		}
	}
	return lines
}

// whyDeploymentLines go from the decision to what the machine said last.
func (a *app) whyDeploymentLines(d whyDeployment, w whyAnswer) []string {
	lines := []string{"scheduling: " + a.localTimes(d.Says)}
	switch {
	case d.Job == nil && !d.Member:
		return append(lines, "there is no job: the machine is not in the target")
	case d.Job == nil:
		return append(lines, "there is no job: "+noJob(d.WhyDecision, w))
	}
	lines = append(lines, fmt.Sprintf("execution: job %s%s, attempt %d: %s (since %s)", d.Job.Job, occurrenceText(d.Job.Occurrence), d.Job.Attempt, strings.ReplaceAll(stateText(*d.Job), "_", " "), a.longTime(d.Job.Changed)))
	last := events.JobStatus{Reason: d.Job.Reason}
	if d.Last != nil {
		last = *d.Last
		last.Reason = cmp.Or(d.Job.Reason, last.Reason)
	}
	t := newTelling(last, d.Job.State, []events.JobStatus{last})
	if d.Last != nil {
		lines = append(lines, fmt.Sprintf("the machine said at %s: %s", a.longTime(d.Last.At), indented(statusText(*d.Last))))
		for _, access := range d.Last.Accesses {
			if text := t.access(access, last.Attempt, statusText(*d.Last)); text != "" {
				lines = append(lines, "  "+indented(text))
			}
		}
		for _, f := range append(triedFields(*d.Last), field{"run by", d.RunBy}, field{"elevated to", d.ElevatedTo}) {
			if f.value != "" {
				lines = append(lines, indented(fmt.Sprintf("  %s: %s", f.name, f.value)))
			}
		}
	} else {
		lines = append(lines, "the machine has said nothing about it that is still stored")
	}
	lines = append(t.once(lines), openJob(*d.Job, w)...)
	if d.Life == events.LifeHalted && !d.Job.State.Terminal() && d.Job.State != events.Running {
		lines = append(lines, haltedText(d.Deployment))
	}
	if d.Next != "" {
		lines = append(lines, "its next occurrence is "+d.Next)
	}
	lines = append(lines, adviceLines(t.advised, *d.Job)...)
	return append(lines, "its whole story: `chandler job why "+jobCell(d.Job.Job).text+"`")
}

func (w whyAnswer) revoked() bool {
	return w.Identity != nil && w.Identity.State == events.EnrolmentRevoked
}

// noJob says why a member has none.
func noJob(d events.WhyDecision, w whyAnswer) string {
	if w.revoked() {
		return "the machine is revoked"
	}
	switch d.Life {
	case events.LifePending:
		return "the deployment is not available yet"
	case events.LifePaused:
		return "the deployment is paused: `chandler deployment resume " + d.Deployment + "`"
	case events.LifeHalted:
		return haltedText(d.Deployment)
	case events.LifeStopped:
		return "the deployment was stopped"
	case events.LifeExpired:
		return "the deployment has expired"
	}
	if d.Released {
		return "the machine was released, and execution has not offered it yet: `chandler doctor` shows whether execution runs"
	}
	if d.Phase != "" {
		return "its phase, " + d.Phase + ", is not open yet, or a limit of jobs in flight holds it back"
	}
	if w.Silent {
		return "the machine is offline; it is offered the order, and gets it when it is back"
	}
	return "the machine is not released yet: what scheduling waits for stands above"
}

func haltedText(deployment string) string {
	return "its rollout is halted: `chandler deployment show " + deployment + "` says by what; deployment resume, skip or rollback ends that"
}

// occurrenceText says which occurrence of a deployment a job is, by its number (order.Assignment.Occurrence); "" of the only
// one, and of the one that runs as soon as possible.
func occurrenceText(number int64) string {
	if number < time.Date(1971, 1, 1, 0, 0, 0, 0, time.UTC).Unix() {
		return ""
	}
	return ", the occurrence of " + time.Unix(number, 0).UTC().Format("2006-01-02 15:04") + " by the clocks of the deployment's zone"
}

// openJob says what holds up a job that has not ended.
func openJob(j events.JobRow, w whyAnswer) []string {
	if j.State.Terminal() || j.State == events.Running {
		return nil
	}
	var lines []string
	if w.revoked() {
		return []string{"the machine is revoked: it does not go on"}
	}
	if w.Silent {
		lines = append(lines, "the machine is offline: it goes on when it is back")
	}
	switch {
	case j.WaitingFor == events.WaitMaintenanceWindow:
		lines = append(lines, "it starts in the next maintenance window that is long enough: `chandler collection windows NAME --agent "+w.Agent.Facts.Hostname+"` shows when they open")
	case j.WaitingFor == events.WaitAssignment:
		lines = append(lines, "its time has not come")
	}
	if len(w.Freezes) > 0 {
		lines = append(lines, "a freeze holds on the machine: the program starts when it is lifted")
	}
	return lines
}

func cellOr(s, otherwise string) string {
	if strings.TrimSpace(s) == "" {
		return otherwise
	}
	return s
}
