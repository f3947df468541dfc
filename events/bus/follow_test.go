package bus_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/eventstest"
)

func TestReplayEndsWhereTheStreamEnded(t *testing.T) {
	b := eventstest.Bus(t, eventstest.Broker(t), events.ServiceSource("scheduling"))
	changed, removed, neither := "chandler.event.collection.changed.>", "chandler.event.collection.removed.>", "chandler.event.freeze.>"
	replay := func(filter string, from uint64) (read []uint64, next uint64) {
		t.Helper()
		next, err := b.Replay(t.Context(), events.StreamEvents, filter, from, func(m jetstream.Msg) error {
			meta, err := m.Metadata()
			read = append(read, meta.Sequence.Stream)
			return err
		})
		if err != nil {
			t.Fatalf("replay %s from %d: %v", filter, from, err)
		}
		return read, next
	}
	if read, next := replay(changed, 1); len(read) != 0 || next != 1 {
		t.Errorf("of an empty stream were read %v, next %d", read, next)
	}
	for i := range 3 {
		publish(t, b, events.CollectionChanged, collection(fmt.Sprint("c", i)))
	}
	e := collection("c0")
	e.ID = "removed"
	publish(t, b, events.CollectionRemoved, e)
	tests := []struct {
		filter string
		from   uint64
		want   []uint64
		next   uint64
	}{
		{changed, 0, []uint64{1, 2, 3}, 5},
		{changed, 2, []uint64{2, 3}, 5},
		{changed, 4, nil, 5},
		{changed, 5, nil, 5},
		{removed, 1, []uint64{4}, 5},
		{neither, 1, nil, 5},
		{"chandler.event.>", 1, []uint64{1, 2, 3, 4}, 5},
	}
	for _, tt := range tests {
		read, next := replay(tt.filter, tt.from)
		if diff := cmp.Diff(tt.want, read); diff != "" || next != tt.next {
			t.Errorf("%s from %d: next %d, want %d %s", tt.filter, tt.from, next, tt.next, diff)
		}
	}
}

func TestAReplayEndsAlsoWhenWhatItWaitsForIsPurged(t *testing.T) {
	b := eventstest.Bus(t, eventstest.Broker(t), events.ServiceSource("execution"))
	const stored, purgedAt = 1000, 400 // more than one request brings
	storeMany(t, b, stored, "chandler.fold.0")
	stream, err := b.JetStream().Stream(t.Context(), events.StreamFold)
	if err != nil {
		t.Fatal(err)
	}
	read := 0
	next, err := b.Replay(t.Context(), events.StreamFold, "chandler.fold.0", 1, func(jetstream.Msg) error {
		if read++; read == purgedAt { // another replica has stored a snapshot
			return stream.Purge(t.Context())
		}
		return nil
	})
	if err != nil || next != stored+1 || read < purgedAt || read == stored {
		t.Errorf("read %d, next %d: %v", read, next, err)
	}
}

func TestAMessageThatLooksLikeTheBrokersWordStopsNoReader(t *testing.T) {
	b := eventstest.Bus(t, eventstest.Broker(t), "")
	words := []nats.Header{{"Status": {"404"}}, {"Status": {"408"}}, {"Status": {"409"}, "Description": {"Consumer Deleted"}}, {"Status": {"503"}}, {"Status": {"100"}}}
	for _, h := range words {
		store(t, b, &nats.Msg{Subject: events.JobRunning.Subject(agent), Header: h})
	}
	kind, e := status(agent, events.Running, 3)
	publish(t, b, kind, e)
	n := uint64(0)
	next, err := b.Replay(t.Context(), events.StreamStatus, kind.Filter(), 1, func(jetstream.Msg) error { n++; return nil })
	if want := uint64(len(words) + 1); err != nil || n != want || next != want+1 {
		t.Errorf("read %d, next %d, want %d (%v)", n, next, want, err)
	}
}

func TestFollowingEndsWithTheReadersError(t *testing.T) {
	b := eventstest.Bus(t, eventstest.Broker(t), events.ServiceSource("scheduling"))
	publish(t, b, events.CollectionChanged, collection("a"))
	own := errors.New("my own")
	if err := b.Follow(t.Context(), events.StreamEvents, "chandler.event.>", 1, func(jetstream.Msg) error { return own }); !errors.Is(err, own) {
		t.Errorf("follow: %v", err)
	}
	if next, err := b.Replay(t.Context(), events.StreamEvents, "chandler.event.>", 1, func(jetstream.Msg) error { return own }); !errors.Is(err, own) || next != 1 {
		t.Errorf("replay: %v, next %d", err, next)
	}
}

