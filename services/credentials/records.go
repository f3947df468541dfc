package credentials

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"chandler/events"
	"chandler/events/bus"
)

// The kinds of keys in the bucket of enrolments.
const (
	agentKeys = "agent."
	tokenKeys = "token."
	userKeys  = "user."
)

// agentRecord is the value of agent.<id>. It is made once, and never goes away: what was revoked stays so.
type agentRecord struct {
	events.EnrolmentNotice // as of the last change
	outbox
	What string `json:"what"` // name of the event that tells of the last change
	// State is pending, active, archived or revoked; that an active one has lapsed follows from the clock.
	State   events.EnrolmentState `json:"state"`
	Machine string                `json:"machine,omitempty"` // hash of the machine's own id, as it was enrolled
	Use     string                `json:"use"`               // the use of its token that was counted for it
	Facts   events.Facts          `json:"facts"`             // at its enrolment, bounded
	Let     time.Time             `json:"let,omitzero"`      // when it was let in last: made active or approved
	Expires time.Time             `json:"expires,omitzero"`  // of its last identity
	Renewed time.Time             `json:"renewed,omitzero"`
	Trust   int                   `json:"trust,omitempty"`
}

// lapses is when an active agent has been away for too long.
func (r *agentRecord) lapses(grace time.Duration) time.Time {
	if r.Expires.After(r.Let) {
		return r.Expires.Add(grace)
	}
	return r.Let.Add(grace)
}

// state at a time, by the clock too.
func (r *agentRecord) state(now time.Time, grace time.Duration) events.EnrolmentState {
	if r.State == events.EnrolmentActive && now.After(r.lapses(grace)) {
		return events.EnrolmentLapsed
	}
	return r.State
}

// barred says why an agent gets no identity, or nil.
func (r *agentRecord) barred(now time.Time, grace time.Duration) error {
	switch r.state(now, grace) {
	case events.EnrolmentActive:
		return nil
	case events.EnrolmentPending:
		return refuse(events.RefusedPending, "an administrator has to approve this machine: `chandler agent approve %s`", r.Agent)
	case events.EnrolmentLapsed:
		return refuse(events.RefusedLapsed, "the machine was away for longer than %d days: `chandler agent approve %s` lets it back", int(grace.Hours()/24), r.Agent)
	case events.EnrolmentArchived:
		return refuse(events.RefusedArchived, "the machine was archived: `chandler agent approve %s` lets it back", r.Agent)
	case events.EnrolmentRevoked:
		return refuse(events.RefusedRevoked, "an administrator revoked this agent for good: the machine has to enrol anew, with a new key")
	}
	return refuse(events.RefusedOtherError, "this version does not know state %q of the agent", r.State)
}

func (r *agentRecord) view(now time.Time, grace time.Duration) events.EnrolmentView {
	return events.EnrolmentView{EnrolmentNotice: r.EnrolmentNotice, State: r.state(now, grace), Facts: r.Facts, Expires: r.Expires, Renewed: r.Renewed, Trust: r.Trust}
}

// agentChanges are the events that may be owed for an agent.
func agentChanges() []events.Type[events.EnrolmentNotice] {
	return []events.Type[events.EnrolmentNotice]{events.AgentEnrolled, events.AgentPending, events.AgentApproved, events.AgentRevoked, events.AgentArchived, events.AgentKindSet}
}

func (r *agentRecord) tell(ctx context.Context, b *bus.Bus) error {
	for _, t := range agentChanges() {
		if t.Name != r.What {
			continue
		}
		id := events.DeriveID(t.Name, r.Agent, strconv.Itoa(r.Change), strconv.FormatInt(r.At.UnixNano(), 10))
		_, err := bus.Publish(ctx, b, t, events.Event[events.EnrolmentNotice]{ID: id, Subject: r.Agent, Time: r.At, Data: r.EnrolmentNotice})
		return err
	}
	return fmt.Errorf("tell of agent %s: %q is no event of agents", r.Agent, r.What)
}

// changed notes what an administrator did.
func (r *agentRecord) changed(t events.Type[events.EnrolmentNotice], by, why string, now time.Time) {
	r.What, r.By, r.Why, r.At = t.Name, by, why, now
	r.owe()
}

// tokenRecord is the value of token.<name>. One that was removed, or expired long ago, stays as an empty one.
type tokenRecord struct {
	events.TokenNotice
	outbox
	Used    int   `json:"used"` // also by those in Pending
	Pending []use `json:"pending,omitempty"`
	Removed bool  `json:"removed,omitempty"`
}

func (r *tokenRecord) tell(ctx context.Context, b *bus.Bus) error {
	t := events.TokenCreated
	if r.Removed {
		t = events.TokenRemoved
	}
	id := events.DeriveID(t.Name, r.Name, r.Token, strconv.FormatInt(r.At.UnixNano(), 10))
	_, err := bus.Publish(ctx, b, t, events.Event[events.TokenNotice]{ID: id, Subject: r.Name, Time: r.At, Data: r.TokenNotice})
	return err
}

// userRecord is the value of user.<name>.
type userRecord struct {
	events.UserNotice
	outbox
}

func (r *userRecord) tell(ctx context.Context, b *bus.Bus) error {
	t := events.UserAdded
	if r.Revoked {
		t = events.UserRevoked
	}
	id := events.DeriveID(t.Name, r.User, r.Key, strconv.FormatInt(r.At.UnixNano(), 10))
	_, err := bus.Publish(ctx, b, t, events.Event[events.UserNotice]{ID: id, Subject: r.User, Time: r.At, Data: r.UserNotice})
	return err
}

// trustRecord is the value of a bundle's key, which is its version.
type trustRecord struct {
	events.TrustNotice
	outbox
}

func (r *trustRecord) tell(ctx context.Context, b *bus.Bus) error {
	id := events.DeriveID(events.TrustChanged.Name, r.Fleet, strconv.Itoa(r.Version), strconv.FormatInt(r.At.UnixNano(), 10))
	_, err := bus.Publish(ctx, b, events.TrustChanged, events.Event[events.TrustNotice]{ID: id, Subject: r.Fleet, Time: r.At, Data: r.TrustNotice})
	return err
}
