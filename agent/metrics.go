package agent

import (
	"github.com/prometheus/client_golang/prometheus"

	"chandler/agent/inbox"
	"chandler/agent/report"
)

type metrics struct {
	jobs            prometheus.Gauge
	ended           *prometheus.CounterVec
	accesses        *prometheus.CounterVec
	journalFailures prometheus.Counter
	inbox           *inbox.Metrics
	report          *report.Metrics
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		jobs:            prometheus.NewGauge(prometheus.GaugeOpts{Name: "chandler_agent_jobs", Help: "Jobs that have not ended."}),
		ended:           prometheus.NewCounterVec(prometheus.CounterOpts{Name: "chandler_agent_jobs_ended_total", Help: "Ended jobs by state and reason."}, []string{"state", "reason"}),
		accesses:        prometheus.NewCounterVec(prometheus.CounterOpts{Name: "chandler_agent_accesses_total", Help: "First accesses to external sources, by the identity that tried and the reason why it failed; an empty reason: it was read."}, []string{"identity", "reason"}),
		journalFailures: prometheus.NewCounter(prometheus.CounterOpts{Name: "chandler_agent_journal_failures_total", Help: "Writes of the journal that failed; the job concerned stands still meanwhile."}),
		inbox:           inbox.NewMetrics(reg),
		report:          report.NewMetrics(reg),
	}
	reg.MustRegister(m.jobs, m.ended, m.accesses, m.journalFailures)
	return m
}
