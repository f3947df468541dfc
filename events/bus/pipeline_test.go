package bus_test

import (
	"fmt"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/eventstest"
)

func TestPipelinesThatFollowEachOtherShareOneSubscription(t *testing.T) {
	b := eventstest.Bus(t, eventstest.Broker(t), events.ServiceSource("scheduling"))
	var subscriptions int
	const rounds, each = 5, 700 // more than a window
	for round := range rounds {
		p := b.NewPipeline()
		for i := range each {
			if err := p.Add(t.Context(), encode(t, events.CollectionChanged, collection(fmt.Sprintf("c%d-%d", round, i)))); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if now := b.Conn().NumSubscriptions(); subscriptions == 0 {
			subscriptions = now
		} else if now != subscriptions {
			t.Errorf("%d subscriptions after round %d, want %d", now, round, subscriptions)
		}
	}
	eventstest.ExpectExactly(t, b, events.CollectionChanged, nil, rounds*each)
}

func TestAPipelineTellsWhatCouldNotBeStoredAndGoesOnAfterwards(t *testing.T) {
	b := eventstest.Bus(t, eventstest.Broker(t), events.ServiceSource("execution"))
	p := b.NewPipeline()
	history := func(agent, last string) *nats.Msg {
		m := &nats.Msg{Subject: events.HistorySubject(agent), Data: []byte("{}"), Header: nats.Header{}}
		if last != "" {
			m.Header.Set(jetstream.ExpectedLastSubjSeqHeader, last)
		}
		return m
	}
	for _, m := range []*nats.Msg{history("abcdefgh", ""), history("abcdefgh", "99"), history("bcdefghi", "")} {
		if err := p.AddPlain(t.Context(), m); err != nil {
			t.Log("told early:", err) // or by Flush
		}
	}
	if err := p.Flush(t.Context()); err == nil {
		t.Error("a message that the store refused is not told of")
	}
	if err := p.AddPlain(t.Context(), history("abcdefgh", "")); err != nil {
		t.Error(err)
	}
	if err := p.Flush(t.Context()); err != nil {
		t.Errorf("after a failure that was told: %v", err)
	}
	got := 0
	if _, err := b.Replay(t.Context(), events.StreamHistory, events.HistorySubject("abcdefgh"), 1, func(jetstream.Msg) error { got++; return nil }); err != nil || got != 2 {
		t.Errorf("%d are stored, want 2 (%v)", got, err)
	}
}

func TestABrokerThatCannotStoreAndThenIsGoneLosesNoMessage(t *testing.T) {
	broker := eventstest.Broker(t)
	conn := eventstest.Connect(t, broker)
	b, err := bus.New(bus.Options{Conn: conn, Source: events.ServiceSource("execution")})
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	store := eventstest.Connect(t, broker)
	_, err = store.Subscribe("stored.by.hand", func(m *nats.Msg) {
		answer := `{"error":{"code":503,"description":"insufficient resources"}}`
		switch asked++; asked {
		case 1, 2, 3: // as often as a message is sent of which nothing is heard
		case 4:
			if err := conn.ForceReconnect(); err != nil {
				t.Error(err)
			}
			return
		default:
			answer = `{"stream":"X","seq":1}`
		}
		if err := m.Respond([]byte(answer)); err != nil {
			t.Error(err)
		}
	})
	if err == nil {
		err = store.Flush()
	}
	if err != nil {
		t.Fatal(err)
	}
	p := b.NewPipeline()
	if err := p.AddPlain(t.Context(), &nats.Msg{Subject: "stored.by.hand", Data: []byte("{}")}); err != nil {
		t.Fatal(err)
	}
	if err := p.Flush(t.Context()); err != nil {
		t.Error(err)
	}
}
