package credentials

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/order"
	"chandler/events/trust"
)

// maxTrustAnswer bounds the envelopes of one answer, in bytes. An agent takes one message of 512 KiB, in
// which they stand in base64 beside its identity.
const maxTrustAnswer = 360 << 10

// trustStore is this replica's copy of the signed bundles.
type trustStore struct {
	*bucketReader
	mu      sync.Mutex
	bundles []trustRecord // by version
}

func newTrustStore(b *bucket, log *slog.Logger) *trustStore {
	t := &trustStore{}
	t.bucketReader = newBucketReader(b, func() { t.keep(nil) }, func(key string, value []byte) {
		if err := t.learn(key, value); err != nil {
			log.Error("a trust bundle cannot be read and is left out", "key", key, "error", err)
		}
	})
	return t
}

func (t *trustStore) keep(bundles []trustRecord) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.bundles = bundles
}

func (t *trustStore) learn(key string, value []byte) error {
	var r trustRecord
	if value != nil {
		if err := json.Unmarshal(value, &r); err != nil {
			return err
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.bundles = slices.DeleteFunc(slices.Clone(t.bundles), func(b trustRecord) bool { return strconv.Itoa(b.Version) == key })
	if value != nil {
		t.bundles = append(t.bundles, r)
		slices.SortFunc(t.bundles, func(a, b trustRecord) int { return a.Version - b.Version })
	}
	return nil
}

func (t *trustStore) all() []trustRecord {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.bundles
}

// newest has version 0 if there is none.
func (t *trustStore) newest() (r trustRecord) {
	if all := t.all(); len(all) > 0 {
		r = all[len(all)-1]
	}
	return r
}

// after gives the envelopes newer than a version, oldest first, at least one if there is any and at most
// limit bytes, and whether there are more.
func (t *trustStore) after(have, limit int) (envelopes [][]byte, more bool) {
	for _, r := range t.all() {
		if r.Version <= have {
			continue
		}
		if limit -= len(r.Bundle); limit < 0 && len(envelopes) > 0 {
			return envelopes, true
		}
		envelopes = append(envelopes, r.Bundle)
	}
	return envelopes, false
}

// trustAfter answers agents and people. A replica that holds nothing newer looks first whether there is.
func (s *Service) trustAfter(ctx context.Context, _ string, req events.TrustQuery) (events.TrustAnswer, error) {
	if s.trust.newest().Version <= req.Have {
		if err := s.trust.refresh(ctx); err != nil {
			return events.TrustAnswer{}, err
		}
	}
	bundles, more := s.trust.after(req.Have, maxTrustAnswer)
	if bundles == nil {
		bundles = [][]byte{}
	}
	return events.TrustAnswer{Bundles: bundles, More: more}, nil
}

// trustSet keeps a bundle that the roots of the newest one have signed. Agents check this themselves; the
// service refuses others so that an administrator learns of a mistake before the fleet does.
func (s *Service) trustSet(ctx context.Context, caller string, req events.TrustRequest) (events.TrustNotice, error) {
	next, err := trust.Open(req.Bundle)
	if err != nil {
		return events.TrustNotice{}, bus.BadRequest(err)
	}
	if next.Issued.After(s.now().Add(order.ClockTolerance)) {
		return events.TrustNotice{}, bus.BadRequest(fmt.Errorf("the bundle was issued at %s, which is still to come here: every agent would wait for its clock; compare the clocks and sign again", next.Issued.Format(time.RFC3339)))
	}
	for range casAttempts {
		if err := s.trust.refresh(ctx); err != nil {
			return events.TrustNotice{}, err
		}
		all, last := s.trust.position()
		if err := follows(all, next, req.Bundle); err != nil {
			return events.TrustNotice{}, bus.Conflict(err)
		}
		r := trustRecord{TrustNotice: events.TrustNotice{Fleet: next.Fleet, Version: next.Version, Bundle: req.Bundle, By: caller, At: s.now().UTC()}}
		r.owe()
		// Over the whole bucket as it was read: of two bundles that both follow the newest one is kept.
		err := s.trust.bucket.put(ctx, strconv.Itoa(next.Version), r, jetstream.WithExpectLastSequence(last))
		if lostRace(err) {
			continue
		}
		if err != nil {
			return events.TrustNotice{}, err
		}
		bus.NoteChange(ctx, noticeOf(all), r.TrustNotice)
		s.log.Info("trust bundle set", "fleet", r.Fleet, "version", r.Version, "by", caller)
		if err := s.trust.refresh(ctx); err == nil {
			s.announceTrust(ctx)
		}
		s.wakeUp()
		return r.TrustNotice, nil
	}
	return events.TrustNotice{}, bus.Conflict(errors.New("others changed the trust bundles meanwhile: try again"))
}

// noticeOf the newest of the bundles, nil if there is none.
func noticeOf(all []trustRecord) *events.TrustNotice {
	if len(all) == 0 {
		return nil
	}
	return &all[len(all)-1].TrustNotice
}

// position is what was read of the bucket, and the last sequence of what was read.
func (t *trustStore) position() ([]trustRecord, uint64) {
	t.turn <- struct{}{}
	defer func() { <-t.turn }()
	return t.all(), t.next - 1
}

// follows says why a bundle may not be the next one. The first of a fleet only has to be signed by its own
// roots: agents compare those with the fingerprint in their token.
func follows(all []trustRecord, next trust.Bundle, envelope []byte) error {
	if len(all) == 0 {
		_, err := trust.Begin(next.Roots.Fingerprint(), [][]byte{envelope})
		return err
	}
	newest := all[len(all)-1]
	if next.Version <= newest.Version {
		return fmt.Errorf("the fleet's trust bundle has version %d already, set by %s: make one of a higher version from `chandler trust show`", newest.Version, newest.By)
	}
	present, err := trust.Open(newest.Bundle)
	if err != nil {
		return fmt.Errorf("read the present trust bundle: %w", err)
	}
	_, err = present.Follow([][]byte{envelope})
	return err
}

// announceTrust tells all agents which version is the newest. It is not stored: those that miss it hear the
// next one.
func (s *Service) announceTrust(ctx context.Context) {
	newest := s.trust.newest()
	if newest.Version == 0 {
		return
	}
	now := s.now().UTC()
	id := events.DeriveID(events.TrustAnnounced.Name, strconv.Itoa(newest.Version), strconv.FormatInt(now.UnixNano(), 10))
	e := events.Event[events.TrustBeacon]{ID: id, Time: now, Data: events.TrustBeacon{Version: newest.Version, At: now}}
	if err := bus.Send(ctx, s.bus, events.TrustAnnounced, e); err != nil {
		s.log.Warn("the trust bundle could not be announced", "error", err)
	}
}

// keepAnnouncing reads what other replicas stored, and announces the newest bundle, until ctx ends.
func (s *Service) keepAnnouncing(ctx context.Context) {
	ticker := time.NewTicker(s.announceEvery)
	defer ticker.Stop()
	for {
		if err := s.refreshTrust(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("reading the trust bundles failed and will be tried again", "error", err)
		}
		s.announceTrust(ctx)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (s *Service) refreshTrust(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.lookTime)
	defer cancel()
	return s.trust.refresh(ctx)
}
