package inbox

import "github.com/prometheus/client_golang/prometheus"

// Metrics of the inboxes of one process.
type Metrics struct {
	looks, syncs     *prometheus.CounterVec
	refused, dropped prometheus.Counter
}

// NewMetrics registers them.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		looks:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "chandler_inbox_looks_total", Help: "Looks for missed offers, by cause."}, []string{"cause"}),
		syncs:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "chandler_inbox_syncs_total", Help: "Syncs with execution, by result."}, []string{"result"}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{Name: "chandler_inbox_refused_total", Help: "Messages that do not name this agent or cannot be read."}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{Name: "chandler_inbox_dropped_total", Help: "Messages dropped because the queue was full; a sync fetches them."}),
	}
	reg.MustRegister(m.looks, m.syncs, m.refused, m.dropped)
	return m
}
