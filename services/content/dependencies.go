package content

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/closure"
	"chandler/events/manifest"
)

// checkDependencies refuses a package that is not published yet where what it depends on is not there, or contradicts it.
// s.changing is held, so that nothing of it is removed meanwhile.
func (s *Service) checkDependencies(ctx context.Context, stored storedManifest) error {
	m := stored.manifest
	var failed error // to read what is asked for
	find := func(name, version string) (events.Manifest, string, bool) {
		rec, err := s.records.get(ctx, name, version)
		if errors.Is(err, jetstream.ErrKeyNotFound) || err == nil && rec.Phase == removing {
			return events.Manifest{}, "", false
		}
		var found events.Manifest
		if err == nil {
			found, err = s.manifestOf(rec)
		}
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("read package %s %s: %w", name, version, err))
		}
		return found, rec.Digest, err == nil
	}
	superseded, err := s.superseded(ctx, m)
	if err != nil {
		return away(err)
	}
	err = closure.Check(m, find, superseded)
	if failed != nil {
		return away(failed)
	}
	if err != nil {
		s.dropManifest(ctx, stored.digest)
		return bus.Conflict(fmt.Errorf("package %s %s cannot be published: %w", m.Package, m.Version, err))
	}
	return nil
}

// superseded are the published packages that m supersedes.
func (s *Service) superseded(ctx context.Context, m events.Manifest) ([]events.Manifest, error) {
	if len(m.Supersedes) == 0 {
		return nil, nil
	}
	all, err := s.records.packages(ctx)
	if err != nil {
		return nil, err
	}
	var found []events.Manifest
	for _, r := range all {
		if r.Phase == removing || !manifest.Supersedes(m, r.Package, r.Version) {
			continue
		}
		other, err := s.manifestOf(r)
		if err != nil {
			return nil, fmt.Errorf("read package %s %s: %w", r.Package, r.Version, err)
		}
		found = append(found, other)
	}
	return found, nil
}

// neededBy are the packages whose programs name one of a package's, sorted. The records say it, so that it is known also of
// packages whose manifests are lost.
func (s *Service) neededBy(ctx context.Context, rec record) ([]string, error) {
	all, err := s.records.packages(ctx)
	if err != nil {
		return nil, away(err)
	}
	var by []string
	for _, r := range all {
		if r.Phase != removing && slices.Contains(r.Needs, rec.Package+"@"+rec.Version) {
			by = append(by, r.Package+"@"+r.Version)
		}
	}
	slices.Sort(by)
	return by, nil
}

// needs are the other packages whose programs a package's name, sorted, as name@version.
func needs(m events.Manifest) (names []string) {
	for _, ref := range closure.Needs(m) {
		if ref.Package != m.Package || ref.Version != m.Version {
			names = append(names, ref.Package+"@"+ref.Version)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// refuseNeeded says who needs a package that is to be removed.
func (s *Service) refuseNeeded(ctx context.Context, rec record) error {
	uses, err := s.records.uses(ctx)
	if err != nil {
		return away(err)
	}
	if by := uses[packageKey(rec.Package, rec.Version)]; len(by) > 0 {
		slices.Sort(by)
		return bus.Conflict(fmt.Errorf("package %s %s is needed by %s: remove what needs it first (`chandler deployment rm NAME`)", rec.Package, rec.Version, strings.Join(by, ", ")))
	}
	by, err := s.neededBy(ctx, rec)
	if err != nil {
		return err
	}
	if len(by) > 0 {
		return bus.Conflict(fmt.Errorf("programs of package %s %s are needed by those of %s: remove what needs them first (`chandler package rm NAME@VERSION`)", rec.Package, rec.Version, strings.Join(by, ", ")))
	}
	return nil
}
