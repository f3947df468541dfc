package scheduling

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/target"
)

// maxFacts bounds what one agent may say of itself, in bytes of JSON: every replica keeps all of it in
// memory. Real machines say about one thousand.
const maxFacts = 32 << 10

// onReported keeps an agent's facts. Bus has checked that subject, source and data name the same agent.
func (s *Service) onReported(ctx context.Context, e events.Event[events.AgentReport], m bus.Meta) error {
	facts := e.Data.Facts
	if facts.ID != e.Subject {
		return bus.Drop("disagrees", fmt.Errorf("agent %s reports the facts of %q", e.Subject, facts.ID))
	}
	if value, err := encode(facts); err != nil || len(value) > maxFacts {
		return bus.Drop("too_large", fmt.Errorf("facts of agent %s are larger than %d bytes", e.Subject, maxFacts))
	}
	_, err := change(ctx, s.agentStore, e.Subject, func(old agentRecord, found bool) (agentRecord, error) {
		if found && !m.Stored.After(old.Stored) {
			return old, errKeep
		}
		old.Facts, old.Reported, old.Stored = facts, e.Data.At, m.Stored
		return old, nil
	})
	if err != nil {
		return fmt.Errorf("keep facts of agent %s: %w", e.Subject, err)
	}
	s.metrics.reports.Inc()
	return nil
}

// onGone takes an agent out of the fleet: it was archived or revoked. Also one that never reported is noted,
// so that a report of before does not bring it in.
func (s *Service) onGone(ctx context.Context, e events.Event[events.EnrolmentNotice], m bus.Meta) error {
	return s.noteEnrolment(ctx, e, func(r *agentRecord) *time.Time { return &r.Gone }, m.Stored)
}

// onApproved lets an agent come back when it reports again.
func (s *Service) onApproved(ctx context.Context, e events.Event[events.EnrolmentNotice], m bus.Meta) error {
	return s.noteEnrolment(ctx, e, func(r *agentRecord) *time.Time { return &r.Approved }, m.Stored)
}

// noteEnrolment raises one of the record's times; events come in any order.
func (s *Service) noteEnrolment(ctx context.Context, e events.Event[events.EnrolmentNotice], field func(*agentRecord) *time.Time, at time.Time) error {
	if e.Data.Agent != e.Subject {
		return bus.Drop("disagrees", fmt.Errorf("the news of agent %s are about %q", e.Subject, e.Data.Agent))
	}
	_, err := change(ctx, s.agentStore, e.Subject, func(old agentRecord, _ bool) (agentRecord, error) {
		if noted := field(&old); at.After(*noted) {
			*noted = at
			return old, nil
		}
		return old, errKeep
	})
	if err != nil {
		return fmt.Errorf("note news of agent %s: %w", e.Subject, err)
	}
	return nil
}

func (s *Service) onHeartbeat(e events.Event[events.HeartbeatNote]) {
	// By this machine's clock: what an agent's clock says is no sign of life.
	found := s.fleet.heard(e.Subject, e.Data.Instance, s.now())
	if found == nil {
		return
	}
	select {
	case s.twinsFound <- found:
	default: // the next heartbeats find it again
	}
}

// applyAgent takes over what the bucket says.
func (s *Service) applyAgent(id string, value []byte) {
	if isPresence(id) {
		if err := s.applyPresence(value); err != nil {
			s.log.Error("a record of when agents were heard cannot be read", "key", id, "error", err)
		}
		return
	}
	changed, err := s.fleet.put(id, value)
	if err != nil {
		s.log.Error("the record of an agent cannot be read", "agent", id, "error", err)
		return
	}
	if changed != nil {
		s.work.agent(changed)
	}
}

func (s *Service) agentList(_ context.Context, _ string, q events.AgentQuery) (events.AgentViews, error) {
	where, err := compileWhere(q.Where)
	if err != nil {
		return events.AgentViews{}, err
	}
	views := events.AgentViews{Agents: []events.AgentView{}}
	var faults faults
	for _, a := range s.fleet.all() {
		if q.Name != "" && a.facts.ID != q.Name && !strings.EqualFold(a.facts.Hostname, q.Name) {
			continue
		}
		if where != nil {
			ok, err := where.Eval(a.facts)
			faults.note(err)
			if !ok {
				continue
			}
		}
		views.Agents = append(views.Agents, s.agentView(a))
	}
	if len(views.Agents) == 0 && faults.count > 0 {
		return views, bus.BadRequest(fmt.Errorf("the condition fails on all %d agents it was tried on: %w", faults.count, faults.first))
	}
	slices.SortFunc(views.Agents, byHost)
	return views, nil
}

func compileWhere(source string) (*target.Expression, error) {
	if source == "" {
		return nil, nil
	}
	e, err := target.Compile(source)
	if err != nil {
		return nil, bus.BadRequest(err)
	}
	return e, nil
}

// faults counts expressions that could not be evaluated and keeps the first.
type faults struct {
	count int
	first error
}

func (f *faults) note(err error) {
	if err == nil {
		return
	}
	f.count++
	if f.first == nil {
		f.first = err
	}
}

// knownAgent finds an agent by its id.
func (s *Service) knownAgent(id string) (*agent, error) {
	if err := events.ValidAgent(id); err != nil {
		return nil, bus.BadRequest(err)
	}
	a, ok := s.fleet.get(id)
	if !ok {
		return nil, bus.NotFound(errors.New("no agent " + id + " has reported: `chandler agent ls` lists those that have"))
	}
	return a, nil
}
