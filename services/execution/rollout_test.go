package execution

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/eventstest"
)

// releasePhase hands agents over as those of a phase.
func (w *world) releasePhase(d events.DeploymentOrder, phase int, joined bool, sites []string, agents ...string) {
	w.t.Helper()
	publish(w, events.DeploymentReleased, events.ServiceSource("scheduling"), d.Deployment, events.Release{Deployment: d.Deployment, Revision: d.Revision, Order: d.Order,
		Wave: fmt.Sprint(phase), Agents: agents, Sites: sites, Phase: phase, Joined: joined})
}

// tellPlan tells a deployment once more with another plan.
func (w *world) tellPlan(r replica, d events.DeploymentOrder, silentAfter time.Duration) {
	w.t.Helper()
	d.At = w.now().UTC()
	d.Plan = &events.Plan{Phases: []events.Phase{{Name: "canary", Percent: 1}, {Name: "rest", Percent: 100,
		HaltWhen: &events.Halt{Silent: &events.Silence{Share: events.Limit{Percent: 20}, After: events.Duration(silentAfter)}}}}}
	publish(w, events.DeploymentCreated, events.ServiceSource("scheduling"), d.Deployment, d)
	w.until("the plan is known", func() bool {
		k, ok := r.orders.newest(d.Deployment)
		return ok && k.silence(1, 0) == silentAfter
	})
}

// counted waits until a deployment's waves and sites are these.
func (w *world) counted(r replica, deployment string, waves []events.WaveCounts, sites map[string]events.SiteCounts) {
	w.t.Helper()
	var got events.Progress
	defer func() {
		if w.t.Failed() {
			w.t.Logf("(-want +got):\n%s%s", cmp.Diff(waves, got.Waves), cmp.Diff(sites, got.Sites))
		}
	}()
	w.until("phases and sites are counted as wanted", func() bool {
		k, ok := r.orders.newest(deployment)
		if !ok {
			return false
		}
		got, _ = r.count(deployment, k.Revision, wholeRollout)
		return cmp.Equal(waves, got.Waves, cmpopts.EquateEmpty()) && cmp.Equal(sites, got.Sites)
	})
}

func TestJobsAreCountedByPhaseAndSite(t *testing.T) {
	w := newWorld(t)
	a, b := w.start(), w.start()
	d, ids := w.deploy("hello", 1), agents(7)
	w.releasePhase(d, 0, false, []string{"oslo", "oslo", "bergen"}, ids[:3]...)
	w.releasePhase(d, 0, true, nil, ids[3])
	w.releasePhase(d, 1, false, []string{"", "oslo", "bergen"}, ids[4:]...)
	for _, r := range []replica{a, b} {
		w.counted(r, "hello", []events.WaveCounts{{Offered: 4, InFlight: 4, Agents: 3}, {Wave: 1, Offered: 3, InFlight: 3, Agents: 3}},
			map[string]events.SiteCounts{"": {Offered: 2, InFlight: 2}, "oslo": {Offered: 3, InFlight: 3}, "bergen": {Offered: 2, InFlight: 2}})
	}
	for i, state := range []events.State{events.Succeeded, events.Failed, events.Rejected, events.Failed, events.Waiting, events.Running} {
		s := statusOf(w, d, ids[i], 1, state)
		s.Reason, s.Site = map[events.State]events.Reason{events.Rejected: events.NotTargeted, events.Failed: events.ExitCode}[state], ""
		if i == 5 {
			s.Site = "tromso" // it was carried there
		}
		w.tell(s)
	}
	user := statusOf(w, d, ids[0], 1, events.Running) // a job of one user: its agent is counted already
	user.User, user.Job = "kim", events.JobID("hello", 1, ids[0], 0, "kim")
	w.tell(user)
	waves := []events.WaveCounts{{Offered: 4, Agents: 3, Succeeded: 1, Failed: 1, NotApplicable: 1}, {Wave: 1, Offered: 3, InFlight: 2, Agents: 3, Waiting: 1}}
	sites := map[string]events.SiteCounts{"": {Offered: 2}, "oslo": {Offered: 2}, "bergen": {Offered: 2, InFlight: 1}, "tromso": {Offered: 1, InFlight: 1}}
	for _, r := range []replica{a, b} {
		w.counted(r, "hello", waves, sites)
	}

	a.snapshots(t)
	a.stop()
	b.stop()
	w.counted(w.start(), "hello", waves, sites)
}

