package integration

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/eventstest"
	"chandler/events/order"
	"chandler/events/sign"
	"chandler/events/timing"
	"chandler/services/execution"
	"chandler/services/rehearsal"
	"chandler/services/scheduling"
)

// rolloutStory is scheduling and execution on a broker, with light agents that do what a script says. Time is virtual: it
// stands still until all that it brought has happened.
type rolloutStory struct {
	t      *testing.T
	broker *eventstest.Server
	admin  *bus.Bus
	key    sign.Key
	begin  time.Time
	fleet  []rehearsal.Machine
	script func(agent string, attempt int) rehearsal.Result
	offers chan *nats.Msg
	ends   []events.JobStatus // to be told at their times
	stop   func()             // of execution

	mu  sync.Mutex
	now time.Time
}

func (s *rolloutStory) clock() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

func (s *rolloutStory) set(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = now
}

func newRolloutStory(t *testing.T, machines int) *rolloutStory {
	t.Helper()
	s := &rolloutStory{t: t, broker: eventstest.Broker(t), key: newKey(t, 7), begin: time.Now().UTC().Truncate(time.Second), offers: make(chan *nats.Msg, 10_000)}
	s.now = s.begin
	s.admin = eventstest.Bus(t, s.broker, "")
	schedule, err := scheduling.New(scheduling.Options{Bus: eventstest.Bus(t, s.broker, events.ServiceSource("scheduling")), Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(),
		Now: s.clock, Tick: 100 * time.Millisecond, PackagePatience: 50 * time.Millisecond})
	must(t, err)
	_, err = s.admin.Conn().ChanSubscribe(events.JobOffered.Subject("*"), s.offers)
	must(t, err)
	t.Cleanup(s.run(schedule.Run))
	s.restartExecution()
	t.Cleanup(func() { s.stop() })
	for i := range machines {
		id := events.AgentID(fmt.Append(nil, "machine", i))
		f := events.Facts{ID: id, Hostname: fmt.Sprintf("ws-%04d", i), OS: "linux", OSName: "debian", OSVersion: "12.7", Arch: "amd64", Addresses: []string{"192.0.2.1"}, Tags: []string{}, ClientKind: events.Advanced, Zone: "UTC"}
		s.fleet = append(s.fleet, rehearsal.Machine{Facts: f, LastSeen: s.begin})
		// One after the other: where limits hold machines back they are released in the order in which they became known.
		rolloutEvent(s, events.AgentReported, events.AgentSource(id), id, events.AgentReport{Facts: f, At: s.begin})
		s.until(func() string {
			if len(rolloutAsk(s, events.AgentList, events.AgentQuery{Name: id}).Agents) == 0 {
				return id + " is not known"
			}
			return ""
		})
	}
	for _, version := range []string{"2.10-3", "2.10-4"} {
		rolloutEvent(s, events.PackagePublished, events.ServiceSource("content"), "hello",
			events.PackageNotice{Package: "hello", Version: version, Digest: events.DigestOf([]byte(version)), Bytes: 1, Files: 1, Programs: []string{"install"}, By: "admin"})
	}
	return s
}

// run runs a service until the returned function is called.
func (s *rolloutStory) run(run func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	return func() {
		cancel()
		if err := <-ended; err != nil {
			s.t.Error(err)
		}
	}
}

// restartExecution replaces execution's only replica. One that starts looks at once who has fallen silent, which else it
// does twice a minute of real time.
func (s *rolloutStory) restartExecution() {
	s.t.Helper()
	if s.stop != nil {
		s.stop()
	}
	execute, err := execution.New(execution.Options{Bus: eventstest.Bus(s.t, s.broker, events.ServiceSource("execution")), Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(), Now: s.clock})
	must(s.t, err)
	s.stop = s.run(execute.Run)
}

func rolloutEvent[T any](s *rolloutStory, kind events.Type[T], source, subject string, data T) {
	s.t.Helper()
	id := events.DeriveID("test", kind.Name, subject, fmt.Sprint(data))
	if _, err := bus.Publish(s.t.Context(), s.admin, kind, events.Event[T]{ID: id, Source: source, Subject: subject, Time: s.clock(), Data: data}); err != nil {
		s.t.Fatal(err)
	}
}

func rolloutAsk[Req, Resp any](s *rolloutStory, c events.Call[Req, Resp], req Req) Resp {
	s.t.Helper()
	var resp Resp
	var err error
	s.until(func() string {
		ctx, cancel := context.WithTimeout(s.t.Context(), 5*time.Second)
		defer cancel()
		if resp, err = bus.Request(ctx, s.admin, "admin", c, req); err != nil {
			return fmt.Sprintf("%s.%s: %v", c.Service, c.Verb, err)
		}
		return ""
	})
	return resp
}

