package execution

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/eventstest"
)

// journeys are whole jobs of many agents, transition by transition; every fifth status ends a job.
func journeys(deployment string, agents int) []events.JobStatus {
	var statuses []events.JobStatus
	for i, state := range []events.State{events.Accepted, events.Downloading, events.Downloaded, events.Running, events.Succeeded} {
		for n := range agents {
			s := testStatus(deployment, events.AgentID(fmt.Append(nil, n)), "", 1, 0, uint32(i+1))
			s.State, s.Reason, s.Order = state, events.NoReason, events.DigestOf([]byte(deployment))
			statuses = append(statuses, s)
		}
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

// BenchmarkIntake is one replica with the broker in the same process, so that its work counts too: from
// statuses that are stored until their changes are, with what is published of the jobs that end. Of "live"
// the statuses are published meanwhile, by the same process.
func BenchmarkIntake(b *testing.B) {
	for _, live := range []bool{true, false} {
		name := map[bool]string{true: "live", false: "stored"}[live]
		b.Run(name, func(b *testing.B) {
			server := eventstest.Broker(b)
			eventstest.Bus(b, server, "") // provisions
			outside, err := bus.New(bus.Options{Conn: eventstest.Connect(b, server)})
			if err != nil {
				b.Fatal(err)
			}
			var total int
			for b.Loop() {
				b.StopTimer()
				deployment := fmt.Sprint("bench", total)
				messages := encodeAll(b, journeys(deployment, 10_000))
				total += len(messages)
				s := benchService(b, server, deployment)
				if !live {
					publishAll(b, outside, messages)
				}
				ctx, cancel := context.WithCancel(b.Context())
				ended := make(chan error, 1)
				b.StartTimer()
				go func() { ended <- s.Run(ctx) }()
				if live {
					publishAll(b, outside, messages)
				}
				for s.countUpTo(deployment, 1).States[events.Succeeded] < 10_000 {
					pause(ctx, time.Millisecond)
				}
				b.StopTimer()
				cancel()
				if err := <-ended; err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
			b.ReportMetric(float64(total)/b.Elapsed().Seconds(), "statuses/s")
		})
	}
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
