package credentials

import (
	"context"
	"fmt"
	"strconv"

	"chandler/events"
	"chandler/events/bus"
)

// notBrokered is the answer to every lease.
const notBrokered = "brokering of credentials is not available in this version of chandler: put the content on a distribution point, or give the machine itself access"

// maxOrder bounds the envelope that comes with a request.
const maxOrder = 256 << 10

// lease denies, and leaves a trace of who asked for what. The trace is an event whose id is derived from
// the request: an agent that asks again and again is stored once.
func (s *Service) lease(ctx context.Context, agent string, req events.LeaseRequest) (events.LeaseAnswer, error) {
	if err := checkLease(req); err != nil {
		return events.LeaseAnswer{}, bus.BadRequest(err)
	}
	s.metrics.leases.WithLabelValues("denied").Inc()
	notice := events.LeaseNotice{Agent: agent, Job: req.Job, Resource: req.Resource, Purpose: req.Purpose, Reason: events.CredentialDenied, Why: notBrokered, At: s.now().UTC()}
	id := events.DeriveID(events.LeaseDenied.Name, agent, req.Job, strconv.Itoa(req.Attempt), req.Resource, req.Purpose)
	if _, err := bus.Publish(ctx, s.bus, events.LeaseDenied, events.Event[events.LeaseNotice]{ID: id, Subject: agent, Time: notice.At, Data: notice}); err != nil {
		// The denial stands, whether or not its trace can be stored.
		s.log.Error("the denial of a lease could not be stored", "agent", agent, "job", req.Job, "error", err)
	}
	return events.LeaseAnswer{Denied: true, Reason: events.CredentialDenied, Why: notBrokered}, nil
}

func checkLease(r events.LeaseRequest) error {
	if err := events.ValidToken(r.Job); err != nil {
		return fmt.Errorf("job: %w", err)
	}
	if r.Purpose != "read" && r.Purpose != "execute" {
		return fmt.Errorf("purpose %q must be read or execute", r.Purpose)
	}
	if r.Attempt < 0 || len(r.Order) > maxOrder {
		return fmt.Errorf("attempt %d with an order of %d bytes: the attempt must not be negative, the order not larger than %d", r.Attempt, len(r.Order), maxOrder)
	}
	if _, err := checkResource(r.Resource); err != nil {
		return fmt.Errorf("resource %w", err)
	}
	return nil
}
