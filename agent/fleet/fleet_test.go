package fleet

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chandler/agent/journal"
	"chandler/events"
	"chandler/events/bus"
	"chandler/events/calendar"
	"chandler/events/eventstest"
	"chandler/events/order"
)

func (r *rig) wantStates(job string, want ...events.State) {
	r.t.Helper()
	if diff := cmp.Diff(want, r.states(job)); diff != "" {
		r.t.Errorf("states of job %s: want -, stored +\n%s", job, diff)
	}
}

func TestEveryMemberCarriesOutItsJobOnce(t *testing.T) {
	r := newRig(t, 5, func(o *Options) { o.Script = Script{Output: 1000, Content: true} })
	stop := r.run()
	offer, jobs := r.signed(), map[string]string{}
	for _, m := range r.options.Members {
		jobs[m.ID] = r.offer(m.ID, offer)
	}
	for range jobs {
		r.await("a job has succeeded", func(o Observation) bool { return o.What == StatusStored && o.State == events.Succeeded })
	}
	for id, job := range jobs {
		r.wantStates(job, events.Accepted, events.Downloading, events.Downloaded, events.Running, events.Succeeded)
		if runs := r.runs(job); len(runs) != 1 || runs[0].Agent != id || runs[0].Ended.IsZero() {
			t.Errorf("runs of %s: %+v", job, runs)
		}
		chunk := eventstest.Expect(t, r.execution, events.JobLogged, func(e events.Event[events.JobLog]) bool { return e.Data.Job == job })
		if len(chunk.Data.Lines) == 0 {
			t.Error("the log has no lines")
		}
		reported := eventstest.Expect(t, r.execution, events.AgentReported, func(e events.Event[events.AgentReport]) bool { return e.Subject == id })
		if f := reported.Data.Facts; f.ID != id || f.Trust != 1 || f.OfferFormat != events.OfferFormat || f.Hostname == "" {
			t.Errorf("facts are %+v", f)
		}
	}
	s := r.fleet.Stats()
	if s.Connected != 5 || s.Offers != 5 || s.Started != 5 || s.Ended != 5 || s.Statuses < 25 || s.Syncs < 5 || s.BytesIn == 0 || s.BytesOut == 0 || s.Refused != 0 {
		t.Errorf("counted were %+v", s)
	}
	stop()
	seen := map[string]string{}
	if err := Journals(r.store, func(agent string, j journal.Job) error {
		seen[agent] = j.Offer.Job
		if j.Last.State != events.Succeeded || !j.Acted {
			t.Errorf("the journal of %s says %+v", agent, j.Last)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(jobs, seen); diff != "" {
		t.Error(diff)
	}
}

// scriptWith finds a seed with which the attempts of a job end so.
func scriptWith(t *testing.T, s Script, job string, reasons ...events.Reason) Script {
	t.Helper()
	for s.Seed = range uint64(10_000) {
		if matches(s, job, reasons) {
			return s
		}
	}
	t.Fatal("no seed does that")
	return s
}

func matches(s Script, job string, reasons []events.Reason) bool {
	for i, want := range reasons {
		if s.Of(job, i+1).Reason != want {
			return false
		}
	}
	return true
}

var helloJob = events.JobID("hello", 1, agentID(1), 0, "")

func TestAProgramThatFailsForGoodIsNotRunAgain(t *testing.T) {
	r := newRig(t, 1, func(o *Options) { o.Script = scriptWith(t, Script{Failures: 0.9}, helloJob, events.ExitCode) })
	r.run()
	job := r.offer(agentID(1), r.signed())
	if s := r.ended(job); s.State != events.Failed || s.Reason != events.ExitCode || *s.ExitCode != 1603 {
		t.Errorf("it ended as %+v", s)
	}
	if runs := r.runs(job); len(runs) != 1 {
		t.Errorf("it ran %d times", len(runs))
	}
}

func TestAProgramThatFindsAnotherInstallerRunsAgainWhenItIsOfferedAgain(t *testing.T) {
	r := newRig(t, 1, func(o *Options) { o.Script = scriptWith(t, Script{Failures: 0.5}, helloJob, events.InstallerBusy, "") })
	r.run()
	offer := r.signed()
	job := r.offer(agentID(1), offer)
	r.awaitState(job, events.Retrying)
	r.offer(agentID(1), offer) // the same attempt again is no news
	offer.Attempt = 2
	r.offer(agentID(1), offer)
	r.ended(job)
	r.wantStates(job, events.Accepted, events.Running, events.Retrying, events.Accepted, events.Running, events.Succeeded)
	if runs := r.runs(job); len(runs) != 2 || runs[0].Attempt != 1 || runs[1].Attempt != 2 {
		t.Errorf("it ran as %+v", runs)
	}
}

// tomorrow is a deadline that does not come while the test runs.
func tomorrow(o *order.Order) {
	at, err := calendar.ParseMoment(time.Now().Add(24 * time.Hour).UTC().Format(time.RFC3339))
	if err != nil {
		panic(err) // it is written as the parser wants it
	}
	o.Assignments = []order.Assignment{{At: &at}}
	o.NotAfter = time.Now().Add(48 * time.Hour)
}

func TestAStopReachesWhatHasNotStarted(t *testing.T) {
	r := newRig(t, 1)
	r.run()
	offer := r.signed(tomorrow)
	job := r.offer(agentID(1), offer)
	r.awaitState(job, events.Waiting)
	r.cancel(events.CancelRequest{Agent: agentID(1), Deployment: "hello", Revision: 1, By: "ada"})
	if s := r.ended(job); s.State != events.Cancelled || s.Reason != events.DeploymentStopped {
		t.Errorf("it ended as %+v", s)
	}
	offer.Attempt = 2
	r.offer(agentID(1), offer) // replayed by somebody
	r.until("the stop is heeded for good", func() bool { return len(r.states(job)) == 4 })
	r.wantStates(job, events.Accepted, events.Waiting, events.Cancelled, events.Cancelled)
	if runs := r.runs(job); len(runs) != 0 {
		t.Errorf("it ran: %+v", runs)
	}
}

func TestAStopLeavesARunningProgramAndAKillEndsIt(t *testing.T) {
	r := newRig(t, 1, func(o *Options) { o.Script.Duration = time.Hour })
	r.run()
	job := r.offer(agentID(1), r.signed())
	r.awaitState(job, events.Running)
	r.cancel(events.CancelRequest{Agent: agentID(1), Deployment: "hello", Revision: 1})
	r.cancel(events.CancelRequest{Agent: agentID(1), Deployment: "hello", Revision: 1, Kill: true})
	r.ended(job)
	r.wantStates(job, events.Accepted, events.Running, events.Cancelled)
	if runs := r.runs(job); len(runs) != 1 || !runs[0].Killed {
		t.Errorf("runs are %+v", runs)
	}
}

func TestAFreezeHoldsTheStartUntilItIsLifted(t *testing.T) {
	r := newRig(t, 1)
	freeze := events.Freeze{ID: "site-oslo", Scope: "site", Name: "oslo", By: "ada", At: time.Now().UTC()}
	r.answer[agentID(1)] = events.SyncAnswer{Freezes: []events.Freeze{freeze}}
	r.run()
	job := r.offer(agentID(1), r.signed())
	r.awaitState(job, events.Waiting)
	if s := r.history(job); s[len(s)-1].WaitingFor != events.WaitFreeze {
		t.Errorf("it waits for %s", s[len(s)-1].WaitingFor)
	}
	r.mu.Lock()
	r.answer[agentID(1)] = events.SyncAnswer{} // also the next sync lifts it
	r.mu.Unlock()
	note := events.BeaconNote{Jobs: generation, Status: generation, At: time.Now()}
	if err := bus.Send(t.Context(), r.execution, events.Beacon, events.Event[events.BeaconNote]{ID: "beacon", Time: note.At, Data: note}); err != nil {
		t.Fatal(err)
	}
	r.awaitState(job, events.Succeeded)
	r.wantStates(job, events.Accepted, events.Waiting, events.Running, events.Succeeded)
}

func TestWhatAnAgentDoesNotObey(t *testing.T) {
	for name, c := range map[string]struct {
		give   func(r *rig) events.JobOffer
		state  events.State
		reason events.Reason
	}{
		"an order that nobody it trusts signed": {func(r *rig) events.JobOffer { return r.signedBy("mallory") }, events.Rejected, events.OrderUnknownKey},
		"another order than the offer names": {func(r *rig) events.JobOffer {
			named, other := r.signed(), r.signed(func(o *order.Order) { o.Rerun = order.RerunAlways })
			r.orders[named.Order] = r.orders[other.Order]
			return named
		}, events.Rejected, events.OrderAltered},
		"an order of another deployment": {func(r *rig) events.JobOffer {
			o := r.signed(func(o *order.Order) { o.Deployment = "other" })
			o.Deployment = "hello"
			return o
		}, events.Rejected, events.OrderAltered},
		"lists of agents that were not signed": {func(r *rig) events.JobOffer {
			o := r.signed()
			a := r.orders[o.Order]
			a.Include = []string{agentID(1)}
			r.orders[o.Order] = a
			return o
		}, events.Rejected, events.OrderAltered},
		"an order that is not meant for it": {func(r *rig) events.JobOffer {
			return r.signed(func(o *order.Order) { o.Expression = `agent.os == "windows"` })
		}, events.Rejected, events.NotTargeted},
		"an order of another fleet": {func(r *rig) events.JobOffer { return r.signed(func(o *order.Order) { o.Fleet = "elsewhere" }) }, events.Rejected, events.OrderOtherFleet},
		"an order whose time is over": {func(r *rig) events.JobOffer {
			return r.signed(func(o *order.Order) { o.Issued, o.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour) })
		}, events.Rejected, events.OrderExpired},
		"a standing order, for it has none": {func(r *rig) events.JobOffer {
			return r.signed(func(o *order.Order) { o.Assignments = []order.Assignment{{Cron: "0 3 * * *"}} })
		}, events.Rejected, events.ContextUnsupported},
		"a program that users run": {func(r *rig) events.JobOffer { return r.signed(func(o *order.Order) { o.Run = events.RunUser }) }, events.Rejected, events.ContextUnsupported},
		"programs that run first": {func(r *rig) events.JobOffer {
			return r.signed(func(o *order.Order) {
				o.First = []order.Step{{Why: order.StepFirst, Package: "base", Version: "1", Manifest: events.DigestOf([]byte("base")), Program: "install", Run: events.RunAdministrative}}
			})
		}, events.Rejected, events.ContextUnsupported},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, 1)
			offer := c.give(r)
			r.run()
			job := r.offer(agentID(1), offer)
			if s := r.ended(job); s.State != c.state || s.Reason != c.reason || s.Explanation == "" {
				t.Errorf("it ended as %s (%s): %s", s.State, s.Reason, s.Explanation)
			}
			if runs := r.runs(job); len(runs) != 0 {
				t.Errorf("it ran: %+v", runs)
			}
		})
	}
}

