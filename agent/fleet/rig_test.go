package fleet

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"chandler/agent/journal"
	"chandler/events"
	"chandler/events/bus"
	"chandler/events/eventstest"
	"chandler/events/order"
	"chandler/events/sign"
	"chandler/events/trust"
)

// rig is a broker, a stand-in for execution that answers what it is told, and the options of a fleet.
type rig struct {
	t         testing.TB
	broker    *eventstest.Server
	execution *bus.Bus
	store     *journal.Store
	options   Options
	fleet     *Fleet
	seen      chan Observation // all of them, unless the test does not look for long

	mu     sync.Mutex
	orders map[string]events.OrderAnswer
	answer map[string]events.SyncAnswer // by agent
	bundle trust.Bundle
	hooks  []func(Observation)
}

func signer(name string) sign.Key {
	key, err := sign.NewKey([]byte(fmt.Sprintf("%-32s", name)))
	if err != nil {
		panic(err) // the seed has the right length
	}
	return key
}

func bundle(version int, names ...string) trust.Bundle {
	b := trust.Bundle{Fleet: "demo", Version: version, Threshold: 1}
	for _, name := range names {
		b.Keys = append(b.Keys, signer(name).Public().Named(name))
	}
	return b
}

func agentID(n int) string { return fmt.Sprintf("agent%04d", n) }

func members(n int) (all []Member) {
	for i := range n {
		all = append(all, Member{ID: agentID(i + 1), Facts: events.Facts{Hostname: fmt.Sprintf("ws-%04d", i+1), OS: "linux", Site: "oslo", ClientKind: events.Advanced, Version: "0.1.0"}})
	}
	return all
}

// generation of both streams, as execution names it.
var generation = events.Generation{Created: 1}

func newRig(t testing.TB, n int, change ...func(*Options)) *rig {
	t.Helper()
	r := &rig{t: t, broker: eventstest.Broker(t), seen: make(chan Observation, 1<<16), orders: map[string]events.OrderAnswer{}, answer: map[string]events.SyncAnswer{}, bundle: bundle(1, "ada")}
	r.execution = eventstest.Bus(t, r.broker, events.ServiceSource("execution"))
	store, err := journal.Open(filepath.Join(t.TempDir(), "journal.db"))
	if err != nil {
		t.Fatal(err)
	}
	r.store = store
	t.Cleanup(func() { store.Close() })
	r.background(func(ctx context.Context) error {
		return r.execution.Serve(ctx, "execution", "0.1.0", bus.Answer(events.ExecutionSync, r.sync), bus.Answer(events.ExecutionOrder, r.order))
	})
	r.options = Options{Servers: []string{r.broker.URL()}, Store: store, Trust: r.trust, Members: members(n), RetryAfter: time.Millisecond, ReconnectMax: 50 * time.Millisecond, Observe: r.observe}
	for _, c := range change {
		c(&r.options)
	}
	return r
}

// run makes and runs the fleet until the test ends, or stop is called, and waits until every member hears offers.
func (r *rig) run() (stop func()) {
	r.t.Helper()
	stop = r.begin()
	r.until("all have been told what is outstanding", func() bool { return r.fleet.Stats().Syncs >= int64(len(r.options.Members)) })
	return stop
}

// begin makes and runs the fleet without waiting for anybody.
func (r *rig) begin() (stop func()) {
	r.t.Helper()
	f, err := New(r.options)
	if err != nil {
		r.t.Fatal(err)
	}
	r.fleet = f
	return r.background(f.Run)
}

func (r *rig) background(run func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			r.t.Error(err)
		}
	})
	r.t.Cleanup(stop)
	return stop
}

func (r *rig) trust() trust.Bundle {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.bundle
}

func (r *rig) sync(_ context.Context, agent string, _ events.SyncRequest) (events.SyncAnswer, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.answer[agent]
	a.JobsGeneration, a.StatusGeneration = generation, generation
	return a, nil
}

func (r *rig) order(_ context.Context, _ string, req events.OrderRequest) (events.OrderAnswer, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	a, ok := r.orders[req.Order]
	if !ok {
		return a, bus.NotFound(fmt.Errorf("no order %s", req.Order))
	}
	return a, nil
}

func (r *rig) observe(o Observation) {
	r.mu.Lock()
	hooks := r.hooks
	r.mu.Unlock()
	for _, hook := range hooks {
		hook(o)
	}
	select {
	case r.seen <- o:
	default:
	}
}

// on calls hook for everything that is observed from now on.
func (r *rig) on(hook func(Observation)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hooks = append(r.hooks, hook)
}

// signed makes an order that everything is right with until it is changed, and gives it to execution.
func (r *rig) signed(change ...func(*order.Order)) events.JobOffer {
	return r.signedBy("ada", change...)
}

