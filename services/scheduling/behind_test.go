package scheduling

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/eventstest"
)

// behind is a bucket of which copies that are behind answer first, one after another; revision 0: that one has no such key.
type behind struct {
	jetstream.KeyValue
	copies  []uint64
	forever bool // the last one answers for good
}

type old struct {
	jetstream.KeyValueEntry
	revision uint64
}

func (o old) Revision() uint64 { return o.revision }
func (o old) Value() []byte    { return []byte(`"old"`) }

func (b *behind) Get(ctx context.Context, key string) (jetstream.KeyValueEntry, error) {
	if len(b.copies) == 0 {
		return b.KeyValue.Get(ctx, key)
	}
	revision := b.copies[0]
	if len(b.copies) > 1 || !b.forever {
		b.copies = b.copies[1:]
	}
	if revision == 0 {
		return nil, jetstream.ErrKeyNotFound
	}
	return old{revision: revision}, nil
}

func TestWhatWasStoredIsReadAgainWhicheverBrokerAnswers(t *testing.T) {
	b := eventstest.Bus(t, eventstest.Broker(t), events.ServiceSource("scheduling"))
	kv, err := b.JetStream().KeyValue(t.Context(), events.BucketDeployments)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		copies      []uint64
		forever     bool
		forget      func(key string) error // done by others, unheard; nil: nothing
		there       bool
		unavailable bool
	}{
		"it is there": {there: true},
		"a copy lacks it, and one has an older one":        {copies: []uint64{0, 1, 0}, there: true},
		"all copies that answer are old":                   {copies: []uint64{1}, forever: true, unavailable: true},
		"all copies that answer lack it":                   {copies: []uint64{0}, forever: true, unavailable: true},
		"it was purged":                                    {forget: func(key string) error { return purge(t, b, key) }},
		"it was purged, and a copy still has an older one": {copies: []uint64{1}, forget: func(key string) error { return purge(t, b, key) }},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMirror(events.BucketDeployments, b, slog.Default(), nil, func(string, []byte) {})
			m.store = kv
			const key = "deployment.x"
			if _, err := kv.Put(t.Context(), key, []byte(`"older"`)); err != nil {
				t.Fatal(err)
			}
			if _, err := change(t.Context(), m, key, func(string, bool) (string, error) { return "new", nil }); err != nil {
				t.Fatal(err)
			}
			if c.forget != nil {
				if err := c.forget(key); err != nil {
					t.Fatal(err)
				}
			}
			m.store = &behind{KeyValue: kv, copies: c.copies, forever: c.forever}
			got, revision, err := load[string](t.Context(), m, key)
			if there := revision > 0 && got == "new"; there != c.there || errors.Is(err, bus.ErrUnavailable) != c.unavailable || err != nil != c.unavailable {
				t.Errorf("read %q, revision %d, %v; want it there: %t, unavailable: %t", got, revision, err, c.there, c.unavailable)
			}
		})
	}
}

func purge(t *testing.T, b *bus.Bus, key string) error {
	stream, err := b.JetStream().Stream(t.Context(), "KV_"+events.BucketDeployments)
	if err != nil {
		return err
	}
	return stream.Purge(t.Context(), jetstream.WithPurgeSubject("$KV."+events.BucketDeployments+"."+key))
}