func TestAnOrderThatPassedOnceIsVerifiedAnewByTheNextBundle(t *testing.T) {
	r := newRig(t, 2)
	r.run()
	offer := r.signed()
	if s := r.ended(r.offer(agentID(1), offer)); s.State != events.Succeeded {
		t.Fatalf("it ended as %+v", s)
	}
	r.mu.Lock()
	r.bundle = bundle(2, "bob")
	r.mu.Unlock()
	if s := r.ended(r.offer(agentID(2), offer)); s.State != events.Rejected || s.Reason != events.OrderUnknownKey {
		t.Errorf("it ended as %+v", s)
	}
}

func TestAnOlderRevisionIsNotObeyedAfterANewerOne(t *testing.T) {
	r := newRig(t, 1)
	r.run()
	old, next := r.signed(), r.signed(func(o *order.Order) { o.Revision = 2 })
	if s := r.ended(r.offer(agentID(1), next)); s.State != events.Succeeded {
		t.Errorf("the newer ended as %+v", s)
	}
	if s := r.ended(r.offer(agentID(1), old)); s.State != events.Rejected || s.Reason != events.OrderSerialOld {
		t.Errorf("the older ended as %+v", s)
	}
}

func TestWhatRanBeforeRunsAgainOnlyAsTheOrderSays(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*order.Order)
		want   events.State
	}{
		"another deployment, if it failed":                         {func(o *order.Order) { o.Deployment = "other" }, events.WillNotRerun},
		"another deployment, always":                               {func(o *order.Order) { o.Deployment, o.Rerun = "other", order.RerunAlways }, events.Succeeded},
		"another version of the package":                           {func(o *order.Order) { o.Deployment, o.Version = "other", "2" }, events.Succeeded},
		"the deployment signed anew, which says the same, if ever": {func(o *order.Order) { o.Revision = 2 }, events.WillNotRerun},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, 1)
			r.run()
			r.ended(r.offer(agentID(1), r.signed()))
			job := r.offer(agentID(1), r.signed(c.change))
			if s := r.ended(job); s.State != c.want {
				t.Errorf("it ended as %s (%s): %s", s.State, s.Reason, s.Explanation)
			}
			if ran := len(r.runs(job)) == 1; ran != (c.want == events.Succeeded) {
				t.Errorf("that it ran is %t", ran)
			}
		})
	}
	t.Run("the deployment signed anew, which says the same, always", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, 1)
		r.run()
		always := func(revision uint64) func(*order.Order) {
			return func(o *order.Order) { o.Rerun, o.Revision = order.RerunAlways, revision }
		}
		r.ended(r.offer(agentID(1), r.signed(always(1))))
		if s := r.ended(r.offer(agentID(1), r.signed(always(2)))); s.State != events.WillNotRerun {
			t.Errorf("it ended as %+v", s)
		}
	})
}

