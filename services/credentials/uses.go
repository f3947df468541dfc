package credentials

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"chandler/events"
	"chandler/events/bus"
)

// use is one use of a token that is counted, and not yet known to be in its agent's record.
type use struct {
	Agent string `json:"agent"`
	ID    string `json:"id"`
	At    int64  `json:"at"` // Unix seconds
}

// useLife is how long a use waits for its agent. It is far longer than a request lasts: who makes a record
// has looked at the use within that time.
const useLife = 10 * time.Minute

// maxPending bounds the uses that wait; they are settled after every enrolment, all that there are at once.
const maxPending = 1000

// take counts a use of the token for an agent that has no record, and names it. A use that waits for the
// agent is taken up again.
func (s *Service) take(ctx context.Context, name, key, agent string, now time.Time) (tokenRecord, string, error) {
	// Machines that enrol at once by one token would lose races against each other: one at a time here leaves
	// only those between replicas.
	select {
	case s.taking <- struct{}{}:
		defer func() { <-s.taking }()
	case <-ctx.Done():
		return tokenRecord{}, "", bus.Unavailable(fmt.Errorf("count a use of token %s: %w", name, context.Cause(ctx)))
	}
	var taken string
	t, err := change(ctx, s.enrolments, tokenKeys+name, func(old tokenRecord, found bool) (tokenRecord, error) {
		switch {
		case !found || old.Removed || old.Token != key:
			return old, unknownToken()
		case !now.Before(old.Expires):
			return old, refuse(events.RefusedExpired, "token %s expired at %s: make another with `chandler token create`", name, old.Expires.UTC().Format(time.RFC3339))
		}
		if i := slices.IndexFunc(old.Pending, func(u use) bool { return u.Agent == agent }); i >= 0 {
			taken = old.Pending[i].ID
			old.Pending[i].At = now.Unix()
			return old, nil
		}
		if old.Uses > 0 && old.Used >= old.Uses {
			return old, refuse(events.RefusedSpent, "token %s was used as often as it may be (%d): make another with `chandler token create --uses N`", name, old.Uses)
		}
		if err := crowd(s.limits.joins, now); err != nil {
			return old, err
		}
		if len(old.Pending) >= maxPending {
			return old, &refusal{reason: events.RefusedLater, why: "too many machines enrol at once", later: moment}
		}
		taken = rand.Text()[:10]
		old.Used++
		old.Pending = append(old.Pending, use{Agent: agent, ID: taken, At: now.Unix()})
		return old, nil
	})
	return t, taken, err
}

// settle clears the uses that wait: those that an agent's record names are taken for good; those of agents
// whose record names another, and those that waited for too long, are given back. The mirror must have been
// refreshed.
func (s *Service) settle(ctx context.Context) error {
	var failures []error
	for _, t := range s.mirror.allTokens() {
		if len(t.Pending) == 0 {
			continue
		}
		now := s.now()
		_, err := change(ctx, s.enrolments, tokenKeys+t.Name, func(old tokenRecord, found bool) (tokenRecord, error) {
			before := len(old.Pending)
			old.Pending = slices.DeleteFunc(slices.Clone(old.Pending), func(u use) bool {
				id, enrolled := s.mirror.useOf(u.Agent)
				switch {
				case enrolled && id == u.ID:
					return true
				case enrolled, now.Sub(time.Unix(u.At, 0)) > useLife:
					old.Used--
					return true
				}
				return false
			})
			if !found || len(old.Pending) == before {
				return old, errKeep
			}
			return old, nil
		})
		failures = append(failures, err)
	}
	return errors.Join(failures...)
}
