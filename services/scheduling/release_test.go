package scheduling

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/eventstest"
	"chandler/events/order"
)

func TestADeploymentReachesEveryMemberOnce(t *testing.T) {
	s := newStory(t)
	r := s.running()
	s.report(facts("agent001"), facts("agent002"), facts("agent003", windows))
	s.published()
	must(s, events.CollectionSet, linuxMachines())
	s.knows(r, 3)
	v := s.deploy()
	if v.Life != events.LifeActive || v.Members != 2 || v.By != "ada" || v.Revision != 1 {
		t.Errorf("created: %+v", v)
	}
	if diff := cmp.Diff([]string{"agent001", "agent002"}, s.released(1, nil)); diff != "" {
		t.Error(diff)
	}
	created := eventstest.ExpectExactly(t, s.admin, events.DeploymentCreated, nil, 1)[0].Data
	if o, digest, err := order.Open(created.Envelope); err != nil || digest != created.Order || o.Deployment != "hello" {
		t.Errorf("the event's envelope: %v", err)
	}
	v = must(s, events.DeploymentShow, events.Named{Name: "hello"})
	if v.Released != 2 || v.Members != 2 || v.Order != created.Order {
		t.Errorf("shown: %+v", v)
	}
	// The same order again changes nothing.
	if again := s.deployAgain(created.Envelope); again.Order != created.Order {
		t.Errorf("the same order again: %+v", again)
	}
	eventstest.ExpectExactly(t, s.admin, events.DeploymentCreated, nil, 1)
	s.released(1, nil)
}

func (s *story) deployAgain(envelope []byte) events.DeploymentView {
	s.t.Helper()
	return must(s, events.DeploymentCreate, events.DeploymentRequest{Envelope: envelope})
}

func TestMachinesThatJoinLaterAreReleasedToo(t *testing.T) {
	s := newStory(t)
	r := s.running()
	s.report(facts("agent001"), facts("agent002", windows))
	s.published()
	must(s, events.CollectionSet, linuxMachines())
	s.knows(r, 2)
	s.deploy()
	s.released(1, nil)
	s.report(facts("agent003")) // a new machine
	s.released(2, nil)
	s.report(facts("agent002")) // facts that changed
	if diff := cmp.Diff([]string{"agent001", "agent003", "agent002"}, s.released(3, nil)); diff != "" {
		t.Error(diff)
	}
	s.report(facts("agent001", windows)) // left the target: nothing is taken back, nothing told twice
	s.report(facts("agent001"))
	s.eventually("it is a member again", func() bool { return must(s, events.DeploymentShow, events.Named{Name: "hello"}).Members == 3 })
	s.released(3, nil)
}

func TestListsThatTheOrderBindsReachExecution(t *testing.T) {
	s := newStory(t)
	r := s.running()
	s.report(facts("agent001"), facts("agent002"), facts("agent003", windows))
	s.published()
	c := events.Collection{Name: "linux", Expression: `agent.os == "linux"`, Include: []string{"agent003", "agent001"}, Exclude: []string{"agent002"}}
	c = must(s, events.CollectionSet, c).Collection
	s.knows(r, 3)
	envelope := s.sign(s.order(func(o *order.Order) {
		o.IncludeDigest, o.ExcludeDigest = order.ListDigest(c.Include), order.ListDigest(c.Exclude)
	}))
	must(s, events.DeploymentCreate, events.DeploymentRequest{Envelope: envelope, Include: c.Include, Exclude: c.Exclude})
	if diff := cmp.Diff([]string{"agent001", "agent003"}, s.released(1, nil)); diff != "" {
		t.Error(diff)
	}
	created := eventstest.Expect(t, s.admin, events.DeploymentCreated, nil).Data
	if diff := cmp.Diff([][]string{{"agent001", "agent003"}, {"agent002"}}, [][]string{created.Include, created.Exclude}); diff != "" {
		t.Error(diff)
	}
}

