package scheduling

import (
	"context"
	"encoding/json"
	"fmt"

	"chandler/events"
	"chandler/events/bus"
)

// keyLimits holds the fleet's limits in the bucket of deployments.
const keyLimits = "limits"

// limitsRecord is its value.
type limitsRecord struct {
	events.Limits
	Outbox outbox `json:"outbox"`
}

func (r limitsRecord) kept() any { return r.Limits }

// maxLimit is above every fleet.
const maxLimit = 10_000_000

func (s *Service) limitsShow(ctx context.Context, _ string, _ events.Nothing) (events.Limits, error) {
	r, _, err := load[limitsRecord](ctx, s.deploymentStore, keyLimits)
	return r.Limits, err
}

func (s *Service) limitsSet(ctx context.Context, caller string, req events.Limits) (events.Limits, error) {
	for what, n := range map[string]int{"jobs in flight": req.MaxInFlight, "jobs in flight per site": req.MaxInFlightPerSite, "retries per minute": req.RetriesPerMinute} {
		if n < 0 || n > maxLimit {
			return events.Limits{}, bus.BadRequest(fmt.Errorf("%d %s: 0 (no limit of yours) to %d", n, what, maxLimit))
		}
	}
	req.By, req.At = caller, s.now().UTC()
	r, err := changeNoted(ctx, s.deploymentStore, keyLimits, func(old limitsRecord, found bool) (limitsRecord, error) {
		before := old.Limits
		if before.By, before.At = req.By, req.At; found && before == req {
			return old, errKeep
		}
		next := limitsRecord{Limits: req, Outbox: old.Outbox.with(events.LimitsChanged.Declaration, caller, "", req.At)}
		next.At = next.Outbox.At
		return next, nil
	})
	return r.Limits, err
}

// applyLimits takes over what the bucket says, and looks again at whoever they may hold back or let go.
func (s *Service) applyLimits(value []byte) error {
	var r limitsRecord
	if value != nil {
		if err := json.Unmarshal(value, &r); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limits = r
	for name := range s.deployments {
		s.work.deployment(name)
	}
	s.work.note(func() {}) // there may be something to tell
	return nil
}

// announceLimits tells what is in the outbox of the limits.
func (s *Service) announceLimits(ctx context.Context) error {
	s.mu.RLock()
	r := s.limits
	s.mu.RUnlock()
	if len(r.Outbox.Notes) == 0 {
		return nil
	}
	if err := s.tellLimits(ctx, r, r.Outbox.Notes); err != nil {
		return err
	}
	told := r.Outbox.Last
	_, err := change(ctx, s.deploymentStore, keyLimits, func(old limitsRecord, found bool) (limitsRecord, error) {
		if !found || len(old.Outbox.without(told).Notes) == len(old.Outbox.Notes) {
			return old, errKeep
		}
		old.Outbox = old.Outbox.without(told)
		return old, nil
	})
	return err
}

func (s *Service) tellLimits(ctx context.Context, r limitsRecord, notes []note) error {
	for _, n := range notes {
		if err := tell(ctx, s.bus, events.LimitsChanged, s.fleetToken(), "", n, r.Limits); err != nil {
			return err
		}
	}
	return nil
}

// fleetToken names the fleet in subjects, also while nobody said how it is called.
func (s *Service) fleetToken() string {
	if f := s.fleetOf(); f != "" {
		return f
	}
	return "fleet"
}