func TestAPhaseIsKeptThroughARetryAndSetByAReleaseThatComesAgain(t *testing.T) {
	w := newWorld(t)
	r := w.start()
	d, ids := w.deploy("hello", 1), agents(2)
	w.tell(statusOf(w, d, ids[0], 3, events.Failed)) // before the release is heard of
	w.states(r, "hello", map[events.State]int64{events.Failed: 1})
	w.releasePhase(d, 2, false, nil, ids...)
	w.counted(r, "hello", []events.WaveCounts{{Wave: 2, Offered: 2, InFlight: 1, Agents: 2, Failed: 1}}, map[string]events.SiteCounts{"": {Offered: 2, InFlight: 1}})
	must[events.RetryAnswer](w)(ask(w, events.ExecutionRetry, events.Named{Name: "hello"}))
	w.counted(r, "hello", []events.WaveCounts{{Wave: 2, Offered: 2, InFlight: 2, Agents: 2}}, map[string]events.SiteCounts{"": {Offered: 2, InFlight: 2}})
}

func TestWhoWasNotHandedOverCountsInNoPhase(t *testing.T) {
	w := newWorld(t)
	r := w.start()
	d, ids := w.deploy("hello", 1), agents(3)
	w.releasePhase(d, 0, false, []string{"oslo"}, ids[0])
	w.tell(statusOf(w, d, ids[1], 1, events.Failed)) // got the order elsewhere
	w.tell(statusOf(w, d, ids[2], 1, events.Succeeded))
	w.states(r, "hello", map[events.State]int64{events.Offered: 1, events.Failed: 1, events.Succeeded: 1})
	waves, sites := []events.WaveCounts{{Offered: 1, InFlight: 1, Agents: 1}}, map[string]events.SiteCounts{"oslo": {Offered: 1, InFlight: 1}}
	w.counted(r, "hello", waves, sites)
	must[events.RetryAnswer](w)(ask(w, events.ExecutionRetry, events.Named{Name: "hello"}))
	w.tell(statusOf(w, d, ids[1], 2, events.Failed))
	w.states(r, "hello", map[events.State]int64{events.Offered: 1, events.Failed: 1, events.Succeeded: 1})
	w.counted(r, "hello", waves, sites)
	w.releasePhase(d, 1, false, []string{"bergen", "bergen"}, ids[1:]...)
	sites["bergen"] = events.SiteCounts{Offered: 2}
	w.counted(r, "hello", append(waves, events.WaveCounts{Wave: 1, Offered: 2, Agents: 2, Failed: 1, Succeeded: 1}), sites)
}

func TestAnAgentOfAPhaseIsSilentAfterTheTimeOfItsGate(t *testing.T) {
	w := newWorld(t)
	r := w.start()
	d, ids := w.deploy("hello", 1), agents(4)
	w.tellPlan(r, d, 2*time.Hour)
	w.releasePhase(d, 0, false, nil, ids[:2]...)
	w.releasePhase(d, 1, false, nil, ids[2:]...)
	w.states(r, "hello", map[events.State]int64{events.Offered: 4})
	w.tell(statusOf(w, d, ids[3], 1, events.Accepted))
	w.states(r, "hello", map[events.State]int64{events.Offered: 3, events.Accepted: 1})
	w.ahead.Add(int64(3 * time.Hour))
	sites := func(inFlight int64) map[string]events.SiteCounts {
		return map[string]events.SiteCounts{"": {Offered: 4, InFlight: inFlight}}
	}
	w.counted(r, "hello", []events.WaveCounts{{Offered: 2, InFlight: 2, Agents: 2}, {Wave: 1, Offered: 2, InFlight: 1, Agents: 2, Silent: 1}}, sites(3))
	w.tellPlan(r, d, 6*time.Hour)
	// The deployment as it was before comes again.
	if err := r.created(t.Context(), events.Event[events.DeploymentOrder]{Data: d}, bus.Meta{}); err != nil {
		t.Fatal(err)
	}
	w.counted(r, "hello", []events.WaveCounts{{Offered: 2, InFlight: 2, Agents: 2}, {Wave: 1, Offered: 2, InFlight: 2, Agents: 2}}, sites(4))
	w.ahead.Add(int64(2 * time.Hour))
	w.counted(r, "hello", []events.WaveCounts{{Offered: 2, Agents: 2, Silent: 2}, {Wave: 1, Offered: 2, InFlight: 1, Agents: 2}}, sites(1))
}

