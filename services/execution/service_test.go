package execution

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/eventstest"
	"chandler/events/order"
	"chandler/events/sign"
)

// world is a broker with execution on it, and everybody who speaks to it.
type world struct {
	t      *testing.T
	server *eventstest.Server
	bus    *bus.Bus // of scheduling, agents and administrators: it names the source with each event
	ahead  atomic.Int64
}

func newWorld(t *testing.T) *world {
	server := eventstest.Broker(t)
	return &world{t: t, server: server, bus: eventstest.Bus(t, server, "")}
}

// now is real time and what was added to it.
func (w *world) now() time.Time { return time.Now().Add(time.Duration(w.ahead.Load())) }

// replica is one running service.
type replica struct {
	*Service
	stop func()
}

func (w *world) start(change ...func(*Service)) replica {
	w.t.Helper()
	b := eventstest.Bus(w.t, w.server, events.ServiceSource("execution"))
	s, err := New(Options{Bus: b, Registerer: prometheus.NewRegistry(), Now: w.now})
	if err != nil {
		w.t.Fatal(err)
	}
	s.pace.check, s.pace.sweep, s.pace.progress, s.pace.beacon = 50*time.Millisecond, 100*time.Millisecond, 50*time.Millisecond, time.Hour
	for _, c := range change {
		c(s)
	}
	ctx, cancel := context.WithCancel(w.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			w.t.Errorf("replica ended with %v", err)
		}
	})
	w.t.Cleanup(stop)
	w.until("the replica is loaded", func() bool { return s.allLoaded() == nil })
	return replica{s, stop}
}

// until waits for a condition.
func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	deadline := time.NewTimer(30 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			w.t.Fatalf("waited too long until %s", what)
		case <-tick.C:
		}
	}
}

func publish[T any](w *world, kind events.Type[T], source, subject string, data T) {
	w.t.Helper()
	id := events.DeriveID("test", kind.Name, subject, fmt.Sprintf("%+v", data), fmt.Sprint(time.Now().UnixNano()))
	if _, err := bus.Publish(w.t.Context(), w.bus, kind, events.Event[T]{ID: id, Source: source, Subject: subject, Time: w.now(), Data: data}); err != nil {
		w.t.Fatal(err)
	}
}

// ask makes a request as an administrator.
func ask[Req, Resp any](w *world, c events.Call[Req, Resp], req Req) (Resp, error) {
	w.t.Helper()
	caller := "admin"
	return bus.Request(w.t.Context(), w.bus, caller, c, req)
}

func must[T any](w *world) func(T, error) T {
	return func(v T, err error) T {
		w.t.Helper()
		if err != nil {
			w.t.Fatal(err)
		}
		return v
	}
}

// deploy signs an order and says that it was accepted.
func (w *world) deploy(name string, revision uint64, change ...func(*order.Order)) events.DeploymentOrder {
	w.t.Helper()
	d := w.orderOf(name, revision, change...)
	publish(w, events.DeploymentCreated, events.ServiceSource("scheduling"), name, d)
	return d
}

func (w *world) orderOf(name string, revision uint64, change ...func(*order.Order)) events.DeploymentOrder {
	w.t.Helper()
	o := order.Order{Fleet: "test", Deployment: name, Revision: revision, Package: "hello", Version: "2.10-3", Manifest: fmt.Sprintf("%064x", 1), Program: "install",
		Run: events.RunAdministrative, Collection: "everybody", Expression: `agent.os == "linux"`, Assignments: []order.Assignment{{ASAP: true}}, Rerun: order.RerunIfFailed,
		Issued: w.now().UTC(), NotAfter: w.now().UTC().Add(24 * time.Hour)}
	for _, c := range change {
		c(&o)
	}
	key, err := sign.NewKey(make([]byte, 32))
	if err != nil {
		w.t.Fatal(err)
	}
	envelope, err := order.Sign(o, key)
	if err != nil {
		w.t.Fatal(err)
	}
	_, digest, err := order.Open(envelope)
	if err != nil {
		w.t.Fatal(err)
	}
	return events.DeploymentOrder{Envelope: envelope, DeploymentNotice: events.DeploymentNotice{Deployment: name, Revision: revision, Order: digest, Package: o.Package,
		Version: o.Version, Program: o.Program, Collection: o.Collection, By: "admin", At: w.now().UTC()}}
}

func (w *world) release(d events.DeploymentOrder, attempt int, agents ...string) {
	w.t.Helper()
	publish(w, events.DeploymentReleased, events.ServiceSource("scheduling"), d.Deployment,
		events.Release{Deployment: d.Deployment, Revision: d.Revision, Order: d.Order, Wave: "1", Agents: agents, Attempt: attempt})
}

