package credentials

import (
	"context"
	"errors"
	"fmt"
	"time"

	"chandler/events"
	"chandler/events/bus"
	"chandler/services/credentials/vault"
)

// retireAfter is how long after a new key was made the ones before stay in the keyset at least: no request lasts as
// long, so that nobody is about to store what was sealed by one of them.
const retireAfter = 5 * time.Minute

// openTime bounds opening the keyset at the start.
const openTime = time.Minute

// openVault opens the keyset that all replicas share.
func openVault(o Options) (*vault.Vault, error) {
	ctx, cancel := context.WithTimeout(context.Background(), openTime)
	defer cancel()
	if o.KeyEncryption == nil {
		var err error
		if o.KeyEncryption, err = vault.Parse("file:" + o.Dir + "-key/accounts.key"); err != nil {
			return nil, err
		}
	}
	return vault.Open(ctx, vault.Options{Dir: o.Dir, Key: o.KeyEncryption, Former: o.FormerKeyEncryption, Log: o.Log.With("component", serviceName), Now: o.Now})
}

// accountRekey adds a key to the keyset and seals every secret by it. What it does not get to, the next look at what
// is kept does, which also removes the keys before when nothing needs them any more.
func (s *Service) accountRekey(ctx context.Context, caller string, _ events.Nothing) (events.AccountRekeyed, error) {
	before, err := s.sealer.State(ctx)
	if err != nil {
		return events.AccountRekeyed{}, err
	}
	state, err := s.sealer.AddKey(ctx)
	if errors.Is(err, vault.ErrUnfinished) {
		return events.AccountRekeyed{}, bus.Conflict(err)
	}
	if err != nil {
		return events.AccountRekeyed{}, fmt.Errorf("add a key: %w", err)
	}
	s.wakeUp()
	bus.NoteChange(ctx, before.Key, state.Key)
	s.log.Info("secrets are sealed by a new key", "key", state.Key, "kept_by", state.KeptBy, "by", caller)
	n, err := s.reseal(ctx)
	if err != nil {
		return events.AccountRekeyed{}, bus.Unavailable(fmt.Errorf("key %s is in use, and the secrets of %d accounts are sealed by it; the others follow by themselves: %w", state.Key, n, err))
	}
	return events.AccountRekeyed{Accounts: n, Key: state.Key, KeptBy: state.KeptBy}, nil
}

// reseal seals by the newest key what is sealed by another. It returns how many accounts that key seals then. What
// no key opens stays as it is: reconcileAccounts names it.
func (s *Service) reseal(ctx context.Context) (accounts int, err error) {
	all, err := s.known.all(ctx)
	if err != nil {
		return 0, err
	}
	var failures []error
	for _, r := range all {
		if r.Removed {
			continue
		}
		if !s.current(&r) {
			if r, err = s.resealOne(ctx, r.Account); err != nil {
				failures = append(failures, err)
				continue
			}
		}
		if s.current(&r) {
			accounts++
		}
	}
	return accounts, errors.Join(failures...)
}

// resealOne changes what is stored of an account and tells nobody: nothing about the account is another.
func (s *Service) resealOne(ctx context.Context, account string) (accountRecord, error) {
	return change(ctx, s.accounts, account, func(old accountRecord, found bool) (accountRecord, error) {
		edited, changed := old, false
		if old.Former != nil {
			former := *old.Former
			edited.Former = &former
		}
		for _, one := range edited.sealed() {
			if s.sealer.Current(*one.sealed) {
				continue
			}
			secret, err := s.sealer.Unseal(ctx, account, one.version, *one.sealed)
			if err != nil {
				continue
			}
			*one.sealed, err = s.sealer.Seal(ctx, account, one.version, secret)
			clear(secret)
			if err != nil {
				return old, fmt.Errorf("seal the secret of account %s: %w", account, err)
			}
			changed = true
		}
		if !found || !changed {
			return old, errKeep
		}
		return edited, nil
	})
}

// sealedSecret is one of those that a record keeps.
type sealedSecret struct {
	version int
	sealed  *[]byte
}

// sealed are the secrets in a record, each where it is.
func (r *accountRecord) sealed() (all []sealedSecret) {
	if len(r.Sealed) > 0 {
		all = append(all, sealedSecret{r.Version, &r.Sealed})
	}
	if r.Former != nil && len(r.Former.Sealed) > 0 {
		all = append(all, sealedSecret{r.Former.Version, &r.Former.Sealed})
	}
	return all
}

// current says whether the newest key seals all that a record keeps.
func (s *Service) current(r *accountRecord) bool {
	for _, one := range r.sealed() {
		if !s.sealer.Current(*one.sealed) {
			return false
		}
	}
	return true
}

// finishRekey seals what a rekeying left, here or on another replica, and then removes the keys before.
func (s *Service) finishRekey(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.lookTime)
	defer cancel()
	state, err := s.sealer.State(ctx)
	if err != nil || state.Former == 0 {
		return err
	}
	if _, err := s.reseal(ctx); err != nil {
		return fmt.Errorf("finish rekeying: %w", err)
	}
	if s.now().Sub(state.Since) < retireAfter {
		return nil
	}
	if state, err = s.sealer.Retire(ctx, state.Key); err != nil {
		return fmt.Errorf("remove former keys: %w", err)
	}
	s.log.Info("former keys of the keyset are removed", "key", state.Key)
	return nil
}
