package credentials

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/lease"
)

// Limits of one account.
const (
	maxSecret    = lease.MaxSecret
	maxUser      = 256
	maxResources = 64
	maxResource  = 1 << 10
)

// schemes that accounts may reach. Not http: a secret does not travel in clear.
var schemes = []string{"smb", "https", "s3", "oci"}

// accountRecord is the value of an account's key, which is its name. A removed one stays, without its
// secret, so that no version is used twice.
type accountRecord struct {
	events.AccountNotice
	outbox
	Sealed  []byte `json:"sealed,omitempty"`
	Removed bool   `json:"removed,omitempty"`
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
	if err := checkAccount(req); err != nil {
		return events.AccountNotice{}, bus.BadRequest(err)
	}
	if err := s.alone(ctx, req); err != nil {
		return events.AccountNotice{}, err
	}
	var before *events.AccountNotice
	r, err := change(ctx, s.accounts, req.Account, func(old accountRecord, found bool) (accountRecord, error) {
		if found && !old.Removed && old.Kind != req.Kind {
			return old, bus.Conflict(fmt.Errorf("account %s is of kind %s: remove it first, orders may name it as what it is", req.Account, old.Kind))
		}
		if before = nil; found && !old.Removed {
			before = &old.AccountNotice
		}
		version := old.Version + 1
		sealed, err := s.sealer.seal(req.Account, version, req.Secret)
		if err != nil {
			return old, fmt.Errorf("seal the secret of account %s: %w", req.Account, err)
		}
		r := accountRecord{Sealed: sealed, outbox: old.outbox, AccountNotice: events.AccountNotice{
			Account: req.Account, Kind: req.Kind, User: req.User, Resources: req.Resources, Version: version, By: caller, At: s.now().UTC()}}
		r.owe()
		return r, nil
	})
	if err != nil {
		return events.AccountNotice{}, err
	}
	bus.NoteChange(ctx, before, r.AccountNotice)
	s.log.Info("account set", "account", r.Account, "kind", r.Kind, "version", r.Version, "by", caller)
	s.wakeUp()
	return r.AccountNotice, nil
}

func (s *Service) accountList(ctx context.Context, _ string, _ events.Nothing) (events.AccountViews, error) {
	all, err := s.known.all(ctx)
	if err != nil {
		return events.AccountViews{}, err
	}
	views := events.AccountViews{Accounts: []events.AccountView{}}
	for _, r := range all {
		if !r.Removed {
			views.Accounts = append(views.Accounts, events.AccountView{AccountNotice: r.AccountNotice, Changed: r.At})
		}
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
			return old, bus.NotFound(fmt.Errorf("there is no account %s: `chandler account ls` lists them", req.Name))
		}
		before = old.AccountNotice
		removed := accountRecord{AccountNotice: old.AccountNotice, outbox: old.outbox, Removed: true}
		removed.By, removed.At = caller, s.now().UTC()
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

// accountStore is this replica's copy of the accounts, their secrets sealed.
type accountStore struct {
	*bucketReader
	mu      sync.Mutex
	records map[string]accountRecord // by name, also removed ones
}

func newAccountStore(b *bucket, log *slog.Logger) *accountStore {
	a := &accountStore{records: map[string]accountRecord{}}
	a.bucketReader = newBucketReader(b, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		clear(a.records)
	}, func(name string, value []byte) {
		if err := a.learn(name, value); err != nil {
			log.Error("an account cannot be read and is left out", "account", name, "error", err)
		}
	})
	return a
}

func (a *accountStore) learn(name string, value []byte) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.records, name)
	if value == nil {
		return nil
	}
	var r accountRecord
	if err := json.Unmarshal(value, &r); err != nil {
		return err
	}
	a.records[name] = r
	return nil
}

// all accounts that there are now, also removed ones, by name. None is missed that is changed meanwhile.
func (a *accountStore) all(ctx context.Context) ([]accountRecord, error) {
	if err := a.refresh(ctx); err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.SortedFunc(maps.Values(a.records), func(a, b accountRecord) int { return strings.Compare(a.Account, b.Account) }), nil
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

// checkAccount says what is wrong with a request, never quoting the secret.
func checkAccount(r events.AccountRequest) error {
	if err := events.ValidToken(r.Account); err != nil {
		return fmt.Errorf("account: %w", err)
	}
	switch {
	case !slices.Contains([]events.AccountKind{events.NetworkAccess, events.SoftwareInstallation, events.ClientTokenDomain}, r.Kind):
		return fmt.Errorf("kind %q must be %s, %s or %s", r.Kind, events.NetworkAccess, events.SoftwareInstallation, events.ClientTokenDomain)
	case strings.TrimSpace(r.User) == "":
		return errors.New("the account needs a user: an empty one would connect as nobody")
	case len(r.User) > maxUser || strings.ContainsFunc(r.User, unicode.IsControl):
		return fmt.Errorf("the user must be at most %d bytes without control characters", maxUser)
	case len(r.Secret) == 0:
		return errors.New("the secret is empty")
	case len(r.Secret) > maxSecret:
		return fmt.Errorf("the secret is longer than %d bytes", maxSecret)
	case r.Kind == events.NetworkAccess && len(r.Resources) == 0:
		return errors.New("a network access account needs the resources that it may read")
	case r.Kind == events.ClientTokenDomain && len(r.Resources) > 0:
		return errors.New("a client token account runs programs on one machine and reaches no resources")
	case len(r.Resources) > maxResources:
		return fmt.Errorf("%d resources are more than %d", len(r.Resources), maxResources)
	}
	for _, pattern := range r.Resources {
		if err := checkPattern(pattern); err != nil {
			return fmt.Errorf("resource %w", err)
		}
	}
	return nil
}

// checkPattern checks "smb://host/share/path/*": everything below is meant by one * at the end, else one
// file. What an error quotes never holds a password.
func checkPattern(pattern string) error {
	u, err := checkResource(pattern)
	if err != nil {
		return err
	}
	if i := strings.IndexByte(pattern, '*'); i >= 0 && (i != len(pattern)-1 || !strings.HasSuffix(pattern, "/*")) {
		return fmt.Errorf("%q may have one * only, after the last /", u.Redacted())
	}
	return nil
}

// checkResource checks the URL of an external source.
func checkResource(resource string) (*url.URL, error) {
	if len(resource) > maxResource || strings.ContainsFunc(resource, func(r rune) bool { return unicode.IsControl(r) || unicode.IsSpace(r) }) {
		return nil, fmt.Errorf("must be a URL of at most %d bytes without spaces", maxResource)
	}
	u, err := url.Parse(resource)
	switch {
	case err != nil:
		return nil, errors.New("is not a URL")
	case u.User != nil:
		return nil, errors.New("must not name a user or password: that is what the account is for")
	case !slices.Contains(schemes, u.Scheme):
		return nil, fmt.Errorf("%q must begin with one of %s, each followed by ://", u.Redacted(), strings.Join(schemes, ", "))
	case u.Host == "" || strings.Contains(u.Host, "*"):
		return nil, fmt.Errorf("%q must name one host", u.Redacted())
	case u.Path == "" || u.Path == "/" || u.Path == "/*":
		return nil, fmt.Errorf("%q must name a path on the host", u.Redacted())
	case u.RawQuery != "" || u.Fragment != "" || u.ForceQuery:
		return nil, fmt.Errorf("on host %s must not have a query or fragment", u.Host)
	case slices.Contains(strings.Split(u.Path, "/"), "..") || strings.Contains(u.Path, `\`):
		return nil, fmt.Errorf("%q must not have .. or \\ in its path", u.Redacted())
	}
	return u, nil
}
