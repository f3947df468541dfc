package credentials

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"chandler/events"
)

// reconcileAccounts tells what is owed of accounts, forgets former secrets whose time is over, and checks whether the
// others can be opened.
func (s *Service) reconcileAccounts(ctx context.Context) (failed, unusable error) {
	ctx, cancel := context.WithTimeout(ctx, s.lookTime)
	defer cancel()
	all, err := s.known.all(ctx)
	if err != nil {
		return err, nil
	}
	kinds := map[events.AccountKind]int{events.NetworkAccess: 0, events.SoftwareInstallation: 0, events.ClientTokenDomain: 0}
	var failures []error
	var lost []string
	now, suspended := s.now(), 0
	for _, r := range all {
		if !r.Told {
			failures = append(failures, announce(ctx, s.accounts, r.Account, r))
		}
		if r.Removed {
			continue
		}
		if _, counts := r.former(now); r.Former != nil && !counts {
			failures = append(failures, s.forgetFormer(ctx, r.Account, now))
		}
		kinds[r.Kind]++
		if r.suspended() != "" {
			suspended++
		}
		if s.sealer.Check(ctx, r.Account, r.Version, r.Sealed) != nil {
			lost = append(lost, r.Account)
		}
	}
	for kind, n := range kinds {
		s.metrics.accounts.WithLabelValues(string(kind)).Set(float64(n))
	}
	s.metrics.suspended.Set(float64(suspended))
	s.metrics.unusable.Set(float64(len(lost)))
	if len(lost) > 0 {
		unusable = fmt.Errorf("the secrets of %s cannot be opened with this keyset: restore it from a backup, or set them again", strings.Join(lost, ", "))
		s.log.Error("accounts are unusable", "error", unusable)
	}
	return errors.Join(failures...), unusable
}

// reconcileEnrolments settles uses of tokens, tells what is owed of agents, tokens and users, and forgets
// old tokens.
func (s *Service) reconcileEnrolments(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.lookTime)
	defer cancel()
	if err := s.mirror.refresh(ctx); err != nil {
		return err
	}
	now := s.now()
	for state, n := range s.mirror.states(now) {
		s.metrics.identities.WithLabelValues(string(state)).Set(float64(n))
	}
	usable := 0
	for _, t := range s.mirror.allTokens() {
		if now.Before(t.Expires) {
			usable++
		}
	}
	s.metrics.tokens.Set(float64(usable))
	failures := []error{s.settle(ctx), s.forgetTokens(ctx)}
	for _, key := range s.mirror.debts() {
		if ctx.Err() != nil { // the others are told next time
			return errors.Join(append(failures, context.Cause(ctx))...)
		}
		failures = append(failures, s.pay(ctx, key))
	}
	return errors.Join(failures...)
}

// pay tells what is owed of one record.
func (s *Service) pay(ctx context.Context, key string) error {
	switch {
	case strings.HasPrefix(key, agentKeys):
		return announceKey[agentRecord](ctx, s.enrolments, key)
	case strings.HasPrefix(key, tokenKeys):
		return announceKey[tokenRecord](ctx, s.enrolments, key)
	}
	return announceKey[userRecord](ctx, s.enrolments, key)
}

// announceKey tells of the record as it is now.
func announceKey[T any, P entry[T]](ctx context.Context, b *bucket, key string) error {
	var r T
	revision, err := b.load(ctx, key, &r)
	if err != nil || revision == 0 || P(&r).box().Told {
		return err
	}
	return announce[T, P](ctx, b, key, r)
}

// reconcileTrust tells what is owed of trust bundles.
func (s *Service) reconcileTrust(ctx context.Context) error {
	if err := s.refreshTrust(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, s.lookTime)
	defer cancel()
	var failures []error
	for _, r := range s.trust.all() {
		if !r.Told {
			failures = append(failures, announce(ctx, s.trust.bucket, strconv.Itoa(r.Version), r))
		}
	}
	s.metrics.trust.Set(float64(s.trust.newest().Version))
	return errors.Join(failures...)
}
