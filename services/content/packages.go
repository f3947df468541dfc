package content

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/manifest"
	"chandler/events/sign"
)

// errDecayed marks a manifest whose bytes are no longer those that were stored.
var errDecayed = errors.New("decayed in the store")

// manifestOf is a package's manifest, from its record or from the blobs.
func (s *Service) manifestOf(r record) (events.Manifest, error) {
	if r.Manifest != nil {
		return *r.Manifest, nil
	}
	stored, err := s.readManifest(r.Digest)
	return stored.manifest, err
}

// storedManifest is a manifest as publishers signed it.
type storedManifest struct {
	digest     string // of the envelope
	envelope   []byte
	manifest   events.Manifest
	signatures json.RawMessage
}

// readManifest reads a stored manifest and checks all but who signed it.
func (s *Service) readManifest(digest string) (storedManifest, error) {
	f, err := s.blobs.Open(digest)
	if err != nil {
		return storedManifest{}, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, manifest.MaxEnvelope+1))
	if err != nil {
		return storedManifest{}, err
	}
	if len(data) <= manifest.MaxEnvelope && events.DigestOf(data) != digest {
		return storedManifest{}, fmt.Errorf("manifest %s %w: publish the package again, which stores it anew", digest, errDecayed)
	}
	m, signatures, err := openEnvelope(data)
	return storedManifest{digest, data, m, signatures}, err
}

// commit publishes the package of a manifest whose blobs are all stored.
func (s *Service) commit(ctx context.Context, caller string, req events.CommitRequest) (events.PackageInfo, error) {
	if err := events.ValidDigest(req.Manifest); err != nil {
		return events.PackageInfo{}, bus.BadRequest(err)
	}
	s.changing.Lock()
	defer s.changing.Unlock()
	stored, err := s.readManifest(req.Manifest)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return events.PackageInfo{}, bus.BadRequest(fmt.Errorf("manifest %s is not stored: upload it first", req.Manifest))
	case errors.Is(err, errDecayed):
		return events.PackageInfo{}, bus.BadRequest(errors.Join(err, s.blobs.Remove(req.Manifest)))
	case err != nil:
		return events.PackageInfo{}, bus.BadRequest(err)
	}
	if err := s.recall(ctx, req.Manifest); err != nil {
		return events.PackageInfo{}, away(err)
	}
	m := stored.manifest
	if err := s.allStored(m); err != nil {
		return events.PackageInfo{}, bus.Conflict(err)
	}
	if err := s.checkPublisher(ctx, stored.envelope); err != nil {
		return events.PackageInfo{}, refusedAlike(m, err)
	}
	there, err := s.records.get(ctx, m.Package, m.Version)
	switch {
	case err == nil:
		return s.again(ctx, there, stored)
	case !errors.Is(err, jetstream.ErrKeyNotFound):
		return events.PackageInfo{}, away(err)
	}
	if err := s.checkDependencies(ctx, stored); err != nil {
		return events.PackageInfo{}, err
	}
	rec, err := s.records.put(ctx, s.newRecord(stored, caller))
	if err != nil {
		return events.PackageInfo{}, away(err)
	}
	bus.NoteChange(ctx, nil, rec)
	s.log.InfoContext(ctx, "package published", "package", m.Package, "version", m.Version, "digest", req.Manifest, "bytes", rec.Bytes, "by", caller)
	if err := s.announce(ctx, rec, rec.At); err != nil {
		s.log.WarnContext(ctx, "publication could not be announced yet", "package", m.Package, "version", m.Version, "error", err)
	}
	return events.PackageInfo{Digest: rec.Digest, Manifest: m, By: rec.By}, nil
}

// newRecord is that of a package which is not announced yet.
func (s *Service) newRecord(stored storedManifest, by string) record {
	m := stored.manifest
	rec := record{Digest: stored.digest, Package: m.Package, Version: m.Version, Published: m.Published, Bytes: m.Size(), Files: len(m.Files),
		Programs: slices.Sorted(maps.Keys(m.Programs)), Needs: needs(m), By: by, At: s.now().UTC(), Phase: publishing, Signatures: stored.signatures}
	if len(stored.envelope) <= inlineManifest {
		rec.Manifest = &m
	}
	return rec
}

