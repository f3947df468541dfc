package fleet

import (
	"path/filepath"
	"sync"
	"testing"
	"time"

	"chandler/agent/journal"
	"chandler/events"
	"chandler/events/access"
	"chandler/events/eventstest"
	"chandler/events/order"
)

// killingBefore kills the agent when its program's start is journalled, and before the program is there.
type killingBefore struct {
	programs
	f    *Fleet
	once sync.Once
}

func (k *killingBefore) start(r Run) *program {
	killed := false
	k.once.Do(func() { killed = true })
	if !killed {
		return k.programs.start(r)
	}
	k.f.Kill(r.Agent)
	return &program{x: k.f.executor, ended: make(chan struct{})} // nobody hears of it any more
}

// TestAKilledAgentGoesOnAndRunsNothingTwice kills an agent at each point of its job, and starts it again.
func TestAKilledAgentGoesOnAndRunsNothingTwice(t *testing.T) {
	points := map[string]func(Observation) bool{
		"when the offer is journalled":            func(o Observation) bool { return o.What == OfferTaken },
		"when it was told that it is accepted":    func(o Observation) bool { return o.What == StatusStored && o.State == events.Accepted },
		"when the program has started":            func(o Observation) bool { return o.What == ProgramStarted },
		"when it was told that the program runs":  func(o Observation) bool { return o.What == StatusStored && o.State == events.Running },
		"when the program has ended":              func(o Observation) bool { return o.What == ProgramEnded },
		"when it was told how it ended":           func(o Observation) bool { return o.What == StatusStored && o.State == events.Succeeded },
		"before the program, which is journalled": nil,
	}
	for name, at := range points {
		for _, duration := range []time.Duration{0, 20 * time.Millisecond} {
			t.Run(name+", for "+duration.String(), func(t *testing.T) {
				t.Parallel()
				r := newRig(t, 1, func(o *Options) { o.Script.Duration = duration })
				killed := make(chan struct{})
				var once sync.Once
				offer := r.signed()
				if at != nil {
					r.on(func(o Observation) {
						if at(o) {
							once.Do(func() { r.fleet.Kill(o.Agent); close(killed) })
						}
					})
					r.run()
				} else {
					f, err := New(r.options)
					if err != nil {
						t.Fatal(err)
					}
					r.fleet = f
					f.programs = &killingBefore{programs: f.executor, f: f}
					r.background(f.Run)
					r.until("it listens", func() bool { return f.Stats().Syncs > 0 })
					go func() {
						r.until("it is killed", func() bool { return f.members[agentID(1)].alive() == nil })
						close(killed)
					}()
				}
				job := r.offer(agentID(1), offer)
				<-killed
				if n := r.fleet.Connected(); n != 0 {
					t.Errorf("%d are connected, who were killed", n)
				}
				if err := r.fleet.Start(agentID(1)); err != nil {
					t.Fatal(err)
				}
				r.until("the broker has its end", func() bool {
					all := r.history(job)
					return len(all) > 0 && all[len(all)-1].State == events.Succeeded
				})
				if runs := r.runs(job); len(runs) != 1 {
					t.Errorf("it ran %d times: %+v", len(runs), runs)
				}
				r.wantOneEnd(job)
			})
		}
	}
}

// wantOneEnd checks that a job has one terminal state, its last, and that no transition is missing.
func (r *rig) wantOneEnd(job string) {
	r.t.Helper()
	all := r.history(job)
	for i, s := range all {
		if int(s.Transition) != i+1 || s.State.Terminal() != (i == len(all)-1) {
			r.t.Fatalf("transition %d is %s, number %d of %d: %v", s.Transition, s.State, i+1, len(all), r.states(job))
		}
	}
}

