package scheduling

import (
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
)

// executor plays execution: it tells how the phases stand, all jobs succeeded, whenever a batch comes.
func (s *story) executor() (offered func() map[string]int) {
	var mu sync.Mutex
	agents, waves := map[string]int{}, map[int]int{}
	s.following(events.DeploymentReleased.Filter(), func(m jetstream.Msg) {
		e, err := told(events.DeploymentReleased, asMsg(m))
		if err != nil {
			s.t.Error(err)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		for _, id := range e.Data.Agents {
			agents[id]++
		}
		waves[e.Data.Phase] += len(e.Data.Agents)
		var all []events.WaveCounts
		for _, i := range slices.Sorted(maps.Keys(waves)) {
			all = append(all, wave(i, waves[i], waves[i], 0))
		}
		s.progress(all...)
	})
	return func() map[string]int {
		mu.Lock()
		defer mu.Unlock()
		return maps.Clone(agents)
	}
}

func TestReplicasThatDieDuringARolloutLoseAndDoubleNothing(t *testing.T) {
	s := newStory(t)
	offered := s.executor()
	tick := func(o *Options) { o.Tick, o.PackagePatience = 100*time.Millisecond, 20*time.Second }
	const n = 300
	for _, id := range names(n) {
		s.report(facts(id))
	}
	s.published()
	first := s.replica(tick)
	stops := []func(){s.run(first), s.run(s.replica(tick))}
	must(s, events.CollectionSet, linuxMachines())
	s.knows(first, n)
	gate := func() *events.Advance { return &events.Advance{Succeeded: &events.Limit{Percent: 100}} }
	plan := &events.Plan{MaxInFlight: 40, Phases: []events.Phase{{Name: "one", Count: 1, AdvanceWhen: gate()}, {Name: "few", Percent: 10, AdvanceWhen: gate()},
		{Name: "half", Percent: 50, AdvanceWhen: gate()}, {Name: "rest", Percent: 100}}}
	must(s, events.DeploymentCreate, events.DeploymentRequest{Envelope: s.sign(s.order()), Plan: plan})
	for i := 0; len(offered()) < n && i < 40; i++ {
		victim := rand.IntN(len(stops))
		before := len(offered())
		stops[victim]()
		stops[victim] = s.run(s.replica(tick))
		s.eventually("it goes on", func() bool { return len(offered()) > before || len(offered()) == n })
	}
	s.eventually("everybody was handed over", func() bool { return len(offered()) == n })
	for id, times := range offered() {
		if times != 1 {
			t.Errorf("%s was handed over %d times", id, times)
		}
	}
	var phases []string
	sizes := 0
	for _, p := range opened(s, 4) {
		phases = append(phases, p.Phase)
		sizes += p.Size
	}
	if diff := cmp.Diff([]string{"one", "few", "half", "rest"}, phases); diff != "" || sizes != n {
		t.Errorf("%d agents in phases: %s", sizes, diff)
	}
}

// following hands on what is stored from the beginning, until the test ends.
func (s *story) following(filter string, each func(jetstream.Msg)) {
	ctx, cancel := context.WithCancel(context.Background())
	var reading sync.WaitGroup
	reading.Go(func() {
		if err := s.admin.Follow(ctx, events.StreamEvents, filter, 1, func(m jetstream.Msg) error { each(m); return nil }); err != nil {
			s.t.Errorf("follow: %v", err)
		}
	})
	s.t.Cleanup(func() { cancel(); reading.Wait() })
}

func asMsg(m jetstream.Msg) *nats.Msg {
	return &nats.Msg{Subject: m.Subject(), Header: m.Headers(), Data: m.Data()}
}
