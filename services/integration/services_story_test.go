package integration

import (
	"fmt"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"chandler/events"
	"chandler/events/eventstest"
)

// TestServicesAreKilledAtRandomMoments runs the services as processes and kills one of them again and again
// while five agents carry out four deployments.
func TestServicesAreKilledAtRandomMoments(t *testing.T) {
	t.Parallel()
	const deployments, killsEach, seed = 4, 3, 20261201
	victims := []string{"execution", "execution", "scheduling", "content"} // it has the most to lose
	random := rand.New(rand.NewPCG(seed, seed))
	f := newFleet(t)
	var machines []*machine
	for i := range 5 {
		machines = append(machines, f.machine(fmt.Sprintf("ws%d", i+1)))
	}
	p := f.publish("1.0", payload, "")
	f.everyone(len(machines))
	f.stopServices()
	processes := map[string]*exec.Cmd{}
	for _, name := range serviceNames {
		processes[name] = f.serviceProcess(name)
	}
	t.Cleanup(func() {
		for _, cmd := range processes {
			kill(t, cmd)
		}
	})
	for d := range deployments {
		name := fmt.Sprintf("storm-%d", d)
		f.deploy(name, p)
		for range killsEach {
			f.awaitMoreStored(1+random.Uint64N(12), name, len(machines))
			victim := victims[random.IntN(len(victims))]
			t.Logf("killing %s during %s", victim, name)
			kill(t, processes[victim])
			processes[victim] = f.serviceProcess(victim)
		}
	}
	for d := range deployments {
		name := fmt.Sprintf("storm-%d", d)
		for _, m := range machines {
			f.want(name, m, events.Succeeded)
		}
		f.check(name, machines...)
		f.counts(name, map[events.State]int64{events.Succeeded: int64(len(machines))})
	}
	for _, m := range machines {
		if ran := m.ran(); len(ran) != deployments {
			t.Errorf("%s ran %d programs, not %d: %v", m.name, len(ran), deployments, ran)
		}
	}
	finished := eventstest.ExpectExactly(t, f.owner, events.JobFinished, nil, deployments*len(machines))
	onceEach(t, finished)
}

func kill(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	must(t, cmd.Process.Kill())
	_ = cmd.Wait() // a killed process is no success
}

// awaitMoreStored waits until some more messages are stored in the streams that the work goes through, or
// all jobs of a deployment have ended.
func (f *fleet) awaitMoreStored(more uint64, deployment string, jobs int) {
	f.t.Helper()
	target := f.stored() + more
	eventually(f.t, "the work goes on", func() bool {
		if f.stored() >= target {
			return true
		}
		ended := map[string]bool{}
		_, err := f.owner.Replay(f.t.Context(), events.StreamStatus, events.JobSucceeded.Filter(), 1, func(m jetstream.Msg) error {
			e, err := typed[events.JobStatus](m)
			if err == nil && e.Data.Deployment == deployment {
				ended[e.Data.Job] = true
			}
			return err
		})
		return err == nil && len(ended) == jobs
	})
}

// stored is the number of messages ever stored of the work.
func (f *fleet) stored() (n uint64) {
	f.t.Helper()
	for _, name := range []string{events.StreamEvents, events.StreamJobs, events.StreamStatus} {
		stream, err := f.owner.JetStream().Stream(f.t.Context(), name)
		must(f.t, err)
		n += stream.CachedInfo().State.LastSeq
	}
	return n
}

// counts waits until execution counts a deployment's jobs so.
func (f *fleet) counts(deployment string, want map[events.State]int64) {
	f.t.Helper()
	var diff string
	eventually(f.t, "the counts of "+deployment+" are right", func() bool {
		diff = cmp.Diff(want, mustAsk(f, events.ExecutionProgress, events.Named{Name: deployment}).States)
		return diff == ""
	})
}

