package fleet

import (
	"bytes"
	"maps"
	"slices"
	"sync"

	"github.com/nats-io/nats.go"

	"chandler/events"
	"chandler/events/bus"
)

// beacons reads each beacon once for all members, who hear the same: a real agent has a machine to itself for that. Only
// what is the same to the last byte is not read again.
type beacons struct {
	mu    sync.Mutex
	last  *nats.Msg
	event events.Event[events.BeaconNote]
	err   error
}

func (b *beacons) open(m *nats.Msg) (events.Event[events.BeaconNote], error) {
	b.mu.Lock()
	defer b.mu.Unlock() // the others would do the same work
	if b.last == nil || !sameMessage(b.last, m) {
		b.last = m
		b.event, b.err = bus.Open(events.Beacon, m)
	}
	return b.event, b.err
}

func sameMessage(a, b *nats.Msg) bool {
	return a.Subject == b.Subject && a.Reply == b.Reply && bytes.Equal(a.Data, b.Data) && maps.EqualFunc(a.Header, b.Header, slices.Equal[[]string])
}
