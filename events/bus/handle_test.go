package bus_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/eventstest"
)

// forge is a message of agent's own subject, changed.
func forge(t *testing.T, change func(*nats.Msg)) *nats.Msg {
	t.Helper()
	kind, e := status(agent, events.Running, 3)
	m := encode(t, kind, e)
	m.Header.Del(jetstream.MsgIDHeader)
	change(m)
	return m
}

func replace(old, with string) func(*nats.Msg) {
	return func(m *nats.Msg) {
		if !bytes.Contains(m.Data, []byte(old)) {
			panic("the data has no " + old)
		}
		m.Data = bytes.ReplaceAll(m.Data, []byte(old), []byte(with))
	}
}

func setHeader(name string, values ...string) func(*nats.Msg) {
	return func(m *nats.Msg) { m.Header[name] = values }
}

// badMessages are what a hostile or broken agent could publish on its own subject, by the reason for which
// each is refused.
var badMessages = []struct {
	name, reason string
	change       func(*nats.Msg)
}{
	{"nothing at all", "not_cloudevent", func(m *nats.Msg) { m.Header, m.Data = nil, nil }},
	{"text without headers", "not_cloudevent", func(m *nats.Msg) { m.Header, m.Data = nil, []byte("hello") }},
	{"JSON that is no event", "not_cloudevent", func(m *nats.Msg) { m.Header = nil }},
	{"no id", "not_cloudevent", func(m *nats.Msg) { m.Header.Del("ce-id") }},
	{"no source", "not_cloudevent", func(m *nats.Msg) { m.Header.Del("ce-source") }},
	{"another spec version", "not_cloudevent", setHeader("ce-specversion", "0.3")},
	{"a time that is none", "not_cloudevent", setHeader("ce-time", "yesterday")},
	{"an attribute twice", "not_cloudevent", setHeader("ce-source", events.AgentSource(agent), events.AgentSource(other))},
	{"an attribute twice in other letters", "not_cloudevent", setHeader("CE-Source", events.AgentSource(other))},
	{"a control character", "not_cloudevent", setHeader("ce-subject", "a%00b")},
	{"a batch of events", "not_cloudevent", setHeader("Content-Type", "application/cloudevents-batch+json")},
	{"no data", "not_json", func(m *nats.Msg) { m.Data = nil }},
	{"data that is not JSON", "not_json", func(m *nats.Msg) { m.Data = []byte("{") }},
	{"two values", "not_json", func(m *nats.Msg) { m.Data = append(m.Data, "{}"...) }},
	{"data said to be XML", "not_json", setHeader("ce-datacontenttype", "text/xml")},
	{"a type of nobody", "unknown_type", setHeader("ce-type", "com.example.thing.v1")},
	{"a type that asks for labels", "unknown_type", setHeader("ce-type", "dev.chandler.job.x"+agent+".v1")},
	{"data of another type", "schema", func(m *nats.Msg) { m.Data = []byte(`{"lines":[]}`) }},
	{"a list", "schema", func(m *nats.Msg) { m.Data = []byte(`[]`) }},
	{"a number for a name", "schema", replace(`"deployment":"hello-everywhere"`, `"deployment":7`)},
	{"a time in the data that is none", "schema", replace(`"at":"2026-12-01T08:00:00Z"`, `"at":"2026"`)},
	{"a number out of range", "invalid", replace(`"transition":3`, `"transition":5000000000`)},
	{"a job of another deployment", "invalid", replace(`"deployment":"hello-everywhere"`, `"deployment":"other"`)},
	{"no transition", "invalid", replace(`"transition":3`, `"transition":0`)},
	{"another agent's data", "disagrees", replace(agent, other)},
	{"another agent's data behind a key in other letters", "disagrees", func(m *nats.Msg) {
		m.Data = append(bytes.TrimSuffix(m.Data, []byte("}")), `,"AGENT":"`+other+`"}`...)
	}},
	{"another agent's subject", "disagrees", setHeader("ce-subject", other)},
	{"no subject", "disagrees", func(m *nats.Msg) { m.Header.Del("ce-subject") }},
	{"another agent's source", "disagrees", setHeader("ce-source", events.AgentSource(other))},
	{"a service's source", "disagrees", setHeader("ce-source", events.ServiceSource("execution"))},
	{"a type of another subject", "disagrees", setHeader("ce-type", events.JobFailed.Name)},
	{"a state of another type", "disagrees", replace(`"state":"running"`, `"state":"succeeded"`)},
	{"a word that the broker itself might say", "not_json", func(m *nats.Msg) {
		m.Header["Status"], m.Header["Description"], m.Data = []string{"409"}, []string{"Consumer Deleted"}, nil
	}},
	{"nothing but the broker's word", "not_cloudevent", func(m *nats.Msg) { m.Header, m.Data = nats.Header{"Status": {"404"}}, nil }},
	{"sent on by the broker", "relayed", setHeader("Nats-Stream", "JOBS")},
}

