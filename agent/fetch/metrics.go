package fetch

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	bytes      *prometheus.CounterVec // by origin: network, cache
	failures   *prometheus.CounterVec // by reason
	mismatches prometheus.Counter
	evictions  prometheus.Counter
	cacheBytes prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "chandler_fetch_bytes_total",
			Help: "Bytes of content that jobs asked for, by where they came from."}, []string{"origin"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "chandler_fetch_failures_total",
			Help: "Failures to get or stage content, by reason."}, []string{"reason"}),
		mismatches: prometheus.NewCounter(prometheus.CounterOpts{Name: "chandler_fetch_mismatches_total",
			Help: "Blocks and files whose bytes did not match the manifest."}),
		evictions: prometheus.NewCounter(prometheus.CounterOpts{Name: "chandler_fetch_evictions_total",
			Help: "Blobs removed from the cache to make room."}),
		cacheBytes: prometheus.NewGauge(prometheus.GaugeOpts{Name: "chandler_fetch_cache_bytes",
			Help: "Bytes in the cache, with what transfers under way will need."}),
	}
	if reg == nil {
		return m, nil
	}
	var errs []error
	for _, c := range []prometheus.Collector{m.bytes, m.failures, m.mismatches, m.evictions, m.cacheBytes} {
		errs = append(errs, reg.Register(c))
	}
	return m, errors.Join(errs...)
}
