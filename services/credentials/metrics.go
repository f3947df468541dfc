package credentials

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	accounts  *prometheus.GaugeVec
	unusable  prometheus.Gauge
	suspended prometheus.Gauge
	leases    *prometheus.CounterVec

	enrolments *prometheus.CounterVec
	identities *prometheus.GaugeVec
	tokens     prometheus.Gauge
	trust      prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		accounts:  prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "chandler_credentials_accounts", Help: "Accounts, by kind."}, []string{"kind"}),
		unusable:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "chandler_credentials_unusable_accounts", Help: "Accounts whose secret cannot be opened with this replica's keyset: set them again."}),
		suspended: prometheus.NewGauge(prometheus.GaugeOpts{Name: "chandler_credentials_suspended_accounts", Help: "Accounts that are lent no more, because several machines were refused with their secret: set them again."}),
		leases:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: "chandler_credentials_leases_total", Help: "Requests for an account, by result (granted, denied, error) and the reason of a denial."}, []string{"result", "reason"}),

		enrolments: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "chandler_credentials_enrolments_total", Help: "Requests for an identity, by call (enrol, return, renew) and result (ok, the refusal, error)."}, []string{"call", "result"}),
		identities: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "chandler_credentials_identities", Help: "Agents that have enrolled, by the state of their identity."}, []string{"state"}),
		tokens:     prometheus.NewGauge(prometheus.GaugeOpts{Name: "chandler_credentials_tokens", Help: "Enrolment tokens that have not expired."}),
		trust:      prometheus.NewGauge(prometheus.GaugeOpts{Name: "chandler_credentials_trust_version", Help: "Version of the newest trust bundle; 0: there is none."}),
	}
	for _, c := range []prometheus.Collector{m.accounts, m.unusable, m.suspended, m.leases, m.enrolments, m.identities, m.tokens, m.trust} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
