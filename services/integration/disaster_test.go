package integration

import (
	"os"
	"path/filepath"
	"testing"

	"chandler/events"
	"chandler/events/eventstest"
)

// TestTheBrokersStoreIsDamaged loses, truncates and restores what the broker stores, with one job done and
// one under way. Afterwards: nothing ran twice, every job has one end, and every agent gets the next offer.
func TestTheBrokersStoreIsDamaged(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(t *testing.T, store, earlier string){
		"lost":                          func(t *testing.T, store, _ string) { must(t, os.RemoveAll(store)) },
		"restored from an earlier copy": restore,
		"truncated":                     truncate,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t)
			machines := []*machine{f.machine("ws1"), f.machine("ws2")}
			away := f.machine("away") // during the damage, and for the offer after it
			p := f.publish("1.0", payload, "")
			f.everyone(3)
			first := f.deploySigned("first", p)
			for _, m := range append(machines, away) {
				f.want("first", m, events.Succeeded)
			}
			away.stop()
			earlier := f.copyStore()
			for _, m := range machines {
				m.write("hold", "")
			}
			second := f.deploySigned("second", p)
			for _, m := range machines {
				f.want("second", m, events.Running)
			}

			f.stopServices()
			f.broker.Stop()
			damage(t, f.broker.StoreDir(), earlier)
			f.broker.Start()
			eventstest.Provision(t, f.owner)
			f.startServices()
			for _, m := range machines {
				m.remove("hold")
			}

			// What the broker lost of the administrator's work, the administrator does again.
			p = f.publishAgain(p)
			mustAsk(f, events.CollectionSet, events.Collection{Name: "everyone", Expression: "true"})
			mustAsk(f, events.DeploymentCreate, first)
			mustAsk(f, events.DeploymentCreate, second)
			f.reconcile()
			for _, d := range []string{"first", "second"} {
				for _, m := range machines {
					f.want(d, m, events.Succeeded)
				}
				f.check(d, machines...)
			}
			f.deploy("third", p)
			for _, m := range machines {
				f.want("third", m, events.Succeeded)
				if ran := m.ran(); len(ran) != 3 {
					t.Errorf("%s ran %d times: %v", m.name, len(ran), ran)
				}
			}
			f.check("third", machines...)
			away.start()
			for d, state := range map[string]events.State{"first": events.Succeeded, "second": events.Succeeded, "third": events.Succeeded} {
				f.want(d, away, state)
				f.check(d, away)
			}
			if ran := away.ran(); len(ran) != 3 {
				t.Errorf("%s ran %d times: %v", away.name, len(ran), ran)
			}
		})
	}
}

// copyStore stops the broker for a moment and copies what it stores.
func (f *fleet) copyStore() string {
	f.t.Helper()
	f.broker.Stop()
	to := filepath.Join(f.t.TempDir(), "copy")
	must(f.t, os.CopyFS(to, os.DirFS(f.broker.StoreDir())))
	f.broker.Start()
	return to
}

func restore(t *testing.T, store, earlier string) {
	must(t, os.RemoveAll(store))
	must(t, os.CopyFS(store, os.DirFS(earlier)))
}

// truncate cuts the last bytes of every message block of the streams that agents and execution live by.
func truncate(t *testing.T, store, _ string) {
	cut := 0
	for _, stream := range []string{events.StreamJobs, events.StreamStatus, events.StreamFold} {
		blocks, err := filepath.Glob(filepath.Join(store, "jetstream", "*", "streams", stream, "msgs", "*.blk"))
		must(t, err)
		for _, b := range blocks {
			info, err := os.Stat(b)
			must(t, err)
			if info.Size() > 200 {
				must(t, os.Truncate(b, info.Size()*3/4))
				cut++
			}
		}
	}
	if cut < 2 {
		t.Fatalf("only %d blocks were cut", cut)
	}
}