func TestListenersHearTheirEventsAndNoForgeries(t *testing.T) {
	b := eventstest.Bus(t, eventstest.Broker(t), events.AgentSource(agent))
	heard := make(chan string, 10)
	listening := func(queue string) {
		start(t, func(ctx context.Context) error {
			return bus.Listen(ctx, b, events.Heartbeat, queue, func(e events.Event[events.HeartbeatNote]) { heard <- e.Data.Agent + e.Data.Version })
		})
	}
	listening("")
	listening("one")
	listening("one")
	note := func(id, version string) events.Event[events.HeartbeatNote] {
		return events.Event[events.HeartbeatNote]{ID: events.DeriveID("heartbeat", id, version), Source: events.AgentSource(id), Subject: id,
			Data: events.HeartbeatNote{Agent: id, Version: version, At: time.Date(2026, 12, 1, 8, 0, 0, 0, time.UTC)}}
	}
	eventually(t, "all three listen", func() bool { return b.Conn().NumSubscriptions() >= 3 })

	forged := encode(t, events.Heartbeat, note(other, "1"))
	forged.Subject = events.Heartbeat.Subject(agent)
	for _, m := range []*nats.Msg{forged, {Subject: forged.Subject, Data: []byte("x")}} {
		if err := b.Conn().PublishMsg(m); err != nil {
			t.Fatal(err)
		}
	}
	if err := bus.Send(t.Context(), b, events.Heartbeat, note(agent, "2")); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the one alone and one of the two that share a queue
		if got := receive(t, heard); got != agent+"2" {
			t.Errorf("heard %s", got)
		}
	}
	if err := bus.Send(t.Context(), b, events.CollectionChanged, collection("a")); err == nil {
		t.Error("an event that is stored was sent without a store")
	}
	if len(heard) != 0 {
		t.Errorf("%d more were heard", len(heard))
	}
}

func TestAnOfferReachesItsAgentAfterItWasStored(t *testing.T) {
	b := eventstest.Bus(t, eventstest.Broker(t), events.ServiceSource("execution"))
	inbox := make(chan *nats.Msg, 10)
	sub, err := b.Conn().ChanSubscribe(events.AgentInbox(agent), inbox)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	offer := events.JobOffered.Example.(events.JobOffer)
	publish(t, b, events.JobOffered, events.Event[events.JobOffer]{ID: events.DeriveID("test"), Subject: agent, Data: offer, Trace: trace})
	m := receive(t, inbox)
	if m.Subject != events.OfferRepublished(agent) || m.Header.Get("Nats-Sequence") != "1" || m.Header.Get("Nats-Last-Sequence") != "0" {
		t.Errorf("came on %s with %v", m.Subject, m.Header)
	}
	raw, err := bus.Decode(m)
	if err != nil {
		t.Fatal(err)
	}
	e, err := bus.Typed[events.JobOffer](raw)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(offer, e.Data); diff != "" || e.Trace != trace || e.Subject != agent {
		t.Errorf("%+v %s", e, diff)
	}
	if _, err := bus.Typed[events.JobStatus](raw); err == nil {
		t.Error("an offer is read as a status")
	}
	if _, err := bus.Open(events.JobOffered, m); err == nil {
		t.Error("what the broker sent on passes for the original")
	}
}

func TestATimerThatIsDueIsHandled(t *testing.T) {
	b := eventstest.Bus(t, eventstest.Broker(t), events.ServiceSource("scheduling"))
	note := events.TimerNote{Service: "scheduling", Purpose: "start", Name: "hello", Due: time.Date(2026, 12, 1, 8, 0, 0, 0, time.UTC)}
	timer := func(name string) *nats.Msg {
		note.Name = name
		m := encode(t, events.TimerDue, events.Event[events.TimerNote]{ID: events.DeriveID("timer", name), Source: events.ServiceSource("scheduling"), Subject: "scheduling", Data: note})
		m.Subject = "chandler.timer.scheduling.start.one"
		return m
	}
	due := make(chan string, 10)
	start(t, func(ctx context.Context) error {
		return b.Handle(ctx, bus.Consumer{Stream: events.StreamTimers, Name: "test"}, bus.On(events.TimerDue, func(_ context.Context, e events.Event[events.TimerNote], _ bus.Meta) error {
			due <- e.Data.Name
			return nil
		}))
	})
	schedule := func(name string, in time.Duration) {
		t.Helper()
		_, err := b.JetStream().PublishMsg(t.Context(), timer(name), jetstream.WithScheduleAt(time.Now().Add(in)), jetstream.WithScheduleTarget(events.TimerDue.Subject("scheduling")))
		if err != nil {
			t.Fatal(err)
		}
	}
	schedule("replaced", 10*time.Minute)
	schedule("due", time.Second)
	if got := receive(t, due); got != "due" {
		t.Errorf("%s is due", got)
	}
}

func TestAReaderPassesOverWhatTheBrokerSentOnIntoItsStream(t *testing.T) {
	b, reg := measured(t, eventstest.Broker(t), "")
	subject := events.JobLogged.Subject(agent)
	for _, h := range []nats.Header{nil, {"Nats-Stream": {"EVENTS"}}, {"Nats-Subject": {"x"}}, {"Nats-Sequence": {"7"}}, {"X": {"y"}}, {"Nats-Stream": {"EVENTS"}}} {
		store(t, b, &nats.Msg{Subject: subject, Header: h})
	}
	var read []uint64
	next, err := b.Replay(t.Context(), events.StreamLogs, subject, 1, func(m jetstream.Msg) error {
		meta, err := m.Metadata()
		read = append(read, meta.Sequence.Stream)
		return err
	})
	if diff := cmp.Diff([]uint64{1, 5}, read); diff != "" || err != nil || next != 7 {
		t.Errorf("next is %d, %v %s", next, err, diff)
	}
	if n := counter(t, reg, "chandler_bus_refused_total", "reason", "relayed"); n != 4 {
		t.Errorf("%v are counted", n)
	}
}
