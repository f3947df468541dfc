package dashboards

import "fmt"

// Every replica of a service counts the whole fleet, so gauges of services are the highest of any replica;
// counters count what one replica did, so they are added up.

// jobsIn gives the jobs of the chosen deployments in the states that match, by deployment and state.
func jobsIn(states string) string {
	return fmt.Sprintf(`max by (deployment, state) (chandler_execution_jobs{deployment=~"$deployment", state=~"%s"})`, states)
}

// ended are the states that count for and against a rollout: a job that does not apply is neither.
const ended = "succeeded|failed"

// share of the ended jobs that are in the state; 0 when no job has ended.
func share(state string) string {
	return fmt.Sprintf("(sum(%s) or vector(0)) / clamp_min(sum(%s) or vector(0), 1)", jobsIn(state), jobsIn(ended))
}

// Rollout is the board of whoever deploys: how far is it, and does it go well?
func Rollout() Board {
	return Board{
		UID: "rollout", Title: "Chandler: rollout", Description: "How far deployments are, what fails and why. For every machine by itself: chandler deployment show, chandler why.",
		Variables: []Variable{{Name: "deployment", Title: "Deployment", Metric: "chandler_execution_jobs"}},
		Rows:      []Row{rolloutNow(), rolloutProgress(), rolloutPhases(), rolloutTrouble(), rolloutFleet()},
	}
}

func rolloutNow() Row {
	return Row{Title: "Now", Panels: []Panel{
		{Title: "Jobs", Kind: Stat, Unit: Count, Width: 4, Description: "Jobs of the newest revision: one for each machine that was reached, or more when it recurs.",
			Queries: []Query{{Expr: "sum(" + jobsIn(".*") + ")"}}},
		{Title: "Succeeded", Kind: Stat, Unit: Share, Width: 4, Description: "Of the jobs that ended in success or failure.",
			Steps: []Step{{Color: "red"}, {From: 0.9, Color: "orange"}, {From: 0.95, Color: "green"}}, Queries: []Query{{Expr: share("succeeded")}}},
		{Title: "Failed", Kind: Stat, Unit: Share, Width: 4, Description: "Of the jobs that ended in success or failure. The reasons are below; chandler deployment show lists the machines.",
			Steps: []Step{{Color: "green"}, {From: 0.02, Color: "orange"}, {From: 0.05, Color: "red"}}, Queries: []Query{{Expr: share("failed")}}},
		{Title: "Running now", Kind: Stat, Unit: Count, Width: 4, Description: "Jobs whose program runs.",
			Queries: []Query{{Expr: "sum(" + jobsIn("running") + ") or vector(0)"}}},
		{Title: "Silent", Kind: Stat, Unit: Count, Width: 4, Description: "Jobs whose agent has said nothing since the offer: machines that are off, or cut off.",
			Steps:   []Step{{Color: "green"}, {From: 1, Color: "orange"}},
			Queries: []Query{{Expr: `sum(max by (deployment) (chandler_execution_silent_jobs{deployment=~"$deployment"}))`}}},
		{Title: "Active deployments", Kind: Stat, Unit: Count, Width: 4, Description: "Deployments that may still start on machines.",
			Queries: []Query{{Expr: `max(chandler_scheduling_deployments{life="active"})`}}},
	}}
}

