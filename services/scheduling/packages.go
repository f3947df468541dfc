package scheduling

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/order"
)

// packagePatience is how long a deployment waits for news of its package: who publishes and deploys in one
// breath may be faster than the event.
const packagePatience = 3 * time.Second

func (s *Service) onPackagePublished(ctx context.Context, e events.Event[events.PackageNotice], m bus.Meta) error {
	return s.notePackage(ctx, e.Data, m, false)
}

func (s *Service) onPackageRemoved(ctx context.Context, e events.Event[events.PackageNotice], m bus.Meta) error {
	return s.notePackage(ctx, e.Data, m, true)
}

func (s *Service) notePackage(ctx context.Context, p events.PackageNotice, m bus.Meta, removed bool) error {
	if err := events.ValidDigest(p.Digest); err != nil {
		return bus.Drop("digest", err)
	}
	_, err := change(ctx, s.deploymentStore, kindPackage+"."+p.Digest, func(old packageRecord, found bool) (packageRecord, error) {
		if found && !m.Stored.After(old.Stored) {
			return old, errKeep
		}
		return packageRecord{PackageNotice: p, Removed: removed, Stored: m.Stored}, nil
	})
	return err
}

// askTime bounds the wait for content's list of packages.
const askTime = 5 * time.Second

// recallPackages takes over which packages content has, as far as no event told of them: the bucket was lost,
// or the events were. Whatever an event said counts more.
func (s *Service) recallPackages(ctx context.Context) error {
	asking, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	all, err := bus.Request(asking, s.bus, serviceName, events.ContentList, events.Nothing{})
	if err != nil {
		return err
	}
	for _, p := range all.Packages {
		if err := events.ValidDigest(p.Digest); err != nil {
			return fmt.Errorf("package %s %s: %w", p.Manifest.Package, p.Manifest.Version, err)
		}
		_, err := change(ctx, s.deploymentStore, kindPackage+"."+p.Digest, func(old packageRecord, found bool) (packageRecord, error) {
			if found {
				return old, errKeep
			}
			return packageRecord{PackageNotice: noticeOf(p)}, nil // stored before any event
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func noticeOf(p events.PackageInfo) events.PackageNotice {
	return events.PackageNotice{Package: p.Manifest.Package, Version: p.Manifest.Version, Digest: p.Digest, Bytes: p.Manifest.Size(), Files: len(p.Manifest.Files),
		Programs: slices.Sorted(maps.Keys(p.Manifest.Programs)), By: p.By}
}

func (s *Service) knowsPackages() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.packages) > 0
}

func (s *Service) applyPackage(digest string, value []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if value == nil {
		delete(s.packages, digest)
		return nil
	}
	var r packageRecord
	if err := json.Unmarshal(value, &r); err != nil {
		return err
	}
	s.packages[digest] = r
	close(s.packagesChanged)
	s.packagesChanged = make(chan struct{})
	return nil
}

// askPackage asks content for one package whose record is lacking or says that it was removed: the bucket may have
// been restored from an older copy. The answer counts unless an event came in between.
func (s *Service) askPackage(ctx context.Context, o order.Order) error {
	key := kindPackage + "." + o.Manifest
	before, had, err := load[packageRecord](ctx, s.deploymentStore, key)
	if err != nil {
		return err
	}
	asking, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	p, err := bus.Request(asking, s.bus, serviceName, events.ContentShow, events.Named{Name: o.Package, Version: o.Version})
	if err != nil || p.Digest != o.Manifest {
		return err
	}
	_, err = change(ctx, s.deploymentStore, key, func(old packageRecord, found bool) (packageRecord, error) {
		if found && (had == 0 || !old.Stored.Equal(before.Stored)) {
			return old, errKeep
		}
		return packageRecord{PackageNotice: noticeOf(p), Stored: before.Stored}, nil
	})
	return err
}

// checkPackage refuses an order whose package or program is not published.
func (s *Service) checkPackage(ctx context.Context, o order.Order) error {
	p, ok := s.packageOf(o.Manifest)
	if !ok || p.Removed {
		if err := s.askPackage(ctx, o); err != nil {
			s.log.Debug("content cannot be asked for a package", "package", o.Package, "version", o.Version, "error", err)
		}
		p, ok = s.awaitPackage(ctx, o.Manifest)
	}
	switch {
	case !ok:
		return bus.NotFound(fmt.Errorf("package %s %s with manifest %.12s is not published: `chandler package ls` lists those that are", o.Package, o.Version, o.Manifest))
	case p.Removed:
		return bus.NotFound(fmt.Errorf("package %s %s was removed: publish it again", o.Package, o.Version))
	case p.Package != o.Package || p.Version != o.Version:
		return bus.BadRequest(fmt.Errorf("the order names package %s %s, but its manifest is that of %s %s", o.Package, o.Version, p.Package, p.Version))
	case !slices.Contains(p.Programs, o.Program):
		return bus.NotFound(fmt.Errorf("package %s %s has no program %s; it has %s", o.Package, o.Version, o.Program, strings.Join(p.Programs, ", ")))
	}
	return nil
}

func (s *Service) packageOf(digest string) (packageRecord, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	p, ok := s.packages[digest]
	return p, ok
}

func (s *Service) awaitPackage(ctx context.Context, digest string) (packageRecord, bool) {
	ctx, cancel := context.WithTimeoutCause(ctx, s.patience, errors.New("package is not published"))
	defer cancel()
	for {
		s.mu.RLock()
		p, ok := s.packages[digest]
		changed := s.packagesChanged
		s.mu.RUnlock()
		if ok {
			return p, true
		}
		select {
		case <-ctx.Done():
			return packageRecord{}, false
		case <-changed:
		}
	}
}
