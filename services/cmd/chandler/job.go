package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"chandler/events"
	"chandler/events/bus"
)

func newJob(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "job", Short: "Single jobs: one deployment on one machine"}
	cmd.AddCommand(jobList(a), jobShow(a), jobWhy(a), jobLogs(a))
	return cmd
}

// jobRow is a job as listings show it: with the name of its machine, where scheduling tells.
type jobRow struct {
	events.JobRow
	Host string `json:"host,omitempty"`
}

func (a *app) jobColumns() listing[jobRow] {
	type v = jobRow
	return listing[v]{
		name: func(r v) string { return r.Job },
		columns: []column[v]{
			{"JOB", false, func(r v) any { return jobCell(r.Job) }},
			{"DEPLOYMENT", false, func(r v) any { return r.Deployment }},
			{"HOST", false, func(r v) any { return r.Host }},
			{"AGENT", false, func(r v) any { return r.Agent }},
			{"STATE", false, func(r v) any { return stateText(r.JobRow) }},
			{"REASON", false, func(r v) any { return r.Reason }},
			{"ATTEMPT", true, func(r v) any { return r.Attempt }},
			{"REVISION", true, func(r v) any { return r.Revision }},
			{"USER", true, func(r v) any { return r.User }},
			{"CHANGED", false, func(r v) any { return a.agoCell(r.Changed) }},
			{"ID", true, func(r v) any { return r.Job }},
		},
	}
}

func stateText(r events.JobRow) string {
	switch {
	case r.WaitingFor != "":
		return fmt.Sprintf("%s for %s", r.State, strings.ReplaceAll(string(r.WaitingFor), "_", " "))
	case r.Silent:
		return string(r.State) + " (silent)"
	}
	return string(r.State)
}

func jobList(a *app) *cobra.Command {
	var query events.JobQuery
	var states []string
	cmd := &cobra.Command{
		Use: "ls", Short: "List jobs", Args: cobra.NoArgs,
		Example: `  chandler job ls --deployment hello-everywhere --state failed,rejected`,
		RunE: a.connected(func(cmd *cobra.Command, c *client, _ []string) error {
			for _, s := range states {
				state := events.State(s)
				if !slices.Contains(events.States(), state) {
					return fmt.Errorf("--state %q: it must be one of %s", s, joined(events.States()))
				}
				query.States = append(query.States, state)
			}
			return a.listJobs(cmd, c, query)
		}),
	}
	cmd.Flags().StringVar(&query.Deployment, "deployment", "", "only jobs of this deployment")
	cmd.Flags().StringVar(&query.Agent, "agent", "", "only jobs of this agent (id or host name)")
	cmd.Flags().StringSliceVar(&states, "state", nil, "only jobs in these states")
	cmd.Flags().IntVar(&query.Limit, "limit", 0, "show at most so many (0: 1000)")
	a.completeFlag(cmd, "deployment", completeDeployments)
	a.completeFlag(cmd, "agent", completeAgents)
	completeWords(cmd, "state", collect(events.States(), func(s events.State) string { return string(s) })...)
	return cmd
}

// listJobs lists jobs with the names of their machines, which only scheduling knows.
func (a *app) listJobs(cmd *cobra.Command, c *client, query events.JobQuery) error {
	if query.Agent != "" {
		found, err := resolveAgent(cmd.Context(), c, query.Agent)
		if err != nil {
			return err
		}
		query.Agent = found.Facts.ID
	}
	rows, err := ask(cmd.Context(), c, events.ExecutionJobs, query)
	if err != nil {
		return err
	}
	if len(rows.Jobs) == 0 && query.Deployment != "" {
		if err := knownDeployment(cmd.Context(), c, query.Deployment); err != nil {
			return err
		}
	}
	hosts := map[string]string{}
	if all, err := ask(cmd.Context(), c, events.AgentList, events.AgentQuery{}); err == nil { // without scheduling there are no names
		for _, v := range all.Agents {
			hosts[v.Facts.ID] = v.Facts.Hostname
		}
	}
	named := make([]jobRow, len(rows.Jobs))
	for i, j := range rows.Jobs {
		named[i] = jobRow{j, hosts[j.Agent]}
	}
	if rows.More {
		note(cmd.ErrOrStderr(), "There are more: see them with --limit, or say --deployment, --agent or --state.")
	}
	return a.jobColumns().show(cmd, a.output, named)
}

// knownDeployment is an error where scheduling says that there is no deployment of the name.
func knownDeployment(ctx context.Context, c *client, name string) error {
	_, err := ask(ctx, c, events.DeploymentShow, events.Named{Name: name})
	if errors.Is(err, bus.ErrNotFound) || errors.Is(err, bus.ErrBadRequest) {
		return err
	}
	return nil
}

// story is all that is known about one job.
type story struct {
	Job      events.JobRow      `json:"job"`
	Statuses []events.JobStatus `json:"statuses"`
	Leases   []leaseEvent       `json:"leases,omitempty"` // what became of accounts that were lent for it
}

