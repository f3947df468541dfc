package credentials

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"chandler/events"
	"chandler/events/bus"
)

// Limits of requests about agents.
const (
	maxAgents    = 1000
	defaultPage  = 1000
	maxPage      = 5000
	maxWhy       = 1 << 10 // bytes
	maxAgentName = 32
)

func (s *Service) enrolmentList(ctx context.Context, _ string, req events.EnrolmentQuery) (events.EnrolmentViews, error) {
	switch {
	case len(req.Agents) > maxAgents:
		return events.EnrolmentViews{}, bus.BadRequest(fmt.Errorf("%d agents are more than %d", len(req.Agents), maxAgents))
	case req.Limit < 0 || len(req.After) > maxAgentName:
		return events.EnrolmentViews{}, bus.BadRequest(errors.New("the limit must not be negative, and after must be an agent's id"))
	}
	if err := s.mirror.refresh(ctx); err != nil {
		return events.EnrolmentViews{}, err
	}
	limit := defaultPage
	if req.Limit > 0 {
		limit = min(req.Limit, maxPage)
	}
	named := map[string]bool{}
	for _, id := range req.Agents {
		named[id] = true
	}
	now := s.now()
	found, more, err := s.mirror.page(req.After, limit, func(id string, a shadow) bool {
		return (len(named) == 0 || named[id]) && (req.State == "" || a.stateOf(now) == req.State)
	})
	if err != nil {
		return events.EnrolmentViews{}, err
	}
	views := events.EnrolmentViews{Enrolments: []events.EnrolmentView{}, More: more}
	for _, r := range found {
		views.Enrolments = append(views.Enrolments, r.view(now, s.grace))
	}
	return views, nil
}

// agentApprove lets agents in that wait, lapsed, or were archived: they get an identity when they ask next,
// and have the whole grace anew to do so.
func (s *Service) agentApprove(ctx context.Context, caller string, req events.AgentsRequest) (events.AgentsAnswer, error) {
	return s.changeAgents(ctx, caller, req, events.AgentApproved, func(r *agentRecord, now time.Time) bool {
		if state := r.state(now, s.grace); state == events.EnrolmentActive || state == events.EnrolmentRevoked {
			return false
		}
		r.State, r.Let = events.EnrolmentActive, now
		return true
	})
}

// agentRevoke is for good. The broker learns of it from the administrator, who alone may tell it.
func (s *Service) agentRevoke(ctx context.Context, caller string, req events.AgentsRequest) (events.AgentsAnswer, error) {
	return s.changeAgents(ctx, caller, req, events.AgentRevoked, func(r *agentRecord, _ time.Time) bool {
		was := r.State
		r.State = events.EnrolmentRevoked
		return was != r.State
	})
}

func (s *Service) agentArchive(ctx context.Context, caller string, req events.AgentsRequest) (events.AgentsAnswer, error) {
	return s.changeAgents(ctx, caller, req, events.AgentArchived, func(r *agentRecord, _ time.Time) bool {
		if r.State == events.EnrolmentRevoked || r.State == events.EnrolmentArchived {
			return false
		}
		r.State = events.EnrolmentArchived
		return true
	})
}

// agentSetKind changes what agents are told with their next identity.
func (s *Service) agentSetKind(ctx context.Context, caller string, req events.SetKindRequest) (events.AgentsAnswer, error) {
	if req.Kind != "" || req.DomainController == nil {
		if err := checkKind(req.Kind); err != nil {
			return events.AgentsAnswer{}, bus.BadRequest(err)
		}
	}
	return s.changeAgents(ctx, caller, events.AgentsRequest{Agents: req.Agents, Why: req.Why}, events.AgentKindSet, func(r *agentRecord, _ time.Time) bool {
		before := r.Conferred
		if req.Kind != "" {
			r.Conferred.ClientKind = req.Kind
		}
		if req.DomainController != nil {
			r.Conferred.DomainController = *req.DomainController
		}
		changed := before.ClientKind != r.Conferred.ClientKind || before.DomainController != r.Conferred.DomainController
		return changed && r.State != events.EnrolmentRevoked
	})
}

// changeAgents edits the records of agents, one after the other. edit says whether there was anything to
// change. After an error some are changed: asking again changes the others.
func (s *Service) changeAgents(ctx context.Context, caller string, req events.AgentsRequest, t events.Type[events.EnrolmentNotice], edit func(r *agentRecord, now time.Time) bool) (events.AgentsAnswer, error) {
	if err := checkAgents(req); err != nil {
		return events.AgentsAnswer{}, bus.BadRequest(err)
	}
	defer s.wakeUp()
	now := s.now().UTC()
	answer := events.AgentsAnswer{Changed: []events.EnrolmentView{}}
	var before []events.EnrolmentView
	for _, id := range slices.Compact(slices.Sorted(slices.Values(req.Agents))) {
		var old agentRecord
		done := false
		r, err := change(ctx, s.enrolments, agentKeys+id, func(r agentRecord, found bool) (agentRecord, error) {
			old, done = r, false
			if !found || !edit(&r, now) {
				return r, errKeep
			}
			r.changed(t, caller, req.Why, now)
			done = true
			return r, nil
		})
		switch {
		case err != nil:
			return answer, fmt.Errorf("%d of %d agents are changed, ask again: %w", len(answer.Changed), len(req.Agents), err)
		case done:
			before = append(before, old.view(now, s.grace))
			answer.Changed = append(answer.Changed, r.view(now, s.grace))
		case r.Agent == "":
			answer.Unknown = append(answer.Unknown, id)
		default:
			answer.Unchanged = append(answer.Unchanged, id)
		}
	}
	if len(before) > 0 {
		bus.NoteChange(ctx, before, answer.Changed)
	}
	s.log.Info("agents changed", "change", t.Name, "changed", len(answer.Changed), "unchanged", len(answer.Unchanged), "unknown", len(answer.Unknown), "by", caller)
	return answer, nil
}

func checkAgents(r events.AgentsRequest) error {
	if len(r.Agents) == 0 || len(r.Agents) > maxAgents {
		return fmt.Errorf("%d agents: name 1 to %d at once", len(r.Agents), maxAgents)
	}
	for _, id := range r.Agents {
		if err := events.ValidAgent(id); err != nil {
			return err
		}
	}
	return checkWhy(r.Why)
}

func checkWhy(why string) error {
	if len(why) > maxWhy || strings.ContainsFunc(why, unicode.IsControl) {
		return fmt.Errorf("why must be one line of at most %d bytes", maxWhy)
	}
	return nil
}