func statusOf(w *world, d events.DeploymentOrder, agent string, transition uint32, state events.State) events.JobStatus {
	return events.JobStatus{Job: events.JobID(d.Deployment, d.Revision, agent, 0, ""), Deployment: d.Deployment, Revision: d.Revision, Order: d.Order, Agent: agent,
		Attempt: 1, Transition: transition, State: state, At: w.now().UTC()}
}

// tell publishes a status as its agent.
func (w *world) tell(s events.JobStatus) {
	w.t.Helper()
	kind, ok := events.StatusType(s.State)
	if !ok {
		w.t.Fatalf("state %s has no type", s.State)
	}
	publish(w, kind, events.AgentSource(s.Agent), s.Agent, s)
}

func agents(n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = events.AgentID(fmt.Append(nil, "key", i))
	}
	return ids
}

// states waits until a deployment's counts are these.
func (w *world) states(r replica, deployment string, want map[events.State]int64) {
	w.t.Helper()
	var got map[events.State]int64
	defer func() {
		if w.t.Failed() {
			w.t.Logf("the states of %s are %v, not %v", deployment, got, want)
		}
	}()
	w.until("the states are as wanted", func() bool {
		k, ok := r.orders.newest(deployment)
		if !ok {
			return false
		}
		p, _ := r.count(deployment, k.Revision, oneRevision)
		got = p.States
		for s, n := range got {
			if n == 0 {
				delete(got, s)
			}
		}
		return cmp.Equal(want, got)
	})
}

func TestAReleaseOffersTheOrderToEachAgentOnce(t *testing.T) {
	w := newWorld(t)
	r := w.start()
	d := w.deploy("hello", 1)
	ids := agents(40)
	w.release(d, 0, ids...)
	w.release(d, 0, ids...) // a release that comes again
	w.states(r, "hello", map[events.State]int64{events.Offered: 40})

	offers := eventstest.ExpectExactly(t, w.bus, events.JobOffered, nil, 40)
	for _, o := range offers {
		if !slices.Contains(ids, o.Data.Agent) || o.Data.Order != d.Order || o.Data.Job != events.JobID("hello", 1, o.Data.Agent, 0, "") || o.Data.Attempt != 1 {
			t.Errorf("offer %+v", o.Data)
		}
	}
	answer, err := bus.Request(t.Context(), w.bus, ids[3], events.ExecutionOrder, events.OrderRequest{Order: d.Order})
	if err != nil || string(answer.Envelope) != string(d.Envelope) {
		t.Errorf("the order an agent fetches is not the one released: %v", err)
	}
	progress := eventstest.Expect(t, w.bus, events.DeploymentProgressed, func(e events.Event[events.Progress]) bool { return e.Data.Total == 40 })
	if progress.Data.States[events.Offered] != 40 {
		t.Errorf("progress %v", progress.Data)
	}
}

func TestStatusesBecomeStatesEndsAndHistory(t *testing.T) {
	w := newWorld(t)
	r := w.start()
	d, ids := w.deploy("hello", 1), agents(3)
	w.release(d, 0, ids...)
	w.states(r, "hello", map[events.State]int64{events.Offered: 3})
	for i, agent := range ids {
		w.tell(statusOf(w, d, agent, 1, events.Accepted))
		w.tell(statusOf(w, d, agent, 2, events.Running))
		if i == 0 {
			failed := statusOf(w, d, agent, 3, events.Failed)
			failed.Reason, failed.ExitCode = events.ExitCode, new(1603)
			w.tell(failed)
		} else if i == 1 {
			w.tell(statusOf(w, d, agent, 3, events.Succeeded))
		}
	}
	w.states(r, "hello", map[events.State]int64{events.Failed: 1, events.Succeeded: 1, events.Running: 1})

	ends := eventstest.ExpectExactly(t, w.bus, events.JobFinished, nil, 2)
	if ends[0].Data.Silent || ends[1].Data.Silent {
		t.Error("jobs whose agents spoke finished as silent")
	}
	history := must[events.HistoryAnswer](w)(ask(w, events.ExecutionHistory, events.HistoryQuery{Agent: ids[0]}))
	if len(history.Jobs) != 1 || history.Jobs[0].State != events.Failed || *history.Jobs[0].ExitCode != 1603 {
		t.Errorf("history %+v", history.Jobs)
	}
	rows := must[events.JobRows](w)(ask(w, events.ExecutionJobs, events.JobQuery{Deployment: "hello", States: []events.State{events.Failed}}))
	if len(rows.Jobs) != 1 || rows.Jobs[0].Agent != ids[0] || rows.Jobs[0].Reason != events.ExitCode {
		t.Errorf("rows %+v", rows.Jobs)
	}
	progress := must[events.Progress](w)(ask(w, events.ExecutionProgress, events.Named{Name: "hello"}))
	if progress.Total != 3 || progress.Reasons[events.ExitCode] != 1 {
		t.Errorf("progress %+v", progress)
	}
}