func TestAnAgentThatIsKilledForgetsNoStopAndNoFreeze(t *testing.T) {
	r := newRig(t, 1)
	r.run()
	offer := r.signed(tomorrow)
	job := r.offer(agentID(1), offer)
	r.awaitState(job, events.Waiting)
	r.cancel(events.CancelRequest{Agent: agentID(1), Deployment: "hello", Revision: 1})
	r.ended(job)
	r.fleet.Kill(agentID(1))
	r.fleet.Kill(agentID(1)) // once more does nothing
	if err := r.fleet.Start(agentID(1)); err != nil {
		t.Fatal(err)
	}
	if err := r.fleet.Start(agentID(1)); err == nil {
		t.Error("it runs twice")
	}
	r.until("it hears again", func() bool { return r.fleet.Stats().Syncs >= 2 })
	offer.Attempt = 2
	r.offer(agentID(1), offer)
	r.until("the stop is heeded", func() bool { return len(r.states(job)) == 4 })
	r.wantStates(job, events.Accepted, events.Waiting, events.Cancelled, events.Cancelled)
}

func TestARetryThatAnAgentWaitedForComesAfterItWasKilled(t *testing.T) {
	r := newRig(t, 1, func(o *Options) { o.Script = scriptWith(t, Script{Failures: 0.5}, helloJob, events.InstallerBusy, "") })
	r.run()
	offer := r.signed()
	job := r.offer(agentID(1), offer)
	r.awaitState(job, events.Retrying)
	r.fleet.Kill(agentID(1))
	if err := r.fleet.Start(agentID(1)); err != nil {
		t.Fatal(err)
	}
	r.until("it hears again", func() bool { return r.fleet.Stats().Syncs >= 2 })
	offer.Attempt = 2
	r.offer(agentID(1), offer)
	r.ended(job)
	r.wantStates(job, events.Accepted, events.Running, events.Retrying, events.Accepted, events.Running, events.Succeeded)
	if runs := r.runs(job); len(runs) != 2 {
		t.Errorf("it ran %d times", len(runs))
	}
}

func TestWhatRanWhenTheProcessEndedIsNeverRunAgain(t *testing.T) {
	r := newRig(t, 1, func(o *Options) { o.Script.Duration = time.Hour })
	stop := r.run()
	job := r.offer(agentID(1), r.signed())
	r.awaitState(job, events.Running)
	stop()
	r.run()
	if s := r.ended(job); s.State != events.Failed || s.Reason != events.OutcomeUnknown {
		t.Errorf("it ended as %+v", s)
	}
	if runs := r.runs(job); len(runs) != 0 {
		t.Errorf("it ran again: %+v", runs)
	}
	r.wantOneEnd(job)
}

func TestAJournalThatCannotBeReadEndsTheFleet(t *testing.T) {
	r := newRig(t, 1)
	f, err := New(r.options)
	if err != nil {
		t.Fatal(err)
	}
	r.store.Close()
	if err := f.Run(t.Context()); err == nil {
		t.Error("it runs without a journal")
	}
}

func TestWhoIsOfflineComesLaterAndHearsWhatWasOffered(t *testing.T) {
	r := newRig(t, 2, func(o *Options) {
		o.Presence = Presence{Offline: 1, Until: 300 * time.Millisecond, Spread: 100 * time.Millisecond}
	})
	offer := r.signed()
	for _, m := range r.options.Members {
		r.outstanding(to(m.ID, offer))
	}
	began := time.Now()
	r.begin()
	first := r.await("a job has succeeded", func(o Observation) bool { return o.What == StatusStored && o.State == events.Succeeded })
	if came := first.At.Sub(began); came < r.options.Presence.Until {
		t.Errorf("one came after %s", came)
	}
	r.await("the other's job has too", func(o Observation) bool {
		return o.What == StatusStored && o.State == events.Succeeded && o.Agent != first.Agent
	})
}

