package integration

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
	"chandler/events/eventstest"
)

// TestReplicasAreKilledDuringARolloutOf1000Machines runs scheduling and execution as two processes each and kills one of the
// four ten times while a rollout goes through its phases. Every machine must be offered its job once, no gate may open or
// halt for a wrong count, and the limit of jobs in flight holds throughout.
func TestReplicasAreKilledDuringARolloutOf1000Machines(t *testing.T) {
	t.Parallel()
	const machines, deployment = 1000, "storm"
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, seed))
	f := newFleet(t)
	p := f.publish("1.0", payload, "")
	r := f.replicas("scheduling", "execution")
	c := newCrowd(f, deployment, machines)
	c.report()
	f.everyone(machines)
	plan := c.plan()
	c.start(plan.MaxInFlight)

	request := f.sign(deployment, p)
	request.Plan = &plan
	begin := f.stored()
	mustAsk(f, events.DeploymentCreate, request)
	for i, at := range c.moments(random) {
		c.await(fmt.Sprintf("%d messages are stored", at), func() bool { return f.stored() >= begin+at })
		if ended := c.ended(); ended == machines {
			t.Errorf("all had ended before kill %d: it shows nothing", i+1)
		}
		victim := random.IntN(len(r))
		t.Logf("killing %s, replica %d, after %d messages; %d machines have ended", r[victim].name, victim, f.stored()-begin, c.ended())
		r[victim].restart()
	}
	c.await("all machines have ended", func() bool { return c.ended() == machines })
	c.verify(plan)
}

// moments are the numbers of stored messages at which a replica dies: once in the canary, three times in the pilot, six
// times in nine tenths of the rest; each at random in its part of the phase. Of a job are stored its offer, three statuses
// and its end.
func (c *crowd) moments(random *rand.Rand) (all []uint64) {
	const ofJob = 5
	from := uint64(0)
	for i, kills := range []uint64{1, 3, 6} {
		messages := uint64(c.phases[i].size) * ofJob
		part := messages / kills
		if i == len(c.phases)-1 {
			part = messages * 9 / 10 / kills
		}
		for k := range kills {
			all = append(all, from+k*part+random.Uint64N(part))
		}
		from += messages
	}
	return all
}

// process is a replica of a service as a process of its own.
type process struct {
	f          *fleet
	name, file string
	cmd        *exec.Cmd
}

// replicas runs two processes of each service in place of the one in this process, until the test ends.
func (f *fleet) replicas(names ...string) (all []*process) {
	f.t.Helper()
	f.t.Cleanup(func() {
		for _, p := range all {
			kill(f.t, p.cmd)
		}
	})
	for _, name := range names {
		f.stopService(name)
		data, err := json.Marshal(f.serviceFile(name, f.broker.URL()))
		must(f.t, err)
		file := filepath.Join(f.dir, name+".json") // replicas read the same, so that it is written once
		must(f.t, os.WriteFile(file, data, 0o600))
		for range 2 {
			p := &process{f: f, name: name, file: file}
			p.start()
			all = append(all, p)
		}
	}
	return all
}

func (p *process) start() {
	p.f.t.Helper()
	self, err := os.Executable()
	must(p.f.t, err)
	p.cmd = exec.Command(self, "service", p.name, p.file)
	p.cmd.Stderr = p.f.log
	must(p.f.t, p.cmd.Start())
}

// restart kills the process as a power button would and starts it again.
func (p *process) restart() {
	p.f.t.Helper()
	kill(p.f.t, p.cmd)
	p.start()
}

// verify holds what is stored, and what the services say, against what the machines did.
func (c *crowd) verify(plan events.Plan) {
	t, f := c.f.t, c.f
	t.Helper()
	want := map[events.State]int64{}
	for _, phase := range c.phases {
		want[events.Succeeded] += phase.succeeds
		want[events.Failed] += phase.fails
	}
	f.counts(c.deployment, want)
	copies := c.offeredOnce()
	finished := eventstest.ExpectExactly(t, f.owner, events.JobFinished, nil, len(c.all))
	onceEach(t, finished)
	for _, e := range finished {
		if a := c.all[e.Data.Agent]; e.Data.State != a.end() {
			t.Errorf("the job of %s finished as %s; the machine said %s", e.Data.Agent, e.Data.State, a.end())
		}
	}
	c.phasesWere(plan)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, amiss := range c.amiss[:min(len(c.amiss), 20)] {
		t.Error(amiss)
	}
	if c.most != plan.MaxInFlight {
		t.Errorf("at most %d jobs were in flight at once, the limit is %d", c.most, plan.MaxInFlight)
	}
	if c.again != copies {
		t.Errorf("machines took %d offers for ones they had, of %d that were stored once more", c.again, copies)
	}
	t.Logf("%d offers were stored a second time", copies)
}