// allStored says which blobs of a package are missing.
func (s *Service) allStored(m events.Manifest) error {
	missing, first := 0, ""
	for _, b := range manifest.Blobs(m) {
		if size, err := s.blobs.Size(b.SHA256); err != nil || size != b.Size {
			if missing++; missing == 1 {
				first = b.SHA256
			}
		}
	}
	if missing > 0 {
		return fmt.Errorf("package %s %s lacks %d of its blobs, first %s: publish it again, which uploads what is missing", m.Package, m.Version, missing, first)
	}
	return nil
}

// again answers a commit of a version that is there: the same package is fine, whenever it was read and whoever
// signed it; another never takes its place. The same one is announced anew, for those who lost the news, and
// its manifest is stored anew where it decayed: read at the recorded time, and with the recorded signatures,
// the same package has the same manifest.
func (s *Service) again(ctx context.Context, there record, stored storedManifest) (events.PackageInfo, error) {
	m := stored.manifest
	if there.Phase == removing {
		return events.PackageInfo{}, bus.Conflict(fmt.Errorf("package %s %s is being removed: try again in a minute", m.Package, m.Version))
	}
	m.Published = there.Published
	envelope, err := seal(m, there.Signatures)
	if err != nil {
		return events.PackageInfo{}, bus.BadRequest(err)
	}
	if there.Digest != stored.digest {
		s.dropManifest(ctx, stored.digest)
	}
	if events.DigestOf(envelope) != there.Digest {
		return events.PackageInfo{}, bus.Conflict(fmt.Errorf("package %s %s is published already, with other content: published packages never change, give it a new version", m.Package, m.Version))
	}
	if err := s.checkPublisher(ctx, envelope); err != nil {
		if _, refused := errors.AsType[*sign.Refusal](err); !refused {
			return events.PackageInfo{}, away(err)
		}
		return events.PackageInfo{}, bus.Conflict(fmt.Errorf("package %s %s is published already, signed by keys that are trusted no longer: remove it and publish it again, or give it a new version", m.Package, m.Version))
	}
	if err := s.blobs.Verify(ctx, there.Digest); err != nil {
		s.log.ErrorContext(ctx, "a stored manifest was lost and is stored anew", "package", m.Package, "version", m.Version, "blob", there.Digest, "error", err)
		if err := s.blobs.Put(ctx, there.Digest, int64(len(envelope)), bytes.NewReader(envelope)); err != nil {
			return events.PackageInfo{}, fmt.Errorf("store manifest of %s %s: %w", m.Package, m.Version, err)
		}
	}
	bus.NoteChange(ctx, there, there)
	uses, err := s.records.uses(ctx)
	if err != nil {
		return events.PackageInfo{}, away(err)
	}
	if err := s.announce(ctx, there, s.now().UTC()); err != nil {
		return events.PackageInfo{}, away(err)
	}
	return events.PackageInfo{Digest: there.Digest, Manifest: m, By: there.By, Deployments: uses[packageKey(m.Package, m.Version)]}, nil
}

// dropManifest deletes a manifest that is not published: a bucket that is filled from the blobs would not know.
func (s *Service) dropManifest(ctx context.Context, digest string) {
	if err := s.dropUnneeded(ctx, []string{digest}, record{}); err != nil {
		s.log.WarnContext(ctx, "manifest that nobody needs could not be removed", "blob", digest, "error", err)
	}
}

// announce stores PackagePublished and marks the record. The time makes the event's id: that of the commit
// for the first announcement, however often it is tried.
func (s *Service) announce(ctx context.Context, r record, at time.Time) error {
	id := events.DeriveID("package.published", r.Digest, at.Format(time.RFC3339Nano))
	_, err := bus.Publish(ctx, s.bus, events.PackagePublished, events.Event[events.PackageNotice]{ID: id, Subject: events.Token(r.Package), Time: at, Data: r.notice(r.By)})
	if err != nil || r.Phase == published {
		return err
	}
	r.Phase = published
	_, err = s.records.put(ctx, r)
	return err
}

