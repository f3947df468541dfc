package credentials

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/nats-io/nkeys"

	"chandler/events"
	"chandler/events/access"
	"chandler/events/bus"
)

// maxEvents bounds the event types that one integrator may subscribe to; there are fewer.
const maxEvents = 256

// userAdd notes a user whose credentials an administrator made and signed: this service cannot make any.
func (s *Service) userAdd(ctx context.Context, caller string, req events.UserNotice) (events.UserNotice, error) {
	if err := s.checkUser(req); err != nil {
		return events.UserNotice{}, bus.BadRequest(err)
	}
	if err := s.mirror.refresh(ctx); err != nil {
		return events.UserNotice{}, err
	}
	for _, u := range s.mirror.allUsers() {
		if u.Key == req.Key && (u.User != req.User || u.Revoked) {
			return events.UserNotice{}, bus.Conflict(fmt.Errorf("the key is, or was, that of user %s: make another", u.User))
		}
	}
	r, err := change(ctx, s.enrolments, userKeys+req.User, func(old userRecord, found bool) (userRecord, error) {
		if found && !old.Revoked {
			return old, bus.Conflict(fmt.Errorf("there is a user %s with role %s: choose another name, or revoke that one with `chandler user revoke %s`", req.User, old.Role, req.User))
		}
		r := userRecord{UserNotice: req, outbox: old.outbox}
		r.Revoked, r.By, r.Why, r.At = false, caller, "", s.now().UTC()
		r.owe()
		return r, nil
	})
	if err != nil {
		return events.UserNotice{}, err
	}
	bus.NoteChange(ctx, nil, r.UserNotice)
	s.log.Info("user added", "user", r.User, "role", r.Role, "by", caller)
	s.wakeUp()
	return r.UserNotice, nil
}

func (s *Service) userList(ctx context.Context, _ string, _ events.Nothing) (events.UserViews, error) {
	if err := s.mirror.refresh(ctx); err != nil {
		return events.UserViews{}, err
	}
	views := events.UserViews{Users: []events.UserNotice{}}
	for _, u := range s.mirror.allUsers() {
		views.Users = append(views.Users, u.UserNotice)
	}
	return views, nil
}

// userRevoke notes a revocation. The broker learns of it from the administrator, who alone may tell it; one
// that is cut off in between is completed by asking again.
func (s *Service) userRevoke(ctx context.Context, caller string, req events.Named) (events.UserNotice, error) {
	if err := events.ValidToken(req.Name); err != nil {
		return events.UserNotice{}, bus.BadRequest(fmt.Errorf("user: %w", err))
	}
	if err := checkWhy(req.Why); err != nil {
		return events.UserNotice{}, bus.BadRequest(err)
	}
	var before events.UserNotice
	r, err := change(ctx, s.enrolments, userKeys+req.Name, func(old userRecord, found bool) (userRecord, error) {
		if !found {
			return old, bus.NotFound(fmt.Errorf("there is no user %s: `chandler user ls` lists them", req.Name))
		}
		before = old.UserNotice
		if old.Revoked {
			return old, errKeep
		}
		old.Revoked, old.By, old.Why, old.At = true, caller, req.Why, s.now().UTC()
		old.owe()
		return old, nil
	})
	if err != nil {
		return events.UserNotice{}, err
	}
	bus.NoteChange(ctx, before, r.UserNotice)
	s.log.Info("user revoked", "user", r.User, "role", r.Role, "by", caller)
	s.wakeUp()
	return r.UserNotice, nil
}

func (s *Service) checkUser(u events.UserNotice) error {
	role := access.Role(u.Role)
	if err := events.ValidToken(u.User); err != nil {
		return fmt.Errorf("user: %w", err)
	}
	switch {
	case !nkeys.IsValidPublicUserKey(u.Key):
		return errors.New("the user's key is not a public user key")
	case role == access.Agent || role == access.Enrolling || role != access.Leaf && !slices.Contains(access.Roles(), role):
		return fmt.Errorf("role %q is none that users have", u.Role)
	case !u.Expires.IsZero() && !u.Expires.After(s.now()):
		return errors.New("the user would have expired already")
	case len(u.Events) > 0 && role != access.Integrator:
		return fmt.Errorf("only an integrator names events: role %s says what the user may see", role)
	case len(u.Events) > maxEvents:
		return fmt.Errorf("%d events are more than %d", len(u.Events), maxEvents)
	}
	for _, name := range u.Events {
		if _, known := events.TypeNamed(name); !known {
			return fmt.Errorf("there is no event type %q", name)
		}
	}
	return nil
}
