package bus_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/eventstest"
)

// statuses stores n transitions of one agent and returns its partition's filter.
func statuses(t testing.TB, b *bus.Bus, n int) (filter string) {
	t.Helper()
	p := b.NewPipeline()
	for i := range n {
		kind, e := status(agent, events.Running, uint32(i+1))
		if err := p.Add(t.Context(), encode(t, kind, e)); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	return events.StatusPartition(fmt.Sprint(events.Partition(agent, events.Partitions)))
}

func TestABatchComesInOrderAndIsHeldBackUntilItIsTaken(t *testing.T) {
	b := eventstest.Bus(t, eventstest.Broker(t), "")
	const n = 100
	filter := statuses(t, b, n/2)
	store(t, b, forge(t, func(m *nats.Msg) { m.Data = []byte("{") }))
	store(t, b, forge(t, setHeader("ce-type", "dev.chandler.job.running.v2")))
	for i := n / 2; i < n; i++ {
		kind, e := status(agent, events.Running, uint32(i+1))
		publish(t, b, kind, e)
	}
	var transitions []uint32
	refusals := 1
	done := make(chan struct{})
	c := bus.Consumer{Stream: events.StreamStatus, Name: "fold-0", Filters: []string{filter}, AckAll: true, Batch: 30}
	start(t, func(ctx context.Context) error {
		return bus.HandleBatch(ctx, b, c, func(_ context.Context, batch []bus.Received[events.JobStatus]) error {
			if len(batch) > 30 {
				t.Errorf("a batch of %d", len(batch))
			}
			if len(transitions) > 0 && refusals > 0 {
				refusals--
				if refusals == 0 {
					panic("cannot store the snapshot")
				}
			}
			for _, r := range batch {
				transitions = append(transitions, r.Data.Transition)
			}
			if len(transitions) == n {
				close(done)
			}
			return nil
		})
	})
	receive(t, done)
	want := make([]uint32, n)
	for i := range want {
		want[i] = uint32(i + 1)
	}
	if diff := cmp.Diff(want, transitions); diff != "" {
		t.Errorf("each once and in order: %s", diff)
	}
	eventually(t, "all is acknowledged", func() bool { return consumerInfo(t, b, events.StreamStatus, "fold-0").AckFloor.Stream == n+2 })
	var reasons []string
	for _, letter := range deadLetters(t, b, events.StreamStatus, 2) {
		reasons = append(reasons, letter.Headers().Get(bus.HeaderReason))
	}
	if diff := cmp.Diff([]string{"not_json", "newer_version"}, reasons); diff != "" {
		t.Error(diff)
	}
}

func TestABatchThatWasNotTakenIsNotAcknowledged(t *testing.T) {
	b := eventstest.Bus(t, eventstest.Broker(t), "")
	filter := statuses(t, b, 10)
	entered := make(chan struct{}, 10)
	c := bus.Consumer{Stream: events.StreamStatus, Name: "fold-0", Filters: []string{filter}, AckAll: true}
	stop := start(t, func(ctx context.Context) error {
		return bus.HandleBatch(ctx, b, c, func(context.Context, []bus.Received[events.JobStatus]) error {
			entered <- struct{}{}
			return errors.New("the revision is another's")
		})
	})
	receive(t, entered)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if floor := consumerInfo(t, b, events.StreamStatus, "fold-0").AckFloor.Stream; floor != 0 {
		t.Errorf("acknowledged up to %d", floor)
	}
	got := make(chan int, 10)
	start(t, func(ctx context.Context) error {
		return bus.HandleBatch(ctx, b, c, func(_ context.Context, batch []bus.Received[events.JobStatus]) error {
			got <- len(batch)
			return nil
		})
	})
	for n := 0; n < 10; {
		n += receive(t, got)
	}
}

func TestEventsOfAFailedBatchComeAgainOneByOne(t *testing.T) {
	b := eventstest.Bus(t, eventstest.Broker(t), "")
	filter := statuses(t, b, 5)
	deliveries := make(chan uint64, 100)
	c := bus.Consumer{Stream: events.StreamStatus, Name: "test", Filters: []string{filter}}
	start(t, func(ctx context.Context) error {
		return bus.HandleBatch(ctx, b, c, func(_ context.Context, batch []bus.Received[events.JobStatus]) error {
			for _, r := range batch {
				deliveries <- r.Delivered
			}
			if batch[0].Delivered == 1 {
				return errors.New("not now")
			}
			return nil
		})
	})
	var got []uint64
	for range 10 {
		got = append(got, receive(t, deliveries))
	}
	slices.Sort(got)
	if diff := cmp.Diff([]uint64{1, 1, 1, 1, 1, 2, 2, 2, 2, 2}, got); diff != "" {
		t.Error(diff)
	}
}

func TestABatchHandlerGetsOnlyItsData(t *testing.T) {
	b := eventstest.Bus(t, eventstest.Broker(t), events.ServiceSource("scheduling"))
	publish(t, b, events.CollectionChanged, collection("a"))
	notice := events.DeploymentPaused.Example.(events.DeploymentNotice)
	publish(t, b, events.DeploymentPaused, events.Event[events.DeploymentNotice]{ID: events.DeriveID("test"), Subject: notice.Deployment, Data: notice})
	publish(t, b, events.CollectionRemoved, collection("b"))
	got := make(chan string, 10)
	c := bus.Consumer{Stream: events.StreamEvents, Name: "test", Filters: []string{"chandler.event.>"}}
	start(t, func(ctx context.Context) error {
		return bus.HandleBatch(ctx, b, c, func(_ context.Context, batch []bus.Received[events.Collection]) error {
			for _, r := range batch {
				got <- r.Type + " " + r.Event.Subject
			}
			return nil
		})
	})
	for _, want := range []string{events.CollectionChanged.Name + " a", events.CollectionRemoved.Name + " b"} {
		if name := receive(t, got); name != want {
			t.Errorf("handled %s, want %s", name, want)
		}
	}
	eventually(t, "all is acknowledged", func() bool { return consumerInfo(t, b, events.StreamEvents, "test").AckFloor.Stream == 3 })
}

func TestAPinnedConsumerHasOneReplicaAtATimeAndIsHandedOver(t *testing.T) {
	srv := eventstest.Broker(t)
	b := eventstest.Bus(t, srv, "")
	const n = 100
	type taken struct {
		replica int
		pin     string
		count   int
	}
	batches := make(chan taken, 1000)
	var stops [2]func() error
	c := bus.Consumer{Stream: events.StreamStatus, Name: "fold-0", AckAll: true, Pinned: true, Batch: 10,
		Filters: []string{events.StatusPartition(fmt.Sprint(events.Partition(agent, events.Partitions)))}}
	for replica := range stops {
		stops[replica] = start(t, func(ctx context.Context) error {
			return bus.HandleBatch(ctx, eventstest.Bus(t, srv, ""), c, func(_ context.Context, batch []bus.Received[events.JobStatus]) error {
				batches <- taken{replica, batch[0].Pin, len(batch)}
				return nil
			})
		})
	}
	statuses(t, b, n-1)
	kind, e := status(agent, events.Running, n)
	m := encode(t, kind, e)
	m.Header["Nats-Pin-Id"] = []string{"forged"}
	store(t, b, m)
	first := receive(t, batches)
	for got := first.count; got < n; {
		b := receive(t, batches)
		if b.replica != first.replica || b.pin != first.pin {
			t.Fatalf("replica %d has a batch while %d is pinned", b.replica, first.replica)
		}
		got += b.count
	}
	if err := stops[first.replica](); err != nil {
		t.Fatal(err)
	}
	kind, e = status(agent, events.Succeeded, n+1)
	publish(t, b, kind, e)
	if second := receive(t, batches); second.replica == first.replica || second.pin == first.pin || second.pin == "" {
		t.Errorf("after %+v ended came %+v", first, second)
	}
}

func TestAnAtomicBatchIsStoredAllOrNone(t *testing.T) {
	b := eventstest.Bus(t, eventstest.Broker(t), events.ServiceSource("scheduling"))
	batch := func(from, n int) (msgs []*nats.Msg) {
		for i := range n {
			msgs = append(msgs, encode(t, events.CollectionChanged, collection(fmt.Sprint("c", from+i))))
		}
		return msgs
	}
	for _, n := range []int{0, 1, 2, bus.MaxBatch} {
		if err := bus.PublishBatch(t.Context(), b, batch(n*10_000, n)); err != nil {
			t.Fatalf("batch of %d: %v", n, err)
		}
	}
	const stored = 1 + 2 + bus.MaxBatch
	eventstest.ExpectExactly(t, b, events.CollectionChanged, nil, stored)

	again := append(batch(20_000, 2), batch(50_000, 3)...)
	headers := len(again[0].Header)
	if err := bus.PublishBatch(t.Context(), b, again); err != nil {
		t.Errorf("a batch of which two are known: %v", err)
	}
	if len(again[0].Header) != headers {
		t.Error("the caller's messages were changed")
	}
	eventstest.ExpectExactly(t, b, events.CollectionChanged, nil, stored+3)

	kind, e := status(agent, events.Running, 1)
	bad := map[string][]*nats.Msg{
		"too large":                  batch(100_000, bus.MaxBatch+1),
		"of a stream without":        {encode(t, kind, e)},
		"of two streams":             append(batch(200_000, 1), encode(t, kind, e)),
		"of no stream":               {{Subject: "elsewhere", Header: nats.Header{}}},
		"that the store refuses":     append(batch(300_000, 3), overlong(t)),
		"with one against its types": append(batch(400_000, 3), &nats.Msg{Subject: "chandler.event.collection.changed.x", Header: nats.Header{}}),
	}
	for name, msgs := range bad {
		if err := bus.PublishBatch(t.Context(), b, msgs); err == nil {
			t.Errorf("a batch %s is stored", name)
		}
	}
	eventstest.ExpectExactly(t, b, events.CollectionChanged, nil, stored+3)
}

// overlong is an event that its schema takes and its stream does not.
func overlong(t *testing.T) *nats.Msg {
	e := collection("long")
	e.Data.Comment = strings.Repeat("x", 1<<20)
	return encode(t, events.CollectionChanged, e)
}

func TestThePartitionIsTheOneTheBrokerWrites(t *testing.T) {
	b := eventstest.Bus(t, eventstest.Broker(t), "")
	p := b.NewPipeline()
	want := map[string]string{}
	for i := range 500 {
		id := events.AgentID([]byte(fmt.Sprint(i)))
		kind, e := status(id, events.Accepted, 1)
		if err := p.Add(t.Context(), encode(t, kind, e)); err != nil {
			t.Fatal(err)
		}
		want[id] = fmt.Sprint(events.Partition(id, events.Partitions))
	}
	if err := p.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	count := map[string]int{}
	for partition := range events.Partitions {
		_, err := b.Replay(t.Context(), events.StreamStatus, events.StatusPartition(fmt.Sprint(partition)), 1, func(m jetstream.Msg) error {
			tokens := strings.Split(m.Subject(), ".")
			got[tokens[3]] = tokens[4]
			count[tokens[4]]++
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if len(count) != events.Partitions {
		t.Errorf("500 agents are in partitions %v", count)
	}
}