// machine names the agent, with its host name where it said one.
func (s story) machine() string {
	for _, st := range s.Statuses {
		if st.Host != "" {
			return fmt.Sprintf("%s (%s)", st.Host, s.Job.Agent)
		}
	}
	return s.Job.Agent
}

// findJob finds the one job of an id or its beginning.
func findJob(ctx context.Context, c *client, id string) (events.JobRow, error) {
	rows, err := ask(ctx, c, events.ExecutionJobs, events.JobQuery{Job: id, Limit: 10})
	if err != nil {
		return events.JobRow{}, err
	}
	switch len(rows.Jobs) {
	case 0:
		return events.JobRow{}, fmt.Errorf("no job has an id that begins with %q: `chandler job ls` shows live ones, `chandler agent history` those of a machine", id)
	case 1:
		return rows.Jobs[0], nil
	}
	var list strings.Builder
	for _, r := range rows.Jobs {
		fmt.Fprintf(&list, "\n  %s  %s on %s, %s", r.Job, r.Deployment, r.Agent, r.State)
	}
	return events.JobRow{}, fmt.Errorf("several jobs begin with %q: say more of the id%s", id, list.String())
}

// statusesOf reads the transitions of one job from STATUS, in the order of the agent's journal.
func statusesOf(ctx context.Context, c *client, job events.JobRow) ([]events.JobStatus, error) {
	var found []events.JobStatus
	err := c.read(ctx, reading{stream: events.StreamStatus, filters: []string{events.Prefix + "job.*." + job.Agent + ".*"}}, func(m jetstream.Msg) error {
		e, err := eventOf[events.JobStatus](m)
		if err == nil && e.Data.Job == job.Job { // what is no event is on the dead-letter stream, see doctor
			found = append(found, e.Data)
		}
		return nil
	})
	slices.SortStableFunc(found, func(a, b events.JobStatus) int { return int(int64(a.Transition) - int64(b.Transition)) })
	// An agent tells again what the broker may have lost.
	return slices.CompactFunc(found, func(a, b events.JobStatus) bool { return a.StatusID() == b.StatusID() }), err
}

func tellStory(ctx context.Context, c *client, id string) (story, error) {
	job, err := findJob(ctx, c, id)
	if err != nil {
		return story{}, err
	}
	statuses, err := statusesOf(ctx, c, job)
	return story{Job: job, Statuses: statuses}, err
}

func jobShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "show JOB", Short: "Show one job (its id, or the beginning of it)", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeArguments(completeJobs),
		RunE: a.connected(func(cmd *cobra.Command, c *client, args []string) error {
			s, err := tellStory(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			var last events.JobStatus // zero where the agent has said nothing
			if len(s.Statuses) > 0 {
				last = s.Statuses[len(s.Statuses)-1]
			}
			return writeDetail(cmd.OutOrStdout(), a.output, s, s.Job.Job, []field{
				{"Job", s.Job.Job}, {"Deployment", s.Job.Deployment}, {"Revision", s.Job.Revision}, {"Agent", s.machine()},
				{"User", s.Job.User}, {"State", stateText(s.Job)}, {"Reason", s.Job.Reason}, {"Attempt", s.Job.Attempt}, {"Changed", a.longTime(s.Job.Changed)},
				{"Explanation", readable(last.Explanation)}, {"Read by", last.Reader}, {"Run by", last.Executor}, {"Elevated to", last.ElevatedTo},
				{"Exit code", exitCodeText(last.ExitCode)}, {"Seconds", mark(last.Seconds > 0, fmt.Sprintf("%.1f", last.Seconds))},
			})
		}),
	}
}

func jobLogs(a *app) *cobra.Command {
	var follow bool
	cmd := &cobra.Command{
		Use: "logs JOB", Short: "Show the lines of the machine's log about a job", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeArguments(completeJobs),
		RunE: a.connected(func(cmd *cobra.Command, c *client, args []string) error {
			if err := a.only(formTable, formWide, formJSON, formYAML); err != nil {
				return err
			}
			job, err := findJob(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			return c.read(cmd.Context(), reading{stream: events.StreamLogs, filters: []string{events.JobLogged.Subject(job.Agent)}, follow: follow}, func(m jetstream.Msg) error {
				e, err := eventOf[events.JobLog](m)
				if err != nil || e.Data.Job != job.Job {
					return nil
				}
				return a.writeLog(cmd, e.Data)
			})
		}),
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what comes, until interrupted")
	return cmd
}

func (a *app) writeLog(cmd *cobra.Command, log events.JobLog) error {
	if !people(a.output) {
		return writeNext(cmd.OutOrStdout(), a.output, log)
	}
	if log.Dropped > 0 {
		note(cmd.OutOrStdout(), "… %s lost here: the machine's own log has them", plural(log.Dropped, "line was", "lines were"))
	}
	for _, l := range log.Lines {
		note(cmd.OutOrStdout(), "%s  %-7s  %s  %s", a.longTime(l.At), l.Level, l.Component, l.Text)
	}
	return nil
}
