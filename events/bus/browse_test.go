package bus_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
	"chandler/events/access"
	"chandler/events/bus"
	"chandler/events/eventstest"
)

// browse reads to the end and returns the sequences.
func browse(t testing.TB, b *bus.Bus, o bus.BrowseOptions) []uint64 {
	t.Helper()
	var read []uint64
	if err := b.Browse(t.Context(), o, func(m jetstream.Msg) error { read = append(read, sequenceOf(t, m)); return nil }); err != nil {
		t.Fatalf("browse %+v: %v", o, err)
	}
	return read
}

func sequenceOf(t testing.TB, m jetstream.Msg) uint64 {
	t.Helper()
	meta, err := m.Metadata()
	if err != nil {
		t.Fatal(err)
	}
	return meta.Sequence.Stream
}

// storeMany stores n messages of the given subjects in turn, fast.
func storeMany(t testing.TB, b *bus.Bus, n int, subjects ...string) {
	t.Helper()
	for i := range n {
		if _, err := b.JetStream().PublishAsync(subjects[i%len(subjects)], []byte(strconv.Itoa(i+1)), jetstream.WithStallWait(patience)); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-b.JetStream().PublishAsyncComplete():
	case <-time.After(patience):
		t.Fatal("not everything was stored")
	}
}

func purge(t testing.TB, b *bus.Bus, stream string, sequences ...uint64) {
	t.Helper()
	s, err := b.JetStream().Stream(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range sequences {
		if err := s.DeleteMsg(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
}

func TestBrowsingGivesWhatMatchesInOrderAndOnce(t *testing.T) {
	b := eventstest.Bus(t, eventstest.Broker(t), "")
	logs := func(agents ...string) (subjects []string) {
		for _, a := range agents {
			subjects = append(subjects, events.JobLogged.Subject(a))
		}
		return subjects
	}
	if read := browse(t, b, bus.BrowseOptions{Stream: events.StreamLogs}); len(read) != 0 {
		t.Errorf("an empty stream gave %v", read)
	}
	storeMany(t, b, 10, logs("a", "b", "c")...) // a: 1 4 7 10, b: 2 5 8, c: 3 6 9
	tests := []struct {
		name    string
		filters []string
		want    []uint64
	}{
		{"no filter", nil, []uint64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}},
		{"one", logs("a"), []uint64{1, 4, 7, 10}},
		{"several", logs("c", "a"), []uint64{1, 3, 4, 6, 7, 9, 10}},
		{"overlapping", append(logs("a", "b", "a"), events.JobLogged.Filter(), "chandler.>"), []uint64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}},
		{"nothing", logs("d"), nil},
		{"nothing and something", logs("d", "b"), []uint64{2, 5, 8}},
		{"more than are read one by one", logs("a", "d1", "d2", "d3", "d4", "d5", "d6", "d7", "c"), []uint64{1, 3, 4, 6, 7, 9, 10}},
	}
	check := func(gone map[uint64]bool) {
		t.Helper()
		for _, tt := range tests {
			var want []uint64
			for _, n := range tt.want {
				if !gone[n] {
					want = append(want, n)
				}
			}
			if diff := cmp.Diff(want, browse(t, b, bus.BrowseOptions{Stream: events.StreamLogs, Filters: tt.filters})); diff != "" {
				t.Errorf("%s, without %v: %s", tt.name, gone, diff)
			}
		}
	}
	check(nil)
	purge(t, b, events.StreamLogs, 1, 2, 5, 9, 10)
	check(map[uint64]bool{1: true, 2: true, 5: true, 9: true, 10: true})
}

func TestABrowsedMessageIsAsItWasStored(t *testing.T) {
	b := eventstest.Bus(t, eventstest.Broker(t), "")
	// Headers of a sender who pretends to be the broker.
	forged := nats.Header{"X": {"1", "2"}, "Status": {"204"}, "Nats-Stream": {"EVENTS"}, "Nats-Sequence": {"99"}, "Nats-Subject": {"chandler.log.forged"},
		"Nats-Num-Pending": {"0"}, "Nats-Last-Sequence": {"7"}, "Nats-Time-Stamp": {"yesterday"}}
	subject := events.JobLogged.Subject(agent)
	before := time.Now()
	store(t, b, &nats.Msg{Subject: subject, Header: forged, Data: []byte("one")})
	store(t, b, &nats.Msg{Subject: subject})
	var read []jetstream.Msg
	if err := b.Browse(t.Context(), bus.BrowseOptions{Stream: events.StreamLogs}, func(m jetstream.Msg) error { read = append(read, m); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(read) != 2 {
		t.Fatalf("read %d messages", len(read))
	}
	meta, err := read[0].Metadata()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(forged, read[0].Headers()); diff != "" || string(read[0].Data()) != "one" || read[0].Subject() != subject {
		t.Errorf("%s %q %s", read[0].Subject(), read[0].Data(), diff)
	}
	if meta.Sequence.Stream != 1 || meta.Stream != events.StreamLogs || meta.NumPending != 1 || meta.Timestamp.Before(before.Add(-time.Minute)) || meta.Timestamp.After(time.Now().Add(time.Minute)) {
		t.Errorf("%+v", meta)
	}
	if len(read[1].Headers()) != 0 || len(read[1].Data()) != 0 || sequenceOf(t, read[1]) != 2 {
		t.Errorf("the second came as %v %q", read[1].Headers(), read[1].Data())
	}
}

func TestBrowsingBeginsWhereItIsTold(t *testing.T) {
	b := eventstest.Bus(t, eventstest.Broker(t), "")
	subject := events.JobLogged.Subject(agent)
	storeMany(t, b, 3, subject)
	var third time.Time
	if err := b.Browse(t.Context(), bus.BrowseOptions{Stream: events.StreamLogs}, func(m jetstream.Msg) error {
		meta, err := m.Metadata()
		third = meta.Timestamp
		return err
	}); err != nil {
		t.Fatal(err)
	}
	storeMany(t, b, 2, subject, events.JobLogged.Subject(other))
	for _, filters := range [][]string{nil, {subject, events.JobLogged.Subject(other)}} {
		if diff := cmp.Diff([]uint64{3, 4, 5}, browse(t, b, bus.BrowseOptions{Stream: events.StreamLogs, Filters: filters, Since: third})); diff != "" {
			t.Error(diff)
		}
		if read := browse(t, b, bus.BrowseOptions{Stream: events.StreamLogs, Filters: filters, Since: time.Now().Add(time.Hour)}); len(read) != 0 {
			t.Errorf("of the future were read %v", read)
		}
		if read := browse(t, b, bus.BrowseOptions{Stream: events.StreamLogs, Filters: filters, OnlyNew: true}); len(read) != 0 {
			t.Errorf("as new were read %v", read)
		}
	}
}

func TestBrowsingEndsWhereTheStreamEndedAtTheBeginning(t *testing.T) {
	b := eventstest.Bus(t, eventstest.Broker(t), "")
	subject := events.JobLogged.Subject(agent)
	storeMany(t, b, 3, subject)
	var read []uint64
	err := b.Browse(t.Context(), bus.BrowseOptions{Stream: events.StreamLogs}, func(m jetstream.Msg) error {
		read = append(read, sequenceOf(t, m))
		store(t, b, &nats.Msg{Subject: subject}) // it would never end
		return nil
	})
	if diff := cmp.Diff([]uint64{1, 2, 3}, read); diff != "" || err != nil {
		t.Errorf("%s %v", diff, err)
	}
}

func TestFollowingByBrowsingGivesWhatIsStoredLater(t *testing.T) {
	b := eventstest.Bus(t, eventstest.Broker(t), "")
	job := func(state string, agent int) string { return fmt.Sprintf("chandler.job.%s.agent%d", state, agent) }
	storeMany(t, b, 2, job("failed", 1))
	follow := func(o bus.BrowseOptions) <-chan uint64 {
		seen := make(chan uint64, 10_000)
		o.Stream, o.Follow = events.StreamStatus, true
		start(t, func(ctx context.Context) error {
			return b.Browse(ctx, o, func(m jetstream.Msg) error { seen <- sequenceOf(t, m); return nil })
		})
		return seen
	}
	all := follow(bus.BrowseOptions{})
	two := follow(bus.BrowseOptions{Filters: []string{events.JobFailed.Filter(), events.JobRejected.Filter()}})
	for want := range uint64(2) {
		if a, b := receive(t, all), receive(t, two); a != want+1 || b != want+1 {
			t.Fatalf("read %d and %d, want %d", a, b, want+1)
		}
	}
	fresh := follow(bus.BrowseOptions{OnlyNew: true})
	first := uint64(0)
	eventually(t, "a follower of what is new hears something", func() bool {
		store(t, b, &nats.Msg{Subject: job("running", 1)})
		select {
		case first = <-fresh:
			return true
		default:
			return false
		}
	})
	if first < 3 {
		t.Errorf("as new was read %d", first)
	}
	s, err := b.JetStream().Stream(t.Context(), events.StreamStatus)
	if err != nil {
		t.Fatal(err)
	}
	last := s.CachedInfo().State.LastSeq
	const n = 600
	storeMany(t, b, n, job("failed", 2), job("running", 3), job("rejected", 4))
	for want := uint64(3); want <= last+n; want++ {
		if got := receive(t, all); got != want {
			t.Fatalf("read %d, want %d", got, want)
		}
		if kind := (want - last - 1) % 3; want <= last || kind == 1 {
			continue
		}
		if got := receive(t, two); got != want {
			t.Fatalf("of two kinds was read %d, want %d", got, want)
		}
	}
}

func TestBrowsingGoesOnAfterTheBrokerWasAway(t *testing.T) {
	srv := eventstest.Broker(t)
	b := eventstest.Bus(t, srv, "")
	subjects := []string{events.JobLogged.Subject(agent), events.JobLogged.Subject(other)}
	const n = 3000 // several batches
	storeMany(t, b, n, subjects...)
	for _, filters := range [][]string{nil, subjects} {
		want := uint64(1)
		err := b.Browse(t.Context(), bus.BrowseOptions{Stream: events.StreamLogs, Filters: filters, Patience: patience}, func(m jetstream.Msg) error {
			if got := sequenceOf(t, m); got != want {
				return fmt.Errorf("read %d, want %d", got, want)
			}
			if want++; want == n/3 {
				srv.Restart()
			}
			return nil
		})
		if err != nil || want != n+1 {
			t.Errorf("read up to %d: %v", want-1, err)
		}
	}
}

func TestFollowingByBrowsingGoesOnAfterRestarts(t *testing.T) {
	srv := eventstest.Broker(t)
	b := eventstest.Bus(t, srv, events.ServiceSource("scheduling"))
	seen := make(chan uint64, 1000)
	start(t, func(ctx context.Context) error {
		return b.Browse(ctx, bus.BrowseOptions{Stream: events.StreamEvents, Filters: []string{"chandler.event.collection.>"}, Follow: true}, func(m jetstream.Msg) error {
			seen <- sequenceOf(t, m)
			return nil
		})
	})
	for i := range 6 {
		if i%2 == 1 {
			srv.Restart()
		}
		insist(t, b, collection(fmt.Sprint("c", i)))
		if got := receive(t, seen); got != uint64(i+1) {
			t.Fatalf("read %d, want %d", got, i+1)
		}
	}
}

func TestBrowsingGivesUpABrokerThatStaysAway(t *testing.T) {
	srv := eventstest.Broker(t)
	b := eventstest.Bus(t, srv, "")
	storeMany(t, b, 1, events.JobLogged.Subject(agent))
	srv.Stop()
	read := func(m jetstream.Msg) error { t.Error("something was read"); return nil }
	if err := b.Browse(t.Context(), bus.BrowseOptions{Stream: events.StreamLogs, Patience: 100 * time.Millisecond}, read); err == nil {
		t.Error("a broker that is away was read to the end")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := b.Browse(ctx, bus.BrowseOptions{Stream: events.StreamLogs}, read); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a reading that its context ended: %v", err)
	}
	if err := b.Browse(ctx, bus.BrowseOptions{Stream: events.StreamLogs, Follow: true}, read); err != nil {
		t.Errorf("a follower whose context ended: %v", err)
	}
	b.Conn().Close()
	if err := b.Browse(t.Context(), bus.BrowseOptions{Stream: events.StreamLogs}, read); err == nil {
		t.Error("a closed connection was read to the end")
	}
}

func TestABrowserLearnsWhatCannotBeRead(t *testing.T) {
	b := eventstest.Bus(t, eventstest.Broker(t), "")
	nothing := func(jetstream.Msg) error { return nil }
	if err := b.Browse(t.Context(), bus.BrowseOptions{Stream: "NONE", Patience: 50 * time.Millisecond}, nothing); !errors.Is(err, nats.ErrNoResponders) {
		t.Errorf("a stream that is not there: %v", err)
	}
	for _, filter := range []string{"", "a..b", "a b", "a."} {
		if err := b.Browse(t.Context(), bus.BrowseOptions{Stream: events.StreamLogs, Filters: []string{filter}}, nothing); err == nil {
			t.Errorf("filter %q was taken", filter)
		}
	}
	storeMany(t, b, 2, events.JobLogged.Subject(agent))
	own := errors.New("own")
	if err := b.Browse(t.Context(), bus.BrowseOptions{Stream: events.StreamLogs, Follow: true}, func(jetstream.Msg) error { return own }); err != own {
		t.Errorf("a reader's own error came back as %v", err)
	}
}

func TestABrowserTellsAStreamThatWentBackFromOneThatWasEmptied(t *testing.T) {
	srv := eventstest.Broker(t)
	b := eventstest.Bus(t, srv, "")
	subject := events.JobLogged.Subject(agent)
	storeMany(t, b, 3, subject)
	checks := 0 // how often the reader has looked for the newest message
	sub, err := b.Conn().Subscribe("$JS.API.DIRECT.GET."+events.StreamLogs, func(m *nats.Msg) {
		if string(m.Data) == `{"last_by_subj":">"}` {
			if checks++; checks == 2 {
				if err := b.Conn().Publish(subject, nil); err != nil {
					t.Error(err)
				}
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	read := 0
	err = b.Browse(t.Context(), bus.BrowseOptions{Stream: events.StreamLogs, Follow: true}, func(m jetstream.Msg) error {
		switch read++; read {
		case 3:
			purge(t, b, events.StreamLogs, 1, 3)
			srv.Restart()
		case 4:
			if n := sequenceOf(t, m); n != 4 {
				return fmt.Errorf("read %d after 3", n)
			}
			if err := b.JetStream().DeleteStream(t.Context(), events.StreamLogs); err != nil {
				return err
			}
			eventstest.Provision(t, b)
			storeMany(t, b, 1, subject)
			srv.Restart()
		}
		return nil
	})
	if !errors.Is(err, bus.ErrWentBack) || read != 4 {
		t.Errorf("read %d: %v", read, err)
	}
}

// TestBrowsingHoldsLittle counts what is on its way to a reader who takes his time.
func TestBrowsingHoldsLittle(t *testing.T) {
	b := eventstest.Bus(t, eventstest.Broker(t), "")
	const n = 100_000
	var subjects []string
	for i := range 40 { // of one agent the stream keeps the last few thousand
		subjects = append(subjects, events.JobLogged.Subject(fmt.Sprintf("agent%04d", i)))
	}
	storeMany(t, b, n, subjects...)
	for _, filters := range [][]string{nil, subjects} {
		conn := b.Conn()
		begin := conn.Stats().InMsgs
		read, most := uint64(0), uint64(0)
		err := b.Browse(t.Context(), bus.BrowseOptions{Stream: events.StreamLogs, Filters: filters}, func(m jetstream.Msg) error {
			if read++; sequenceOf(t, m) != read {
				return fmt.Errorf("read %d, want %d", sequenceOf(t, m), read)
			}
			most = max(most, conn.Stats().InMsgs-begin-read)
			return nil
		})
		if err != nil || read != n {
			t.Fatalf("read %d: %v", read, err)
		}
		// What the broker says beside the messages is one word for each batch.
		if held := most - min(most, uint64(3*n/512)); held > 2000 {
			t.Errorf("up to %d messages were held at once", held)
		}
	}
}

func TestARoleThatMayOnlyLookCanBrowse(t *testing.T) {
	srv := eventstest.Secure(t)
	fleet := srv.Bus(t, access.Service("scheduling"), "scheduling")
	viewer := srv.Bus(t, access.Viewer, "vera")
	var denied atomic.Int64
	viewer.Conn().SetErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
		t.Logf("the viewer hears: %v", err)
		denied.Add(1)
	})
	const n = 1200
	for i := range n {
		publish(t, fleet, events.CollectionChanged, collection(fmt.Sprint("c", i)))
	}
	few := []string{events.CollectionChanged.Filter(), events.CollectionRemoved.Filter()}
	for name, filters := range map[string][]string{"all": nil, "one": few[:1], "two": few} {
		if read := browse(t, viewer, bus.BrowseOptions{Stream: events.StreamEvents, Filters: filters, Patience: patience}); len(read) != n || read[n-1] != n {
			t.Errorf("%s: read %d", name, len(read))
		}
	}
	seen := make(chan uint64, 100)
	start(t, func(ctx context.Context) error {
		return viewer.Browse(ctx, bus.BrowseOptions{Stream: events.StreamEvents, Filters: few, OnlyNew: true, Follow: true}, func(m jetstream.Msg) error {
			seen <- sequenceOf(t, m)
			return nil
		})
	})
	i := n
	eventually(t, "the follower hears", func() bool {
		publish(t, fleet, events.CollectionChanged, collection(fmt.Sprint("c", i)))
		i++
		return len(seen) > 0
	})
	if denied.Load() != 0 {
		t.Errorf("browsing asked %d times for what a viewer may not", denied.Load())
	}
}