func TestRubbishIsRefusedAndCounted(t *testing.T) {
	r := newRig(t, 2)
	r.run()
	offer := r.signed()
	r.ended(r.offer(agentID(1), offer))
	conn := eventstest.Connect(t, r.broker)
	for _, data := range []string{"", "rubbish", `{"agent":"agent0001"}`} {
		if err := conn.Publish(events.OfferRepublished(agentID(1)), []byte(data)); err != nil {
			t.Fatal(err)
		}
	}
	wrong := to(agentID(1), offer)
	wrong.Job = to(agentID(2), offer).Job
	e := events.Event[events.JobOffer]{ID: "wrong", Subject: agentID(1), Data: wrong}
	if _, err := bus.Publish(t.Context(), r.execution, events.JobOffered, e); err != nil {
		t.Fatal(err)
	}
	r.until("all four are refused", func() bool { return r.fleet.Stats().Refused == 4 })
	if s := r.fleet.Stats(); s.Offers != 1 || s.Started != 1 {
		t.Errorf("counted were %+v", s)
	}
}

func TestFewProgramsOfAnAgentRunAtOnceAndNoneTwice(t *testing.T) {
	r := newRig(t, 1, func(o *Options) { o.Script.Duration = 50 * time.Millisecond })
	r.run()
	var jobs []string
	for i := range 6 {
		jobs = append(jobs, r.offer(agentID(1), r.signed(func(o *order.Order) { o.Deployment, o.Package = fmt.Sprint("d", i), fmt.Sprint("p", i) })))
	}
	same := r.offer(agentID(1), r.signed(func(o *order.Order) { o.Deployment, o.Package = "same", "p0" }))
	left := map[string]bool{same: true}
	for _, job := range jobs {
		left[job] = true
	}
	for len(left) > 0 {
		o := r.await("all end", func(o Observation) bool { return o.What == StatusStored && o.State.Terminal() })
		delete(left, o.Job)
	}
	runs := r.fleet.Runs()
	if len(runs) != 6 || len(r.runs(same))+len(r.runs(jobs[0])) != 1 {
		t.Errorf("there were %d runs", len(runs))
	}
	for _, at := range runs {
		together := 0
		for _, other := range runs {
			if !other.At.After(at.At) && other.Ended.After(at.At) {
				together++
			}
		}
		if together > maxRuns {
			t.Errorf("%d programs ran at once", together)
		}
	}
}