// onceEach asserts that no job finished twice.
func onceEach(t *testing.T, finished []events.Event[events.JobEnd]) {
	t.Helper()
	seen := map[string]bool{}
	for _, e := range finished {
		if seen[e.Data.Job] {
			t.Errorf("job %s finished twice", e.Data.Job)
		}
		seen[e.Data.Job] = true
	}
}

// TestOneOfTwoReplicasEndsAbruptly has two replicas of execution and of scheduling share the work; the
// first of each vanishes with programs running.
func TestOneOfTwoReplicasEndsAbruptly(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	for _, name := range []string{"execution", "scheduling"} {
		second := f.startReplica(name, f.broker.URL(), prometheus.NewRegistry())
		t.Cleanup(func() {
			if err := second.stop(); err != nil {
				t.Errorf("second replica of %s ended: %v", name, err)
			}
		})
	}
	machines := []*machine{f.machine("ws1"), f.machine("ws2"), f.machine("ws3")}
	p := f.publish("1.0", payload, "")
	f.everyone(len(machines))
	for _, m := range machines {
		m.write("hold", "")
	}
	f.deploy("shared", p)
	for _, m := range machines {
		f.want("shared", m, events.Running)
	}
	f.killService("execution")
	f.killService("scheduling")
	for _, m := range machines {
		m.remove("hold")
	}
	f.deploy("inherited", p)
	for _, name := range []string{"shared", "inherited"} {
		for _, m := range machines {
			f.want(name, m, events.Succeeded)
		}
		f.check(name, machines...)
		f.counts(name, map[events.State]int64{events.Succeeded: int64(len(machines))})
	}
	onceEach(t, eventstest.ExpectExactly(t, f.owner, events.JobFinished, nil, 2*len(machines)))
}

func TestServicesAndAgentsStartWithoutABroker(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	machines := []*machine{f.machine("ws1"), f.machine("ws2")}
	for _, m := range machines { // they enrol, which takes a broker
		m.stop()
	}
	f.stopServices()
	f.broker.Stop()
	f.log.reset()
	f.startServices()
	for _, m := range machines {
		m.start()
	}
	for _, name := range serviceNames {
		eventually(t, name+" has tried to reach the broker", func() bool {
			return slices.ContainsFunc(strings.Split(f.log.String(), "\n"), func(line string) bool {
				return strings.Contains(line, "the broker cannot be reached") && strings.Contains(line, "connection="+name)
			})
		})
		select {
		case err := <-f.services[name].done:
			t.Fatalf("%s ended without a broker: %v", name, err)
		default:
		}
	}
	f.broker.Start()
	p := f.publish("1.0", payload, "")
	f.everyone(len(machines))
	f.deploy("late", p)
	for _, m := range machines {
		f.want("late", m, events.Succeeded)
	}
	f.check("late", machines...)
}

func TestTwoAgentsHaveOneHostName(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	twin := func(a *agentFile) { a.Hostname = "twin" }
	machines := []*machine{f.machine("first", twin), f.machine("second", twin)}
	p := f.publish("1.0", payload, "")
	f.everyone(2)
	var listed []string
	for _, a := range mustAsk(f, events.AgentList, events.AgentQuery{Name: "twin"}).Agents {
		listed = append(listed, a.Facts.ID)
	}
	want := []string{machines[0].id, machines[1].id}
	slices.Sort(want)
	slices.Sort(listed)
	if diff := cmp.Diff(want, listed); diff != "" {
		t.Fatalf("listed under the name: %s", diff)
	}
	f.deploy("both", p)
	jobs := map[string]bool{}
	for _, m := range machines {
		jobs[f.want("both", m, events.Succeeded).Job] = true
		if ran := m.ran(); len(ran) != 1 {
			t.Errorf("%s ran %v", m.name, ran)
		}
	}
	if len(jobs) != 2 {
		t.Errorf("the machines share jobs: %v", jobs)
	}
	f.check("both", machines...)
}
