package scheduling

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/order"
	"chandler/events/sign"
	"chandler/events/trust"
)

// keyTrust holds the newest trust bundle in the bucket of deployments.
const keyTrust = "trust"

// trustRecord is its value.
type trustRecord struct {
	Version  int    `json:"version"`
	Envelope []byte `json:"envelope"` // DSSE envelope, JSON
}

// onTrustChanged keeps the newest trust bundle. It is taken on the word of credentials: its roots' signatures
// are for agents to verify, who are the ones to be convinced. Here it only spares administrators a refusal
// that would come later.
func (s *Service) onTrustChanged(ctx context.Context, e events.Event[events.TrustNotice], _ bus.Meta) error {
	if err := s.learnTrust(ctx, e.Subject, e.Data.Bundle); err != nil {
		return fmt.Errorf("keep trust bundle %d of fleet %s: %w", e.Data.Version, e.Subject, err)
	}
	return nil
}

func (s *Service) learnTrust(ctx context.Context, fleet string, envelope []byte) error {
	b, err := trust.Open(envelope)
	switch {
	case err != nil:
		return bus.Drop("bad_bundle", err)
	case b.Fleet != fleet || s.fleetName != "" && b.Fleet != s.fleetName:
		return bus.Drop("other_fleet", fmt.Errorf("the bundle is of fleet %q", b.Fleet))
	}
	_, err = change(ctx, s.deploymentStore, keyTrust, func(old trustRecord, found bool) (trustRecord, error) {
		if found && old.Version >= b.Version {
			return old, errKeep
		}
		return trustRecord{Version: b.Version, Envelope: envelope}, nil
	})
	return err
}

// applyTrust takes over what the bucket says, unless more is known: a bucket that was lost, or restored from an
// older copy, must not make this replica refuse what is right.
func (s *Service) applyTrust(value []byte) error {
	if value == nil {
		return nil
	}
	var r trustRecord
	if err := json.Unmarshal(value, &r); err != nil {
		return err
	}
	b, err := trust.Open(r.Envelope)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.trust == nil || b.Version > s.trust.Version {
		s.trust = &b
	}
	return nil
}

// trusted is the newest trust bundle that this replica has heard of; nil: none. It is never changed in place.
func (s *Service) trusted() *trust.Bundle {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.trust
}

// fleetOf is the name of the fleet; "" while nobody said it.
func (s *Service) fleetOf() string {
	if b := s.trusted(); s.fleetName == "" && b != nil {
		return b.Fleet
	}
	return s.fleetName
}

// recallTrust takes the newest bundle from the events once more: they may be newer than a bucket that was
// restored.
func (s *Service) recallTrust(ctx context.Context) error {
	var newest events.Event[events.TrustNotice]
	err := bus.Stored(ctx, s.bus, events.TrustChanged, askTime, func(e events.Event[events.TrustNotice]) {
		if e.Data.Version > newest.Data.Version {
			newest = e
		}
	})
	if err != nil || newest.Data.Version == 0 {
		return err
	}
	if b := s.trusted(); b != nil && b.Version > newest.Data.Version {
		return nil
	}
	return s.learnTrust(ctx, newest.Subject, newest.Data.Bundle)
}

// signing is how far the signing of an order has got.
type signing struct {
	known    bool     // whose signatures are needed; all else is empty where not
	signers  []string // names of the trusted keys that signed, sorted
	needed   int
	complete bool
	lacking  error // why it is not complete, as agents would say it
}

// signatures holds an order's signatures against the trust bundle, which is looked for once more before
// anything is refused. The error is a [sign.Refusal]: nobody who is trusted signed exactly this.
func (s *Service) signatures(ctx context.Context, envelope []byte) (signing, error) {
	b := s.trusted()
	got, err := signedBy(envelope, b, s.now())
	if b == nil || err == nil && got.complete {
		return got, err
	}
	if err := s.recallTrust(ctx); err != nil {
		s.log.Warn("the newest trust bundle cannot be looked for", "error", err)
	}
	if newer := s.trusted(); newer.Version > b.Version {
		return signedBy(envelope, newer, s.now())
	}
	return got, err
}

func signedBy(envelope []byte, b *trust.Bundle, now time.Time) (signing, error) {
	if b == nil {
		return signing{}, nil
	}
	names, complete, err := order.Signed(envelope, *b)
	got := signing{known: true, signers: names, needed: b.Threshold, complete: complete}
	if err != nil || complete {
		return got, err
	}
	_, _, got.lacking = order.Verify(envelope, *b, now)
	if len(names) == 0 {
		return got, got.lacking
	}
	return got, nil
}

// refusedAlike is a refusal that agents would give too.
func refusedAlike(err error) error {
	if refused, ok := errors.AsType[*sign.Refusal](err); ok {
		return bus.BadRequest(fmt.Errorf("%w (%s): agents would refuse it too", err, refused.Reason))
	}
	return bus.BadRequest(err)
}