func TestAConnectionThatBreaksAgainAndAgainLosesNothing(t *testing.T) {
	r := newRig(t, 4, func(o *Options) {
		o.Presence = Presence{Flap: 1, FlapEvery: 100 * time.Millisecond}
		o.Script.Duration = 100 * time.Millisecond
	})
	offer := r.signed()
	for _, m := range r.options.Members {
		r.outstanding(to(m.ID, offer))
	}
	r.begin()
	left := map[string]bool{}
	for _, m := range r.options.Members {
		left[m.ID] = true
	}
	for len(left) > 0 {
		o := r.await("all succeed", func(o Observation) bool { return o.What == StatusStored && o.State == events.Succeeded })
		delete(left, o.Agent)
	}
	r.until("connections broke", func() bool { return r.fleet.Stats().Reconnects >= 4 })
	if s := r.fleet.Stats(); s.Started != 4 {
		t.Errorf("%d programs were started for 4 jobs", s.Started)
	}
	for _, m := range r.options.Members {
		r.wantOneEnd(to(m.ID, offer).Job)
	}
}

func TestADisconnectedAgentComesBackByItself(t *testing.T) {
	r := newRig(t, 1)
	r.run()
	r.fleet.Disconnect(agentID(1))
	r.fleet.Disconnect("agent9999") // nobody's
	r.until("it came back", func() bool { return r.fleet.Stats().Reconnects == 1 && r.fleet.Connected() == 1 })
	if s := r.ended(r.offer(agentID(1), r.signed())); s.State != events.Succeeded {
		t.Errorf("it ended as %+v", s)
	}
}

func TestMembersProveWhoTheyAre(t *testing.T) {
	broker := eventstest.Secure(t)
	store, err := journal.Open(filepath.Join(t.TempDir(), "journal.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	r := &rig{t: t, broker: broker.Server, execution: broker.Owner(t), store: store, seen: make(chan Observation, 1000), orders: map[string]events.OrderAnswer{}, answer: map[string]events.SyncAnswer{}, bundle: bundle(1, "ada")}
	r.options = Options{Servers: []string{broker.URL()}, Store: store, Trust: r.trust, Observe: r.observe, ConnectRate: 50}
	for range 3 {
		u := broker.User(t, access.Agent, broker.Agent(t))
		r.options.Members = append(r.options.Members, Member{ID: u.Name, Seed: u.Seed, JWT: u.JWT})
	}
	r.begin()
	for _, m := range r.options.Members {
		eventstest.Expect(t, r.execution, events.AgentReported, func(e events.Event[events.AgentReport]) bool {
			return e.Data.Facts.ID == m.ID && e.Source == events.AgentSource(m.ID)
		})
	}
	if n := r.fleet.Connected(); n != 3 {
		t.Errorf("%d are connected", n)
	}
}

func TestTheTargetOfAnOrderIsCompiledOnceForEachPairOfLists(t *testing.T) {
	r := newRig(t, 1)
	offer := r.signed(func(o *order.Order) { o.Expression, o.IncludeDigest = "", order.ListDigest(ids(5000)) })
	answer := r.orders[offer.Order]
	answer.Include = ids(5000)
	v := newVerifier()
	verified, err := v.verify(answer.Envelope, r.trust(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if again, err := v.verify(answer.Envelope, r.trust(), time.Now()); err != nil || again != verified {
			t.Fatalf("it is verified once more: %v", err)
		}
		if meant, err := verified.target(answer); err != nil || len(meant.Include) != 5000 {
			t.Fatalf("the target is %v, %v", meant, err)
		}
	}
	answer.Include = answer.Include[1:]
	if _, err := verified.target(answer); err == nil {
		t.Error("other lists than were signed are taken")
	}
	if len(verified.targets) != 1 {
		t.Errorf("%d targets are remembered", len(verified.targets))
	}
	if _, err := v.verify(answer.Envelope, r.trust(), time.Now().Add(3*time.Hour)); err == nil {
		t.Error("it never expires")
	}
}

func ids(n int) (all []string) {
	for i := range n {
		all = append(all, agentID(i+1))
	}
	return all
}
