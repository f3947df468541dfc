package scheduling

import (
	"context"
	"errors"
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
	b := s.bus(events.ServiceSource("content"))
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() {
		_ = b.Serve(ctx, "content", "0.0.0", bus.Answer(events.ContentList, func(context.Context, string, events.Nothing) (events.PackageList, error) {
			m := events.Manifest{Package: "hello", Version: "2.10-3", Programs: map[string]events.Program{"install": {}}}
			return events.PackageList{Packages: []events.PackageInfo{{Digest: manifest, Manifest: m, By: "ada"}}}, nil
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
	request := events.DeploymentRequest{Envelope: s.sign(s.order(func(*order.Order) {}))}
	if _, err := ask(s, events.DeploymentCreate, request); !errors.Is(err, bus.ErrNotFound) {
		t.Fatalf("before: %v", err)
	}
	must(s, events.Reconcile, events.Nothing{})
	must(s, events.DeploymentCreate, request)
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
