package execution

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"chandler/events"
)

// metrics of one replica. Labels are deployments, states, reasons and partitions; never agents or jobs.
type metrics struct {
	folded        *prometheus.CounterVec
	foldSeconds   prometheus.Histogram
	foldLag       *prometheus.GaugeVec
	conflicts     prometheus.Counter
	snapshotBytes *prometheus.GaugeVec
	offers        prometheus.Counter
	cancels       prometheus.Counter
	ends          *prometheus.CounterVec
	failures      *prometheus.CounterVec
	retries       *prometheus.CounterVec
	postponed     prometheus.Counter
	haltsRefused  prometheus.Counter
	syncs         *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer, s *Service) (*metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "chandler_execution_" + name, Help: help})
	}
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "chandler_execution_" + name, Help: help}, labels)
	}
	gauges := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "chandler_execution_" + name, Help: help}, labels)
	}
	m := &metrics{
		folded: counters("folded_total", "Statuses folded, by result (taken, unknown_order, over_limit).", "result"),
		foldSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "chandler_execution_fold_seconds", Help: "Time from a batch of statuses until its change is stored.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 4, 9)}),
		foldLag:       gauges("fold_lag_messages", "Statuses of a partition that were stored and not yet delivered, at the last batch; 0 where another replica has the partition.", "partition"),
		conflicts:     counter("conflicts_total", "Changes computed again because another replica was first."),
		snapshotBytes: gauges("snapshot_bytes", "Size of the newest snapshot that this replica stored.", "partition"),
		offers:        counter("offers_total", "Offers made, also repeated ones."),
		cancels:       counter("cancels_total", "Cancellations sent."),
		ends:          counters("ends_total", "Jobs finished, by state; silent ones as silent.", "state"),
		failures:      counters("failures_total", "Jobs failed or rejected, by reason.", "reason"),
		retries:       counters("retries_total", "Jobs that are tried again, by reason; administrator for those asked for.", "reason"),
		postponed:     counter("retries_postponed_total", "Retries put off because the fleet's budget of retries had nothing left."),
		haltsRefused:  counter("halts_refused_total", "Halted deployments that agents are not told of, because too many are."),
		syncs:         counters("sync_total", "Requests of agents for what is outstanding, by result (ok, busy, loading).", "result"),
	}
	if reg == nil {
		return m, nil
	}
	var errs []error
	for _, c := range []prometheus.Collector{m.folded, m.foldSeconds, m.foldLag, m.conflicts, m.snapshotBytes, m.offers, m.cancels, m.ends, m.failures,
		m.retries, m.postponed, m.haltsRefused, m.syncs, newJobCollector(s)} {
		errs = append(errs, reg.Register(c))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("register execution metrics: %w", err)
	}
	return m, nil
}

// stored counts an outcome whose change is stored.
func (m *metrics) stored(o outcome) {
	m.offers.Add(float64(len(o.offers)))
	m.cancels.Add(float64(len(o.cancels)))
	for _, end := range o.ends {
		switch {
		case end.Silent:
			m.ends.WithLabelValues("silent").Inc()
		default:
			m.ends.WithLabelValues(string(end.State)).Inc()
			if end.State == events.Failed || end.State == events.Rejected {
				m.failures.WithLabelValues(reasonLabel(end.Reason)).Inc()
			}
		}
	}
	for _, r := range o.retries {
		if r.postponed {
			m.postponed.Inc()
			continue
		}
		m.retries.WithLabelValues(reasonLabel(r.job.reason)).Inc()
	}
}

func reasonLabel(r events.Reason) string {
	switch {
	case r == events.NoReason:
		return "none"
	case !r.Known():
		return string(events.OtherReason)
	}
	return string(r)
}

// jobCollector counts jobs when it is asked.
type jobCollector struct {
	service *Service
	jobs    *prometheus.Desc
	silent  *prometheus.Desc
}

func newJobCollector(s *Service) jobCollector {
	return jobCollector{s,
		prometheus.NewDesc("chandler_execution_jobs", "Jobs of a deployment's newest revision, by state.", []string{"deployment", "state"}, nil),
		prometheus.NewDesc("chandler_execution_silent_jobs", "Jobs of a deployment's newest revision whose agents say nothing.", []string{"deployment"}, nil)}
}

// Describe implements prometheus.Collector.
func (c jobCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.jobs
	ch <- c.silent
}

// Collect implements prometheus.Collector.
func (c jobCollector) Collect(ch chan<- prometheus.Metric) {
	for _, name := range c.service.orders.names() {
		k, ok := c.service.orders.newest(name)
		if !ok {
			continue // removed just now
		}
		p, _ := c.service.count(name, k.Revision, oneRevision)
		for state, n := range p.States {
			ch <- prometheus.MustNewConstMetric(c.jobs, prometheus.GaugeValue, float64(n), name, string(state))
		}
		ch <- prometheus.MustNewConstMetric(c.silent, prometheus.GaugeValue, float64(p.Silent), name)
	}
}
