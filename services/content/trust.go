package content

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/manifest"
	"chandler/events/sign"
	"chandler/events/trust"
)

// trustKey holds the newest trust bundle in the bucket of packages.
const trustKey = "trust"

// trustTime bounds the search for a newer bundle.
const trustTime = 5 * time.Second

// trustRecord is its value.
type trustRecord struct {
	Version  int    `json:"version"`
	Envelope []byte `json:"envelope"` // DSSE envelope, JSON
}

// noteTrust keeps the newest trust bundle. It is taken on the word of credentials: its roots' signatures are for
// agents to verify, who are the ones to be convinced. Here it only spares publishers a refusal that would
// come later.
func (s *Service) noteTrust(ctx context.Context, e events.Event[events.TrustNotice]) error {
	b, err := trust.Open(e.Data.Bundle)
	if err != nil {
		return bus.Drop("bad_bundle", err)
	}
	if b.Fleet != e.Subject {
		return bus.Drop("other_fleet", fmt.Errorf("the news of fleet %s hold the bundle of %q", e.Subject, b.Fleet))
	}
	kv, err := s.records.bucket(ctx)
	if err != nil {
		return err
	}
	old, revision, err := s.trustRecord(ctx, kv)
	if err != nil || revision > 0 && old.Version >= b.Version {
		return err
	}
	if _, err := s.records.write(ctx, trustKey, trustRecord{b.Version, e.Data.Bundle}, revision); err != nil {
		return fmt.Errorf("keep trust bundle %d: %w", b.Version, err)
	}
	return nil
}

// trustRecord is what is kept; revision 0: nothing.
func (s *Service) trustRecord(ctx context.Context, kv jetstream.KeyValue) (r trustRecord, revision uint64, err error) {
	entry, err := kv.Get(ctx, trustKey)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return r, 0, nil
	}
	if err != nil {
		return r, 0, fmt.Errorf("read trust bundle: %w", err)
	}
	if err := json.Unmarshal(entry.Value(), &r); err != nil {
		return r, 0, fmt.Errorf("read trust bundle: %w", err)
	}
	return r, entry.Revision(), nil
}

// trusted is the newest trust bundle that was heard of; nil: none.
func (s *Service) trusted(ctx context.Context) (*trust.Bundle, error) {
	kv, err := s.records.bucket(ctx)
	if err != nil {
		return nil, err
	}
	r, revision, err := s.trustRecord(ctx, kv)
	if err != nil || revision == 0 {
		return nil, err
	}
	b, err := trust.Open(r.Envelope)
	if err != nil {
		return nil, fmt.Errorf("read trust bundle %d: %w", r.Version, err)
	}
	return &b, nil
}

// checkPublisher refuses a manifest that agents would refuse, where it is known whom they trust. Before that
// it looks among the events for a newer bundle: the bucket may have been restored from an older copy, or the
// news not have come yet. The error is a [sign.Refusal], or the broker's.
func (s *Service) checkPublisher(ctx context.Context, envelope []byte) error {
	b, err := s.trusted(ctx)
	if err != nil || b == nil {
		return err
	}
	_, refused := manifest.Verify(envelope, *b)
	if refused == nil {
		return nil
	}
	if err := s.recallTrust(ctx); err != nil {
		s.log.WarnContext(ctx, "the newest trust bundle cannot be looked for", "error", err)
	}
	newer, err := s.trusted(ctx)
	if err != nil {
		return err
	}
	if newer == nil || newer.Version == b.Version {
		return refused
	}
	_, refused = manifest.Verify(envelope, *newer)
	return refused
}

// recallTrust takes the newest bundle from the events once more.
func (s *Service) recallTrust(ctx context.Context) error {
	var newest events.Event[events.TrustNotice]
	err := bus.Stored(ctx, s.bus, events.TrustChanged, trustTime, func(e events.Event[events.TrustNotice]) {
		if e.Data.Version > newest.Data.Version {
			newest = e
		}
	})
	if err != nil || newest.Data.Version == 0 {
		return err
	}
	return s.noteTrust(ctx, newest)
}

// refusedAlike is a refusal that agents would give too; other errors are the broker's.
func refusedAlike(m events.Manifest, err error) error {
	refused, ok := errors.AsType[*sign.Refusal](err)
	if !ok {
		return away(err)
	}
	return bus.BadRequest(fmt.Errorf("package %s %s: %w (%s): agents would refuse it too: sign it with a publisher's key", m.Package, m.Version, err, refused.Reason))
}