// offeredOnce asserts that JOBS holds one job of each machine, in one attempt. copies are offers that were stored once more,
// under the same id: told again by who took over from a dead replica, and that the machines recognise.
func (c *crowd) offeredOnce() (copies int) {
	t := c.f.t
	t.Helper()
	effects, ids := map[string]map[string]bool{}, map[string]string{}
	_, err := c.f.owner.Replay(t.Context(), events.StreamJobs, events.OfferStored("*"), 1, func(m jetstream.Msg) error {
		e, err := typed[events.JobOffer](m)
		if err != nil {
			return err
		}
		if effects[e.Data.Agent] == nil {
			effects[e.Data.Agent] = map[string]bool{}
		}
		effect := fmt.Sprintf("%s attempt %d", e.Data.Job, e.Data.Attempt)
		if id, known := ids[effect]; known {
			copies++
			if id != e.ID {
				t.Errorf("%s of %s was offered under two ids", effect, e.Data.Agent)
			}
		}
		ids[effect] = e.ID
		effects[e.Data.Agent][effect] = true
		return nil
	})
	must(t, err)
	for id := range c.all {
		if len(effects[id]) != 1 {
			t.Errorf("%s was offered %v", id, effects[id])
		}
	}
	if len(effects) != len(c.all) {
		t.Errorf("%d machines were offered a job, of %d", len(effects), len(c.all))
	}
	return copies
}

// phasesWere asserts that each phase opened once, in its order and with its machines, and that none halted.
func (c *crowd) phasesWere(plan events.Plan) {
	t, f := c.f.t, c.f
	t.Helper()
	var want, opened []events.PhaseNotice
	var waves []events.WaveCounts
	for i, p := range plan.Phases {
		n := c.phases[i]
		want = append(want, events.PhaseNotice{Phase: p.Name, Index: i, Size: n.size})
		waves = append(waves, events.WaveCounts{Wave: i, Offered: int64(n.size), Agents: int64(n.size), Succeeded: n.succeeds, Failed: n.fails})
	}
	for _, e := range eventstest.ExpectExactly(t, f.owner, events.RolloutOpened, nil, len(want)) {
		opened = append(opened, events.PhaseNotice{Phase: e.Data.Phase, Index: e.Data.Index, Size: e.Data.Size})
	}
	if diff := cmp.Diff(want, opened); diff != "" {
		t.Errorf("phases opened (-want +got):\n%s", diff)
	}
	eventstest.ExpectExactly(t, f.owner, events.RolloutHalted, nil, 0)
	// A job of which execution heard by its status, because the replica that offered it died before it noted so, belongs to no
	// phase until the release comes again.
	var diff string
	eventually(t, "execution counts in phases what the machines did", func() bool {
		diff = cmp.Diff(waves, mustAsk(f, events.ExecutionProgress, events.Named{Name: c.deployment}).Waves)
		return diff == ""
	})
	handed := map[string]int{}
	_, err := f.owner.Replay(t.Context(), events.StreamEvents, events.DeploymentReleased.Filter(), 1, func(m jetstream.Msg) error {
		e, err := typed[events.Release](m)
		if err != nil {
			return err
		}
		for _, id := range e.Data.Agents {
			if a := c.all[id]; a.phase != e.Data.Phase || e.Data.Joined {
				t.Errorf("%s of phase %d was handed over in phase %d, joined: %t", id, a.phase, e.Data.Phase, e.Data.Joined)
			}
			handed[id]++
		}
		return nil
	})
	must(t, err)
	for _, id := range c.ids() {
		if handed[id] != 1 {
			t.Errorf("%s was handed over %d times", id, handed[id])
		}
	}
}

func (c *crowd) ids() (ids []string) {
	for id := range c.all {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}