func (r *rig) signedBy(name string, change ...func(*order.Order)) events.JobOffer {
	r.t.Helper()
	now := time.Now()
	o := order.Order{Fleet: "demo", Deployment: "hello", Revision: 1, Package: "hello", Version: "1", Manifest: events.DigestOf([]byte("manifest")), Program: "install", Run: events.RunAdministrative,
		Collection: "all", Expression: "true", Assignments: []order.Assignment{{ASAP: true}}, Rerun: order.RerunIfFailed, Issued: now.Add(-time.Minute), NotAfter: now.Add(time.Hour)}
	for _, c := range change {
		c(&o)
	}
	envelope, err := order.Sign(o, signer(name))
	if err != nil {
		r.t.Fatal(err)
	}
	_, digest, err := order.Open(envelope)
	if err != nil {
		r.t.Fatal(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.orders[digest] = events.OrderAnswer{Envelope: envelope}
	return events.JobOffer{Format: events.OfferFormat, Deployment: o.Deployment, Revision: o.Revision, Order: digest, Occurrence: o.Occurrence(), Attempt: 1}
}

// to is the offer for one agent.
func to(agent string, o events.JobOffer) events.JobOffer {
	o.Agent, o.Job = agent, events.JobID(o.Deployment, o.Revision, agent, o.Occurrence, o.User)
	return o
}

// offer offers as execution does, and gives the job. From now on it is outstanding for agents that do not know of it.
func (r *rig) offer(agent string, o events.JobOffer) string {
	r.t.Helper()
	o = to(agent, o)
	r.outstanding(o)
	e := events.Event[events.JobOffer]{ID: events.DeriveID("offer", o.Job, rand.Text()), Subject: agent, Data: o}
	if _, err := bus.Publish(r.t.Context(), r.execution, events.JobOffered, e); err != nil {
		r.t.Fatal(err)
	}
	return o.Job
}

// outstanding makes the offer part of the answers to syncs, instead of an earlier one of the job. An agent that has the
// job is not to tell it again.
func (r *rig) outstanding(o events.JobOffer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.answer[o.Agent]
	a.Offers = slices.DeleteFunc(slices.Clone(a.Offers), func(other events.Outstanding) bool { return other.Job == o.Job })
	a.Offers = append(a.Offers, events.Outstanding{JobOffer: o, State: events.Offered, Transition: math.MaxUint32})
	r.answer[o.Agent] = a
}

func (r *rig) cancel(c events.CancelRequest) {
	r.t.Helper()
	e := events.Event[events.CancelRequest]{ID: events.DeriveID("cancel", rand.Text()), Subject: c.Agent, Data: c}
	if _, err := bus.Publish(r.t.Context(), r.execution, events.JobCancelRequested, e); err != nil {
		r.t.Fatal(err)
	}
}

// await waits for an observation.
func (r *rig) await(what string, match func(Observation) bool) Observation {
	r.t.Helper()
	limit := time.After(eventstest.Patience)
	for {
		select {
		case o := <-r.seen:
			if match(o) {
				return o
			}
		case <-limit:
			r.t.Fatalf("not seen: %s", what)
		}
	}
}

// awaitState waits until the broker has stored that state of a job.
func (r *rig) awaitState(job string, state events.State) {
	r.t.Helper()
	r.await(fmt.Sprintf("job %s is %s", job, state), func(o Observation) bool { return o.What == StatusStored && o.Job == job && o.State == state })
}

// ended waits for the terminal state of a job and gives it as it is stored.
func (r *rig) ended(job string) events.JobStatus {
	r.t.Helper()
	r.await(fmt.Sprintf("job %s has ended", job), func(o Observation) bool { return o.What == StatusStored && o.Job == job && o.State.Terminal() })
	all := r.history(job)
	return all[len(all)-1]
}

// history is what STATUS holds of a job, once each, in the order of its transitions.
func (r *rig) history(job string) (all []events.JobStatus) {
	r.t.Helper()
	_, err := r.execution.Replay(r.t.Context(), events.StreamStatus, "chandler.job.>", 1, func(m jetstream.Msg) error {
		raw, err := bus.Decode(&nats.Msg{Subject: m.Subject(), Header: m.Headers(), Data: m.Data()})
		if err != nil {
			return err
		}
		e, err := bus.Typed[events.JobStatus](raw)
		if err != nil {
			return err
		}
		if e.Data.Job == job {
			all = append(all, e.Data)
		}
		return e.Data.Validate()
	})
	if err != nil {
		r.t.Fatal(err)
	}
	slices.SortStableFunc(all, func(a, b events.JobStatus) int { return cmp.Compare(a.Transition, b.Transition) })
	return slices.CompactFunc(all, func(a, b events.JobStatus) bool { return a.Transition == b.Transition })
}

// states of a job as STATUS holds them.
func (r *rig) states(job string) (all []events.State) {
	r.t.Helper()
	for _, s := range r.history(job) {
		all = append(all, s.State)
	}
	return all
}

// runs are the starts of a job's programs.
func (r *rig) runs(job string) (all []Run) {
	for _, run := range r.fleet.Runs() {
		if run.Job == job {
			all = append(all, run)
		}
	}
	return all
}

// until waits for a condition that nothing tells of.
func (r *rig) until(what string, met func() bool) {
	r.t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(eventstest.Patience)
	for !met() {
		select {
		case <-tick.C:
		case <-limit:
			r.t.Fatalf("it never came to this: %s", what)
		}
	}
}