func TestStatusesOfUnknownOrdersAreLeftOut(t *testing.T) {
	w := newWorld(t)
	r := w.start()
	d, ids := w.deploy("hello", 1), agents(2)
	invented := statusOf(w, events.DeploymentOrder{DeploymentNotice: events.DeploymentNotice{Deployment: "hello", Revision: 2, Order: fmt.Sprintf("%064x", 7)}}, ids[0], 1, events.Running)
	w.tell(invented)
	borrowed := statusOf(w, events.DeploymentOrder{DeploymentNotice: events.DeploymentNotice{Deployment: "other", Revision: 1, Order: d.Order}}, ids[0], 1, events.Running)
	w.tell(borrowed)
	w.tell(statusOf(w, d, ids[0], 2, events.Succeeded))
	w.states(r, "hello", map[events.State]int64{events.Succeeded: 1})
	rows := must[events.JobRows](w)(ask(w, events.ExecutionJobs, events.JobQuery{}))
	if len(rows.Jobs) != 1 {
		t.Errorf("jobs %+v: want the one whose order is known", rows.Jobs)
	}
}

func TestAnAgentThatHadAnotherOrderOfTheRevisionRejectsThisOne(t *testing.T) {
	w := newWorld(t)
	r := w.start()
	d, ids := w.deploy("hello", 1), agents(2)
	w.release(d, 0, ids...)
	w.states(r, "hello", map[events.State]int64{events.Offered: 2})
	// Services were restored from a copy of before the order that this agent ran, and the revision was given anew.
	former := statusOf(w, d, ids[0], 5, events.Succeeded)
	former.Order = fmt.Sprintf("%064x", 7)
	w.tell(former)
	w.tell(statusOf(w, d, ids[1], 1, events.Succeeded))
	w.states(r, "hello", map[events.State]int64{events.Rejected: 1, events.Succeeded: 1})
	rows := must[events.JobRows](w)(ask(w, events.ExecutionJobs, events.JobQuery{Deployment: "hello", States: []events.State{events.Rejected}}))
	if len(rows.Jobs) != 1 || rows.Jobs[0].Agent != ids[0] || rows.Jobs[0].Reason != events.OrderSerialOld {
		t.Errorf("rejected are %+v", rows.Jobs)
	}
}

func TestARemovedDeploymentIsForgottenAndItsHistoryStays(t *testing.T) {
	w := newWorld(t)
	r := w.start()
	d, ids := w.deploy("hello", 1), agents(9)
	for _, agent := range ids {
		w.tell(statusOf(w, d, agent, 1, events.Succeeded))
	}
	w.states(r, "hello", map[events.State]int64{events.Succeeded: 9})
	publish(w, events.DeploymentRemoved, events.ServiceSource("scheduling"), "hello", d.DeploymentNotice)
	w.until("no job is left", func() bool { return r.countUpTo("hello", 1).Total == 0 })
	if _, err := ask(w, events.ExecutionProgress, events.Named{Name: "hello"}); err == nil {
		t.Error("a removed deployment still has progress")
	}
	history := must[events.HistoryAnswer](w)(ask(w, events.ExecutionHistory, events.HistoryQuery{Agent: ids[0]}))
	if len(history.Jobs) != 1 {
		t.Errorf("history %+v", history.Jobs)
	}
	if _, err := bus.Request(t.Context(), w.bus, ids[0], events.ExecutionOrder, events.OrderRequest{Order: d.Order}); err == nil {
		t.Error("the order of a removed deployment can still be fetched")
	}
}

func TestAnAdministratorsRetryOffersFailedJobsAgain(t *testing.T) {
	w := newWorld(t)
	r := w.start()
	d, ids := w.deploy("hello", 1), agents(4)
	for i, agent := range ids {
		w.tell(statusOf(w, d, agent, 3, []events.State{events.Failed, events.Rejected, events.Succeeded, events.Running}[i]))
	}
	w.states(r, "hello", map[events.State]int64{events.Failed: 1, events.Rejected: 1, events.Succeeded: 1, events.Running: 1})
	answer := must[events.RetryAnswer](w)(ask(w, events.ExecutionRetry, events.Named{Name: "hello"}))
	if answer.Offered != 2 {
		t.Errorf("%d jobs are tried again, want 2", answer.Offered)
	}
	for _, o := range eventstest.ExpectExactly(t, w.bus, events.JobOffered, nil, 2) {
		if o.Data.Attempt != 2 {
			t.Errorf("offer %+v: want attempt 2", o.Data)
		}
	}
	w.tell(statusOf(w, d, ids[0], 3, events.Failed)) // told again: not news
	second := statusOf(w, d, ids[0], 5, events.Succeeded)
	second.Attempt = 2
	w.tell(second)
	w.states(r, "hello", map[events.State]int64{events.Offered: 1, events.Succeeded: 2, events.Running: 1})
}

