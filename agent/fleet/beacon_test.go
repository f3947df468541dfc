package fleet

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"chandler/events"
	"chandler/events/bus"
)

func TestABeaconIsReadOnceForAllAndAnotherIsReadAgain(t *testing.T) {
	message := func(change func(*nats.Msg)) *nats.Msg {
		m, err := bus.Message(events.Beacon, events.Event[events.BeaconNote]{ID: "b", Source: events.ServiceSource("execution"),
			Time: time.Date(2026, 12, 1, 9, 0, 0, 0, time.UTC), Data: events.BeaconNote{Jobs: events.Generation{Created: 1}}})
		if err != nil {
			t.Fatal(err)
		}
		m.Subject = events.Beacon.Subject("")
		if change != nil {
			change(m)
		}
		return m
	}
	for name, c := range map[string]struct {
		next   func(*nats.Msg)
		opened bool // read again
	}{
		"the same one to another member": {nil, false},
		"other bytes":                    {func(m *nats.Msg) { m.Data = []byte("{}") }, true},
		"another header":                 {func(m *nats.Msg) { m.Header.Set("ce-source", "/agents/somebody") }, true},
		"one header less":                {func(m *nats.Msg) { m.Header.Del("ce-id") }, true},
		"another subject":                {func(m *nats.Msg) { m.Subject += ".other" }, true},
		"one that wants an answer":       {func(m *nats.Msg) { m.Reply = "_INBOX.x" }, true},
	} {
		t.Run(name, func(t *testing.T) {
			var b beacons
			if e, err := b.open(message(nil)); err != nil || e.Data.Jobs.Created != 1 {
				t.Fatalf("read %+v, %v", e, err)
			}
			first, next := b.last, message(c.next)
			got, err := b.open(next)
			if again := b.last != first; again != c.opened {
				t.Errorf("read again: %v, want %v", again, c.opened)
			}
			want, wanted := bus.Open(events.Beacon, next)
			if diff := cmp.Diff(want, got); diff != "" || (err == nil) != (wanted == nil) {
				t.Errorf("it says %v, and read alone %v: %s", err, wanted, diff)
			}
		})
	}
}