// until waits until nothing is amiss.
func (s *rolloutStory) until(amiss func() string) {
	s.t.Helper()
	deadline := time.NewTimer(90 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for what := amiss(); what != ""; what = amiss() {
		select {
		case <-deadline.C:
			s.t.Fatalf("after %s of the rollout: %s", s.clock().Sub(s.begin), what)
		case <-tick.C:
		}
	}
}

// heed has agents take the offers that came, as the script says.
func (s *rolloutStory) heed() {
	s.t.Helper()
	for {
		select {
		case m := <-s.offers:
			if m.Header.Get("ce-type") != events.JobOffered.Name {
				continue // a cancel: only the silent ones have a job that a newer revision withdraws
			}
			e, err := bus.Open(events.JobOffered, m)
			must(s.t, err)
			r := s.script(e.Data.Agent, e.Data.Attempt)
			if r.Silent {
				continue
			}
			status := events.JobStatus{Job: e.Data.Job, Deployment: e.Data.Deployment, Revision: e.Data.Revision, Order: e.Data.Order, Agent: e.Data.Agent, Attempt: e.Data.Attempt, At: s.clock()}
			for n, state := range []events.State{events.Accepted, events.Running} {
				status.State, status.Transition = state, uint32(n+1)
				s.tell(status)
			}
			status.State, status.Reason, status.Transition, status.At = events.Succeeded, r.Reason, 3, s.clock().Add(r.Took)
			if r.Reason != events.NoReason {
				status.State = events.Failed
			}
			s.ends = append(s.ends, status)
		default:
			return
		}
	}
}

// tell publishes a status as its agent.
func (s *rolloutStory) tell(status events.JobStatus) {
	s.t.Helper()
	kind, ok := events.StatusType(status.State)
	if !ok {
		s.t.Fatalf("state %s has no type", status.State)
	}
	rolloutEvent(s, kind, events.AgentSource(status.Agent), status.Agent, status)
}

// endDue tells of the programs that end now.
func (s *rolloutStory) endDue() {
	s.ends = slices.DeleteFunc(s.ends, func(status events.JobStatus) bool {
		if status.At.After(s.clock()) {
			return false
		}
		s.tell(status)
		return true
	})
}

// deploy creates a revision now; the rehearsal of the same plays until a time.
func (s *rolloutStory) deploy(plan events.Plan, revision uint64, version string, until time.Time, people rehearsal.People) rehearsal.Timeline {
	s.t.Helper()
	o := order.Order{Format: order.Format, Fleet: "testfleet", Deployment: "hello-everywhere", Revision: revision, Package: "hello", Version: version, Manifest: events.DigestOf([]byte(version)), Program: "install",
		Run: events.RunAdministrative, Collection: "everybody", Expression: `agent.os == "linux"`, Assignments: []order.Assignment{{ASAP: true}}, Rerun: order.RerunIfFailed,
		Issued: s.clock(), NotAfter: s.clock().Add(order.DefaultValidity)}
	predicted, err := rehearsal.Run(rehearsal.Input{Order: o, Plan: plan, Program: events.Program{Run: events.RunAdministrative}, Fleet: s.fleet, Outcome: s.script, People: people, Start: s.clock(), Until: until, Recorded: s.begin})
	must(s.t, err)
	envelope, err := order.Sign(o, s.key)
	must(s.t, err)
	rolloutAsk(s, events.DeploymentCreate, events.DeploymentRequest{Envelope: envelope, Plan: &plan})
	return predicted
}

// rolloutPoint is how a rollout stands at one time: the jobs' states, and its open phases as the gates see them.
type rolloutPoint struct {
	States map[events.State]int64
	Phases []phasePoint
	Halted bool
}

type phasePoint struct {
	Succeeded, Failed, Silent int64
	Met                       bool
}

// foreseen is what a rehearsal says of a time.
func foreseen(line rehearsal.Timeline, plan events.Plan, at time.Time) rolloutPoint {
	come := func(t time.Time) bool { return !t.IsZero() && !t.After(at) }
	p := rolloutPoint{States: map[events.State]int64{}}
	for _, phase := range line.Phases {
		if come(phase.Opened) {
			met := phase.Met
			for _, h := range slices.Backward(phase.Halts) {
				if !come(h.At) {
					met = h.Met
				}
			}
			p.Phases = append(p.Phases, phasePoint{Met: come(met)})
		}
		for _, h := range phase.Halts {
			p.Halted = p.Halted || come(h.At) && !come(h.Resumed)
		}
	}
	for _, a := range line.Agents {
		if !come(a.Offered) {
			continue
		}
		phase := &p.Phases[a.Phase]
		switch {
		case come(a.Ended) && a.State == events.Succeeded:
			p.States[a.State]++
			phase.Succeeded++
		case come(a.Ended):
			p.States[a.State]++
			phase.Failed++
		case !a.Started.IsZero():
			p.States[events.Running]++
		default:
			p.States[events.Offered]++
			if come(silentAt(plan.Phases[a.Phase].HaltWhen, a.Offered)) {
				phase.Silent++
			}
		}
	}
	return p
}

// silentAt is when an agent counts as silent: a second after its patience is over.
func silentAt(h *events.Halt, offered time.Time) time.Time {
	return offered.Add(time.Duration(h.Silent.After) + time.Second)
}

// present is what the services say: execution of the states, scheduling of the phases.
func (s *rolloutStory) present() (rolloutPoint, events.DeploymentView) {
	view := rolloutAsk(s, events.DeploymentShow, events.Named{Name: "hello-everywhere"})
	p := rolloutPoint{States: map[events.State]int64{}, Halted: view.Life == events.LifeHalted}
	for _, phase := range view.Phases {
		if !phase.Opened.IsZero() {
			p.Phases = append(p.Phases, phasePoint{phase.Counts.Succeeded, phase.Counts.Failed, phase.Counts.Silent, !phase.Met.IsZero()})
		}
	}
	progress, err := bus.Request(s.t.Context(), s.admin, "admin", events.ExecutionProgress, events.Named{Name: "hello-everywhere"})
	if err != nil || progress.Revision != view.Revision {
		return p, view // execution has not heard of it yet
	}
	for state, n := range progress.States {
		if n > 0 {
			p.States[state] = n
		}
	}
	return p, view
}

// live lets time pass, from one thing that a rehearsal foresees to the next, and holds what the services say against it.
func (s *rolloutStory) live(line rehearsal.Timeline, plan events.Plan, until time.Time) events.DeploymentView {
	s.t.Helper()
	times := map[time.Time]bool{line.Start: true}
	resumes, silences := map[time.Time]bool{}, map[time.Time]bool{}
	for _, p := range line.Phases {
		times[p.Opened], times[p.Met], times[p.Left] = true, true, true
		for _, h := range p.Halts {
			times[h.At], times[h.Met], times[h.Resumed], resumes[h.Resumed] = true, true, true, true
		}
	}
	for _, a := range line.Agents {
		times[a.Offered], times[a.Started], times[a.Ended] = true, true, true
		if !a.Offered.IsZero() && a.Started.IsZero() {
			at := silentAt(plan.Phases[a.Phase].HaltWhen, a.Offered)
			times[at], silences[at] = true, true
		}
	}
	var view events.DeploymentView
	for _, at := range slices.SortedFunc(maps.Keys(times), time.Time.Compare) {
		if at.IsZero() || at.After(until) {
			continue
		}
		s.set(at)
		if resumes[at] {
			rolloutAsk(s, events.DeploymentResume, events.Named{Name: "hello-everywhere"})
		}
		if silences[at] {
			s.restartExecution()
		}
		s.endDue()
		want := foreseen(line, plan, at)
		s.until(func() string {
			s.heed()
			var got rolloutPoint
			got, view = s.present()
			return cmp.Diff(want, got)
		})
	}
	return view
}

// rolloutLines are a deployment's phases as scheduling tells them.
func (s *rolloutStory) lines(view events.DeploymentView) (lines []string) {
	for _, p := range view.Phases {
		if p.Opened.IsZero() {
			lines = append(lines, p.Name+" is not open")
			continue
		}
		lines = append(lines, fmt.Sprintf("%s opened after %s with %d: %d released, %d succeeded, %d failed, %d silent", p.Name, p.Opened.Sub(s.begin), p.Size, p.Released, p.Counts.Succeeded, p.Counts.Failed, p.Counts.Silent))
	}
	return lines
}

// halts are those that were told of a revision.
func (s *rolloutStory) halts(revision uint64, n int) (lines []string) {
	s.t.Helper()
	for _, e := range eventstest.ExpectExactly(s.t, s.admin, events.RolloutHalted, func(e events.Event[events.PhaseNotice]) bool { return e.Data.Revision == revision }, n) {
		lines = append(lines, fmt.Sprintf("%s halted after %s: %s", e.Data.Phase, e.Data.At.Sub(s.begin), e.Data.Why))
	}
	return lines
}

// agrees holds what happened against the rehearsal, to the second.
func (s *rolloutStory) agrees(line rehearsal.Timeline, view events.DeploymentView) {
	s.t.Helper()
	for i, p := range line.Phases {
		got := view.Phases[i]
		if !got.Opened.Equal(p.Opened) || got.Size != p.Size || got.Released != p.Released {
			s.t.Errorf("phase %s opened %s with %d, %d released; the rehearsal foresaw %s with %d, %d", p.Name, got.Opened, got.Size, got.Released, p.Opened, p.Size, p.Released)
		}
		if !p.Met.IsZero() && !got.Met.Equal(p.Met) {
			s.t.Errorf("the gate of %s was met %s; the rehearsal foresaw %s", p.Name, got.Met, p.Met)
		}
		if got, want := got.Counts, p.Counts; !p.Opened.IsZero() && (got.Succeeded != want.Succeeded || got.Failed != want.Failed || got.Silent != want.Silent || got.Offered != want.Offered) {
			s.t.Errorf("phase %s counts %+v; the rehearsal foresaw %+v", p.Name, got, want)
		}
	}
}

// rolloutPlan is a canary, a pilot, everybody; at most 50 jobs are in flight.
func rolloutPlan(t *testing.T) events.Plan {
	limit := func(text string) events.Limit {
		var l events.Limit
		must(t, l.UnmarshalText([]byte(text)))
		return l
	}
	phase := func(name string, percent float64, succeeded, failed, silent string) events.Phase {
		p := events.Phase{Name: name, Percent: percent, HaltWhen: &events.Halt{Failed: new(limit(failed)), Silent: &events.Silence{Share: limit(silent), After: events.Duration(4 * time.Hour)}}}
		if succeeded != "" {
			p.AdvanceWhen = &events.Advance{Succeeded: new(limit(succeeded)), For: events.Duration(24 * time.Hour)}
		}
		return p
	}
	return events.Plan{MaxInFlight: 50, Phases: []events.Phase{phase("canary", 5, "80%", "20%", "20%"), phase("pilot", 25, "90%", "5%", "1"), phase("all", 100, "", "20%", "20%")}}
}

// Of 200 machines 10 fail (1 of the canary, 3 of the pilot) and 6 say nothing (1, 1). The pilot's gate halts the first
// revision; the second brings a mended package, halts because a machine of the pilot says nothing, is resumed, and ends.
// The rehearsal foresees all of it.
func TestARolloutOf200MachinesGoesAsRehearsed(t *testing.T) {
	s := newRolloutStory(t, 200)
	rolloutAsk(s, events.CollectionSet, events.Collection{Name: "everybody", Expression: `agent.os == "linux"`})
	byPlace := slices.Clone(s.fleet)
	place := func(m rehearsal.Machine) float64 { return timing.Place("hello-everywhere", m.Facts.ID) }
	slices.SortFunc(byPlace, func(a, b rehearsal.Machine) int {
		if place(a) < place(b) {
			return -1
		}
		return 1
	})
	mute, fails := map[string]bool{}, map[string]bool{}
	for _, i := range []int{3, 20, 60, 90, 120, 150} {
		mute[byPlace[i].Facts.ID] = true
	}
	for _, i := range []int{5, 15, 25, 35, 65, 95, 125, 155, 185, 199} {
		fails[byPlace[i].Facts.ID] = true
	}
	s.script = func(agent string, _ int) rehearsal.Result {
		switch {
		case mute[agent]:
			return rehearsal.Result{Silent: true}
		case fails[agent]:
			return rehearsal.Result{Took: 5 * time.Minute, Reason: events.ExitCode}
		}
		return rehearsal.Result{Took: 10 * time.Minute}
	}
	plan := rolloutPlan(t)
	mended := s.begin.Add(26*time.Hour + 15*time.Minute)
	first := s.deploy(plan, 1, "2.10-3", mended, rehearsal.People{})
	view := s.live(first, plan, mended)
	s.agrees(first, view)
	want(t, []string{
		"canary opened after 0s with 10: 10 released, 8 succeeded, 1 failed, 1 silent",
		"pilot opened after 24h10m0s with 40: 40 released, 36 succeeded, 3 failed, 0 silent",
		"all is not open",
		"pilot halted after 24h15m0s: 3 of 40 machines failed (7.5%) in phase pilot; the gate halts at 5%",
	}, append(s.lines(view), s.halts(1, 1)...))

	clear(fails)
	s.set(mended)
	end := s.begin.Add(120 * time.Hour)
	second := s.deploy(plan, 2, "2.10-4", end, rehearsal.People{Resume: new(time.Hour)})
	view = s.live(second, plan, end)
	s.agrees(second, view)
	want(t, []string{
		"canary opened after 26h15m0s with 10: 10 released, 9 succeeded, 0 failed, 1 silent",
		"pilot opened after 50h25m0s with 40: 40 released, 39 succeeded, 0 failed, 1 silent",
		"all opened after 79h25m1s with 150: 150 released, 146 succeeded, 0 failed, 4 silent",
		"pilot halted after 54h25m1s: 1 of 40 machines said nothing (2.5%) in phase pilot for 4h0m0s since the offer; the gate halts at 1",
	}, append(s.lines(view), s.halts(2, 1)...))
}

func want(t *testing.T, want, got []string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
