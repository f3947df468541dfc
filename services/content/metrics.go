package content

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"chandler/services/content/blobstore"
)

type metrics struct {
	bytes    *prometheus.CounterVec // by direction (in, out) and result (ok, cut, mismatch, disk_full, refused)
	requests *prometheus.CounterVec // by method and status code
	uploads  prometheus.Gauge
	pending  prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer, store *blobstore.Store) (*metrics, error) {
	m := &metrics{
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "chandler_content_bytes_total",
			Help: "Bytes of blobs taken in and given out, by how the transfer ended."}, []string{"direction", "result"}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "chandler_content_requests_total",
			Help: "HTTP requests for blobs, by method and status code."}, []string{"method", "code"}),
		uploads: prometheus.NewGauge(prometheus.GaugeOpts{Name: "chandler_content_uploads",
			Help: "Uploads under way."}),
		pending: prometheus.NewGauge(prometheus.GaugeOpts{Name: "chandler_content_unannounced_packages",
			Help: "Packages whose publication or removal is recorded and not yet announced."}),
	}
	if reg == nil {
		return m, nil
	}
	stored := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "chandler_content_stored_blobs", Help: "Blobs in the store."},
		func() float64 { n, _ := store.Totals(); return float64(n) })
	size := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "chandler_content_stored_bytes", Help: "Bytes of the blobs in the store."},
		func() float64 { _, n := store.Totals(); return float64(n) })
	var errs []error
	for _, c := range []prometheus.Collector{m.bytes, m.requests, m.uploads, m.pending, stored, size} {
		errs = append(errs, reg.Register(c))
	}
	return m, errors.Join(errs...)
}