func TestRefusedReleases(t *testing.T) {
	s := &Service{partitions: make([]*partition, events.Partitions)}
	ids := agents(2)
	for name, r := range map[string]events.Release{
		"a phase below the first":            {Agents: ids, Phase: -1},
		"a phase beyond all there can be":    {Agents: ids, Phase: events.MaxPhases},
		"sites that are not those of agents": {Agents: ids, Sites: []string{"oslo"}},
		"an agent whose name is not one":     {Agents: []string{"a.b"}},
	} {
		if _, err := s.reached(r); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func phaseNotice(d events.DeploymentOrder, at time.Time) events.PhaseNotice {
	n := events.PhaseNotice{DeploymentNotice: d.DeploymentNotice, Phase: "canary"}
	n.By, n.Why, n.At = "", "7 of 100 machines failed", at.UTC()
	return n
}

func (w *world) halt(d events.DeploymentOrder, at time.Time) {
	w.t.Helper()
	publish(w, events.RolloutHalted, events.ServiceSource("scheduling"), d.Deployment, phaseNotice(d, at))
}

func (w *world) resume(d events.DeploymentOrder, at time.Time) {
	w.t.Helper()
	publish(w, events.DeploymentResumed, events.ServiceSource("scheduling"), d.Deployment, phaseNotice(d, at).DeploymentNotice)
}

// frozen lists the ids of what is frozen.
func (w *world) frozen() (ids []string) {
	w.t.Helper()
	for _, f := range must[events.FreezeList](w)(ask(w, events.ExecutionFreezes, events.Nothing{})).Freezes {
		ids = append(ids, f.ID)
	}
	return ids
}

func (w *world) untilFrozen(want ...string) {
	w.t.Helper()
	w.until(fmt.Sprint("what is frozen is ", want), func() bool { return cmp.Equal(want, w.frozen(), cmpopts.EquateEmpty()) })
}

func TestAHaltedRolloutIsFrozenUntilItIsResumed(t *testing.T) {
	w := newWorld(t)
	r := w.start()
	d, other, ids := w.deploy("hello", 1), w.deploy("other", 1), agents(2)
	w.release(d, 0, ids[0])
	w.states(r, "hello", map[events.State]int64{events.Offered: 1})
	w.release(other, 0, ids[1])
	w.states(r, "other", map[events.State]int64{events.Offered: 1})
	heard, halted := w.beacons(), w.now()
	w.halt(d, halted)
	w.untilFrozen("deployment-hello")
	w.until("a beacon tells of it", func() bool { n, ok := heard(); return ok && len(n.Freezes) == 1 && n.Freezes[0].Name == "hello" })
	request := events.SyncRequest{JobsGeneration: r.generations.jobs(), StatusGeneration: r.generations.status()}
	for i, want := range []int{1, 0} { // the second agent has no job of it
		answer, err := bus.Request(t.Context(), w.bus, ids[i], events.ExecutionSync, request)
		if err != nil || len(answer.Freezes) != want {
			t.Errorf("sync of agent %d: %+v, %v", i, answer.Freezes, err)
		}
	}
	_, err := ask(w, events.ExecutionUnfreeze, events.Named{Name: "deployment-hello"})
	if !errors.Is(err, bus.ErrConflict) || !strings.Contains(err.Error(), "resume the deployment") {
		t.Errorf("a person lifted it: %v", err)
	}
	if _, err := ask(w, events.ExecutionRetry, events.Named{Name: "hello"}); !errors.Is(err, bus.ErrConflict) {
		t.Errorf("a halted deployment is tried again: %v", err)
	}
	w.resume(d, halted.Add(time.Minute))
	w.untilFrozen()
	w.until("a beacon tells of it", func() bool { n, ok := heard(); return ok && len(n.Freezes) == 0 })
	w.halt(d, halted) // it comes again, late
	publish(w, events.RolloutSkipped, events.ServiceSource("scheduling"), "other", phaseNotice(other, halted.Add(time.Minute)))
	w.halt(other, halted) // the two came the wrong way round
	w.halt(d, halted.Add(2*time.Minute))
	w.untilFrozen("deployment-hello")
	sets := eventstest.ExpectExactly(t, w.bus, events.FreezeSet, nil, 2)
	if f := sets[0].Data; f.Scope != "deployment" || f.Revision != 1 || f.By != byScheduling || f.Why != "7 of 100 machines failed" {
		t.Errorf("the freeze is %+v", f)
	}
	eventstest.ExpectExactly(t, w.bus, events.FreezeLifted, nil, 1)
}

func TestAHaltThatWasStoredAndNotToldIsToldByWhoHandlesItNext(t *testing.T) {
	w := newWorld(t)
	r := w.start()
	d, halted := w.deploy("hello", 1), w.now().UTC()
	w.until("the order is known", func() bool { return r.orders.knows("hello") })
	dying := w.replicaWithoutReaders()
	if err := dying.put(t.Context(), keyHalt+"hello", newHalt(phaseNotice(d, halted).DeploymentNotice, true)); err != nil {
		t.Fatal(err) // and the process ends
	}
	w.halt(d, halted) // comes again
	eventstest.ExpectExactly(t, w.bus, events.FreezeSet, nil, 1)
	w.untilFrozen("deployment-hello")
}

func TestWhatEndsAHalt(t *testing.T) {
	for name, end := range map[string]func(w *world, d events.DeploymentOrder){
		"a newer revision": func(w *world, d events.DeploymentOrder) { w.deploy(d.Deployment, 2) },
		"a stop": func(w *world, d events.DeploymentOrder) {
			must[events.StopAnswer](w)(ask(w, events.ExecutionStop, events.StopRequest{Deployment: d.Deployment}))
		},
		"a skip": func(w *world, d events.DeploymentOrder) {
			publish(w, events.RolloutSkipped, events.ServiceSource("scheduling"), d.Deployment, phaseNotice(d, w.now().Add(time.Second)))
		},
		"the end of its time": func(w *world, d events.DeploymentOrder) {
			publish(w, events.DeploymentLapsed, events.ServiceSource("scheduling"), d.Deployment, phaseNotice(d, w.now().Add(time.Second)).DeploymentNotice)
		},
		"its removal": func(w *world, d events.DeploymentOrder) {
			publish(w, events.DeploymentRemoved, events.ServiceSource("scheduling"), d.Deployment, phaseNotice(d, w.now().Add(time.Second)).DeploymentNotice)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.start()
			w.start()
			d := w.deploy(strings.Repeat("x", 64), 1) // a name that leaves no room for the scope
			w.halt(d, w.now())
			w.untilFrozen(haltID(d.Deployment))
			end(w, d)
			w.untilFrozen()
			eventstest.ExpectExactly(t, w.bus, events.FreezeLifted, nil, 1)
		})
	}
}

func TestADeploymentMadeAgainAfterItsRemovalCanBeHalted(t *testing.T) {
	w := newWorld(t)
	r := w.start()
	d := w.deploy("hello", 1)
	w.halt(d, w.now())
	w.untilFrozen("deployment-hello")
	publish(w, events.DeploymentRemoved, events.ServiceSource("scheduling"), "hello", d.DeploymentNotice)
	w.until("it is forgotten", func() bool { return !r.orders.knows("hello") && len(w.frozen()) == 0 })
	w.halt(w.deploy("hello", 2), w.now())
	w.untilFrozen("deployment-hello")
}

func TestAHaltOfARevisionThatWasReplacedChangesNothing(t *testing.T) {
	w := newWorld(t)
	w.start()
	d := w.deploy("hello", 1)
	w.deploy("hello", 2)
	w.halt(d, w.now().Add(time.Hour))
	last := w.deploy("last", 1)
	w.halt(last, w.now()) // handled after it
	w.untilFrozen("deployment-last")
}

func TestMoreHaltsThanAgentsCanBeToldOfAreRefused(t *testing.T) {
	w := newWorld(t)
	s := w.replicaWithoutReaders()
	s.control.mu.Lock()
	for i := range maxHalts {
		s.control.halts[fmt.Sprint("d", i)] = halt{Deployment: fmt.Sprint("d", i), Revision: 1, Halted: true}
	}
	s.control.mu.Unlock()
	h := halt{Deployment: "one-more", Revision: 1, Halted: true, At: w.now()}
	if err := s.setHalt(t.Context(), h); err == nil {
		t.Error("one more was accepted")
	}
	s.control.mu.Lock()
	delete(s.control.halts, "d0")
	s.control.mu.Unlock()
	if err := s.setHalt(t.Context(), h); err != nil {
		t.Errorf("one less: %v", err)
	}
	s.control.mu.Lock()
	for name := range s.control.halts {
		s.control.halts[name] = halt{Deployment: name, Revision: 1, Halted: true, Why: strings.Repeat("w", maxHaltWhy)}
	}
	s.control.mu.Unlock()
	if err := s.setHalt(t.Context(), halt{Deployment: "long", Revision: 1, Halted: true, At: w.now()}); err == nil {
		t.Error("more than a message can carry was accepted")
	}
}

func TestANewerRevisionWithdrawsWhatDoesNotRunOfTheOlderOnes(t *testing.T) {
	w := newWorld(t)
	r := w.start()
	d, ids := w.deploy("hello", 1), agents(3)
	w.release(d, 0, ids...)
	w.states(r, "hello", map[events.State]int64{events.Offered: 3})
	w.tell(statusOf(w, d, ids[0], 1, events.Succeeded))
	w.states(r, "hello", map[events.State]int64{events.Offered: 2, events.Succeeded: 1})
	second := w.deploy("hello", 2)
	for _, c := range eventstest.ExpectExactly(t, w.bus, events.JobCancelRequested, nil, 2) {
		if c.Data.Agent == ids[0] || c.Data.Revision != 1 || c.Data.Kill || !strings.Contains(c.Data.By, "replaced by revision 2") {
			t.Errorf("cancellation %+v", c.Data)
		}
	}
	if _, err := ask(w, events.ExecutionStopped, events.StopQuery{Deployment: "hello"}); !errors.Is(err, bus.ErrNotFound) {
		t.Errorf("the deployment counts as stopped: %v", err)
	}
	w.release(d, 0, agents(4)[3]) // a release of the older one that comes late
	w.release(second, 0, ids...)
	w.states(r, "hello", map[events.State]int64{events.Offered: 3})
	answer, err := bus.Request(t.Context(), w.bus, ids[1], events.ExecutionSync, events.SyncRequest{JobsGeneration: r.generations.jobs(), StatusGeneration: r.generations.status()})
	if err != nil || len(answer.Offers) != 1 || answer.Offers[0].Revision != 2 || len(answer.Cancels) != 1 || answer.Cancels[0].Revision != 1 {
		t.Errorf("an agent that was away gets %+v, %v", answer, err)
	}
	eventstest.ExpectExactly(t, w.bus, events.JobOffered, nil, 6)
	stopped := must[events.StopAnswer](w)(ask(w, events.ExecutionStop, events.StopRequest{Deployment: "hello"}))
	if stopped.Unreachable != 3 {
		t.Errorf("the stop of the newer one: %+v", stopped)
	}
	eventstest.ExpectExactly(t, w.bus, events.JobCancelRequested, nil, 5)
	eventstest.ExpectExactly(t, w.bus, events.DeploymentHalted, nil, 1)
}

func TestPhasesAndSitesOutliveTheFold(t *testing.T) {
	w := newWorld(t)
	a := w.start()
	d, ids := w.deploy("hello", 1), agents(10)
	w.releasePhase(d, 1, false, []string{"oslo", "oslo", "oslo", "bergen", "bergen", "bergen", "bergen", "bergen", "bergen", "bergen"}, ids...)
	sites := map[string]events.SiteCounts{"oslo": {Offered: 3, InFlight: 3}, "bergen": {Offered: 7, InFlight: 7}}
	w.counted(a, "hello", []events.WaveCounts{{Wave: 1, Offered: 10, InFlight: 10, Agents: 10}}, sites)
	w.deleteStream(events.StreamFold)
	w.runThrough(d, ids[:3])
	waves := []events.WaveCounts{{Wave: 1, Offered: 10, InFlight: 7, Agents: 10, Succeeded: 3}}
	sites["oslo"] = events.SiteCounts{Offered: 3}
	w.counted(a, "hello", waves, sites)
	fold := streamNamed(w, events.StreamFold).CachedInfo().Created.UnixNano()
	w.until("all of it is carried on", func() bool {
		return !slices.ContainsFunc(a.partitions, func(p *partition) bool {
			p.turn.Lock()
			defer p.turn.Unlock()
			return p.created != fold
		})
	})
	a.stop()
	w.counted(w.start(), "hello", waves, sites)
}
