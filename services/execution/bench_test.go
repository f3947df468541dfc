package execution

import (
	"context"
	"flag"
	"fmt"
	"runtime"
	runtimemetrics "runtime/metrics"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/eventstest"
)

var journey = []events.State{events.Accepted, events.Downloading, events.Downloaded, events.Running, events.Succeeded}

// journeys are whole jobs of many agents, transition by transition; every fifth status ends a job.
func journeys(deployment string, agents int) []events.JobStatus {
	var all []events.JobStatus
	for i := range journey {
		all = append(all, transitions(deployment, i, 0, agents)...)
	}
	return all
}

// transitions are one part of journeys: the same transition of some agents.
func transitions(deployment string, step, from, to int) []events.JobStatus {
	statuses, order := make([]events.JobStatus, 0, to-from), events.DigestOf([]byte(deployment))
	for n := from; n < to; n++ {
		s := testStatus(deployment, events.AgentID(fmt.Append(nil, n)), "", 1, 0, uint32(step+1))
		s.State, s.Reason, s.Order = journey[step], events.NoReason, order
		statuses = append(statuses, s)
	}
	return statuses
}

// BenchmarkFold folds and applies without a broker.
func BenchmarkFold(b *testing.B) {
	statuses := journeys("one", 10_000)
	for b.Loop() {
		foldAll(b, statuses, changeSize)
	}
	b.ReportMetric(float64(len(statuses)*b.N)/b.Elapsed().Seconds(), "statuses/s")
}

// statusCount is how many statuses the benchmarks of the intake take: -statuses 1000000 -benchtime 1x for a backlog of a
// million.
var statusCount = flag.Int("statuses", 50_000, "statuses of one run of the benchmarks of the intake and the start")

// BenchmarkIntake is one replica with the broker in the same process, so that its work counts too: from statuses until
// their changes are stored, with what is published of the jobs that end. Of "live" the statuses are published
// meanwhile, by the same process; of "backlog" they are there when it begins. raw/s is what another broker stores of
// the same messages just before, without us; x_raw is the ratio.
func BenchmarkIntake(b *testing.B) {
	for _, live := range []bool{true, false} {
		b.Run(map[bool]string{true: "live", false: "backlog"}[live], func(b *testing.B) {
			var total int
			var raw, own time.Duration
			for b.Loop() {
				b.StopTimer()
				agents := *statusCount / len(journey)
				messages := encodeAll(b, journeys("bench", min(agents, 10_000)))
				if live && agents > 10_000 {
					b.Skip("the publisher holds all of them in memory")
				}
				total += agents * len(journey)
				raw += publishRaw(b, messages) * time.Duration(agents) / time.Duration(min(agents, 10_000))
				r := newRig(b, "bench")
				if live {
					r.start(b)
				} else {
					publishJourneys(b, r.outside, agents)
				}
				heap := watchHeap()
				began := time.Now()
				b.StartTimer()
				if live {
					publishAll(b, r.outside, messages)
				} else {
					r.start(b)
				}
				r.await(b, int64(agents))
				b.StopTimer()
				own += time.Since(began)
				b.ReportMetric(heap(), "heap_growth")
				r.stop(b)
				b.StartTimer()
			}
			b.ReportMetric(float64(total)/own.Seconds(), "statuses/s")
			b.ReportMetric(float64(total)/raw.Seconds(), "raw/s")
			b.ReportMetric(raw.Seconds()/own.Seconds(), "x_raw")
		})
	}
}

// BenchmarkStart is a replica that starts where another one folded everything: from New until it has its state.
func BenchmarkStart(b *testing.B) {
	r := newRig(b, "bench")
	agents := *statusCount / len(journey)
	publishJourneys(b, r.outside, agents)
	r.start(b)
	r.await(b, int64(agents))
	r.stop(b)
	for b.Loop() {
		r.service = benchService(b, r.server, "bench")
		r.start(b)
		b.StopTimer()
		r.await(b, int64(agents))
		r.stop(b)
		b.StartTimer()
	}
}

// BenchmarkOffers is a release to many agents, from the event until all of their offers and their records are stored.
func BenchmarkOffers(b *testing.B) {
	const agents = 10_000
	release := events.Release{Deployment: "bench", Revision: 1, Order: events.DigestOf([]byte("bench")), Attempt: 1}
	for n := range agents {
		release.Agents = append(release.Agents, events.AgentID(fmt.Append(nil, n)))
	}
	var raw, own time.Duration
	for b.Loop() {
		b.StopTimer()
		r := newRig(b, "bench")
		r.start(b)
		var offers []*nats.Msg
		for _, agent := range release.Agents {
			m, err := r.service.offerMessage(events.JobOffer{Format: events.OfferFormat, Agent: agent, Job: events.JobID("bench", 1, agent, 0, ""), Deployment: "bench",
				Revision: 1, Order: release.Order, Attempt: 1})
			if err != nil {
				b.Fatal(err)
			}
			offers = append(offers, m)
		}
		raw += publishRaw(b, offers)
		began := time.Now()
		b.StartTimer()
		if err := r.service.released(b.Context(), events.Event[events.Release]{Data: release}, bus.Meta{}); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		own += time.Since(began)
		r.stop(b)
		b.StartTimer()
	}
	b.ReportMetric(float64(agents*b.N)/own.Seconds(), "offers/s")
	b.ReportMetric(float64(agents*b.N)/raw.Seconds(), "raw/s")
	b.ReportMetric(raw.Seconds()/own.Seconds(), "x_raw")
}

