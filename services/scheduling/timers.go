package scheduling

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
	"chandler/events/bus"
)

// Purposes of timers.
const (
	timerStart  = "start"
	timerExpire = "expire"
	timerBake   = "bake"
)

// dueLife is how long a timer that fired is kept: its stream has no age limit of its own.
const dueLife = 24 * time.Hour

// setTimers asks the broker to wake some replica when the deployment's life changes by itself. A timer of
// the same purpose that an older revision set is replaced.
func (s *Service) setTimers(ctx context.Context, d *deployment) error {
	now := s.now()
	if begins := d.order.Begins(); now.Before(begins) {
		if err := s.setTimer(ctx, d.record, timerStart, begins); err != nil {
			return err
		}
	}
	if ends := end(d.order); now.Before(ends) {
		return s.setTimer(ctx, d.record, timerExpire, ends)
	}
	return nil
}

func (s *Service) setTimer(ctx context.Context, r deploymentRecord, purpose string, due time.Time) error {
	m, err := bus.Message(events.TimerDue, events.Event[events.TimerNote]{
		ID:     events.DeriveID("timer", r.Deployment, strconv.FormatUint(r.Revision, 10), purpose, due.UTC().Format(time.RFC3339Nano)),
		Source: events.ServiceSource(serviceName), Subject: serviceName, Time: s.now(),
		Data: events.TimerNote{Service: serviceName, Purpose: purpose, Name: r.Deployment, Key: strconv.FormatUint(r.Revision, 10), Due: due},
	})
	if err != nil {
		return err
	}
	wakes := m.Subject
	m.Subject = events.TimerSubject(serviceName, r.Deployment, purpose)
	// The broker cuts off fractions of a second: without rounding up the timer would be early.
	at := due.Add(time.Second - time.Nanosecond).Truncate(time.Second)
	_, err = s.bus.JetStream().PublishMsg(ctx, m, jetstream.WithScheduleAt(at), jetstream.WithScheduleTarget(wakes), jetstream.WithScheduleTTL(dueLife))
	if err != nil {
		return fmt.Errorf("set timer %s of deployment %s: %w", purpose, r.Deployment, err)
	}
	return nil
}

// onTimer wakes the reconciler, which looks at the present state: the timer may be of an older revision, or
// its deployment gone.
func (s *Service) onTimer(_ context.Context, e events.Event[events.TimerNote], _ bus.Meta) error {
	s.metrics.timers.WithLabelValues(timerPurpose(e.Data.Purpose)).Inc()
	s.work.deployment(e.Data.Name)
	return nil
}

// timerPurpose keeps what a timer says out of the labels unless it is ours.
func timerPurpose(purpose string) string {
	if purpose == timerStart || purpose == timerExpire || purpose == timerBake {
		return purpose
	}
	return "other"
}
