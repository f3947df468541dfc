package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/closure"
	"chandler/events/manifest"
	"chandler/events/order"
	"chandler/events/trust"
	"chandler/services/declared"
)

// lookups finds what orders bind, each thing once: packages, collections, maintenance windows. What is about to be
// changed can be put into it, so that orders are built as they will be.
type lookups struct {
	c           *client
	bundle      trust.Bundle
	collections map[string]events.CollectionView
	listed      bool // collections holds all there are
	packages    map[string]published
}

// published is a package as its publisher signed it.
type published struct {
	manifest events.Manifest
	digest   string
}

func newLookups(c *client, bundle trust.Bundle) *lookups {
	return &lookups{c: c, bundle: bundle, collections: map[string]events.CollectionView{}, packages: map[string]published{}}
}

// pkg finds a version of a package; without a version the newest published.
func (l *lookups) pkg(ctx context.Context, name, version string) (published, error) {
	if p, ok := l.packages[packageText(name, version)]; ok {
		return p, nil
	}
	found, err := ask(ctx, l.c, events.ContentShow, events.Named{Name: name, Version: version})
	if err != nil {
		return published{}, err
	}
	m, err := checkFound(found, l.bundle, name, version)
	if err != nil {
		return published{}, err
	}
	p := published{m, found.Digest}
	l.packages[packageText(name, version)], l.packages[m.Package+"@"+m.Version] = p, p
	return p, nil
}

// collection finds one, with its members. No more can be known of it here than what scheduling says, so that whoever
// signs is shown all of it.
func (l *lookups) collection(ctx context.Context, name string) (events.CollectionView, error) {
	if v, ok := l.collections[name]; ok {
		return v, nil
	}
	v, err := ask(ctx, l.c, events.CollectionShow, events.Named{Name: name})
	if err != nil {
		return v, err
	}
	if v.Name != name {
		return v, fmt.Errorf("asked for collection %s, the scheduling service answered with %s: nothing was signed", name, v.Name)
	}
	l.collections[name] = v
	return v, nil
}

// windows are the maintenance windows of every collection that has some, by name.
func (l *lookups) windows(ctx context.Context) (all []order.Windows, err error) {
	if !l.listed {
		views, err := ask(ctx, l.c, events.CollectionList, events.Nothing{})
		if err != nil {
			return nil, fmt.Errorf("find out which maintenance windows there are: %w", err)
		}
		for _, v := range views.Collections {
			if _, ok := l.collections[v.Name]; !ok && v.Name != "" {
				l.collections[v.Name] = v
			}
		}
		l.listed = true
	}
	for _, v := range l.collections {
		if len(v.Windows) > 0 {
			all = append(all, order.Windows{Collection: v.Name, Expression: v.Expression, Include: v.Include, Exclude: v.Exclude, Windows: v.Windows})
		}
	}
	slices.SortFunc(all, func(a, b order.Windows) int { return strings.Compare(a.Collection, b.Collection) })
	return all, nil
}

// proposal is a deployment as it would be signed, but for its revision.
type proposal struct {
	order      order.Order
	manifest   events.Manifest
	plan       *events.Plan // nil: everybody at once
	rollback   *order.Order // signed in the same act
	collection events.CollectionView
}

// propose builds the order of a declared deployment and of what takes it back.
func (l *lookups) propose(ctx context.Context, d declared.Deployment, issued time.Time) (p proposal, err error) {
	if p.order, err = d.Order(issued); err != nil {
		return p, err
	}
	if p.order.Fleet = l.bundle.Fleet; len(d.Phases) > 0 || d.MaxInFlight > 0 || d.MaxInFlightPerSite > 0 || d.OnHalt != "" {
		p.plan = &d.Plan
	}
	if p.manifest, err = l.bindProgram(ctx, &p.order); err != nil {
		return p, fmt.Errorf("program %s: %w", d.Program, err)
	}
	if p.collection, err = l.bindTarget(ctx, &p.order); err != nil {
		return p, fmt.Errorf("collection %s: %w", d.Collection, err)
	}
	for _, phase := range d.Phases {
		if phase.Collection == "" {
			continue
		}
		if _, err := l.collection(ctx, phase.Collection); err != nil {
			return p, fmt.Errorf("phase %s: collection %s: %w", phase.Name, phase.Collection, err)
		}
	}
	if d.Rollback != "" {
		back, err := l.rollback(ctx, p.order, d.Rollback)
		if err != nil {
			return p, fmt.Errorf("rollback: %w", err)
		}
		p.rollback = &back
	}
	return p, nil
}

// bindProgram fills in what an order takes over from the manifests of its package and of what runs first.
func (l *lookups) bindProgram(ctx context.Context, o *order.Order) (events.Manifest, error) {
	found, err := l.pkg(ctx, o.Package, o.Version)
	if err != nil {
		return found.manifest, err
	}
	m := found.manifest
	program, ok := m.Programs[o.Program]
	if !ok {
		return m, fmt.Errorf("package %s@%s has no program %q; it has %s", m.Package, m.Version, o.Program, strings.Join(programNames(m), ", "))
	}
	o.Package, o.Version, o.Manifest, o.Run = m.Package, m.Version, found.digest, program.Run
	o.InstallationAccount, o.Resources = program.InstallationAccount, manifest.Resources(m, o.Program)
	if loose := manifest.Unpinned(program); l.bundle.PinnedReferences && len(loose) > 0 {
		return m, fmt.Errorf("agents would refuse it: the trust bundle forbids references without a sha256, and program %s has %s", o.Program, strings.Join(loose, ", "))
	}
	if err := o.Agrees(m); err != nil {
		return m, fmt.Errorf("agents would refuse it: %w", err)
	}
	o.First, err = l.steps(ctx, m, o.Program)
	return m, err
}

// steps are what runs before a program. A package that cannot be asked for is not one that is not there.
func (l *lookups) steps(ctx context.Context, m events.Manifest, program string) ([]order.Step, error) {
	var unasked error
	steps, err := closure.Steps(m, program, func(name, version string) (events.Manifest, string, bool) {
		found, err := l.pkg(ctx, name, version)
		if err != nil && !errors.Is(err, bus.ErrNotFound) {
			unasked = cmp.Or(unasked, err)
		}
		return found.manifest, found.digest, err == nil
	})
	if unasked != nil {
		return nil, unasked
	}
	return steps, err
}

// bindTarget takes over a collection's present definition, and the maintenance windows that there are.
func (l *lookups) bindTarget(ctx context.Context, o *order.Order) (events.CollectionView, error) {
	collection, err := l.collection(ctx, o.Collection)
	if err != nil {
		return collection, err
	}
	o.Expression = collection.Expression
	o.IncludeDigest, o.ExcludeDigest = order.ListDigest(collection.Include), order.ListDigest(collection.Exclude)
	o.Windows, err = l.windows(ctx)
	return collection, err
}

// longest is how long a machine needs at most in one go: the longest of what the order runs.
func (l *lookups) longest(ctx context.Context, p proposal) (time.Duration, error) {
	longest := p.manifest.Programs[p.order.Program].RunTime()
	for _, s := range p.order.First {
		found, err := l.pkg(ctx, s.Package, s.Version)
		if err != nil {
			return 0, err
		}
		longest = max(longest, found.manifest.Programs[s.Program].RunTime())
	}
	return longest, nil
}
