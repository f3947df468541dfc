package content

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"chandler/events/manifest"
	"chandler/events/sign"
)

// recalledKey is in every bucket that was held against the stored manifests once. One that was lost and made
// anew lacks it.
const recalledKey = "recalled"

// recallFirst is done before uploads: what they leave uncommitted is no package.
func (s *Service) recallFirst(ctx context.Context) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	return s.recall(ctx, "")
}

// recall records the packages whose manifests and blobs are all stored, in a bucket that is new: signed
// orders name manifests by digest, and publishing again would give the same package another one. It leaves out
// what no publisher signed, where it is known who they are, and the manifest that is about to be committed. The caller holds changing.
func (s *Service) recall(ctx context.Context, except string) error {
	kv, err := s.records.bucket(ctx)
	if err != nil {
		return err
	}
	if _, err := kv.Get(ctx, recalledKey); !errors.Is(err, jetstream.ErrKeyNotFound) {
		return err
	}
	if err := s.recallTrust(ctx); err != nil { // agents look again at who signed
		s.log.WarnContext(ctx, "the newest trust bundle cannot be looked for", "error", err)
	}
	stored, err := s.storedPackages(ctx, except)
	if err != nil {
		return fmt.Errorf("recall packages: %w", err)
	}
	for _, rec := range stored {
		_, err := s.records.put(ctx, rec)
		if lostRace(err) {
			continue // it is recorded already
		}
		if err != nil {
			return fmt.Errorf("recall package %s %s: %w", rec.Package, rec.Version, err)
		}
		s.log.WarnContext(ctx, "package recalled from its blobs", "package", rec.Package, "version", rec.Version, "digest", rec.Digest)
	}
	_, err = kv.Put(ctx, recalledKey, []byte("{}"))
	return err
}

// storedPackages reads every whole package among the blobs, by key. Of several manifests for one version the
// first published counts: those after it were never taken.
func (s *Service) storedPackages(ctx context.Context, except string) (map[string]record, error) {
	found := map[string]record{}
	err := s.blobs.Each(func(digest string, size int64) error {
		if digest == except || size > manifest.MaxEnvelope || !s.looksLikeManifest(digest) {
			return context.Cause(ctx)
		}
		stored, err := s.readManifest(digest)
		if err != nil || s.allStored(stored.manifest) != nil {
			return context.Cause(ctx)
		}
		if err := s.checkPublisher(ctx, stored.envelope); err != nil {
			if _, refused := errors.AsType[*sign.Refusal](err); !refused {
				return err
			}
			return context.Cause(ctx) // uploaded by somebody who may not publish
		}
		m, rec := stored.manifest, s.newRecord(stored, "content")
		key := packageKey(m.Package, m.Version)
		if first, ok := found[key]; !ok || comparisons(m.Published.Compare(first.Published), strings.Compare(digest, first.Digest)) < 0 {
			found[key] = rec
		}
		return context.Cause(ctx)
	})
	return found, err
}

// looksLikeManifest reads the first bytes only.
func (s *Service) looksLikeManifest(digest string) bool {
	f, err := s.blobs.Open(digest)
	if err != nil {
		return false
	}
	defer f.Close()
	want := envelopeStart()
	got := make([]byte, len(want))
	_, err = io.ReadFull(f, got)
	return err == nil && string(got) == want
}
