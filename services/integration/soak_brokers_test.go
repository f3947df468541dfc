package integration

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"chandler/events"
	"chandler/services/integration/clustertest"
)

// wholeAgain is how long a cluster may take until every broker has everything again.
const wholeAgain = 3 * time.Minute

func brokerFaults() []fault {
	return []fault{
		{name: "broker killed", weight: 3, place: atBrokers, from: 200 * time.Millisecond, to: 20 * time.Second, do: brokersKilled(1)},
		{name: "two brokers killed", weight: 1, place: atBrokers, from: 200 * time.Millisecond, to: 15 * time.Second, do: brokersKilled(2)},
		{name: "broker paused", weight: 2, place: atBrokers, from: 3 * time.Second, to: time.Minute, do: brokerPaused},
		{name: "broker partitioned", weight: 2, place: atBrokers, from: 2 * time.Second, to: 30 * time.Second, do: brokerPartitioned},
		{name: "asymmetric link", weight: 2, place: atBrokers, from: 2 * time.Second, to: 30 * time.Second, do: linkOneWay},
		{name: "slow and lossy links", weight: 2, place: atBrokers, from: 2 * time.Second, to: 30 * time.Second, do: linksSlow},
		{name: "data directory lost", weight: 1, place: atBrokers, do: directoryLost},
		{name: "rolling restart", weight: 1, place: atBrokers, do: rollingRestart},
		{name: "disk slow", weight: 2, place: atBrokers, from: 2 * time.Second, to: 30 * time.Second, missing: noDisks, do: diskSlow},
		{name: "disk full", weight: 1, place: atBrokers, from: time.Second, to: 20 * time.Second, missing: noDisks, do: diskFull},
		{name: "disk fails", weight: 1, place: atBrokers, from: 500 * time.Millisecond, to: 5 * time.Second, missing: noDisks, do: diskFails},
		{name: "power cut", weight: 1, place: atBrokers, missing: noDisks, do: powerCut},
		{name: "leaders step down", weight: 1, place: atLeaders, from: 2 * time.Second, to: 10 * time.Second, do: leadersStepDown},
	}
}

// brokersKilled kills some brokers as a power button would, and starts them again.
func brokersKilled(n int) func(*rig, *rand.Rand) (string, func() error, error) {
	return func(r *rig, random *rand.Rand) (string, func() error, error) {
		var nodes []*clustertest.Node
		var names []string
		for _, i := range random.Perm(len(r.cluster.Nodes))[:n] {
			nodes = append(nodes, r.cluster.Nodes[i])
			names = append(names, r.cluster.Nodes[i].Name)
		}
		for _, node := range nodes {
			node.Kill()
		}
		return fmt.Sprint(names), func() error {
			var all []error
			for _, node := range nodes {
				all = append(all, node.Start())
			}
			return errors.Join(all...)
		}, nil
	}
}

func brokerPaused(r *rig, random *rand.Rand) (string, func() error, error) {
	node := r.cluster.Nodes[random.IntN(len(r.cluster.Nodes))]
	return node.Name, node.Resume, node.Pause()
}

// brokerPartitioned keeps one broker from the others; its clients still reach it.
func brokerPartitioned(r *rig, random *rand.Rand) (string, func() error, error) {
	one, weather, how := random.IntN(len(r.cluster.Nodes)), clustertest.Stalled, "packets are lost"
	if random.IntN(2) == 0 {
		weather, how = clustertest.Weather{Refused: true}, "connections are refused"
	}
	r.cluster.Apart(one, weather)
	return r.cluster.Nodes[one].Name + ": " + how, func() error {
		r.cluster.Apart(one, clustertest.Weather{})
		return nil
	}, nil
}

// linkOneWay lets one broker hear another one that does not hear it.
func linkOneWay(r *rig, random *rand.Rand) (string, func() error, error) {
	two := random.Perm(len(r.cluster.Nodes))[:2]
	r.cluster.Between(two[0], two[1], clustertest.Weather{Forth: clustertest.Way{Stalled: true}})
	return fmt.Sprintf("%s does not hear %s", r.cluster.Nodes[two[1]].Name, r.cluster.Nodes[two[0]].Name), func() error {
		r.cluster.Between(two[0], two[1], clustertest.Weather{})
		return nil
	}, nil
}

// linksSlow makes all links between brokers and agents those of a bad line.
func linksSlow(r *rig, random *rand.Rand) (string, func() error, error) {
	way := clustertest.Way{Delay: time.Duration(5+random.IntN(200)) * time.Millisecond, Loss: 0.1 * random.Float64(), Rate: 200_000 + random.IntN(2_000_000)}
	set := func(w clustertest.Way) {
		for i := range r.cluster.Nodes {
			r.cluster.Apart(i, clustertest.Weather{Forth: w, Back: w})
		}
	}
	set(way)
	return fmt.Sprintf("%s, %.0f%% lost, %d KB/s", way.Delay, 100*way.Loss, way.Rate/1000), func() error { set(clustertest.Way{}); return nil }, nil
}

// directoryLost loses all files of one broker. Only when the others have everything, and until it has everything again
// nothing else happens to brokers: of three copies one may be lost.
func directoryLost(r *rig, random *rand.Rand) (string, func() error, error) {
	if err := r.whole(); err != nil {
		return "", nil, err
	}
	node := r.cluster.Nodes[random.IntN(len(r.cluster.Nodes))]
	node.Kill()
	if err := emptied(node.StoreDir); err != nil {
		return "", nil, err
	}
	return node.Name, r.whole, node.Start()
}

// emptied removes all that is in a directory, which may be a mount.
func emptied(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	return err
}

// rollingRestart restarts one broker after another in order, as for an upgrade.
func rollingRestart(r *rig, _ *rand.Rand) (string, func() error, error) {
	for _, node := range r.cluster.Nodes {
		if err := r.whole(); err != nil {
			return "", nil, err
		}
		node.Stop(20 * time.Second)
		if err := node.Start(); err != nil {
			return "", nil, err
		}
	}
	return "all, in order", r.whole, nil
}

// whole waits until every broker has everything.
func (r *rig) whole() error {
	return r.look("the cluster is whole", wholeAgain, func() error { return r.cluster.Whole(r.t.Context()) }, anyError)
}

// leadersStepDown has the leaders of streams, or of everything, hand on what they lead. Whoever cannot now need not.
func leadersStepDown(r *rig, random *rand.Rand) (string, func() error, error) {
	var subjects []string
	for _, s := range events.Streams() {
		subjects = append(subjects, "$JS.API.STREAM.LEADER.STEPDOWN."+s.Name)
	}
	for _, b := range events.Buckets() {
		if !b.Objects {
			subjects = append(subjects, "$JS.API.STREAM.LEADER.STEPDOWN.KV_"+b.Name)
		}
	}
	random.Shuffle(len(subjects), func(i, j int) { subjects[i], subjects[j] = subjects[j], subjects[i] })
	subjects = subjects[:1+random.IntN(len(subjects))]
	done := 0
	for _, subject := range subjects {
		if _, err := r.owner.Conn().Request(subject, nil, time.Second); err == nil {
			done++
		}
	}
	return fmt.Sprintf("%d of %d streams answered", done, len(subjects)), func() error { return nil }, nil
}