func TestWhatIsNoEventIsPutAsideWithItsReason(t *testing.T) {
	b, reg := measured(t, eventstest.Broker(t), "")
	for _, bad := range badMessages {
		store(t, b, forge(t, bad.change))
	}
	kind, good := status(agent, events.Running, 4)
	publish(t, b, kind, good)

	handled := make(chan string, len(badMessages))
	start(t, func(ctx context.Context) error {
		return b.Handle(ctx, bus.Consumer{Stream: events.StreamStatus, Name: "test"}, bus.On(kind, func(_ context.Context, e events.Event[events.JobStatus], _ bus.Meta) error {
			handled <- e.ID
			return nil
		}))
	})
	if id := receive(t, handled); id != good.ID {
		t.Errorf("handled %s, want only the good one", id)
	}
	for i, letter := range deadLetters(t, b, events.StreamStatus, len(badMessages)) {
		h, bad := letter.Headers(), badMessages[i]
		want := map[string]string{bus.HeaderReason: bad.reason, bus.HeaderStream: events.StreamStatus, bus.HeaderSequence: fmt.Sprint(i + 1), bus.HeaderConsumer: "test",
			bus.HeaderSubject: fmt.Sprintf("chandler.job.running.%s.%d", agent, events.Partition(agent, events.Partitions))}
		for name, value := range want {
			if h.Get(name) != value {
				t.Errorf("%s: %s is %q, want %q (%s)", bad.name, name, h.Get(name), value, h.Get(bus.HeaderError))
			}
		}
		original := forge(t, bad.change)
		if !bytes.Equal(letter.Data(), original.Data) {
			t.Errorf("%s: the data was not kept", bad.name)
		}
		if strings.Join(h.Values("ce-source"), " ") != strings.Join(original.Header.Values("ce-source"), " ") {
			t.Errorf("%s: the headers were not kept: %v", bad.name, h)
		}
	}
	if got := counter(t, reg, "chandler_bus_dead_letters_total", "reason", "disagrees", "stream", events.StreamStatus); got != 8 {
		t.Errorf("%g counted as disagreeing, want 8", got)
	}
	if got := counter(t, reg, "chandler_bus_handled_total", "type", "unknown", "result", "refused"); got == 0 {
		t.Error("types of strangers are not counted as unknown")
	}
	if n := len(handled); n != 0 {
		t.Errorf("%d more were handled", n)
	}
}

func TestHeadersOfAStrangerDoNotDecideWhetherHisLetterIsKept(t *testing.T) {
	b := eventstest.Bus(t, eventstest.Broker(t), "")
	hostile := []func(*nats.Msg){
		setHeader(jetstream.ExpectedStreamHeader, events.StreamStatus),
		setHeader(jetstream.MsgIDHeader, "same"),
		setHeader("Chandler-Reason", "nothing"),
		setHeader("nats-expected-stream", "NONE"),
		func(m *nats.Msg) {
			for i := range 14 {
				m.Header[fmt.Sprintf("X-%d", i)] = []string{strings.Repeat("x", 4096)}
			}
			m.Data = bytes.Repeat([]byte("x"), 200<<10)
		},
	}
	for _, h := range hostile {
		store(t, b, forge(t, func(m *nats.Msg) { m.Data = []byte("{"); h(m) }))
	}
	kind, _ := status(agent, events.Running, 3)
	start(t, func(ctx context.Context) error {
		return b.Handle(ctx, bus.Consumer{Stream: events.StreamStatus, Name: "test"}, bus.On(kind, func(context.Context, events.Event[events.JobStatus], bus.Meta) error { return nil }))
	})
	letters := deadLetters(t, b, events.StreamStatus, len(hostile))
	for i, letter := range letters {
		if got := letter.Headers().Values(bus.HeaderReason); len(got) != 1 || got[0] != "not_json" {
			t.Errorf("letter %d: reason %v", i, got)
		}
	}
	if got := letters[2].Headers().Get("Original-Chandler-Reason"); got != "nothing" {
		t.Errorf("what the stranger wrote is not kept: %v", letters[2].Headers())
	}
}

