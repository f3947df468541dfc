package integration

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chandler/events"
	"chandler/events/access"
	"chandler/events/order"
	"chandler/services/backup"
)

// backUp takes what the broker holds, as `chandler backup` does, while everything runs.
func (f *fleet) backUp() []byte {
	f.t.Helper()
	var out bytes.Buffer
	_, err := backup.Write(f.t.Context(), &out, backup.Options{Conn: f.broker.Bus(f.t, access.Provisioner, string(access.Provisioner)).Conn(),
		Fleet: f.trust.Fleet, Account: f.broker.Account(access.Fleet), Now: time.Now(), Scratch: f.t.TempDir()})
	must(f.t, err)
	return out.Bytes()
}

// restoreFrom loses all that the broker stores and starts it, on the same address, with what a backup holds.
func (f *fleet) restoreFrom(archive []byte) {
	f.t.Helper()
	f.stopServices()
	f.broker.Stop()
	must(f.t, os.RemoveAll(f.broker.StoreDir()))
	_, err := backup.Verify(f.t.Context(), bytes.NewReader(archive))
	must(f.t, err)
	dir := f.t.TempDir()
	_, err = backup.Extract(f.t.Context(), bytes.NewReader(archive), dir, nil)
	must(f.t, err)
	must(f.t, os.Rename(filepath.Join(dir, backup.StoreName), f.broker.StoreDir()))
	f.broker.Start()
	f.startServices()
}

func revision(n uint64) func(*order.Order) { return func(o *order.Order) { o.Revision = n } }

// endsOnce asserts that every attempt of a machine's jobs of a deployment, of whichever revision, ended once, and
// that nothing ran twice.
func (f *fleet) endsOnce(deployment string, m *machine) {
	f.t.Helper()
	ends := map[string]int{}
	for _, s := range f.statuses(deployment, m) {
		if s.State.Terminal() {
			if ends[fmt.Sprint(s.Job, s.Attempt)]++; ends[fmt.Sprint(s.Job, s.Attempt)] > 1 {
				f.t.Errorf("%s: revision %d of %s ended twice", m.name, s.Revision, deployment)
			}
		}
	}
	ran := m.ran()
	slices.Sort(ran)
	if len(slices.Compact(slices.Clone(ran))) != len(ran) {
		f.t.Errorf("%s: an attempt ran twice: %v", m.name, ran)
	}
}

// TestAFleetGoesOnFromLastNightsBackup backs up a fleet with one job done, one under way and one offered to a
// machine that is away; lets more happen that the backup does not know; and restores it. Nobody is told anything by hand.
func TestAFleetGoesOnFromLastNightsBackup(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	here := []*machine{f.machine("ws1"), f.machine("ws2")}
	away := f.machine("away")
	all := append(here[:len(here):len(here)], away)
	p, second, newest := f.publish("1.0", payload, ""), f.publish("2.0", payload, ""), f.publish("3.0", payload, "")
	f.everyone(3)
	f.deploy("first", p)
	for _, m := range all {
		f.want("first", m, events.Succeeded)
	}
	away.stop()
	for _, m := range here {
		m.write("hold", "")
	}
	f.deploy("second", p)
	for _, m := range here {
		f.want("second", m, events.Running)
	}
	f.want("second", away, events.Offered)
	generation := f.bucket(events.BucketControl)["generation.STATUS"]
	archive := f.backUp()

	// What the backup does not know: the second ends, gets another revision, and there is a third.
	for _, m := range here {
		m.remove("hold")
	}
	wantAll := func(deployment string, machines ...*machine) {
		t.Helper()
		for _, m := range machines {
			f.want(deployment, m, events.Succeeded)
			f.endsOnce(deployment, m)
		}
	}
	wantAll("second", here...)
	f.deploy("second", second, revision(2))
	third := f.deploySigned("third", p)
	eventually(t, "every machine here ran four programs", func() bool { return len(here[0].ran()) == 4 && len(here[1].ran()) == 4 })
	wantAll("third", here...)
	before := [][]string{here[0].ran(), here[1].ran()}

	f.restoreFrom(archive)

	wantAll("first", all...)
	wantAll("second", here...)
	if after := f.bucket(events.BucketControl)["generation.STATUS"]; len(after) == 0 || bytes.Equal(after, generation) {
		t.Errorf("STATUS is of generation %s, as before: agents do not tell again", after)
	}
	if diff := cmp.Diff(before, [][]string{here[0].ran(), here[1].ran()}); diff != "" {
		t.Errorf("something ran again: %s", diff)
	}
	away.start()
	wantAll("second", away)

	// What was lost is deployed again: the very order, and one of a higher revision.
	mustAsk(f, events.DeploymentCreate, third)
	wantAll("third", all...)
	f.deploy("second", newest, revision(3))
	for _, m := range all {
		eventually(t, m.name+" has the third revision", func() bool {
			row, ok := f.row("second", m)
			return ok && row.Revision == 3 && row.State == events.Succeeded
		})
	}
	f.deploy("fourth", p)
	wantAll("fourth", all...)
	wantAll("second", all...)
	for m, want := range map[*machine]int{here[0]: 6, here[1]: 6, away: 5} {
		if got := m.ran(); len(got) != want {
			t.Errorf("%s ran %d times, not %d: %v", m.name, len(got), want, got)
		}
	}
}
