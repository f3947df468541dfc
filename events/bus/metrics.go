package bus

import (
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"chandler/events"
)

// metrics of the bus. Labels have bounded values: an event type that is not declared is "unknown".
type metrics struct {
	published      *prometheus.CounterVec
	handled        *prometheus.CounterVec
	handleSeconds  *prometheus.HistogramVec
	deadLetters    *prometheus.CounterVec
	newer          *prometheus.CounterVec
	refused        *prometheus.CounterVec
	requestSeconds *prometheus.HistogramVec
	pending        *prometheus.GaugeVec
	attached       *prometheus.CounterVec
	auditLost      *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "chandler_bus_" + name, Help: help}, labels)
	}
	histogram := func(name, help string, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "chandler_bus_" + name, Help: help,
			Buckets: prometheus.ExponentialBuckets(0.0001, 4, 10)}, labels)
	}
	m := &metrics{
		published:      counter("published_total", "Events published, by type and result (stored, duplicate, sent, error).", "type", "result"),
		handled:        counter("handled_total", "Messages taken from a consumer, by type and result (ok, skipped, retried, dropped, refused, newer).", "consumer", "type", "result"),
		handleSeconds:  histogram("handle_seconds", "Time that a handler took for one event or one batch.", "consumer"),
		deadLetters:    counter("dead_letters_total", "Messages put on the dead-letter stream, by the stream they came from and the reason.", "stream", "reason"),
		newer:          counter("newer_events_total", "Deliveries of events whose type is known only in another version: upgrade the consumer.", "type"),
		refused:        counter("refused_total", "Messages that were refused without a consumer to put them aside (core NATS, readers with a position of their own), by reason.", "reason"),
		requestSeconds: histogram("request_seconds", "Time that a service took to answer a request, by result code (ok, bad_request, …).", "service", "verb", "result"),
		pending: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "chandler_bus_consumer_pending",
			Help: "Messages of a consumer that the broker had not delivered yet at the last delivery."}, []string{"consumer"}),
		attached:  counter("consumer_attached_total", "Times a consumer was found or made again, by result (ok, error); it grows when the broker restarts.", "consumer", "result"),
		auditLost: counter("audit_lost_total", "Audit records that could not be stored before the answer went out and are in the service's log, by fate (late: tried again; dropped: given up).", "service", "fate"),
	}
	if reg == nil {
		return m, nil
	}
	// All services of one process share a registry, and so these metrics.
	return m, errors.Join(share(reg, &m.published), share(reg, &m.handled), share(reg, &m.handleSeconds), share(reg, &m.deadLetters), share(reg, &m.newer),
		share(reg, &m.refused), share(reg, &m.requestSeconds), share(reg, &m.pending), share(reg, &m.attached), share(reg, &m.auditLost))
}

// share registers a collector, or takes the one that is registered already.
func share[C prometheus.Collector](reg prometheus.Registerer, c *C) error {
	err := reg.Register(*c)
	if there, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
		existing, ok := there.ExistingCollector.(C)
		if !ok {
			return fmt.Errorf("register bus metrics: the name is taken by a %T", there.ExistingCollector)
		}
		*c = existing
		return nil
	}
	if err != nil {
		return fmt.Errorf("register bus metrics: %w", err)
	}
	return nil
}

func (m *metrics) observeHandling(consumer string, started time.Time) {
	m.handleSeconds.WithLabelValues(consumer).Observe(time.Since(started).Seconds())
}

// typeLabel keeps what strangers write out of the labels.
func typeLabel(name string) string {
	if d, ok := declared(name); ok {
		return d.Name
	}
	return unknownType
}

// unknownType is the label of types that are not declared.
const unknownType = "unknown"

// reasonLabel keeps a reason that is not one short word out of the labels.
func reasonLabel(reason string) string {
	if events.ValidToken(reason) != nil {
		return "other"
	}
	return reason
}