func TestALetterThatIsTooLargeIsCut(t *testing.T) {
	b := eventstest.Bus(t, eventstest.Broker(t), "")
	m := forge(t, func(m *nats.Msg) {
		m.Header["X"] = []string{strings.Repeat("x", 20<<10)}
		m.Data = bytes.Repeat([]byte("y"), (1<<20)-30<<10)
	})
	store(t, b, m)
	kind, _ := status(agent, events.Running, 3)
	start(t, func(ctx context.Context) error {
		return b.Handle(ctx, bus.Consumer{Stream: events.StreamStatus, Name: "test"}, bus.On(kind, func(context.Context, events.Event[events.JobStatus], bus.Meta) error { return nil }))
	})
	letter := deadLetters(t, b, events.StreamStatus, 1)[0]
	if letter.Headers().Get(bus.HeaderReason) != "not_json" || len(letter.Data()) == 0 {
		t.Errorf("letter of %d bytes: %v", len(letter.Data()), letter.Headers())
	}
}

func TestAnErrorOrAPanicBringsTheEventAgain(t *testing.T) {
	b, reg := measured(t, eventstest.Broker(t), events.ServiceSource("scheduling"))
	publish(t, b, events.CollectionChanged, collection("a"))
	deliveries := make(chan uint64, 10)
	start(t, func(ctx context.Context) error {
		return b.Handle(ctx, bus.Consumer{Stream: events.StreamEvents, Name: "test"}, bus.On(events.CollectionChanged, func(_ context.Context, _ events.Event[events.Collection], m bus.Meta) error {
			deliveries <- m.Delivered
			switch m.Delivered {
			case 1:
				panic("first time")
			case 2:
				return errors.New("second time")
			}
			return nil
		}))
	})
	for want := range uint64(3) {
		if got := receive(t, deliveries); got != want+1 {
			t.Errorf("delivery %d, want %d", got, want+1)
		}
	}
	eventually(t, "it is counted", func() bool {
		return counter(t, reg, "chandler_bus_handled_total", "result", "ok") == 1 && counter(t, reg, "chandler_bus_handled_total", "result", "retried") == 2
	})
	noDeadLetters(t, b)
}

func TestAnEventIsGivenUpAfterMaxDeliver(t *testing.T) {
	b := eventstest.Bus(t, eventstest.Broker(t), events.ServiceSource("scheduling"))
	publish(t, b, events.CollectionChanged, collection("a"))
	var calls atomic.Int32
	start(t, func(ctx context.Context) error {
		return b.Handle(ctx, bus.Consumer{Stream: events.StreamEvents, Name: "test", MaxDeliver: 2}, bus.On(events.CollectionChanged, func(context.Context, events.Event[events.Collection], bus.Meta) error {
			calls.Add(1)
			return errors.New("no room on the shelf")
		}))
	})
	h := deadLetters(t, b, events.StreamEvents, 1)[0].Headers()
	if h.Get(bus.HeaderReason) != "gave_up" || h.Get(bus.HeaderError) != "no%20room%20on%20the%20shelf" {
		t.Errorf("letter: %v", h)
	}
	if calls.Load() != 2 {
		t.Errorf("handled %d times, want 2", calls.Load())
	}
}

func TestAHandlerDropsWhatItWillNeverTake(t *testing.T) {
	b := eventstest.Bus(t, eventstest.Broker(t), events.ServiceSource("scheduling"))
	for _, name := range []string{"a", "b"} {
		publish(t, b, events.CollectionChanged, collection(name))
	}
	reasons := map[string]string{"a": "no_such_order", "b": "Not one word"}
	settled := make(chan string, 10)
	start(t, func(ctx context.Context) error {
		return b.Handle(ctx, bus.Consumer{Stream: events.StreamEvents, Name: "test"}, bus.On(events.CollectionChanged, func(_ context.Context, e events.Event[events.Collection], _ bus.Meta) error {
			settled <- e.Subject
			return fmt.Errorf("look up order: %w", bus.Drop(reasons[e.Subject], errors.New("it is gone")))
		}))
	})
	letters := deadLetters(t, b, events.StreamEvents, 2)
	for i, want := range []string{"no_such_order", "other"} {
		if got := letters[i].Headers().Get(bus.HeaderReason); got != want {
			t.Errorf("letter %d: reason %q, want %q", i, got, want)
		}
	}
	eventually(t, "nothing is left to settle", func() bool { return consumerInfo(t, b, events.StreamEvents, "test").NumAckPending == 0 })
	if len(settled) != 2 {
		t.Errorf("handled %d times, want twice", len(settled))
	}
}

