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

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

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
		old.PackageNotice, old.Removed, old.Stored = p, removed, m.Stored
		return old, nil
	})
	return err
}

// askTime bounds the wait for content's list of packages, and the search for something among the events.
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
			notice := events.PackageNotice{Package: p.Manifest.Package, Version: p.Manifest.Version, Digest: p.Digest, Bytes: p.Manifest.Size(), Files: len(p.Manifest.Files),
				Programs: slices.Sorted(maps.Keys(p.Manifest.Programs)), By: p.By}
			return packageRecord{PackageNotice: notice}.withPrograms(p.Manifest), nil // stored before any event
		})
		if err != nil {
			return err
		}
	}
	return nil
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

// recallPackage takes what was last told of an order's package from the events once more: the bucket may have been
// restored from an older copy.
func (s *Service) recallPackage(ctx context.Context, o order.Order) error {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	var last func() error
	published, removed := events.PackagePublished.Subject(events.Token(o.Package)), events.PackageRemoved.Subject(events.Token(o.Package))
	err := s.bus.Browse(ctx, bus.BrowseOptions{Stream: events.StreamEvents, Filters: []string{published, removed}, Patience: askTime}, func(m jetstream.Msg) error {
		t := events.PackagePublished
		if m.Subject() == removed {
			t = events.PackageRemoved
		}
		meta, err := m.Metadata()
		if err != nil {
			return err
		}
		if e, err := bus.Open(t, &nats.Msg{Subject: m.Subject(), Header: m.Headers(), Data: m.Data()}); err == nil && e.Data.Digest == o.Manifest {
			last = func() error {
				return s.notePackage(ctx, e.Data, bus.Meta{Stored: meta.Timestamp}, m.Subject() == removed)
			}
		}
		return nil // one that cannot be read was refused when it came
	})
	if err != nil || last == nil {
		return err
	}
	return last()
}

// checkPackage refuses an order whose package or program is not published, or cannot run when it says.
func (s *Service) checkPackage(ctx context.Context, o order.Order) error {
	p, ok := s.packageOf(o.Manifest)
	if !ok || p.Removed {
		if err := s.recallPackage(ctx, o); err != nil {
			s.log.Warn("what was told of a package cannot be looked for", "package", o.Package, "version", o.Version, "error", err)
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
	return s.checkProgram(ctx, o)
}

// checkProgram holds an order for a logon or logoff against its program, which content alone knows: it is to be heard at
// once that every agent would refuse it. Whatever else agents hold against the manifest has no need of a question.
func (s *Service) checkProgram(ctx context.Context, o order.Order) error {
	if !slices.ContainsFunc(o.Assignments, func(a order.Assignment) bool { return a.Logon || a.Logoff }) {
		return nil
	}
	asking, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	all, err := bus.Request(asking, s.bus, serviceName, events.ContentList, events.Nothing{})
	if err != nil {
		return bus.Unavailable(fmt.Errorf("whether program %s may start at a logon or logoff is not known, since content does not say: %w", o.Program, err))
	}
	i := slices.IndexFunc(all.Packages, func(p events.PackageInfo) bool { return p.Digest == o.Manifest })
	if i < 0 {
		return bus.NotFound(fmt.Errorf("package %s %s with manifest %.12s is not there: `chandler package ls` lists those that are", o.Package, o.Version, o.Manifest))
	}
	if err := o.Agrees(all.Packages[i].Manifest); err != nil {
		return bus.BadRequest(err)
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
