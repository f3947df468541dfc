package report

import "github.com/prometheus/client_golang/prometheus"

// Metrics of the reporters of one process.
type Metrics struct {
	statuses, failures, unpublishable, droppedLines prometheus.Counter
}

// NewMetrics registers them.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		statuses:      prometheus.NewCounter(prometheus.CounterOpts{Name: "chandler_report_statuses_total", Help: "Statuses that the broker has stored."}),
		failures:      prometheus.NewCounter(prometheus.CounterOpts{Name: "chandler_report_failures_total", Help: "Rounds in which statuses could not be stored; they are told again."}),
		unpublishable: prometheus.NewCounter(prometheus.CounterOpts{Name: "chandler_report_unpublishable_total", Help: "Statuses given up because no broker would ever take them."}),
		droppedLines:  prometheus.NewCounter(prometheus.CounterOpts{Name: "chandler_report_dropped_log_lines_total", Help: "Log lines dropped because their queue was full or the broker away."}),
	}
	reg.MustRegister(m.statuses, m.failures, m.unpublishable, m.droppedLines)
	return m
}
