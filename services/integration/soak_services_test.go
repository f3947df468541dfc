package integration

import (
	"fmt"
	"math/rand/v2"
	"time"

	"chandler/services/integration/clustertest"
)

func serviceFaults() []fault {
	return []fault{
		{name: "replica killed", weight: 4, place: atServices, to: 10 * time.Second, do: func(r *rig, random *rand.Rand) (string, func() error, error) {
			p := r.anyReplica(random)
			p.Kill()
			return p.name, p.Start, nil
		}},
		// Longer than the broker waits for the one that a partition's work is pinned to.
		{name: "replica paused", weight: 1, place: atServices, from: 15 * time.Second, to: 40 * time.Second, do: func(r *rig, random *rand.Rand) (string, func() error, error) {
			p := r.anyReplica(random)
			return p.name, p.Resume, p.Pause()
		}},
		{name: "replica's clock stepped", weight: 2, place: atServices, from: time.Second, to: 20 * time.Second, do: clockStepped},
		{name: "replica cut off", weight: 2, place: atServices, from: 500 * time.Millisecond, to: 20 * time.Second, do: replicaCutOff},
	}
}

func (r *rig) anyReplica(random *rand.Rand) *replicaProcess {
	return r.replicas[random.IntN(len(r.replicas))]
}

// clockStepped moves a replica's clock by up to ten minutes, to either side, and back.
func clockStepped(r *rig, random *rand.Rand) (string, func() error, error) {
	p, most := r.anyReplica(random), int64(10*time.Minute)
	step := time.Duration(random.Int64N(2*most) - most)
	return fmt.Sprintf("%s by %s", p.name, step.Truncate(time.Second)), func() error { return p.setClock(0) }, p.setClock(step)
}

// replicaCutOff stops what a replica sends, or hears, or both, or ends its connections.
func replicaCutOff(r *rig, random *rand.Rand) (string, func() error, error) {
	p := r.anyReplica(random)
	ways := []struct {
		name    string
		weather clustertest.Weather
	}{
		{"nothing passes", clustertest.Stalled},
		{"it is not heard", clustertest.Weather{Forth: clustertest.Way{Stalled: true}}},
		{"it hears nothing", clustertest.Weather{Back: clustertest.Way{Stalled: true}}},
		{"it is refused", clustertest.Weather{Refused: true}},
		{"its line is slow", clustertest.Weather{Forth: clustertest.Way{Delay: 300 * time.Millisecond, Rate: 50_000}, Back: clustertest.Way{Delay: 300 * time.Millisecond, Rate: 50_000}}},
	}
	way := ways[random.IntN(len(ways))]
	set := func(w clustertest.Weather) {
		for _, l := range p.links {
			l.Set(w)
		}
	}
	set(way.weather)
	return p.name + ": " + way.name, func() error { set(clustertest.Weather{}); return nil }, nil
}
