package credentials

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"
	"unicode"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/enrolment"
)

// enrol makes a machine an agent, by a token. One that is an agent already, with the same key, is answered
// as one that returns: asking again after an answer that was lost does no harm and uses no token.
func (s *Service) enrol(ctx context.Context, caller string, req events.EnrolRequest) (events.EnrolAnswer, error) {
	return s.admit(ctx, events.AgentEnrol.CallDeclaration, caller, req, func(ctx context.Context, st events.EnrolStatement) error {
		var known agentRecord
		revision, err := s.enrolments.load(ctx, agentKeys+caller, &known)
		if err != nil || revision > 0 {
			return err
		}
		return s.join(ctx, caller, st)
	})
}

// comeBack gives an enrolled agent whose identity has expired a new one, by the proof of its key alone.
func (s *Service) comeBack(ctx context.Context, caller string, req events.EnrolRequest) (events.EnrolAnswer, error) {
	return s.admit(ctx, events.AgentReturn.CallDeclaration, caller, req, func(context.Context, events.EnrolStatement) error { return nil })
}

// admit verifies a statement, lets before do its part, and gives an identity. What is refused is told.
func (s *Service) admit(ctx context.Context, c events.CallDeclaration, caller string, req events.EnrolRequest, before func(context.Context, events.EnrolStatement) error) (events.EnrolAnswer, error) {
	st, err := s.prove(c.Verb, caller, req)
	if err == nil {
		err = s.setUp(ctx)
	}
	if err == nil {
		err = before(ctx, st)
	}
	var answer events.EnrolAnswer
	if err == nil {
		answer, err = s.identify(ctx, caller, st.Machine, st.Trust)
	}
	answer.Agent, answer.Nonce = caller, st.Nonce
	s.tellRefusal(ctx, caller, st, err)
	return s.answered(c.Verb, answer, err)
}

// prove gives the statement of a request if its signatures fit and it is the caller's. The broker pins no
// caller here: the machine has no identity yet, so that the name in the subject is worth what the key proves.
func (s *Service) prove(purpose, caller string, req events.EnrolRequest) (events.EnrolStatement, error) {
	now := s.now()
	if err := crowd(s.limits.proofs, now); err != nil {
		return events.EnrolStatement{}, err
	}
	st, err := enrolment.Verify(req, purpose)
	if err != nil {
		return events.EnrolStatement{}, refuse(events.RefusedProof, "%v", err)
	}
	if id := events.AgentID([]byte(st.Key)); id != caller {
		return events.EnrolStatement{}, refuse(events.RefusedProof, "the request was made in the name of agent %s, but its key is that of %s", caller, id)
	}
	return st, s.limits.asks(caller, now)
}

// join counts a use of the token and then makes the agent's record.
//
// A crash in between leaves a use that is counted and pending under the agent's id: the agent finds it when
// it asks again, or it is given back after useLife. The record names the use that was counted for it and is
// made once, so that of two uses (one was settled, and a replica that lagged counted another) the second is
// known to be nobody's, and is given back too. So a use is taken exactly if there is a record that names it.
func (s *Service) join(ctx context.Context, agent string, st events.EnrolStatement) error {
	name, ok := s.mirror.tokenNamed(st.Token)
	if !ok {
		if err := s.mirror.refresh(ctx); err != nil {
			return err
		}
		if name, ok = s.mirror.tokenNamed(st.Token); !ok {
			return unknownToken()
		}
	}
	now := s.now().UTC()
	t, use, err := s.take(ctx, name, st.Token, agent, now)
	if err != nil {
		return err
	}
	r := agentRecord{State: events.EnrolmentActive, What: events.AgentEnrolled.Name, Machine: st.Machine, Use: use, Facts: bounded(st.Facts), Let: now, Trust: st.Trust,
		EnrolmentNotice: events.EnrolmentNotice{Agent: agent, Key: st.Key, Token: name, Conferred: t.Conferred, At: now}}
	r.Hostname = r.Facts.Hostname
	if t.Approval {
		r.State, r.What, r.Let = events.EnrolmentPending, events.AgentPending.Name, time.Time{}
	}
	r.owe()
	err = s.enrolments.save(ctx, agentKeys+agent, r, 0)
	if lostRace(err) {
		return nil // another replica answered the same agent, or its copy: the record says what holds
	}
	if err == nil {
		s.log.Info("agent enrolled", "agent", agent, "hostname", r.Hostname, "token", name, "state", r.State)
		s.wakeUp()
	}
	return err
}

func unknownToken() error {
	return refuse(events.RefusedToken, "there is no such enrolment token, or it was removed: `chandler token ls` lists them")
}

// tellRefusal leaves a trace of who was not let in: once an hour for each agent and reason, and a bounded
// number of all together; beyond that they are only counted. Waiting is no refusal.
func (s *Service) tellRefusal(ctx context.Context, agent string, st events.EnrolStatement, err error) {
	why, ok := errors.AsType[*refusal](err)
	if !ok {
		return
	}
	switch why.reason {
	case events.RefusedPending, events.RefusedLater, events.RefusedNotSetUp, events.RefusedOtherError:
		return
	}
	now := s.now().UTC()
	id := events.DeriveID(events.EnrolmentRefused.Name, agent, string(why.reason), st.Token, strconv.FormatInt(now.Unix()/3600, 10))
	if !s.limits.tellRefusal(id, now) {
		return
	}
	s.log.Warn("agent refused", "agent", agent, "reason", why.reason, "why", why.why)
	n := events.EnrolmentRefusalNotice{Agent: agent, Hostname: line(st.Facts.Hostname), Token: st.Token, Refused: why.reason, Why: why.why, At: now}
	if _, err := bus.Publish(ctx, s.bus, events.EnrolmentRefused, events.Event[events.EnrolmentRefusalNotice]{ID: id, Subject: agent, Time: now, Data: n}); err != nil {
		// The refusal stands, whether or not its trace can be stored.
		s.log.Error("the refusal of an agent could not be stored", "agent", agent, "error", err)
	}
}

// Bounds of what is kept of a machine's own words.
const (
	maxFact  = 256 // bytes of one
	maxFacts = 32  // of a list
)

// bounded cuts facts to size. They are what the machine says of itself, shown to people and asked by
// expressions, and must not decide anything.
func bounded(f events.Facts) events.Facts {
	for _, s := range []*string{&f.Hostname, &f.Domain, &f.OS, &f.OSName, &f.OSVersion, &f.Arch, &f.Kernel, &f.Site, &f.Version, &f.Zone, &f.BootID, (*string)(&f.ClientKind)} {
		*s = line(*s)
	}
	for _, list := range []*[]string{&f.Addresses, &f.Tags, &f.Incomplete} {
		*list = (*list)[:min(len(*list), maxFacts)]
		for i := range *list {
			(*list)[i] = line((*list)[i])
		}
	}
	return f
}

// line is the beginning of a text, without what would disturb a terminal.
func line(s string) string {
	s = strings.ToValidUTF8(s[:min(len(s), maxFact)], "")
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return -1
	}, s)
}
