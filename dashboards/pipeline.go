package dashboards

import "fmt"

// Pipeline is the board of whoever runs Chandler: do events flow, and who holds them up?
func Pipeline() Board {
	return Board{
		UID: "pipeline", Title: "Chandler: pipeline", Description: "Whether events flow through broker, services and agents, and what holds them up. Also: chandler doctor.",
		Rows: []Row{pipelineHealth(), pipelineBus(), pipelineExecution(), pipelineScheduling(), pipelineContent(), pipelineTrust(), pipelineAgents(), pipelineProcesses()},
	}
}

// slow is the time in seconds within which 99 of 100 are done, by the labels.
func slow(histogram, by string) string {
	return fmt.Sprintf("histogram_quantile(0.99, sum by (le, %s) (rate(%s_bucket[$__rate_interval])))", by, histogram)
}

// perSecond is the rate of a counter, by the labels.
func perSecond(counter, by string) string {
	return fmt.Sprintf("sum by (%s) (rate(%s[$__rate_interval]))", by, counter)
}

func pipelineHealth() Row {
	good := func(bad float64) []Step { return []Step{{Color: "green"}, {From: bad, Color: "red"}} }
	return Row{Title: "Health", Panels: []Panel{
		{Title: "Connections to the broker that are down", Kind: Stat, Unit: Count, Width: 6, Steps: good(1), Description: "Of services and agents that are scraped.",
			Queries: []Query{{Expr: "count(chandler_daemon_broker_connected == 0) or vector(0)"}}},
		{Title: "Dead letters", Kind: Stat, Unit: Count, Width: 6, Steps: good(1), Description: "Since the services started. chandler doctor says which; stream DEADLETTER keeps them for 90 days.",
			Queries: []Query{{Expr: "sum(chandler_bus_dead_letters_total) or vector(0)"}}},
		{Title: "Statuses not folded yet", Kind: Stat, Unit: Count, Width: 6, Steps: good(10_000), Description: "How far execution is behind what agents say.",
			Queries: []Query{{Expr: "sum(max by (partition) (chandler_execution_fold_lag_messages))"}}},
		{Title: "Events that need a newer service", Kind: Stat, Unit: Count, Width: 6, Steps: good(1), Description: "Deliveries of events that this version cannot read: upgrade consumers before producers.",
			Queries: []Query{{Expr: "sum(chandler_bus_newer_events_total) or vector(0)"}}},
	}}
}

func pipelineBus() Row {
	return Row{Title: "Bus", Panels: []Panel{
		{Title: "Published", Kind: TimeSeries, Unit: PerSecond, Width: 12, Description: "Events by type.",
			Queries: []Query{{Expr: perSecond("chandler_bus_published_total", "type"), Legend: "{{type}}"}}},
		{Title: "Published, by result", Kind: TimeSeries, Unit: PerSecond, Width: 12, Description: "Duplicates are harmless, errors are tried again.",
			Queries: []Query{{Expr: perSecond("chandler_bus_published_total", "result"), Legend: "{{result}}"}}},
		{Title: "Handled, by result", Kind: TimeSeries, Unit: PerSecond, Width: 12, Description: "Retried ones come again later; dropped and refused ones are dead letters.",
			Queries: []Query{{Expr: perSecond("chandler_bus_handled_total", "consumer, result"), Legend: "{{consumer}} {{result}}"}}},
		{Title: "Waiting at the broker", Kind: TimeSeries, Unit: Count, Width: 12, Description: "Messages of each consumer that were not delivered yet at its last delivery.",
			Queries: []Query{{Expr: "max by (consumer) (chandler_bus_consumer_pending)", Legend: "{{consumer}}"}}},
		{Title: "Slowest handling", Kind: TimeSeries, Unit: Seconds, Width: 12, Description: "99 of 100 events or batches took less.",
			Queries: []Query{{Expr: slow("chandler_bus_handle_seconds", "consumer"), Legend: "{{consumer}}"}}},
		{Title: "Slowest answers", Kind: TimeSeries, Unit: Seconds, Width: 12, Description: "99 of 100 requests of administrators and agents took less.",
			Queries: []Query{{Expr: slow("chandler_bus_request_seconds", "service, verb"), Legend: "{{service}} {{verb}}"}}},
		{Title: "Dead letters by reason", Kind: TimeSeries, Unit: Count, Width: 12, Description: "Since the services started.",
			Queries: []Query{{Expr: "sum by (stream, reason) (chandler_bus_dead_letters_total)", Legend: "{{stream}} {{reason}}"}}},
		{Title: "Broker errors and reconnects", Kind: TimeSeries, Unit: PerSecond, Width: 12, Description: "Errors are refused subjects and slow consumers among others; the log of the process says which.",
			Queries: []Query{{Expr: perSecond("chandler_daemon_broker_errors_total", "connection"), Legend: "errors of {{connection}}"},
				{Expr: perSecond("chandler_daemon_broker_connects_total", "connection"), Legend: "connects of {{connection}}"}}},
	}}
}

