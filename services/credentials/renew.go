package credentials

import (
	"context"
	"fmt"

	"chandler/events"
	"chandler/events/bus"
)

// renew gives an agent its next identity over the connection of the present one, which the broker has
// verified. It is one write of the agent's record.
func (s *Service) renew(ctx context.Context, agent string, req events.RenewRequest) (events.EnrolAnswer, error) {
	if req.Trust < 0 || req.Machine != "" && events.ValidDigest(req.Machine) != nil {
		return events.EnrolAnswer{}, bus.BadRequest(fmt.Errorf("trust version %d must not be negative, and the machine's hash must be 64 lower-case hexadecimal digits", req.Trust))
	}
	err := s.limits.asks(agent, s.now())
	if err == nil {
		err = s.setUp(ctx)
	}
	var answer events.EnrolAnswer
	if err == nil {
		answer, err = s.identify(ctx, agent, req.Machine, req.Trust)
	}
	answer.Agent = agent
	s.tellRefusal(ctx, agent, events.EnrolStatement{}, err)
	return s.answered(events.AgentRenew.Verb, answer, err)
}
