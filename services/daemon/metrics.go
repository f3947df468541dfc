package daemon

import "github.com/prometheus/client_golang/prometheus"

// metrics of one connection to the broker.
type metrics struct {
	connected prometheus.Gauge
	connects  prometheus.Counter
	errors    prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, connection string) (*metrics, error) {
	labels := prometheus.Labels{"connection": connection}
	m := &metrics{
		connected: prometheus.NewGauge(prometheus.GaugeOpts{Name: "chandler_daemon_broker_connected", ConstLabels: labels,
			Help: "1 while the connection to the broker is up, else 0"}),
		connects: prometheus.NewCounter(prometheus.CounterOpts{Name: "chandler_daemon_broker_connects_total", ConstLabels: labels,
			Help: "times the connection to the broker came up"}),
		errors: prometheus.NewCounter(prometheus.CounterOpts{Name: "chandler_daemon_broker_errors_total", ConstLabels: labels,
			Help: "errors the broker reported, among them refused subjects and slow consumers"}),
	}
	for _, c := range []prometheus.Collector{m.connected, m.connects, m.errors} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *metrics) up() {
	m.connected.Set(1)
	m.connects.Inc()
}