func consumerInfo(t testing.TB, b *bus.Bus, stream, name string) *jetstream.ConsumerInfo {
	t.Helper()
	c, err := b.JetStream().Consumer(t.Context(), stream, name)
	if err != nil {
		t.Fatal(err)
	}
	return c.CachedInfo()
}

func TestAnEventOfANewerVersionWaitsForItsReader(t *testing.T) {
	b, reg := measured(t, eventstest.Broker(t), "")
	store(t, b, forge(t, setHeader("ce-type", "dev.chandler.job.running.v2")))
	store(t, b, forge(t, setHeader("ce-type", "dev.chandler.job.running.v9999")))
	kind, good := status(agent, events.Running, 4)
	publish(t, b, kind, good)
	handled := make(chan string, 3)
	start(t, func(ctx context.Context) error {
		return b.Handle(ctx, bus.Consumer{Stream: events.StreamStatus, Name: "test"}, bus.On(kind, func(_ context.Context, e events.Event[events.JobStatus], _ bus.Meta) error {
			handled <- e.ID
			return nil
		}))
	})
	if id := receive(t, handled); id != good.ID {
		t.Errorf("handled %s, want what came behind it", id)
	}
	eventually(t, "only the newer ones are open", func() bool { return consumerInfo(t, b, events.StreamStatus, "test").NumAckPending == 2 })
	noDeadLetters(t, b)
	if got := counter(t, reg, "chandler_bus_newer_events_total", "type", events.JobRunning.Name); got != 2 {
		t.Errorf("%g counted, want 2", got)
	}
}

func TestATypeWithoutHandlerIsPassedOver(t *testing.T) {
	b := eventstest.Bus(t, eventstest.Broker(t), events.ServiceSource("execution"))
	offer := events.JobOffered.Example.(events.JobOffer)
	cancel := events.JobCancelRequested.Example.(events.CancelRequest)
	publish(t, b, events.JobOffered, events.Event[events.JobOffer]{ID: events.DeriveID("test", "1"), Subject: agent, Data: offer})
	publish(t, b, events.JobCancelRequested, events.Event[events.CancelRequest]{ID: events.DeriveID("test", "2"), Subject: agent, Data: cancel})
	got := make(chan events.CancelRequest, 2)
	start(t, func(ctx context.Context) error {
		return b.Handle(ctx, bus.Consumer{Stream: events.StreamJobs, Name: "test"}, bus.On(events.JobCancelRequested, func(_ context.Context, e events.Event[events.CancelRequest], _ bus.Meta) error {
			got <- e.Data
			return nil
		}))
	})
	if diff := cmp.Diff(cancel, receive(t, got)); diff != "" {
		t.Error(diff)
	}
	eventually(t, "both are settled", func() bool { return consumerInfo(t, b, events.StreamJobs, "test").AckFloor.Stream == 2 })
}

func TestASlowHandlerKeepsItsEvents(t *testing.T) {
	b := eventstest.Bus(t, eventstest.Broker(t), events.ServiceSource("scheduling"))
	for _, name := range []string{"a", "b", "c"} {
		publish(t, b, events.CollectionChanged, collection(name))
	}
	deliveries := make(chan uint64, 10)
	start(t, func(ctx context.Context) error {
		return b.Handle(ctx, bus.Consumer{Stream: events.StreamEvents, Name: "test", AckWait: time.Second}, bus.On(events.CollectionChanged, func(_ context.Context, e events.Event[events.Collection], m bus.Meta) error {
			deliveries <- m.Delivered
			if e.Subject == "a" {
				<-time.After(2500 * time.Millisecond) // the passing of time is the subject of this test
			}
			return nil
		}))
	})
	for range 3 {
		if n := receive(t, deliveries); n != 1 {
			t.Errorf("an event was delivered %d times, though its process lives", n)
		}
	}
	eventually(t, "all are settled", func() bool { return consumerInfo(t, b, events.StreamEvents, "test").AckFloor.Stream == 3 })
}

