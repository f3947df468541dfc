package enrol

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"chandler/events"
	"chandler/events/enrolment"
)

// Phase of an agent's identity.
type Phase string

// The phases.
const (
	NotEnrolled Phase = "not enrolled"
	Pending     Phase = "waits for approval"
	Enrolled    Phase = "enrolled"
	Expired     Phase = "expired" // asks for a new one
	Refused     Phase = "refused" // see State.Refused
)

// State is what there is to know about the identity, without a secret.
type State struct {
	Agent     string              `json:"agent"`
	Phase     Phase               `json:"phase"`
	Refused   events.EnrolRefusal `json:"refused,omitempty"` // by the enrolment service, last time it was asked
	Why       string              `json:"why,omitempty"`
	Expires   time.Time           `json:"expires,omitzero"`
	Fleet     string              `json:"fleet,omitempty"`
	Trust     int                 `json:"trust"` // version of the bundle
	Root      string              `json:"root,omitempty"`
	CA        string              `json:"ca,omitempty"` // SHA-256 of the pinned CA; empty: none
	Servers   []string            `json:"servers,omitempty"`
	Conferred events.Conferred    `json:"conferred"`
}

// State tells the present state.
func (k *Keeper) State() State {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := State{Agent: k.id, Phase: NotEnrolled, Servers: k.servers()}
	if k.identity == nil {
		return s
	}
	s.Fleet, s.Trust, s.Expires = k.chain.bundle.Fleet, k.chain.bundle.Version, k.life.expires
	s.Root, s.CA, s.Conferred = k.identity.Root, k.identity.CA, k.identity.Conferred
	s.Conferred.Tags = slices.Clone(s.Conferred.Tags)
	switch {
	case k.refused != nil && k.refused.Refused == events.RefusedPending:
		s.Phase = Pending
	case k.refused != nil && k.refused.stays():
		s.Phase = Refused
	case k.jwt == "":
		s.Phase = Pending
	case k.rejected || k.life.expired(k.Clock()):
		s.Phase = Expired
	default:
		s.Phase = Enrolled
	}
	if k.refused != nil {
		s.Refused, s.Why = k.refused.Refused, k.refused.Why
	}
	return s
}

// Inspect tells the state that a state directory holds, also beside a running agent. It makes and changes
// nothing; a directory without a key is that of a machine that is not enrolled.
func Inspect(o Options) (State, error) {
	o.setDefaults()
	seed, err := requireKey(o.Dir)
	if err != nil {
		return State{}, err
	}
	if seed == nil {
		return State{Phase: NotEnrolled, Servers: o.Servers}, nil
	}
	k := &Keeper{Options: o, seed: seed, log: o.Log}
	if k.public, err = enrolment.PublicKey(seed); err != nil {
		return State{}, damagedKey(o.Dir, err)
	}
	k.id = events.AgentID([]byte(k.public))
	if err := k.load(); err != nil {
		return State{}, err
	}
	return k.State(), nil
}

// RefusedError says that the enrolment service gives this machine no identity.
type RefusedError struct {
	Refused events.EnrolRefusal
	Why     string        // the service's words
	Later   time.Duration // ask again after; 0: by one's own pace
}

// Error is one sentence, with what to do where that is known.
func (e *RefusedError) Error() string {
	text := ""
	switch e.Refused {
	case events.RefusedToken:
		text = "there is no such enrolment token, or it was removed: make another with `chandler token create`"
	case events.RefusedExpired:
		text = "the token has expired: make another with `chandler token create`"
	case events.RefusedSpent:
		text = "the token was used as often as it may be: make another with `chandler token create --uses N`, for N machines"
	case events.RefusedMachine:
		text = "its key was enrolled by another machine: `chandler-agent enrol --anew` with a token gives this one a key of its own"
	case events.RefusedRevoked:
		text = "it was revoked for good: `chandler-agent enrol --anew` with a token makes this machine another agent"
	case events.RefusedPending:
		text = "an administrator has to approve it with `chandler agent approve`"
	case events.RefusedLapsed:
		text = "it was away for too long: `chandler agent approve` lets it back"
	case events.RefusedArchived:
		text = "it was archived: `chandler agent approve` lets it back"
	default:
		text = fmt.Sprintf("the enrolment service says %.300q", e.Why) // quoted: it may come from anybody who sits on the broker
	}
	return fmt.Sprintf("the fleet does not let this machine in (%.40s): %s", e.Refused, text)
}

// stays says whether an administrator alone turns it, so that it is worth to be kept.
func (e *RefusedError) stays() bool {
	return e.Refused.Final() || e.Refused == events.RefusedPending || e.Refused == events.RefusedLapsed || e.Refused == events.RefusedArchived
}

// refusal is the refusal in an error, or nil.
func refusal(err error) *RefusedError {
	if r, ok := errors.AsType[*RefusedError](err); ok {
		return r
	}
	return nil
}