func TestTwoReplicasReleaseNobodyTwice(t *testing.T) {
	s := newStory(t)
	ids := names(2*events.ReleaseSize + 300)
	agents := s.bus("")
	p := agents.NewPipeline()
	for _, id := range ids {
		m, err := bus.Message(events.AgentReported, events.Event[events.AgentReport]{ID: "report-" + id, Source: events.AgentSource(id), Subject: id, Data: events.AgentReport{Facts: facts(id), At: time.Now()}})
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Add(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.published()
	patient := func(o *Options) { o.PackagePatience = 20 * time.Second } // the package stands behind all reports
	one, two := s.running(patient), s.running(patient)
	must(s, events.CollectionSet, linuxMachines())
	// While the agents are still coming in: both replicas have work to do at the same time.
	s.eventually("some agents are known", func() bool { return len(one.fleet.all()) > 100 })
	s.deploy()
	s.knows(one, len(ids))
	s.knows(two, len(ids))
	s.eventually("everybody is released", func() bool {
		return must(s, events.DeploymentShow, events.Named{Name: "hello"}).Released == len(ids)
	})
	var got []string
	batches := map[int]bool{}
	for _, e := range s.releases(len(ids)) {
		if batches[e.Data.Batch] {
			t.Errorf("batch %d was told twice", e.Data.Batch)
		}
		batches[e.Data.Batch] = true
		if len(e.Data.Agents) > events.ReleaseSize {
			t.Errorf("a batch of %d agents", len(e.Data.Agents))
		}
		got = append(got, e.Data.Agents...)
	}
	slices.Sort(got)
	if diff := cmp.Diff(ids, got); diff != "" {
		t.Error(diff)
	}
}

// releases waits until so many agents were told, and gives the events.
func (s *story) releases(agents int) (all []events.Event[events.Release]) {
	s.t.Helper()
	total := 0
	eventstest.Expect(s.t, s.admin, events.DeploymentReleased, func(e events.Event[events.Release]) bool {
		all = append(all, e)
		total += len(e.Data.Agents)
		return total >= agents
	})
	return all
}

func TestACrashBetweenTwoStepsIsCaughtUpAtTheNextStart(t *testing.T) {
	s := newStory(t)
	s.published()
	s.report(facts("agent001"), facts("agent002"))
	first := s.replica()
	stop := s.run(first)
	must(s, events.CollectionSet, linuxMachines())
	s.knows(first, 2)
	s.eventually("the package is known", func() bool { first.mu.RLock(); defer first.mu.RUnlock(); return len(first.packages) == 1 })
	stop()

	// What a replica leaves behind that died after storing the deployment, and after storing its first batch,
	// before anything was told.
	o := s.order()
	envelope := s.sign(o)
	r, err := first.propose("ada", events.DeploymentRequest{Envelope: envelope})
	if err != nil {
		t.Fatal(err)
	}
	r.Outbox = outbox{}.with(events.DeploymentCreated.Declaration, "ada", "", r.At)
	put(s, first, kindDeployment+".hello", r)
	key := releaseKey{"hello", 1, waveAll, 0}
	put(s, first, key.String(), releaseRecord{Order: r.Order, Agents: []string{"agent001"}, At: time.Now().UTC()})

	second := s.running()
	s.released(2, nil)
	batches := s.releases(2)
	if diff := cmp.Diff([][]string{{"agent001"}, {"agent002"}}, [][]string{batches[0].Data.Agents, batches[1].Data.Agents}); diff != "" {
		t.Error(diff)
	}
	eventstest.ExpectExactly(t, s.admin, events.DeploymentCreated, nil, 1)
	s.eventually("the batches are marked as told", func() bool {
		for n := range 2 {
			rec, _, err := load[releaseRecord](t.Context(), second.deploymentStore, releaseKey{"hello", 1, waveAll, n}.String())
			if err != nil || !rec.Announced {
				return false
			}
		}
		return true
	})
	s.running() // one more start tells nothing again
	s.released(2, nil)
}

// put stores a record as a replica would have.
func put[T any](s *story, r *Service, key string, record T) {
	s.t.Helper()
	if err := save(context.WithoutCancel(s.t.Context()), r.deploymentStore, key, record, 0); err != nil {
		s.t.Fatal(err)
	}
}

func TestPausedDeploymentsReleaseNobodyUntilTheyAreResumed(t *testing.T) {
	s := newStory(t)
	r := s.running()
	s.report(facts("agent001"))
	s.published()
	must(s, events.CollectionSet, linuxMachines())
	s.knows(r, 1)
	s.deploy()
	s.released(1, nil)
	v := must(s, events.DeploymentPause, events.Named{Name: "hello", Why: "help desk is busy"})
	if v.Life != events.LifePaused || v.Why != "by ada: help desk is busy" {
		t.Errorf("paused: %+v", v)
	}
	must(s, events.DeploymentPause, events.Named{Name: "hello"}) // again: no second event
	s.report(facts("agent002"))
	s.eventually("the new machine is a member", func() bool { return must(s, events.DeploymentShow, events.Named{Name: "hello"}).Members == 2 })
	if w := must(s, events.Why, events.WhyRequest{Agent: "agent002", Deployment: "hello"}).Answers[0]; w.Released || w.Says != "a member, the deployment is paused by ada: help desk is busy; not handed to execution while that lasts" {
		t.Errorf("why: %+v", w)
	}
	s.released(1, nil)
	if v := must(s, events.DeploymentResume, events.Named{Name: "hello"}); v.Life != events.LifeActive || v.Why != "" {
		t.Errorf("resumed: %+v", v)
	}
	s.released(2, nil)
	paused := eventstest.ExpectExactly(t, s.admin, events.DeploymentPaused, nil, 1)[0].Data
	if paused.By != "ada" || paused.Why != "help desk is busy" {
		t.Errorf("told: %+v", paused)
	}
	eventstest.ExpectExactly(t, s.admin, events.DeploymentResumed, nil, 1)
}

func TestANewRevisionReplacesTheOldOneAndReachesEverybodyAgain(t *testing.T) {
	s := newStory(t)
	r := s.running(func(o *Options) { o.Tick = 100 * time.Millisecond })
	s.report(facts("agent001"))
	s.published()
	must(s, events.CollectionSet, linuxMachines())
	s.knows(r, 1)
	s.deploy()
	s.released(1, nil)
	s.deploy(func(o *order.Order) { o.Revision = 2 })
	s.released(1, func(e events.Event[events.Release]) bool { return e.Data.Revision == 2 })
	s.eventually("the old batches are forgotten", func() bool {
		_, revision, err := load[releaseRecord](t.Context(), r.deploymentStore, releaseKey{"hello", 1, waveAll, 0}.String())
		return err == nil && revision == 0
	})
	if v := must(s, events.DeploymentShow, events.Named{Name: "hello"}); v.Revision != 2 || v.Released != 1 {
		t.Errorf("shown: %+v", v)
	}
}

func TestAReplicaThatIsBehindReleasesNobody(t *testing.T) {
	s := newStory(t)
	r := s.running()
	s.report(facts("agent001"), facts("agent002"))
	s.published()
	must(s, events.CollectionSet, linuxMachines())
	s.knows(r, 2)
	s.deploy()
	s.released(1, nil)

	// It has read the deployment, and nothing of what the other released; it knows one machine more.
	behind := s.replica()
	var err error
	if behind.deploymentStore.store, _, err = behind.deploymentStore.open(t.Context()); err != nil {
		t.Fatal(err)
	}
	stored(s, behind, "hello", kindDeployment)
	d, ok := behind.deployment("hello")
	if !ok {
		t.Fatal("the deployment is not known")
	}
	for _, place := range behind.fleet.places([]string{"agent001", "agent002", "agent003"}) {
		d.members.set = d.members.set.set(place, true)
	}
	if err := behind.release(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	s.released(1, nil)

	// Once it has caught up, it releases only the one that nobody did.
	if _, _, err := load[releaseRecord](t.Context(), behind.deploymentStore, releaseKey{"hello", 1, waveAll, 0}.String()); err != nil {
		t.Fatal(err)
	}
	if err := behind.release(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"agent001", "agent002", "agent003"}, s.released(2, nil)); diff != "" {
		t.Error(diff)
	}
}

func TestAPauseHoldsBackTheBatchesThatAreStillToCome(t *testing.T) {
	for what, edit := range map[string]func(*deploymentRecord){
		"a pause":          func(r *deploymentRecord) { r.Paused = true },
		"a stop":           func(r *deploymentRecord) { r.Stopped = true },
		"a newer revision": func(r *deploymentRecord) { r.Revision, r.Order = 2, events.DigestOf(nil) },
	} {
		t.Run(what, func(t *testing.T) {
			s := newStory(t)
			for _, id := range names(2*events.ReleaseSize + 1) {
				s.report(facts(id))
			}
			r := s.replica(func(o *Options) { o.PackagePatience = 20 * time.Second })
			var once sync.Once
			apply := r.deploymentStore.apply
			r.deploymentStore.apply = func(key string, value []byte) {
				apply(key, value)
				if key != "release.hello.1.1.0" {
					return
				}
				// As the mirror hears of it from another replica, in the moment after the first batch.
				once.Do(func() {
					d, _ := r.deployment("hello")
					record := d.record
					edit(&record)
					decided, err := encode(record)
					if err != nil {
						t.Error(err)
					}
					apply("deployment.hello", decided)
				})
			}
			s.run(r)
			s.published()
			s.knows(r, 2*events.ReleaseSize+1)
			must(s, events.CollectionSet, linuxMachines())
			s.deploy()
			s.eventually("the first batch is told", func() bool { return len(r.batchNumbers("hello", 1)) > 0 && r.announced("hello", 0) })
			ofFirst := func(e events.Event[events.Release]) bool { return e.Data.Revision == 1 }
			if got := len(s.released(1, ofFirst)); got != events.ReleaseSize {
				t.Errorf("%d agents were handed over", got)
			}
		})
	}
}

func (s *Service) announced(deployment string, n int) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.releases[deployment][1].batches[n].announced
}
