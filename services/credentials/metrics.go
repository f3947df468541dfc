package credentials

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	accounts *prometheus.GaugeVec
	unusable prometheus.Gauge
	leases   *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		accounts: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "chandler_credentials_accounts", Help: "Accounts, by kind."}, []string{"kind"}),
		unusable: prometheus.NewGauge(prometheus.GaugeOpts{Name: "chandler_credentials_unusable_accounts", Help: "Accounts whose secret cannot be opened with this replica's keyset: set them again."}),
		leases:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "chandler_credentials_leases_total", Help: "Requests for a credential, by result."}, []string{"result"}),
	}
	for _, c := range []prometheus.Collector{m.accounts, m.unusable, m.leases} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
