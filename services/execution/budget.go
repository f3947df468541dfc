package execution

import (
	"context"
	"fmt"
	"time"

	"chandler/events"
	"chandler/events/bus"
)

// longestPostponement bounds by how much a retry is put off at once.
const longestPostponement = time.Hour

// budget bounds how many jobs of a partition are tried again by themselves: so many a minute, and at most those of one
// minute at once. It is charged by the changes of the partition, whichever replica made them, so that the fleet's budget
// is one for all of them; a replica that starts takes it to be full.
type budget struct {
	tokens float64
	at     time.Time // when tokens was counted
	booked time.Time // the last time that a job was put off to
}

// refill adds what came since; perMinute may be less than 1.
func (b *budget) refill(perMinute float64, now time.Time) {
	most := max(1, perMinute)
	switch {
	case b.at.IsZero():
		b.tokens = most
	case now.After(b.at):
		b.tokens = min(most, b.tokens+now.Sub(b.at).Minutes()*perMinute)
	}
	b.at = now
}

// charge takes away for n jobs that were tried again.
func (b *budget) charge(n, perMinute float64, now time.Time) {
	b.refill(perMinute, now)
	b.tokens -= n
}

// book is when a job that finds nothing left comes again: one after the other, as fast as the budget is refilled.
func (b *budget) book(perMinute float64, now time.Time) time.Time {
	if b.booked.Before(now) {
		b.booked = now
	}
	b.booked = b.booked.Add(time.Duration(float64(time.Minute) / perMinute))
	if latest := now.Add(longestPostponement); b.booked.After(latest) {
		b.booked = latest
	}
	return b.booked
}

// retriesPerMinute of one partition.
func (s *Service) retriesPerMinute() float64 {
	return float64(s.control.retriesPerMinute()) / float64(len(s.partitions))
}

// mayTryAgain says whether the budget has room for one more beside those of the outcome, and counts it there; turn is held.
func (s *Service) mayTryAgain(p *partition, o *outcome) bool {
	p.budget.refill(s.retriesPerMinute(), s.now())
	if p.budget.tokens-float64(o.again) < 1 {
		return false
	}
	o.again++
	return true
}

// postpone puts a retry off; turn is held.
func (s *Service) postpone(p *partition, j job) retry {
	now := s.now()
	pause := p.budget.book(s.retriesPerMinute(), now).Sub(now)
	return retry{job: j, due: now.Add(events.Jittered(pause, j.id()+now.String())), postponed: true}
}

// limitsChanged keeps the limits of the fleet.
func (s *Service) limitsChanged(ctx context.Context, e events.Event[events.Limits], _ bus.Meta) error {
	if e.Data.RetriesPerMinute < 0 {
		return bus.Drop("bad_limits", fmt.Errorf("%d retries per minute", e.Data.RetriesPerMinute))
	}
	s.control.mu.RLock()
	old := s.control.limits[keyLimits]
	s.control.mu.RUnlock()
	if old.At.After(e.Data.At) {
		return nil // an event that comes again, after a newer one
	}
	return s.put(ctx, keyLimits, e.Data)
}