func pipelineExecution() Row {
	return Row{Title: "Execution", Panels: []Panel{
		{Title: "Statuses folded", Kind: TimeSeries, Unit: PerSecond, Width: 8, Description: "By result; statuses of unknown orders are told by agents of another fleet, or after a removal.",
			Queries: []Query{{Expr: perSecond("chandler_execution_folded_total", "result"), Legend: "{{result}}"}}},
		{Title: "Behind, by partition", Kind: TimeSeries, Unit: Count, Width: 8, Description: "Statuses stored and not yet delivered, at the last batch.",
			Queries: []Query{{Expr: "max by (partition) (chandler_execution_fold_lag_messages)", Legend: "{{partition}}"}}},
		{Title: "Slowest fold", Kind: TimeSeries, Unit: Seconds, Width: 8, Description: "From a batch of statuses until its change is stored, 99 of 100.",
			Queries: []Query{{Expr: "histogram_quantile(0.99, sum by (le) (rate(chandler_execution_fold_seconds_bucket[$__rate_interval])))", Legend: "fold"}}},
		{Title: "Offers and cancellations", Kind: TimeSeries, Unit: PerSecond, Width: 8, Description: "Sent to agents.",
			Queries: []Query{{Expr: "sum(rate(chandler_execution_offers_total[$__rate_interval]))", Legend: "offers"},
				{Expr: "sum(rate(chandler_execution_cancels_total[$__rate_interval]))", Legend: "cancellations"}}},
		{Title: "Agents asking for what is outstanding", Kind: TimeSeries, Unit: PerSecond, Width: 8, Description: "By answer. Many at once come back from a cut; busy ones ask again.",
			Queries: []Query{{Expr: perSecond("chandler_execution_sync_total", "result"), Legend: "{{result}}"}}},
		{Title: "Changes computed again", Kind: TimeSeries, Unit: PerSecond, Width: 8, Description: "Because another replica was first: some are usual while partitions move.",
			Queries: []Query{{Expr: "sum(rate(chandler_execution_conflicts_total[$__rate_interval]))", Legend: "conflicts"}}},
	}}
}

func pipelineScheduling() Row {
	return Row{Title: "Scheduling", Panels: []Panel{
		{Title: "Deployments by life", Kind: TimeSeries, Unit: Count, Width: 8, Stacked: true, Description: "All that are kept.",
			Queries: []Query{{Expr: "max by (life) (chandler_scheduling_deployments)", Legend: "{{life}}"}}},
		{Title: "Facts of agents", Kind: TimeSeries, Unit: PerSecond, Width: 8, Description: "Reports kept, and targets that could not be evaluated on an agent's facts.",
			Queries: []Query{{Expr: "sum(rate(chandler_scheduling_reports_total[$__rate_interval]))", Legend: "reports"},
				{Expr: "sum(rate(chandler_scheduling_evaluation_faults_total[$__rate_interval]))", Legend: "faults"}}},
		{Title: "Timers that came due", Kind: TimeSeries, Unit: PerSecond, Width: 8, Description: "By purpose.",
			Queries: []Query{{Expr: perSecond("chandler_scheduling_timers_due_total", "purpose"), Legend: "{{purpose}}", Quiet: true}}},
	}}
}

func pipelineContent() Row {
	return Row{Title: "Content", Panels: []Panel{
		{Title: "Bytes", Kind: TimeSeries, Unit: BytesPerSecond, Width: 8, Description: "Out to agents and in from publishers, by how the transfer ended.",
			Queries: []Query{{Expr: perSecond("chandler_content_bytes_total", "direction, result"), Legend: "{{direction}} {{result}}"}}},
		{Title: "Requests", Kind: TimeSeries, Unit: PerSecond, Width: 8, Description: "By method and status of HTTP.",
			Queries: []Query{{Expr: perSecond("chandler_content_requests_total", "method, code"), Legend: "{{method}} {{code}}"}}},
		{Title: "Stored", Kind: TimeSeries, Unit: Bytes, Width: 8, Description: "Content of all packages that are kept.",
			Queries: []Query{{Expr: "chandler_content_stored_bytes", Legend: "{{instance}}"}}},
	}}
}

