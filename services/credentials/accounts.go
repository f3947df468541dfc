package credentials

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"chandler/events"
	"chandler/events/bus"
)

// accountRecord is the value of an account's key, which is its name. A removed one stays, without its
// secret, so that no version is used twice.
type accountRecord struct {
	events.AccountNotice
	outbox
	Sealed []byte `json:"sealed,omitempty"`
	// Former counts until KeepUntil of the notice, for leases that were made by it.
	Former *login `json:"former,omitempty"`
	// Rejected are the machines at which the current version was refused, at most rejectionsToSuspend.
	Rejected []rejection `json:"rejected,omitempty"`
	Removed  bool        `json:"removed,omitempty"`
}

// login is how an account proves itself, by one version of its secret.
type login struct {
	Version int    `json:"version"`
	User    string `json:"user"`
	Method  string `json:"method,omitempty"`
	Sealed  []byte `json:"sealed"`
}

// current is the newest version.
func (r *accountRecord) current() login { return login{r.Version, r.User, r.Method, r.Sealed} }

// former is the version before, while it counts.
func (r *accountRecord) former(now time.Time) (login, bool) {
	if r.Former == nil || r.KeepUntil == nil || !now.Before(*r.KeepUntil) {
		return login{}, false
	}
	return *r.Former, true
}

// counts says whether leases by a version of the secret may go on.
func (r *accountRecord) counts(version int, now time.Time) bool {
	former, ok := r.former(now)
	return !r.Removed && (version == r.Version || ok && version == former.Version)
}

func (r *accountRecord) tell(ctx context.Context, b *bus.Bus) error {
	t := events.AccountSet
	if r.Removed {
		t = events.AccountRemoved
	}
	id := events.DeriveID(t.Name, r.Account, strconv.Itoa(r.Version), strconv.FormatInt(r.At.UnixNano(), 10))
	_, err := bus.Publish(ctx, b, t, events.Event[events.AccountNotice]{ID: id, Subject: r.Account, Time: r.At, Data: r.AccountNotice})
	return err
}

func (s *Service) accountSet(ctx context.Context, caller string, req events.AccountRequest) (events.AccountNotice, error) {
	defer clear(req.Secret)
	set, err := checkAccount(req)
	if err != nil {
		return events.AccountNotice{}, bus.BadRequest(err)
	}
	if err := s.alone(ctx, req); err != nil {
		return events.AccountNotice{}, err
	}
	return s.nextVersion(ctx, caller, req.Account, req.Secret, time.Duration(req.KeepOld), func(old accountRecord, found bool) (events.AccountNotice, error) {
		if found && !old.Removed && old.Kind != req.Kind {
			return set, bus.Conflict(fmt.Errorf("account %s is of kind %s: remove it first, orders may name it as what it is", req.Account, old.Kind))
		}
		return set, nil
	})
}

func (s *Service) accountRotate(ctx context.Context, caller string, req events.AccountRotation) (events.AccountNotice, error) {
	defer clear(req.Secret)
	if err := events.ValidToken(req.Account); err != nil {
		return events.AccountNotice{}, bus.BadRequest(fmt.Errorf("account: %w", err))
	}
	if err := checkKeep(req.KeepOld); err != nil {
		return events.AccountNotice{}, bus.BadRequest(err)
	}
	return s.nextVersion(ctx, caller, req.Account, req.Secret, time.Duration(req.KeepOld), func(old accountRecord, found bool) (events.AccountNotice, error) {
		if !found || old.Removed {
			return old.AccountNotice, noAccount(req.Account)
		}
		if err := checkSecret(old.Method, req.Secret); err != nil {
			return old.AccountNotice, bus.BadRequest(err)
		}
		return old.AccountNotice, nil
	})
}

