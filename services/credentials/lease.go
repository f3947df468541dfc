package credentials

import (
	"context"
	"fmt"
	"strconv"

	"chandler/events"
	"chandler/events/bus"
)

// notBrokered is the answer to every lease of an agent of the fleet.
const notBrokered = "brokering of credentials is not available in this version of chandler: put the content on a distribution point, or give the machine itself access"

// maxOrder bounds the envelope that comes with a request.
const maxOrder = 256 << 10

// lease denies, and leaves a trace of who asked for what. The trace is an event whose id is derived from
// the request: an agent that asks again and again is stored once.
func (s *Service) lease(ctx context.Context, agent string, req events.LeaseRequest) (events.LeaseAnswer, error) {
	if err := checkLease(req); err != nil {
		return events.LeaseAnswer{}, bus.BadRequest(err)
	}
	why, err := s.whyNoLease(ctx, agent)
	if err != nil {
		return events.LeaseAnswer{}, err
	}
	s.metrics.leases.WithLabelValues("denied").Inc()
	notice := events.LeaseNotice{Agent: agent, Job: req.Job, Resource: req.Resource, Purpose: req.Purpose, Reason: events.CredentialDenied, Why: why, At: s.now().UTC()}
	id := events.DeriveID(events.LeaseDenied.Name, agent, req.Job, strconv.Itoa(req.Attempt), req.Resource, req.Purpose)
	if _, err := bus.Publish(ctx, s.bus, events.LeaseDenied, events.Event[events.LeaseNotice]{ID: id, Subject: agent, Time: notice.At, Data: notice}); err != nil {
		// The denial stands, whether or not its trace can be stored.
		s.log.Error("the denial of a lease could not be stored", "agent", agent, "job", req.Job, "error", err)
	}
	return events.LeaseAnswer{Denied: true, Reason: events.CredentialDenied, Why: why}, nil
}

// whyNoLease looks first whether the agent may have anything: one that was revoked or archived may still be
// connected. A fleet without identities knows no agents.
func (s *Service) whyNoLease(ctx context.Context, agent string) (string, error) {
	if s.signer == nil {
		return notBrokered, nil
	}
	var r agentRecord
	revision, err := s.enrolments.load(ctx, agentKeys+agent, &r)
	if err != nil {
		return "", err
	}
	if revision == 0 {
		return "no agent " + agent + " was ever enrolled here", nil
	}
	if err := r.barred(s.now(), s.grace); err != nil {
		return err.Error(), nil
	}
	return notBrokered, nil
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
