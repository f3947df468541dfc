package credentials

import (
	"context"
	"errors"
	"fmt"
	"time"

	"chandler/events"
	"chandler/events/access"
)

// refusal is why there is no identity, for whoever asks.
type refusal struct {
	reason events.EnrolRefusal
	why    string
	later  time.Duration
}

func (r *refusal) Error() string { return r.why }

func refuse(reason events.EnrolRefusal, format string, args ...any) error {
	return &refusal{reason: reason, why: fmt.Sprintf(format, args...)}
}

// setUp says what this service lacks to make identities, or nil.
func (s *Service) setUp(ctx context.Context) error {
	if s.signer == nil {
		return refuse(events.RefusedNotSetUp, "this fleet has no identities: the credential service was started without the key that signs agents")
	}
	if s.trust.newest().Version > 0 {
		return nil
	}
	if err := s.trust.refresh(ctx); err != nil {
		return err
	}
	if s.trust.newest().Version == 0 {
		return refuse(events.RefusedNotSetUp, "this fleet has no trust bundle yet, by which agents know whose orders to obey: an administrator makes it with `chandler trust init`")
	}
	return nil
}

// identify gives an enrolled agent a new identity, if its record allows. The record is written before the
// identity is given, by compare-and-set: once a revocation is stored, no replica gives one any more.
func (s *Service) identify(ctx context.Context, agent, machine string, have int) (events.EnrolAnswer, error) {
	now := s.now().UTC()
	expires := now.Add(s.jwtLife).Truncate(time.Second)
	var jwt string
	r, err := change(ctx, s.enrolments, agentKeys+agent, func(old agentRecord, found bool) (agentRecord, error) {
		switch {
		case !found:
			return old, refuse(events.RefusedUnknown, "no agent %s was ever enrolled here: it needs an enrolment token", agent)
		case old.Machine != "" && old.Machine != machine:
			return old, refuse(events.RefusedMachine, "the key was enrolled by another machine: a copied agent has to enrol anew, with a key of its own")
		}
		if err := old.barred(now, s.grace); err != nil {
			return old, err
		}
		var err error
		user := access.User{Name: agent, Key: old.Key, Expires: expires, Now: now}
		if jwt, err = access.Mint(access.Agent, s.signer, s.account, user); err != nil {
			return old, fmt.Errorf("make an identity for agent %s: %w", agent, err)
		}
		old.Machine, old.Expires, old.Renewed, old.Trust = machine, expires, now, have
		return old, nil
	})
	if err != nil {
		return events.EnrolAnswer{}, err
	}
	bundles, _ := s.trust.after(have, maxTrustAnswer)
	return events.EnrolAnswer{Agent: agent, JWT: jwt, Expires: expires, Conferred: &r.Conferred, Bundles: bundles}, nil
}

// answered turns a refusal into an answer and counts the result: ok, a refusal, or error.
func (s *Service) answered(call string, answer events.EnrolAnswer, err error) (events.EnrolAnswer, error) {
	why, ok := errors.AsType[*refusal](err)
	switch {
	case ok:
		s.metrics.enrolments.WithLabelValues(call, string(why.reason)).Inc()
		return events.EnrolAnswer{Nonce: answer.Nonce, Agent: answer.Agent, Refused: why.reason, Why: why.why, Later: events.Duration(why.later)}, nil
	case err != nil:
		s.metrics.enrolments.WithLabelValues(call, "error").Inc()
		return events.EnrolAnswer{}, err
	}
	s.metrics.enrolments.WithLabelValues(call, "ok").Inc()
	return answer, nil
}
