package scheduling

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/order"
)

// content runs a service that has the package hello and says nothing of it unasked.
func (s *story) content() {
	s.t.Helper()
	s.contentWith(map[string]events.Program{"install": {}})
}

func (s *story) contentWith(programs map[string]events.Program) {
	s.t.Helper()
	b := s.bus(events.ServiceSource("content"))
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() {
		m := events.Manifest{Package: "hello", Version: "2.10-3", Programs: programs}
		info := events.PackageInfo{Digest: manifest, Manifest: m, By: "ada"}
		_ = b.Serve(ctx, "content", "0.0.0", bus.Answer(events.ContentList, func(context.Context, string, events.Nothing) (events.PackageList, error) {
			return events.PackageList{Packages: []events.PackageInfo{info}}, nil
		}))
	})
	s.t.Cleanup(func() { cancel(); serving.Wait() })
	s.eventually("content answers", func() bool {
		_, err := bus.Request(s.t.Context(), s.admin, "ada", events.ContentList, events.Nothing{})
		return err == nil
	})
}

func TestPackagesAreLearntFromContentWhenNoneIsKnown(t *testing.T) {
	s := newStory(t)
	s.content()
	r := s.running()
	s.eventually("the package is known", r.knowsPackages)
	must(s, events.CollectionSet, linuxMachines())
	s.deploy()
}

func TestReconcileLearnsThePackagesThatWereLost(t *testing.T) {
	s := newStory(t)
	r := s.running()
	publish(s, events.ServiceSource("content"), events.PackagePublished, "other",
		events.PackageNotice{Package: "other", Version: "1", Digest: events.DigestOf([]byte("other")), Programs: []string{"install"}, By: "ada"})
	s.eventually("one package is known", r.knowsPackages)
	must(s, events.CollectionSet, linuxMachines())
	s.content()
	must(s, events.Reconcile, events.Nothing{})
	if _, ok := r.packageOf(manifest); !ok {
		t.Error("the package is not known")
	}
}

func TestAPackageThatARestoredBucketDoesNotHoldIsFoundAmongTheEvents(t *testing.T) {
	for name, removedBefore := range map[string]bool{"published since": false, "published again since": true} {
		t.Run(name, func(t *testing.T) {
			s := newStory(t)
			r := s.replica()
			r.deploymentStore.check = 50 * time.Millisecond
			s.run(r)
			publish(s, events.ServiceSource("content"), events.PackagePublished, "other",
				events.PackageNotice{Package: "other", Version: "1", Digest: events.DigestOf([]byte("other")), Programs: []string{"install"}, By: "ada"})
			if removedBefore {
				publish(s, events.ServiceSource("content"), events.PackageRemoved, "hello", events.PackageNotice{Package: "hello", Version: "2.10-3", Digest: manifest, By: "ada"})
			}
			s.eventually("the events are known", func() bool { _, ok := r.packageOf(manifest); return r.knowsPackages() && ok == removedBefore })
			must(s, events.CollectionSet, linuxMachines())
			request := events.DeploymentRequest{Envelope: s.sign(s.order())}
			if _, err := ask(s, events.DeploymentCreate, request); !errors.Is(err, bus.ErrNotFound) {
				t.Fatalf("before it is published: %v", err)
			}
			old := s.snapshot()
			s.published()
			there := func() bool { p, ok := r.packageOf(manifest); return ok && !p.Removed }
			s.eventually("the package is known", there)
			s.restore(old)
			s.eventually("it is known no longer", func() bool { return r.knowsPackages() && !there() })
			must(s, events.DeploymentCreate, request)
		})
	}
}

func TestWhatAnEventSaysOfAPackageCountsMoreThanContentsList(t *testing.T) {
	s := newStory(t)
	r := s.running()
	publish(s, events.ServiceSource("content"), events.PackageRemoved, "hello", events.PackageNotice{Package: "hello", Version: "2.10-3", Digest: manifest, By: "ada"})
	s.eventually("the removal is known", r.knowsPackages)
	s.content() // listed before it was removed
	if err := r.recallPackages(t.Context()); err != nil {
		t.Fatal(err)
	}
	record, _, err := load[packageRecord](t.Context(), r.deploymentStore, kindPackage+"."+manifest)
	if err != nil || !record.Removed || record.Stored.Before(time.Now().Add(-time.Hour)) {
		t.Errorf("%+v, %v", record, err)
	}
}

func TestAnOrderForLogonOrLogoffIsHeldAgainstItsProgram(t *testing.T) {
	s := newStory(t)
	s.running()
	s.published()
	must(s, events.CollectionSet, linuxMachines())
	send := func(program string, a order.Assignment) error {
		o := s.order(func(o *order.Order) {
			o.Deployment, o.Program, o.Assignments = "at-"+program, program, []order.Assignment{a}
		})
		_, err := bus.Request(s.t.Context(), s.admin, "ada", events.DeploymentCreate, events.DeploymentRequest{Envelope: s.sign(o)})
		return err
	}
	for _, a := range []order.Assignment{{Logoff: true}, {Logon: true}} {
		if err := send("install", a); !errors.Is(err, bus.ErrUnavailable) || !strings.Contains(err.Error(), "content does not say") {
			t.Errorf("%s while content is away: %v", a, err)
		}
	}
	s.contentWith(map[string]events.Program{
		"install": {Run: events.RunAdministrative, Logon: events.LogonNone},
		"remove":  {Run: events.RunAdministrative, Logon: events.LogonAny},
	})
	if err := send("remove", order.Assignment{Logoff: true}); !errors.Is(err, bus.ErrBadRequest) || !strings.Contains(err.Error(), "logon: none") {
		t.Errorf("a program that runs whoever is logged on: %v", err)
	}
	if err := send("install", order.Assignment{Logon: true}); !errors.Is(err, bus.ErrBadRequest) || !strings.Contains(err.Error(), "logon: none") {
		t.Errorf("at a logon, a program that nobody may be logged on for: %v", err)
	}
	for _, refused := range []string{"at-install", "at-remove"} {
		if _, err := ask(s, events.DeploymentShow, events.Named{Name: refused}); !errors.Is(err, bus.ErrNotFound) {
			t.Errorf("something of a refused order was kept: %v", err)
		}
	}
	for program, a := range map[string]order.Assignment{"install": {Logoff: true}, "remove": {Logon: true}} {
		if err := send(program, a); err != nil {
			t.Errorf("%s %s: %v", program, a, err)
		}
	}
}
