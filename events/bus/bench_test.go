package bus_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/eventstest"
)

func BenchmarkMessage(b *testing.B) {
	kind, e := status(agent, events.Running, 3)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := bus.Message(kind, e); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	kind, e := status(agent, events.Running, 3)
	m := encode(b, kind, e)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := bus.Decode(m); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkOpen is all that is done to an event before its handler sees it.
func BenchmarkOpen(b *testing.B) {
	kind, e := status(agent, events.Running, 3)
	m := encode(b, kind, e)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := bus.Open(kind, m); err != nil {
			b.Fatal(err)
		}
	}
}

// benchBus is a bus as services make it: without the check of what is published.
func benchBus(b *testing.B) *bus.Bus {
	b.Helper()
	out, err := bus.New(bus.Options{Conn: eventstest.Connect(b, eventstest.Broker(b)), Source: events.AgentSource(agent)})
	if err != nil {
		b.Fatal(err)
	}
	eventstest.Provision(b, out)
	return out
}

func benchMessages(b *testing.B, n int) []*nats.Msg {
	b.Helper()
	out := make([]*nats.Msg, n)
	for i := range out {
		kind, e := status(agent, events.Running, uint32(i+1))
		out[i] = encode(b, kind, e)
	}
	return out
}

// BenchmarkRawPublish is what the broker stores of equal messages without us: the measure for the next.
func BenchmarkRawPublish(b *testing.B) {
	out := benchBus(b)
	msgs := benchMessages(b, b.N)
	b.ReportAllocs()
	b.ResetTimer()
	for _, m := range msgs {
		if _, err := out.JetStream().PublishMsgAsync(m, jetstream.WithStallWait(patience)); err != nil {
			b.Fatal(err)
		}
	}
	<-out.JetStream().PublishAsyncComplete()
}

func BenchmarkPipeline(b *testing.B) {
	out := benchBus(b)
	b.ReportAllocs()
	b.ResetTimer()
	p := out.NewPipeline()
	for i := range b.N {
		kind, e := status(agent, events.Running, uint32(i+1))
		if err := p.Add(b.Context(), encode(b, kind, e)); err != nil {
			b.Fatal(err)
		}
	}
	if err := p.Flush(b.Context()); err != nil {
		b.Fatal(err)
	}
}

func fill(b *testing.B, out *bus.Bus) {
	b.Helper()
	p := out.NewPipeline()
	for _, m := range benchMessages(b, b.N) {
		if err := p.Add(b.Context(), m); err != nil {
			b.Fatal(err)
		}
	}
	if err := p.Flush(b.Context()); err != nil {
		b.Fatal(err)
	}
}

func BenchmarkHandle(b *testing.B) {
	out := benchBus(b)
	fill(b, out)
	b.ReportAllocs()
	b.ResetTimer()
	n, done := 0, make(chan struct{})
	start(b, func(ctx context.Context) error {
		return out.Handle(ctx, bus.Consumer{Stream: events.StreamStatus, Name: "bench"}, bus.On(events.JobRunning, func(context.Context, events.Event[events.JobStatus], bus.Meta) error {
			if n++; n == b.N {
				close(done)
			}
			return nil
		}))
	})
	<-done
}

func BenchmarkHandleBatch(b *testing.B) {
	out := benchBus(b)
	fill(b, out)
	b.ReportAllocs()
	b.ResetTimer()
	n, done := 0, make(chan struct{})
	c := bus.Consumer{Stream: events.StreamStatus, Name: "bench", AckAll: true, Pinned: true, Batch: 500,
		Filters: []string{events.StatusPartition(fmt.Sprint(events.Partition(agent, events.Partitions)))}}
	start(b, func(ctx context.Context) error {
		return bus.HandleBatch(ctx, out, c, func(_ context.Context, batch []bus.Received[events.JobStatus]) error {
			if n += len(batch); n == b.N {
				close(done)
			}
			return nil
		})
	})
	<-done
}