func rolloutProgress() Row {
	return Row{Title: "Progress", Panels: []Panel{
		{Title: "Jobs by state", Kind: TimeSeries, Unit: Count, Width: 12, Stacked: true, Description: "Where the jobs of the chosen deployments are.",
			Queries: []Query{{Expr: "sum by (state) (" + jobsIn(".*") + ")", Legend: "{{state}}"}}},
		{Title: "Jobs ended", Kind: TimeSeries, Unit: PerSecond, Width: 12, Description: "Of all deployments, by how they ended.",
			Queries: []Query{{Expr: "sum by (state) (rate(chandler_execution_ends_total[$__rate_interval]))", Legend: "{{state}}"}}},
		{Title: "Deployments", Kind: Table, Unit: Count, Width: 12, Description: "Jobs by deployment and state.",
			Queries: []Query{{Expr: "sum by (deployment, state) (" + jobsIn(".*") + ")"}}},
		{Title: "Succeeded, by deployment", Kind: TimeSeries, Unit: Share, Width: 12, Description: "Share of the jobs that ended in success or failure.",
			Queries: []Query{{Expr: "sum by (deployment) (" + jobsIn("succeeded") + ") / on (deployment) sum by (deployment) (" + jobsIn(ended) + ")", Legend: "{{deployment}}"}}},
	}}
}

func rolloutPhases() Row {
	return Row{Title: "Phases and limits", Panels: []Panel{
		{Title: "Halted now", Kind: Stat, Unit: Count, Width: 4, Description: "Rollouts that a bad gate halted, of all deployments. chandler deployment ls names them, chandler deployment show says why.",
			Steps: []Step{{Color: "green"}, {From: 1, Color: "red"}}, Queries: []Query{{Expr: `max(chandler_scheduling_deployments{life="halted"})`}}},
		{Title: "Held by limits", Kind: Stat, Unit: Count, Width: 4, Description: "Agents whom nothing but a limit of jobs in flight keeps from being handed to execution, once for each deployment.",
			Queries: []Query{{Expr: "max(chandler_scheduling_held_agents)"}}},
		{Title: "Phases", Kind: TimeSeries, Unit: Count, Width: 8, Description: "Phases of all rollouts that opened, and rollouts that were halted, since the services started.",
			Queries: []Query{{Expr: "sum(chandler_scheduling_phases_opened_total)", Legend: "opened"}, {Expr: "sum(chandler_scheduling_halts_total)", Legend: "halted"}}},
		{Title: "Retries put off", Kind: TimeSeries, Unit: PerSecond, Width: 8, Description: "Retries that have to wait because the fleet's budget of retries is spent (chandler limits), beside those that are made.",
			Queries: []Query{{Expr: "sum(rate(chandler_execution_retries_postponed_total[$__rate_interval]))", Legend: "put off"},
				{Expr: "sum(rate(chandler_execution_retries_total[$__rate_interval]))", Legend: "made", Quiet: true}}},
	}}
}

func rolloutTrouble() Row {
	return Row{Title: "Trouble", Panels: []Panel{
		{Title: "Failures by reason", Kind: TimeSeries, Unit: Count, Width: 12, Description: "Failed and rejected jobs of all deployments since the services started. chandler job why explains each.",
			Queries: []Query{{Expr: "sum by (reason) (chandler_execution_failures_total)", Legend: "{{reason}}"}}},
		{Title: "Tried again, by reason", Kind: TimeSeries, Unit: Count, Width: 12, Description: "Jobs of all deployments that are tried again, since the services started.",
			Queries: []Query{{Expr: "sum by (reason) (chandler_execution_retries_total)", Legend: "{{reason}}", Quiet: true}}},
	}}
}

func rolloutFleet() Row {
	return Row{Title: "Fleet", Panels: []Panel{
		{Title: "Agents", Kind: TimeSeries, Unit: Count, Width: 12, Description: "Known: all that ever reported. Seen: heard of in the last 15 minutes.",
			Queries: []Query{{Expr: "max(chandler_scheduling_agents_known)", Legend: "known"}, {Expr: "max(chandler_scheduling_agents_seen)", Legend: "seen"}}},
		{Title: "Agents handed to execution", Kind: TimeSeries, Unit: PerSecond, Width: 12, Description: "How fast scheduling releases, and execution offers.",
			Queries: []Query{{Expr: "sum(rate(chandler_scheduling_released_agents_total[$__rate_interval]))", Legend: "released"},
				{Expr: "sum(rate(chandler_execution_offers_total[$__rate_interval]))", Legend: "offered"}}},
	}}
}