func pipelineTrust() Row {
	return Row{Title: "Trust", Panels: []Panel{
		{Title: "Identities", Kind: TimeSeries, Unit: Count, Width: 8, Stacked: true, Description: "Agents that have enrolled. Pending ones wait for chandler agent approve; lapsed ones were away for more than 90 days and need it too.",
			Queries: []Query{{Expr: "max by (state) (chandler_credentials_identities)", Legend: "{{state}}"}}},
		{Title: "Identities asked for", Kind: TimeSeries, Unit: PerSecond, Width: 8, Description: "Machines that enrol with a token, return after their identity has expired, or renew it, by answer.",
			Queries: []Query{{Expr: perSecond("chandler_credentials_enrolments_total", "call, result"), Legend: "{{call}} {{result}}"}}},
		{Title: "Machines refused", Kind: TimeSeries, Unit: Count, Width: 8, Description: "Answers that leave a machine without an identity, since the services started. The events agent.refused say which machines.",
			Queries: []Query{{Expr: `sum by (result) (chandler_credentials_enrolments_total{result!~"ok|error|later"})`, Legend: "{{result}}", Quiet: true}}},
		{Title: "Trust bundle", Kind: Stat, Unit: Count, Width: 6, Steps: []Step{{Color: "red"}, {From: 1, Color: "green"}}, Description: "Version of the newest. 0: there is none, and agents obey nobody: chandler trust init.",
			Queries: []Query{{Expr: "max(chandler_credentials_trust_version)"}}},
		{Title: "Tokens", Kind: Stat, Unit: Count, Width: 6, Description: "With which machines can enrol now: chandler token ls. Remove those that are not needed.",
			Queries: []Query{{Expr: "max(chandler_credentials_tokens)"}}},
		{Title: "Orders and content that agents refused", Kind: TimeSeries, Unit: Count, Width: 6, Description: "Since the services started. Somebody who may not deploy tried to, or a key is missing from the trust bundle.",
			Queries: []Query{{Expr: `sum by (reason) (chandler_execution_failures_total{reason=~"` + untrusted + `"})`, Legend: "{{reason}}", Quiet: true}}},
		{Title: "Audit records not stored", Kind: TimeSeries, Unit: Count, Width: 6, Description: "Late ones are tried again; dropped ones are in the service's log alone.",
			Queries: []Query{{Expr: "sum by (service, fate) (chandler_bus_audit_lost_total)", Legend: "{{service}} {{fate}}", Quiet: true}}},
	}}
}

// untrusted are the reasons for which an agent refuses what was not signed for it by those whom it trusts.
const untrusted = "order_unsigned|order_unknown_key|order_revoked_key|order_altered|order_malformed|order_serial_old|order_other_fleet|manifest_unsigned|manifest_mismatch|content_mismatch"

func pipelineAgents() Row {
	return Row{Title: "Agents that are scraped", Panels: []Panel{
		{Title: "Jobs that have not ended", Kind: TimeSeries, Unit: Count, Width: 8, Queries: []Query{{Expr: "sum(chandler_agent_jobs)", Legend: "jobs"}}},
		{Title: "Content", Kind: TimeSeries, Unit: BytesPerSecond, Width: 8, Description: "What jobs asked for, by where it came from.",
			Queries: []Query{{Expr: perSecond("chandler_fetch_bytes_total", "origin"), Legend: "{{origin}}"}}},
		{Title: "Cache", Kind: TimeSeries, Unit: Bytes, Width: 8, Description: "The fullest caches.",
			Queries: []Query{{Expr: "topk(5, chandler_fetch_cache_bytes)", Legend: "{{instance}}"}}},
		{Title: "Trouble", Kind: TimeSeries, Unit: PerSecond, Width: 12, Description: "Statuses that could not be stored are told again; journal failures hold jobs up: look at the disk.",
			Queries: []Query{
				{Expr: "sum(rate(chandler_report_failures_total[$__rate_interval]))", Legend: "reports not stored"},
				{Expr: "sum(rate(chandler_agent_journal_failures_total[$__rate_interval]))", Legend: "journal failures"},
				{Expr: "sum(rate(chandler_inbox_refused_total[$__rate_interval]))", Legend: "messages refused"},
				{Expr: "sum(rate(chandler_inbox_dropped_total[$__rate_interval]))", Legend: "messages dropped"},
				{Expr: "sum(rate(chandler_report_dropped_log_lines_total[$__rate_interval]))", Legend: "log lines dropped"},
				{Expr: "sum(rate(chandler_fetch_mismatches_total[$__rate_interval]))", Legend: "content that did not match"}}},
		{Title: "Catching up", Kind: TimeSeries, Unit: PerSecond, Width: 12, Description: "Looks for missed offers by cause, and syncs by result.",
			Queries: []Query{{Expr: perSecond("chandler_inbox_looks_total", "cause"), Legend: "look: {{cause}}"}, {Expr: perSecond("chandler_inbox_syncs_total", "result"), Legend: "sync: {{result}}"}}},
	}}
}

func pipelineProcesses() Row {
	return Row{Title: "Processes", Panels: []Panel{
		{Title: "CPU", Kind: TimeSeries, Unit: Share, Width: 8, Description: "Of one core.", Queries: []Query{{Expr: `rate(process_cpu_seconds_total{job=~"chandler.*"}[$__rate_interval])`, Legend: "{{instance}}"}}},
		{Title: "Memory", Kind: TimeSeries, Unit: Bytes, Width: 8, Description: "Resident.", Queries: []Query{{Expr: `process_resident_memory_bytes{job=~"chandler.*"}`, Legend: "{{instance}}"}}},
		{Title: "Open files", Kind: TimeSeries, Unit: Share, Width: 8, Description: "Of the limit: an embedded broker needs one for each agent.",
			Queries: []Query{{Expr: `process_open_fds{job=~"chandler.*"} / process_max_fds{job=~"chandler.*"}`, Legend: "{{instance}}"}}},
	}}
}