func TestARealProcessIsForkedWhereAskedFor(t *testing.T) {
	r := newRig(t, 1, func(o *Options) { o.Script = Script{Fork: true, Duration: time.Millisecond} })
	r.run()
	job := r.offer(agentID(1), r.signed())
	if s := r.ended(job); s.State != events.Succeeded {
		t.Errorf("it ended as %+v", s)
	}
}

func TestNoProcessOutlivesTheFleetThatForkedIt(t *testing.T) {
	dir := t.TempDir()
	ended := filepath.Join(dir, "ended")
	if err := os.WriteFile(filepath.Join(dir, "true"), []byte("#!/bin/sh\n/bin/sleep 0.5\n: > "+ended+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	r := newRig(t, 1, func(o *Options) { o.Script = Script{Fork: true} })
	stop := r.run()
	r.offer(agentID(1), r.signed())
	r.await("a program has started", func(o Observation) bool { return o.What == ProgramStarted })
	stop()
	if _, err := os.Stat(ended); err != nil {
		t.Errorf("the fleet has stopped, and its process still runs: %v", err)
	}
}

func TestStatusesAreStoredThoughTheBrokerWasAway(t *testing.T) {
	r := newRig(t, 3, func(o *Options) { o.Script.Duration = 100 * time.Millisecond })
	r.run()
	offer := r.signed()
	var jobs []string
	for _, m := range r.options.Members {
		jobs = append(jobs, r.offer(m.ID, offer))
	}
	for range jobs {
		r.await("a program has started", func(o Observation) bool { return o.What == ProgramStarted })
	}
	r.broker.Stop()
	r.until("the programs end", func() bool { return r.fleet.Stats().Ended == 3 })
	if n := r.fleet.Connected(); n != 0 {
		t.Errorf("%d are connected to a broker that is away", n)
	}
	r.broker.Start()
	for range jobs {
		r.await("a job has succeeded", func(o Observation) bool { return o.What == StatusStored && o.State == events.Succeeded })
	}
	for _, job := range jobs {
		r.wantStates(job, events.Accepted, events.Running, events.Succeeded)
	}
	if s := r.fleet.Stats(); s.Reconnects < 3 {
		t.Errorf("counted were %+v", s)
	}
}

func TestOptionsThatCannotWorkAreRefused(t *testing.T) {
	r := newRig(t, 1)
	for name, change := range map[string]func(*Options){
		"no broker":                 func(o *Options) { o.Servers = nil },
		"no journal":                func(o *Options) { o.Store = nil },
		"nobody to trust":           func(o *Options) { o.Trust = nil },
		"no members":                func(o *Options) { o.Members = nil },
		"a member that is no agent": func(o *Options) { o.Members = []Member{{ID: "../etc"}} },
		"a member twice":            func(o *Options) { o.Members = append(members(1), members(1)...) },
		"a zone that there is not":  func(o *Options) { o.Members = members(1); o.Members[0].Facts.Zone = "Europe/Nowhere" },
		"more failures than runs":   func(o *Options) { o.Script.Failures = 1.1 },
		"a negative duration":       func(o *Options) { o.Script.Duration = -1 },
		"flapping without a time":   func(o *Options) { o.Presence.Flap = 0.5 },
		"a negative share":          func(o *Options) { o.Presence.Offline = -1 },
		"a negative rate":           func(o *Options) { o.ConnectRate = -1 },
	} {
		t.Run(name, func(t *testing.T) {
			o := r.options
			change(&o)
			if _, err := New(o); err == nil {
				t.Error("it is taken")
			}
		})
	}
}

func TestAFleetRunsOnlyOnce(t *testing.T) {
	r := newRig(t, 1)
	stop := r.run()
	r.until("it is connected", func() bool { return r.fleet.Connected() == 1 })
	stop()
	if err := r.fleet.Run(context.Background()); err == nil {
		t.Error("it ran twice")
	}
	if err := r.fleet.Start(agentID(1)); err == nil {
		t.Error("an agent started in a fleet that has stopped")
	}
}
