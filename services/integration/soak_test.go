package integration

import (
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	light "chandler/agent/fleet"
	"chandler/events"
)

var (
	soakFor    = flag.Duration("soak", 0, "how long TestSoak breaks the cluster; 0: a short while, two minutes where everything is required")
	soakSeed   = flag.Uint64("seed", 1, "of TestSoak; 0: by the clock")
	soakFaults = flag.Int64("faults", 0, "that TestSoak carries out at least; 0: as many as belong to its length")
)

// TestSoak breaks a cluster in every way that package clustertest and the light agents know, again and again, while work goes
// on, then mends everything and holds all witnesses against each other: nothing may be lost and nothing run twice.
// Two runs of one seed draw the same faults in each place of the rig, though not at the same moments.
func TestSoak(t *testing.T) {
	if raceDetector && *soakFor == 0 {
		t.Skip("the plain run breaks the cluster; beside the other stories two cores are too slow for it with the race detector: say -soak 2m")
	}
	t.Parallel()
	length, least := soakLength()
	seed := *soakSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d, %s, at least %d faults", seed, length, least)
	began := time.Now()
	r := newRig(t, soakSize{sites: 3, agents: 20, syncAlways: seed%2 == 0, intensity: min(1, length.Minutes()/30),
		script: light.Script{Seed: seed, Duration: 200 * time.Millisecond, Spread: 1, Failures: 0.1, Output: 200}})
	t.Logf("the rig is up after %s", time.Since(began).Truncate(time.Second))
	s := &soak{r: r, seed: seed, length: length, least: least, load: &load{r: r, random: rand.New(rand.NewPCG(seed, 0))}}
	s.load.p = r.publish("1.0", payload, "")
	for _, site := range r.sites {
		mustAsk(r.fleet, events.CollectionSet, events.Collection{Name: site.name, Expression: site.expression()})
	}
	s.run(t)
}

// soakLength is how long faults happen, and how many at least.
func soakLength() (time.Duration, int64) {
	length, least := 20*time.Second, int64(10)
	if os.Getenv("CHANDLER_TEST_REQUIRE") == "1" && !raceDetector {
		length, least = 2*time.Minute, 50
	}
	if *soakFor > 0 {
		length, least = *soakFor, int64(soakFor.Seconds()/4)
	}
	if *soakFaults > 0 {
		least = *soakFaults
	}
	return length, least
}

// soak is one run.
type soak struct {
	r      *rig
	seed   uint64
	length time.Duration
	least  int64
	load   *load

	jobs, runs, statuses int // that were held against each other

	count   atomic.Int64
	skipped []string

	mu      sync.Mutex
	strikes []strike
}

func (s *soak) run(t *testing.T) {
	kinds := s.possible(t)
	began, enough := time.Now(), make(chan struct{})
	var breaking sync.WaitGroup
	places := map[place][]fault{}
	for _, f := range kinds {
		places[f.place] = append(places[f.place], f)
	}
	broke := make(chan error, len(places))
	for at, kinds := range places {
		b := &breaker{r: s.r, random: rand.New(rand.NewPCG(s.seed, uint64(crc32.ChecksumIEEE([]byte(at))))), kinds: kinds, began: began, count: &s.count, log: s.note}
		breaking.Go(func() { broke <- b.run(enough) })
	}
	breaking.Go(func() { s.wait(began, len(kinds)); close(enough) })
	err := s.load.work(enough)
	breaking.Wait()
	close(broke)
	for e := range broke {
		err = errors.Join(err, e)
	}
	took := time.Since(began)
	if err == nil {
		err = s.r.whole()
	}
	if err == nil {
		err = s.verify()
	}
	if err != nil {
		t.Fatalf("seed %d: %v\nfaults:\n%s", s.seed, err, s.log())
	}
	t.Logf("seed %d: nothing was lost and nothing ran twice in %s, and %s until all was quiet and held against each other\n%s", s.seed, took.Truncate(time.Second), (time.Since(began) - took).Truncate(time.Second), s.report())
}

// wait ends when the time is over and enough faults have happened, or when that takes far too long.
func (s *soak) wait(began time.Time, kinds int) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		took := time.Since(began)
		if took >= s.length && s.count.Load() >= s.least && s.kinds() >= min(kinds, int(s.least)) || took > 4*s.length+time.Minute || s.r.t.Failed() {
			return
		}
	}
}

func (s *soak) kinds() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := map[string]bool{}
	for _, k := range s.strikes {
		seen[k.name] = true
	}
	return len(seen)
}

// possible are the faults that this machine can have; where everything is required, all are.
func (s *soak) possible(t *testing.T) (kinds []fault) {
	for _, f := range faults() {
		if f.missing != nil {
			if why := f.missing(s.r); why != "" {
				s.skipped = append(s.skipped, f.name+" ("+why+")")
				continue
			}
		}
		kinds = append(kinds, f)
	}
	if len(s.skipped) > 0 && os.Getenv("CHANDLER_TEST_REQUIRE") == "1" {
		t.Fatalf("faults cannot happen on %s: %s", runtime.GOOS, strings.Join(s.skipped, ", "))
	}
	return kinds
}

func (s *soak) note(k strike) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.strikes = append(s.strikes, k)
}

func (s *soak) log() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	slices.SortFunc(s.strikes, func(a, b strike) int { return int(a.began - b.began) })
	var b strings.Builder
	for _, k := range s.strikes {
		fmt.Fprintln(&b, k)
	}
	return b.String()
}

// report says what happened, for people.
func (s *soak) report() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	count := map[string]int{}
	for _, k := range s.strikes {
		count[k.name]++
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d faults of %d kinds:\n", len(s.strikes), len(count))
	for _, f := range faults() {
		if count[f.name] > 0 {
			fmt.Fprintf(&b, "%5d %s\n", count[f.name], f.name)
		}
	}
	if len(s.skipped) > 0 {
		fmt.Fprintf(&b, "not here: %s\n", strings.Join(s.skipped, ", "))
	}
	fmt.Fprintf(&b, "%d jobs, %d runs of programs, %d statuses stored\n", s.jobs, s.runs, s.statuses)
	fmt.Fprintf(&b, "%d deployments, %d stops, %d retries, %d freezes\n", len(s.load.names), s.load.stopped, s.load.retried, s.load.freezes)
	for _, site := range s.r.sites {
		fmt.Fprintf(&b, "%s: %+v\n", site.name, site.fleet.Stats())
	}
	return b.String()
}