// BenchmarkMemory is what a replica keeps of an agent with one job.
func BenchmarkMemory(b *testing.B) {
	const agents = 100_000
	codes := newCodes()
	for b.Loop() {
		before := heapInUse()
		state := newJobs(codes)
		d := delta{}
		for n := range agents {
			agent := events.AgentID(fmt.Append(nil, n))
			d.jobs = append(d.jobs[:0], job{deployment: "one", agent: agent, revision: 1, changed: 1, transition: 5, attempt: 1, state: events.Succeeded})
			d.places = append(d.places[:0], place{agent, "oslo"})
			if err := state.apply(uint64(n+1), d); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric((heapInUse()-before)/agents, "bytes/agent")
		runtime.KeepAlive(state)
	}
}

func heapInUse() float64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

// watchHeap looks at the heap of the whole process until it is asked, and gives the highest of the second half of the
// time divided by the highest of the first: 1 if nothing grows.
func watchHeap() func() float64 {
	stop, ended := make(chan struct{}), make(chan []float64)
	go func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		sample := []runtimemetrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
		var seen []float64
		for {
			runtimemetrics.Read(sample)
			seen = append(seen, float64(sample[0].Value.Uint64()))
			select {
			case <-stop:
				ended <- seen
				return
			case <-tick.C:
			}
		}
	}()
	return func() float64 {
		close(stop)
		seen := <-ended
		half := (len(seen) + 1) / 2
		return slices.Max(seen[len(seen)-half:]) / slices.Max(seen[:half])
	}
}

// rig is a broker with one replica.
type rig struct {
	server  *eventstest.Server
	outside *bus.Bus
	service *Service
	cancel  context.CancelFunc
	ended   chan error
}

func newRig(b *testing.B, deployment string) *rig {
	b.Helper()
	r := &rig{server: eventstest.Broker(b)}
	eventstest.Bus(b, r.server, "") // provisions
	var err error
	if r.outside, err = bus.New(bus.Options{Conn: eventstest.Connect(b, r.server), PublishWindow: 4096}); err != nil {
		b.Fatal(err)
	}
	r.service = benchService(b, r.server, deployment)
	return r
}

// start runs the replica and waits until it has its state.
func (r *rig) start(b *testing.B) {
	b.Helper()
	ctx, cancel := context.WithCancel(b.Context())
	r.cancel, r.ended = cancel, make(chan error, 1)
	go func() { r.ended <- r.service.Run(ctx) }()
	for r.service.allLoaded() != nil && len(r.ended) == 0 {
		pause(ctx, time.Millisecond)
	}
}

func (r *rig) await(b *testing.B, succeeded int64) {
	b.Helper()
	for r.service.countUpTo("bench", 1).States[events.Succeeded] < succeeded {
		if len(r.ended) > 0 {
			b.Fatal(<-r.ended)
		}
		pause(b.Context(), time.Millisecond)
	}
}

func (r *rig) stop(b *testing.B) {
	b.Helper()
	r.cancel()
	if err := <-r.ended; err != nil {
		b.Fatal(err)
	}
}

// publishRaw stores the messages in a broker of their own as the client library does, and tells how long that took.
func publishRaw(b *testing.B, messages []*nats.Msg) time.Duration {
	b.Helper()
	server := eventstest.Broker(b)
	eventstest.Bus(b, server, "") // provisions
	conn := eventstest.Connect(b, server)
	js, err := jetstream.New(conn, jetstream.WithPublishAsyncMaxPending(4096))
	if err != nil {
		b.Fatal(err)
	}
	began := time.Now()
	for _, m := range messages {
		if _, err := js.PublishMsgAsync(m, jetstream.WithStallWait(time.Minute)); err != nil {
			b.Fatal(err)
		}
	}
	<-js.PublishAsyncComplete()
	took := time.Since(began)
	server.Stop()
	return took
}

func benchService(b *testing.B, server *eventstest.Server, deployment string) *Service {
	b.Helper()
	own, err := bus.New(bus.Options{Conn: eventstest.Connect(b, server), Source: events.ServiceSource("execution")})
	if err != nil {
		b.Fatal(err)
	}
	s, err := New(Options{Bus: own})
	if err != nil {
		b.Fatal(err)
	}
	k := &known{ends: testTime.AddDate(1, 0, 0)}
	k.Deployment, k.Revision, k.Order = deployment, 1, events.DigestOf([]byte(deployment))
	s.orders.add(k)
	return s
}

func encodeAll(b *testing.B, statuses []events.JobStatus) []*nats.Msg {
	b.Helper()
	messages := make([]*nats.Msg, len(statuses))
	for i, s := range statuses {
		kind, ok := events.StatusType(s.State)
		if !ok {
			b.Fatalf("state %s has no type", s.State)
		}
		var err error
		messages[i], err = bus.Message(kind, events.Event[events.JobStatus]{ID: s.StatusID(), Source: events.AgentSource(s.Agent), Subject: s.Agent, Time: testTime, Data: s})
		if err != nil {
			b.Fatal(err)
		}
	}
	return messages
}

// publishJourneys stores whole jobs of many agents, without having all of them in memory.
func publishJourneys(b *testing.B, outside *bus.Bus, agents int) {
	b.Helper()
	for step := range journey {
		for from := 0; from < agents; from += 10_000 {
			publishAll(b, outside, encodeAll(b, transitions("bench", step, from, min(agents, from+10_000))))
		}
	}
}

func publishAll(b *testing.B, outside *bus.Bus, messages []*nats.Msg) {
	b.Helper()
	p := outside.NewPipeline()
	for _, m := range messages {
		if err := p.Add(b.Context(), m); err != nil {
			b.Fatal(err)
		}
	}
	if err := p.Flush(b.Context()); err != nil {
		b.Fatal(err)
	}
}