// nextVersion gives an account its next secret. describe says what the account is from then on, of which version,
// author and times are filled in.
func (s *Service) nextVersion(ctx context.Context, caller, account string, secret []byte, keep time.Duration, describe func(old accountRecord, found bool) (events.AccountNotice, error)) (events.AccountNotice, error) {
	var before *events.AccountNotice
	r, err := change(ctx, s.accounts, account, func(old accountRecord, found bool) (accountRecord, error) {
		notice, err := describe(old, found)
		if err != nil {
			return old, err
		}
		now := s.now().UTC()
		notice.Version, notice.By, notice.At, notice.KeepUntil = old.Version+1, caller, now, nil
		r := accountRecord{AccountNotice: notice, outbox: old.outbox}
		if before = nil; found && !old.Removed {
			before = &old.AccountNotice
			if keep > 0 {
				r.Former, r.KeepUntil = new(old.current()), new(now.Add(keep).Truncate(time.Second))
			}
		}
		if r.Sealed, err = s.sealer.Seal(ctx, account, r.Version, secret); err != nil {
			return old, fmt.Errorf("seal the secret of account %s: %w", account, err)
		}
		r.owe()
		return r, nil
	})
	if err != nil {
		return events.AccountNotice{}, err
	}
	bus.NoteChange(ctx, before, r.AccountNotice)
	s.log.Info("account set", "account", r.Account, "kind", r.Kind, "version", r.Version, "keep_until", r.KeepUntil, "by", caller)
	s.wakeUp() // which also withdraws what was lent by versions that count no longer
	return r.AccountNotice, nil
}

func noAccount(name string) error {
	return bus.NotFound(fmt.Errorf("there is no account %s: `chandler account ls` lists them", name))
}

func (s *Service) accountList(ctx context.Context, _ string, _ events.Nothing) (events.AccountViews, error) {
	all, err := s.known.all(ctx)
	if err != nil {
		return events.AccountViews{}, err
	}
	now := s.now()
	views := events.AccountViews{Accounts: []events.AccountView{}}
	for _, r := range all {
		if r.Removed {
			continue
		}
		if _, counts := r.former(now); !counts {
			r.KeepUntil = nil
		}
		views.Accounts = append(views.Accounts, events.AccountView{AccountNotice: r.AccountNotice, Changed: r.At, Suspended: r.suspended()})
	}
	return views, nil
}

func (s *Service) accountRemove(ctx context.Context, caller string, req events.Named) (events.Nothing, error) {
	if err := events.ValidToken(req.Name); err != nil {
		return events.Nothing{}, bus.BadRequest(fmt.Errorf("account: %w", err))
	}
	var before events.AccountNotice
	_, err := change(ctx, s.accounts, req.Name, func(old accountRecord, found bool) (accountRecord, error) {
		if !found || old.Removed {
			return old, noAccount(req.Name)
		}
		before = old.AccountNotice
		removed := accountRecord{AccountNotice: old.AccountNotice, outbox: old.outbox, Removed: true}
		removed.By, removed.At, removed.KeepUntil = caller, s.now().UTC(), nil
		removed.owe()
		return removed, nil
	})
	if err != nil {
		return events.Nothing{}, err
	}
	bus.NoteChange(ctx, before, nil)
	s.log.Info("account removed", "account", req.Name, "by", caller)
	s.wakeUp()
	return events.Nothing{}, nil
}

// forgetFormer erases the secret before the current one, once it counts no longer.
func (s *Service) forgetFormer(ctx context.Context, account string, now time.Time) error {
	_, err := change(ctx, s.accounts, account, func(old accountRecord, found bool) (accountRecord, error) {
		if _, counts := old.former(now); !found || counts || old.Former == nil {
			return old, errKeep
		}
		old.Former, old.KeepUntil = nil, nil
		return old, nil
	})
	return err
}

// ofKind lists the accounts of a kind that are not removed, by name.
func (s *Service) ofKind(ctx context.Context, kind events.AccountKind) ([]accountRecord, error) {
	all, err := s.known.all(ctx)
	return slices.DeleteFunc(all, func(r accountRecord) bool { return r.Removed || r.Kind != kind }), err
}

// alone refuses a second account of a kind of which a fleet has one. Of two that are set at the same moment
// both may be kept: then neither is lent until one is removed.
func (s *Service) alone(ctx context.Context, req events.AccountRequest) error {
	if req.Kind != events.ClientTokenDomain {
		return nil
	}
	there, err := s.ofKind(ctx, req.Kind)
	if err != nil {
		return err
	}
	for _, r := range there {
		if r.Account != req.Account {
			return bus.Conflict(fmt.Errorf("there is an account of kind %s already, %s, and every domain controller uses the same: "+
				"set that one to change its secret, or remove it first with `chandler account rm %s`", r.Kind, r.Account, r.Account))
		}
	}
	return nil
}
