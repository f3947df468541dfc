package credentials

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/eventstest"
	"chandler/events/trust"
)

func marshal(t testing.TB, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func (f *fleet) set(bundle []byte) (events.TrustNotice, error) {
	return ask(f.story, "ada", events.TrustSet, events.TrustRequest{Bundle: bundle})
}

func TestTrustGoesOnlyWhereTheRootsOfTheLastBundleLead(t *testing.T) {
	f := newFleet(t)
	r := f.running()
	roots2 := keysOf(t, 2)
	foreign := f.bundle(1, roots2...)
	for name, envelope := range map[string][]byte{
		"nothing":                      nil,
		"no envelope":                  []byte("{}"),
		"roots that did not sign":      foreign,
		"only one of two roots signed": f.bundle(1, f.roots[0]),
	} {
		if _, err := f.set(envelope); !errors.Is(err, bus.ErrBadRequest) && !errors.Is(err, bus.ErrConflict) {
			t.Errorf("the first bundle is signed by %s: %v", name, err)
		}
	}
	first := f.bundle(1)
	if n, err := f.set(first); err != nil || n.Version != 1 || n.By != "ada" || n.Fleet != "example" {
		t.Fatalf("set %+v, %v", n, err)
	}
	for name, c := range map[string]struct {
		envelope []byte
		says     string
	}{
		"the same again":                  {first, "version 1 already"},
		"one of the same version":         {f.bundle(1), "version 1 already"},
		"other roots, signed by them":     {f.bundleOf(2, roots2), "present roots"},
		"the present roots, too few":      {f.bundle(2, f.roots[0]), "present roots"},
		"new roots that did not sign":     {f.bundleOf(2, roots2, f.roots...), "new roots"},
		"old roots, by whoever was first": {foreign, "version 1 already"},
	} {
		if _, err := f.set(c.envelope); !errors.Is(err, bus.ErrConflict) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	rotated := f.bundleOf(3, roots2, slices.Concat(f.roots, roots2)...)
	if _, err := f.set(rotated); err != nil {
		t.Fatalf("the old and the new roots signed: %v", err)
	}
	if _, err := f.set(f.bundle(4)); !errors.Is(err, bus.ErrConflict) {
		t.Errorf("the roots of before: %v", err)
	}
	if _, err := f.set(f.bundle(2)); !errors.Is(err, bus.ErrConflict) {
		t.Errorf("a downgrade: %v", err)
	}
	eventstest.ExpectExactly(t, f.admin, events.TrustChanged, nil, 2)

	// Whoever asks gets what is newer, and can follow it.
	second := f.running()
	for have, want := range map[int]int{0: 2, 1: 1, 2: 1, 3: 0, 4: 0} {
		for _, answer := range []func(context.Context, string, events.TrustQuery) (events.TrustAnswer, error){r.trustAfter, second.trustAfter} {
			a, err := answer(t.Context(), "", events.TrustQuery{Have: have})
			if err != nil || len(a.Bundles) != want || a.More {
				t.Errorf("after %d: %d bundles, %v", have, len(a.Bundles), err)
			}
		}
	}
	all, err := ask(f.story, "ada", events.TrustShow, events.TrustQuery{})
	if err != nil {
		t.Fatal(err)
	}
	fingerprint := trust.Roots{Threshold: 2, Keys: named(f.roots)}.Fingerprint()
	if b, err := trust.Begin(fingerprint, all.Bundles); err != nil || b.Version != 3 {
		t.Errorf("an agent gets to version %d, %v", b.Version, err)
	}
	if agents, err := ask(f.story, agent, events.AgentTrust, events.TrustQuery{Have: 1}); err != nil || len(agents.Bundles) != 1 {
		t.Errorf("an agent is told %+v, %v", agents, err)
	}
}

func TestOfTwoAdministratorsOneSetsAVersion(t *testing.T) {
	f := newFleet(t)
	replicas := []*Service{f.running(), f.running()}
	for version := 1; version <= 5; version++ {
		var all sync.WaitGroup
		errs := make([]error, 8)
		for i := range errs {
			// Half of them want to set the version after it: it does not follow from what the others set.
			envelope := f.bundle(version + i%2)
			all.Go(func() {
				_, errs[i] = replicas[i/4].trustSet(t.Context(), "ada", events.TrustRequest{Bundle: envelope})
			})
		}
		all.Wait()
		for i, err := range errs {
			if err != nil && !errors.Is(err, bus.ErrConflict) {
				t.Errorf("administrator %d: %v", i, err)
			}
		}
		for _, r := range replicas {
			if err := r.trust.refresh(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		won := 0
		for _, err := range errs {
			if err == nil {
				won++
			}
		}
		if newest := replicas[0].trust.newest(); won < 1 || won > 2 || newest.Version != replicas[1].trust.newest().Version {
			t.Fatalf("%d administrators set version %d or the next", won, version)
		}
		version = replicas[0].trust.newest().Version
	}
	// Each that was set follows from the one before.
	all, err := replicas[1].trustAfter(t.Context(), "", events.TrustQuery{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range all.Bundles[1:] {
		a, _ := trust.Open(all.Bundles[i])
		b, err := trust.Open(all.Bundles[i+1])
		if err != nil || b.Version <= a.Version {
			t.Errorf("version %d follows %d, %v", b.Version, a.Version, err)
		}
	}
}

func TestAnswersToAgentsAreBounded(t *testing.T) {
	s := &trustStore{}
	for i := range 5 {
		s.bundles = append(s.bundles, trustRecord{TrustNotice: events.TrustNotice{Version: i + 1, Bundle: make([]byte, trust.MaxSize)}})
	}
	answers := 0
	for have, more := 0, true; more; answers++ {
		var some [][]byte
		some, more = s.after(have, maxTrustAnswer)
		text := marshal(t, events.EnrolAnswer{Bundles: some, JWT: strings.Repeat("x", 4<<10), Why: strings.Repeat("x", 1<<10)})
		if len(some) == 0 || len(text) > 512<<10 {
			t.Fatalf("%d bundles, %d bytes", len(some), len(text))
		}
		have += len(some)
	}
	if answers != 5 {
		t.Errorf("%d answers", answers)
	}
}

func TestTheNewestBundleIsAnnouncedAtOnceAndAgain(t *testing.T) {
	f := newFleet(t)
	options := f.options
	f.options = func(o *Options) { options(o); o.AnnounceEvery = 20 * time.Millisecond }
	f.running()
	heard := make(chan int, 100)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	listening := make(chan error, 1)
	go func() {
		listening <- bus.Listen(ctx, f.admin, events.TrustAnnounced, "", func(e events.Event[events.TrustBeacon]) {
			select {
			case heard <- e.Data.Version:
			default:
			}
		})
	}()
	if _, err := f.set(f.bundle(1)); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if v := <-heard; v != 1 {
			t.Errorf("heard of version %d", v)
		}
	}
	if _, err := f.set(f.bundle(2)); err != nil {
		t.Fatal(err)
	}
	f.eventually("the next is heard", func() bool { return <-heard == 2 })
	cancel()
	if err := <-listening; err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestABundleFromTheFutureIsRefused(t *testing.T) {
	f := newFleet(t)
	f.running()
	ahead := f.clock.Now().Add(time.Hour)
	b := trust.Bundle{Fleet: "example", Version: 1, Threshold: 1, Keys: named(keysOf(t, 1)), Roots: trust.Roots{Threshold: len(f.roots), Keys: named(f.roots)}, Issued: ahead}
	envelope, err := trust.Sign(b, f.roots[0], f.roots[1])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.set(envelope); !errors.Is(err, bus.ErrBadRequest) || !strings.Contains(err.Error(), "compare the clocks") {
		t.Errorf("a bundle that makes every agent wait is answered %v", err)
	}
}
