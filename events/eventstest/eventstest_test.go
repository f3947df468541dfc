package eventstest_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/eventstest"
)

// recorder is a test that notes how it failed.
type recorder struct {
	testing.TB
	failure string
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.failure = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

// failure of a function that is given a test of its own.
func failure(t *testing.T, run func(testing.TB)) string {
	t.Helper()
	r := &recorder{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		run(r)
	}()
	<-done
	return r.failure
}

func publish(t *testing.T, b *bus.Bus, name string) {
	t.Helper()
	e := events.Event[events.Collection]{ID: events.DeriveID("test", name), Subject: name, Data: events.Collection{Name: name}}
	if _, err := bus.Publish(t.Context(), b, events.CollectionChanged, e); err != nil {
		t.Fatal(err)
	}
}

func named(name string) func(events.Event[events.Collection]) bool {
	return func(e events.Event[events.Collection]) bool { return e.Data.Name == name }
}

func TestExpectingFindsWhatIsThereAndTellsWhatIsNot(t *testing.T) {
	b := eventstest.Bus(t, eventstest.Broker(t), events.ServiceSource("scheduling"))
	eventstest.ExpectExactly(t, b, events.CollectionChanged, nil, 0)
	publish(t, b, "a")
	publish(t, b, "b")
	if e := eventstest.Expect(t, b, events.CollectionChanged, named("b")); e.Subject != "b" {
		t.Errorf("found %+v", e)
	}
	if found := eventstest.ExpectExactly(t, b, events.CollectionChanged, nil, 2); found[0].Subject != "a" || found[1].Subject != "b" {
		t.Errorf("found %+v", found)
	}
	for _, n := range []int{0, 1} {
		says := failure(t, func(tb testing.TB) { eventstest.ExpectExactly(tb, b, events.CollectionChanged, nil, n) })
		if !strings.Contains(says, fmt.Sprintf("want %d", n)) || !strings.Contains(says, `"name":"a"`) {
			t.Errorf("two where %d are expected: %q", n, says)
		}
	}
	if says := failure(t, func(tb testing.TB) { eventstest.Expect(tb, b, events.Heartbeat, nil) }); !strings.Contains(says, "not stored") {
		t.Errorf("a heartbeat is expected: %q", says)
	}
}

func TestABrokerComesBackWithItsAddressAndItsEvents(t *testing.T) {
	srv := eventstest.Broker(t)
	b := eventstest.Bus(t, srv, events.ServiceSource("scheduling"))
	publish(t, b, "a")
	url := srv.URL()
	srv.Stop()
	if srv.Broker() != nil {
		t.Error("a stopped broker is there")
	}
	srv.Stop() // once more does nothing
	late := eventstest.Connect(t, srv)
	srv.Start()
	if srv.URL() != url {
		t.Errorf("it is at %s, was at %s", srv.URL(), url)
	}
	eventstest.ExpectExactly(t, b, events.CollectionChanged, named("a"), 1)
	if err := late.FlushTimeout(eventstest.Patience); err != nil {
		t.Errorf("a connection that was made while it was away: %v", err)
	}
}

func TestTheBusOfATestHoldsWhatItPublishesAgainstItsSchema(t *testing.T) {
	b := eventstest.Bus(t, eventstest.Broker(t), events.AgentSource("abcdefgh"))
	e := events.Event[events.JobStatus]{ID: "x", Subject: "abcdefgh", Data: events.JobStatus{Agent: "abcdefgh"}}
	if _, err := bus.Publish(t.Context(), b, events.JobAccepted, e); err == nil {
		t.Error("a status of no job was published")
	}
}