func TestARetryingJobIsOfferedAgainByATimer(t *testing.T) {
	w := newWorld(t)
	r := w.start()
	d, ids := w.deploy("hello", 1), agents(1)
	s := statusOf(w, d, ids[0], 2, events.Retrying)
	s.Reason, s.RetryAt = events.SourceUnreachable, new(w.now().UTC().Add(1200*time.Millisecond))
	w.tell(s)
	w.states(r, "hello", map[events.State]int64{events.Retrying: 1})
	offer := eventstest.ExpectExactly(t, w.bus, events.JobOffered, nil, 1)[0]
	if offer.Data.Attempt != 2 || offer.Time.Before(*s.RetryAt) {
		t.Errorf("offer %+v at %s: want attempt 2, not before %s", offer.Data, offer.Time, s.RetryAt)
	}
	w.states(r, "hello", map[events.State]int64{events.Offered: 1})
}

func TestALostTimerIsFoundByTheSweep(t *testing.T) {
	w := newWorld(t)
	r := w.start()
	d, ids := w.deploy("hello", 1), agents(1)
	s := statusOf(w, d, ids[0], 2, events.Retrying)
	s.Reason, s.RetryAt = events.SourceUnreachable, new(w.now().UTC().Add(time.Hour))
	w.tell(s)
	w.states(r, "hello", map[events.State]int64{events.Retrying: 1})
	timers, err := w.bus.JetStream().Stream(t.Context(), events.StreamTimers)
	if err != nil {
		t.Fatal(err)
	}
	if err := timers.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.ahead.Add(int64(2 * time.Hour))
	w.states(r, "hello", map[events.State]int64{events.Offered: 1})
	eventstest.ExpectExactly(t, w.bus, events.JobOffered, func(e events.Event[events.JobOffer]) bool { return e.Data.Attempt == 2 }, 1)
}

func TestAJobNobodySpeaksOfIsSilentAndThenFinished(t *testing.T) {
	w := newWorld(t)
	r := w.start()
	d, ids := w.deploy("hello", 1), agents(2)
	w.release(d, 0, ids...)
	w.states(r, "hello", map[events.State]int64{events.Offered: 2})
	w.tell(statusOf(w, d, ids[1], 1, events.Waiting))
	w.states(r, "hello", map[events.State]int64{events.Offered: 1, events.Waiting: 1})

	w.ahead.Add(int64(5 * time.Hour))
	w.until("the agent counts as silent", func() bool { return r.countUpTo("hello", 1).Silent == 1 })
	w.ahead.Add(int64(24 * time.Hour))
	ends := eventstest.ExpectExactly(t, w.bus, events.JobFinished, nil, 2)
	for _, e := range ends {
		if !e.Data.Silent || e.Data.Reason != events.AgentSilent {
			t.Errorf("end %+v: want a silent one", e.Data)
		}
	}
	w.tell(statusOf(w, d, ids[0], 1, events.Succeeded)) // it was only away
	w.states(r, "hello", map[events.State]int64{events.Succeeded: 1, events.Waiting: 1})
	eventstest.ExpectExactly(t, w.bus, events.JobFinished, func(e events.Event[events.JobEnd]) bool { return !e.Data.Silent }, 1)
	w.until("only the other is silent", func() bool { return r.countUpTo("hello", 1).Silent == 1 })
}

func streamNamed(w *world, name string) jetstream.Stream {
	w.t.Helper()
	s, err := w.bus.JetStream().Stream(w.t.Context(), name)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func TestNewRefuses(t *testing.T) {
	server := eventstest.Broker(t)
	tests := []struct {
		name    string
		options Options
	}{
		{"no bus", Options{}},
		{"a bus that publishes as somebody else", Options{Bus: eventstest.Bus(t, server, events.ServiceSource("scheduling"))}},
		{"a negative silence", Options{Bus: eventstest.Bus(t, server, events.ServiceSource("execution")), Silence: -1}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if _, err := New(test.options); err == nil {
				t.Error("accepted")
			}
		})
	}
}

func TestRunEndsWithAnErrorWhereNothingIsProvisioned(t *testing.T) {
	server := eventstest.Broker(t)
	b, err := bus.New(bus.Options{Conn: eventstest.Connect(t, server), Source: events.ServiceSource("execution")})
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(Options{Bus: b})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context()); !errors.Is(err, jetstream.ErrBucketNotFound) {
		t.Errorf("Run ends with %v, want that a bucket is missing", err)
	}
}