// remove takes a package away that no deployment and no other package needs.
func (s *Service) remove(ctx context.Context, caller string, req events.Named) (events.PackageInfo, error) {
	if req.Version == "" {
		return events.PackageInfo{}, bus.BadRequest(fmt.Errorf("which version of %s is to be removed?", req.Name))
	}
	s.changing.Lock()
	defer s.changing.Unlock()
	rec, err := s.find(ctx, req)
	if err != nil {
		return events.PackageInfo{}, err
	}
	if err := s.refuseNeeded(ctx, rec); err != nil {
		return events.PackageInfo{}, err
	}
	m, err := s.manifestOf(rec)
	if err != nil {
		s.log.ErrorContext(ctx, "a package is removed without its manifest", "package", rec.Package, "version", rec.Version, "error", err)
		m = rec.summary()
	}
	if rec.Phase == publishing {
		// Whoever follows the events learns of the package before it goes.
		if err := s.announce(ctx, rec, rec.At); err != nil {
			return events.PackageInfo{}, away(err)
		}
		if rec, err = s.records.get(ctx, rec.Package, rec.Version); err != nil {
			return events.PackageInfo{}, away(err)
		}
	}
	before := rec
	rec.Phase, rec.RemovedBy = removing, caller
	if rec, err = s.records.put(ctx, rec); err != nil {
		return events.PackageInfo{}, away(err)
	}
	bus.NoteChange(ctx, before, nil)
	s.log.InfoContext(ctx, "package removed", "package", rec.Package, "version", rec.Version, "digest", rec.Digest, "by", caller)
	if err := s.finishRemoval(ctx, rec); err != nil {
		s.log.WarnContext(ctx, "removal could not be completed yet", "package", rec.Package, "version", rec.Version, "error", err)
	}
	return events.PackageInfo{Digest: rec.Digest, Manifest: m, By: rec.By}, nil
}

// finishRemoval announces a removal, deletes what no other package needs, and forgets the record.
func (s *Service) finishRemoval(ctx context.Context, r record) error {
	id := events.DeriveID("package.removed", r.Digest, r.At.Format(time.RFC3339Nano))
	_, err := bus.Publish(ctx, s.bus, events.PackageRemoved, events.Event[events.PackageNotice]{ID: id, Subject: events.Token(r.Package), Data: r.notice(r.RemovedBy)})
	if err != nil {
		return err
	}
	m, err := s.manifestOf(r)
	// The manifest goes last: where it is not there, all else is gone already, or else stays.
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errDecayed) {
		return err
	}
	var digests []string
	for _, b := range manifest.Blobs(m) {
		digests = append(digests, b.SHA256)
	}
	if err := s.dropUnneeded(ctx, append(digests, r.Digest), r); err != nil {
		return err
	}
	return s.records.remove(ctx, r)
}

// dropUnneeded deletes those of the blobs, in their order, that no package but except needs. A package whose
// manifest cannot be read might need any of them: only the last, which is a manifest, is deleted then.
func (s *Service) dropUnneeded(ctx context.Context, digests []string, except record) error {
	all, err := s.records.packages(ctx)
	if err != nil {
		return err
	}
	needed, unread := map[string]bool{}, false
	for _, r := range all {
		if r.Digest == except.Digest && r.Package == except.Package && r.Version == except.Version {
			continue
		}
		needed[r.Digest] = true
		m, err := s.manifestOf(r)
		if err != nil && r.Phase != removing {
			unread = true
			s.log.ErrorContext(ctx, "blobs are kept because a package cannot be read", "package", r.Package, "version", r.Version, "error", err)
		}
		for _, b := range manifest.Blobs(m) {
			needed[b.SHA256] = true
		}
	}
	if unread {
		digests = digests[len(digests)-1:]
	}
	for _, d := range digests {
		if !needed[d] {
			if err := s.blobs.Remove(d); err != nil {
				return fmt.Errorf("remove blob %s: %w", d, err)
			}
		}
	}
	return nil
}

// finishPending completes publications and removals that were recorded and not completed.
func (s *Service) finishPending(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.records.patience)
	defer cancel()
	all, err := s.records.packages(ctx)
	if err != nil {
		return err
	}
	var errs []error
	pending := 0
	for _, r := range all {
		if r.Phase == published {
			continue
		}
		pending++
		if err := s.finishOne(ctx, r); err != nil {
			errs = append(errs, fmt.Errorf("%s %s: %w", r.Package, r.Version, err))
		} else {
			pending--
		}
	}
	s.metrics.pending.Set(float64(pending))
	return errors.Join(errs...)
}

// finishOne looks again once it is alone: a request may have done it meanwhile.
func (s *Service) finishOne(ctx context.Context, seen record) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	r, err := s.records.get(ctx, seen.Package, seen.Version)
	switch {
	case errors.Is(err, jetstream.ErrKeyNotFound):
		return nil
	case err != nil:
		return err
	case r.Phase == publishing:
		return s.announce(ctx, r, r.At)
	case r.Phase == removing:
		return s.finishRemoval(ctx, r)
	}
	return nil
}
