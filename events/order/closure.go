package order

import (
	"errors"
	"fmt"
	"slices"

	"chandler/events"
	"chandler/events/manifest"
	"chandler/events/target"
)

// MaxWindows bounds the collections whose maintenance windows an order holds, and the windows of each.
const (
	MaxWindowCollections = 256
	MaxWindows           = 64
)

func (o Order) validateSteps() error {
	if len(o.First) > MaxSteps {
		return fmt.Errorf("%d programs run first: at most %d", len(o.First), MaxSteps)
	}
	for i, s := range o.First {
		err := errors.Join(events.ValidPackage(s.Package), events.ValidVersion(s.Version), events.ValidDigest(s.Manifest), events.ValidToken(s.Program), validResources(s.Resources))
		if err == nil && s.InstallationAccount != "" {
			err = events.ValidToken(s.InstallationAccount)
		}
		switch {
		case err != nil:
		case s.Why != StepFirst && s.Why != StepUninstall:
			err = fmt.Errorf("why is %q: it must be %s or %s", s.Why, StepFirst, StepUninstall)
		case s.Run != events.RunUser && s.Run != events.RunAdministrative:
			err = fmt.Errorf("run is %q: it must be user or administrative", s.Run)
		case s.Manifest == o.Manifest && s.Program == o.Program:
			err = errors.New("a program cannot run before itself")
		case slices.ContainsFunc(o.First[:i], func(t Step) bool { return t.Manifest == s.Manifest && t.Program == s.Program }):
			err = errors.New("it is there twice")
		}
		if err != nil {
			return fmt.Errorf("program %d that runs first (%s@%s/%s): %w", i+1, s.Package, s.Version, s.Program, err)
		}
	}
	return nil
}

func (o Order) validateWindows() error {
	if len(o.Windows) > MaxWindowCollections {
		return fmt.Errorf("maintenance windows of %d collections: at most %d", len(o.Windows), MaxWindowCollections)
	}
	for _, w := range o.Windows {
		err := events.ValidToken(w.Collection)
		if err == nil && (len(w.Windows) == 0 || len(w.Windows) > MaxWindows) {
			err = fmt.Errorf("%d windows: 1 to %d", len(w.Windows), MaxWindows)
		}
		if err == nil {
			_, err = target.New(w.Expression, w.Include, w.Exclude)
		}
		for _, one := range w.Windows {
			if err == nil {
				err = one.Validate()
			}
		}
		if err != nil {
			return fmt.Errorf("maintenance windows of collection %q: %w", w.Collection, err)
		}
	}
	return nil
}

func (o Order) validateRolls() error {
	if o.Rolls == nil {
		return nil
	}
	r := o.Rolls
	if err := errors.Join(events.ValidToken(r.Deployment), events.ValidPackage(r.Package), events.ValidVersion(r.Version), events.ValidToken(r.Program)); err != nil {
		return fmt.Errorf("rolls: %w", err)
	}
	if r.Revision == 0 || r.Deployment == o.Deployment {
		return errors.New("rolls: it names another deployment, and a revision of it")
	}
	return nil
}

// Agrees holds a step against its manifest, as [Order.Agrees] does the order.
func (s Step) Agrees(m events.Manifest) error {
	p, ok := m.Programs[s.Program]
	switch {
	case !ok || m.Package != s.Package || m.Version != s.Version:
		return refuse(events.ManifestMismatch, "the manifest is of %s %s and has no program %s of %s %s", m.Package, m.Version, s.Program, s.Package, s.Version)
	case !slices.Equal(s.Resources, manifest.Resources(m, s.Program)):
		return refuse(events.ManifestMismatch, "the order names resources %q for %s, the manifest %q", s.Resources, s.Package, manifest.Resources(m, s.Program))
	case p.Run != s.Run || p.InstallationAccount != s.InstallationAccount:
		return refuse(events.ManifestMismatch, "the order says that %s of %s runs %s with account %q, the manifest %s with %q", s.Program, s.Package, s.Run, s.InstallationAccount, p.Run, p.InstallationAccount)
	case p.EveryUser:
		return refuse(events.ContextUnsupported, "program %s of %s runs once for every user: it cannot run before another", s.Program, s.Package)
	}
	return nil
}

// RunsAs says whether two orders of one deployment run the same at the same times: what differs is at most for whom, within
// which windows and until when.
func (o Order) RunsAs(other Order) bool {
	return o.Manifest == other.Manifest && o.Program == other.Program && o.Rerun == other.Rerun && o.Zone == other.Zone &&
		slices.EqualFunc(o.Assignments, other.Assignments, Assignment.same)
}
