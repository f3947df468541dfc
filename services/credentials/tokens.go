package credentials

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nkeys"

	"chandler/events"
	"chandler/events/bus"
)

// Limits of tokens.
const (
	maxTokenLife = 366 * 24 * time.Hour
	maxTags      = 64
	// tokenMemory is how long an expired token is remembered, so that whoever uses it learns that it expired.
	tokenMemory = 30 * 24 * time.Hour
)

func (s *Service) tokenCreate(ctx context.Context, caller string, req events.TokenRequest) (events.TokenView, error) {
	now := s.now().UTC()
	if err := checkToken(req, now); err != nil {
		return events.TokenView{}, bus.BadRequest(err)
	}
	if s.enrolmentJWT == "" {
		return events.TokenView{}, bus.Conflict(errors.New("this fleet has no identities: the credential service was started without that of machines that enrol"))
	}
	if err := s.mirror.refresh(ctx); err != nil {
		return events.TokenView{}, err
	}
	if name, used := s.mirror.tokenNamed(req.Token); used {
		return events.TokenView{}, bus.Conflict(fmt.Errorf("the key is that of token %s: make the token anew", name))
	}
	t, err := change(ctx, s.enrolments, tokenKeys+req.Name, func(old tokenRecord, found bool) (tokenRecord, error) {
		if found && !old.Removed {
			return old, bus.Conflict(fmt.Errorf("there is a token %s, which expires at %s: choose another name, or remove it with `chandler token remove %s`", req.Name, old.Expires.UTC().Format(time.RFC3339), req.Name))
		}
		r := tokenRecord{outbox: old.outbox, TokenNotice: events.TokenNotice{Token: req.Token, Name: req.Name, Uses: req.Uses, Expires: req.Expires.UTC(),
			Approval: req.Approval, Conferred: req.Conferred, By: caller, At: now}}
		r.owe()
		return r, nil
	})
	if err != nil {
		return events.TokenView{}, err
	}
	bus.NoteChange(ctx, nil, t.TokenNotice)
	s.log.Info("token created", "token", t.Name, "uses", t.Uses, "expires", t.Expires, "approval", t.Approval, "by", caller)
	s.wakeUp()
	return events.TokenView{TokenNotice: t.TokenNotice, EnrolmentJWT: s.enrolmentJWT}, nil
}

func (s *Service) tokenList(ctx context.Context, _ string, _ events.Nothing) (events.TokenViews, error) {
	if err := s.mirror.refresh(ctx); err != nil {
		return events.TokenViews{}, err
	}
	views := events.TokenViews{Tokens: []events.TokenView{}}
	for _, t := range s.mirror.allTokens() {
		views.Tokens = append(views.Tokens, events.TokenView{TokenNotice: t.TokenNotice, Used: t.Used})
	}
	return views, nil
}

func (s *Service) tokenRemove(ctx context.Context, caller string, req events.Named) (events.TokenView, error) {
	if err := events.ValidToken(req.Name); err != nil {
		return events.TokenView{}, bus.BadRequest(fmt.Errorf("token: %w", err))
	}
	if err := checkWhy(req.Why); err != nil {
		return events.TokenView{}, bus.BadRequest(err)
	}
	var before events.TokenNotice
	t, err := change(ctx, s.enrolments, tokenKeys+req.Name, func(old tokenRecord, found bool) (tokenRecord, error) {
		if !found || old.Removed {
			return old, bus.NotFound(fmt.Errorf("there is no token %s: `chandler token ls` lists them", req.Name))
		}
		before = old.TokenNotice
		old.Removed, old.Pending = true, nil
		old.By, old.Why, old.At = caller, req.Why, s.now().UTC()
		old.owe()
		return old, nil
	})
	if err != nil {
		return events.TokenView{}, err
	}
	bus.NoteChange(ctx, before, nil)
	s.log.Info("token removed", "token", req.Name, "by", caller)
	s.wakeUp()
	return events.TokenView{TokenNotice: t.TokenNotice, Used: t.Used}, nil
}

// forgetTokens empties the records of tokens that expired long ago. What is left of one is its name.
func (s *Service) forgetTokens(ctx context.Context) error {
	var failures []error
	long := s.now().Add(-tokenMemory)
	for _, t := range s.mirror.allTokens() {
		if t.Expires.After(long) {
			continue
		}
		_, err := change(ctx, s.enrolments, tokenKeys+t.Name, func(old tokenRecord, found bool) (tokenRecord, error) {
			if !found || !old.Told || old.Removed || old.Expires.After(long) {
				return old, errKeep
			}
			return tokenRecord{outbox: outbox{Told: true, Change: old.Change}, TokenNotice: events.TokenNotice{Name: old.Name}, Removed: true}, nil
		})
		failures = append(failures, err)
	}
	return errors.Join(failures...)
}

func checkToken(r events.TokenRequest, now time.Time) error {
	if err := events.ValidToken(r.Name); err != nil {
		return fmt.Errorf("token: %w", err)
	}
	switch {
	case !nkeys.IsValidPublicUserKey(r.Token):
		return errors.New("the token's key is not a public user key")
	case r.Uses < 0:
		return fmt.Errorf("%d uses: 0 stands for any number, else say how many", r.Uses)
	case !r.Expires.After(now):
		return fmt.Errorf("the token would have expired at %s already", r.Expires.UTC().Format(time.RFC3339))
	case r.Expires.After(now.Add(maxTokenLife)):
		return errors.New("a token lives for at most a year")
	}
	return checkConferred(r.Conferred)
}

func checkConferred(c events.Conferred) error {
	if len(c.Tags) > maxTags {
		return fmt.Errorf("%d tags are more than %d", len(c.Tags), maxTags)
	}
	for i, tag := range c.Tags {
		if err := events.ValidToken(tag); err != nil {
			return fmt.Errorf("tag: %w", err)
		}
		if slices.Contains(c.Tags[:i], tag) {
			return fmt.Errorf("tag %s is there twice", tag)
		}
	}
	if c.Site != "" {
		if err := events.ValidToken(c.Site); err != nil {
			return fmt.Errorf("site: %w", err)
		}
	}
	if c.ClientKind != "" {
		return checkKind(c.ClientKind)
	}
	return nil
}

func checkKind(k events.ClientKind) error {
	if k != events.Advanced && k != events.Legacy {
		return fmt.Errorf("client kind %q must be %s or %s", k, events.Advanced, events.Legacy)
	}
	return nil
}