func TestAProcessThatEndsGivesBackWhatItHasNotHandled(t *testing.T) {
	b := eventstest.Bus(t, eventstest.Broker(t), events.ServiceSource("scheduling"))
	const n = 50
	for i := range n {
		publish(t, b, events.CollectionChanged, collection(fmt.Sprint("c", i)))
	}
	entered := make(chan struct{}, n)
	stop := start(t, func(ctx context.Context) error {
		return b.Handle(ctx, bus.Consumer{Stream: events.StreamEvents, Name: "test"}, bus.On(events.CollectionChanged, func(ctx context.Context, _ events.Event[events.Collection], _ bus.Meta) error {
			entered <- struct{}{}
			<-ctx.Done()
			return ctx.Err()
		}))
	})
	receive(t, entered)
	eventually(t, "all are delivered to the first process", func() bool { return consumerInfo(t, b, events.StreamEvents, "test").NumAckPending == n })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	began, got := time.Now(), make(chan string, n)
	start(t, func(ctx context.Context) error {
		return b.Handle(ctx, bus.Consumer{Stream: events.StreamEvents, Name: "test"}, bus.On(events.CollectionChanged, func(_ context.Context, e events.Event[events.Collection], _ bus.Meta) error {
			got <- e.Subject
			return nil
		}))
	})
	seen := map[string]bool{}
	for range n {
		seen[receive(t, got)] = true
	}
	if len(seen) != n {
		t.Errorf("%d of %d came again", len(seen), n)
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("it took %s: the events waited for AckWait", took)
	}
}

func TestReplicasShareAConsumer(t *testing.T) {
	b := eventstest.Bus(t, eventstest.Broker(t), events.ServiceSource("scheduling"))
	both := make(chan int, 1000)
	joined := [2]chan struct{}{make(chan struct{}), make(chan struct{})}
	for replica := range 2 {
		var once sync.Once
		start(t, func(ctx context.Context) error {
			return b.Handle(ctx, bus.Consumer{Stream: events.StreamEvents, Name: "test", Batch: 4, Workers: 2}, bus.On(events.CollectionChanged, func(ctx context.Context, _ events.Event[events.Collection], _ bus.Meta) error {
				once.Do(func() { close(joined[replica]) })
				select {
				case <-joined[1-replica]: // one may be there much later than the other, and would find nothing left
				case <-ctx.Done():
					return context.Cause(ctx)
				}
				both <- replica
				return nil
			}))
		})
	}
	const n = 200
	p := b.NewPipeline()
	for i := range n {
		if err := p.Add(t.Context(), encode(t, events.CollectionChanged, collection(fmt.Sprint("c", i)))); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	var count [2]int
	for range n {
		count[receive(t, both)]++
	}
	eventually(t, "all are settled", func() bool { return consumerInfo(t, b, events.StreamEvents, "test").AckFloor.Stream == n })
	if len(both) > 0 || count[0] == 0 || count[1] == 0 {
		t.Errorf("handled %v and %d more, want each once and some by each", count, len(both))
	}
}

func TestAConsumerThatCanNeverWorkIsAnError(t *testing.T) {
	b := eventstest.Bus(t, eventstest.Broker(t), "")
	status := bus.On(events.JobRunning, func(context.Context, events.Event[events.JobStatus], bus.Meta) error { return nil })
	tests := map[string]struct {
		consumer bus.Consumer
		handlers []bus.Handler
	}{
		"no such stream":             {bus.Consumer{Stream: "NONE", Name: "test"}, []bus.Handler{status}},
		"a type of another stream":   {bus.Consumer{Stream: events.StreamEvents, Name: "test"}, []bus.Handler{status}},
		"a name that is no token":    {bus.Consumer{Stream: events.StreamStatus, Name: "a.b"}, []bus.Handler{status}},
		"no handlers":                {bus.Consumer{Stream: events.StreamStatus, Name: "test"}, nil},
		"two handlers of a type":     {bus.Consumer{Stream: events.StreamStatus, Name: "test"}, []bus.Handler{status, status}},
		"AckAll without batches":     {bus.Consumer{Stream: events.StreamStatus, Name: "test", AckAll: true}, []bus.Handler{status}},
		"a batch of less than none":  {bus.Consumer{Stream: events.StreamStatus, Name: "test", Batch: -1}, []bus.Handler{status}},
		"a filter the broker denies": {bus.Consumer{Stream: events.StreamStatus, Name: "test", Filters: []string{"chandler.job.>", "chandler.job.*.*.1"}}, []bus.Handler{status}},
	}
	for name, tt := range tests {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		if err := b.Handle(ctx, tt.consumer, tt.handlers...); err == nil {
			t.Errorf("%s is taken", name)
		}
		cancel()
	}
}
