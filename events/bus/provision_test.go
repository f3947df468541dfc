package bus_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/eventstest"
)

func streamConfig(t *testing.T, b *bus.Bus, name string) jetstream.StreamConfig {
	t.Helper()
	s, err := b.JetStream().Stream(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return s.CachedInfo().Config
}

func TestProvisioningTwiceChangesNothing(t *testing.T) {
	b := eventstest.Bus(t, eventstest.Broker(t), "")
	before := map[string]jetstream.StreamConfig{}
	for _, s := range events.Streams() {
		before[s.Name] = streamConfig(t, b, s.Name)
	}
	eventstest.Provision(t, b)
	for _, s := range events.Streams() {
		after := streamConfig(t, b, s.Name)
		if diff := cmp.Diff(before[s.Name], after, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s: %s", s.Name, diff)
		}
		if after.MaxAge != s.MaxAge || s.MaxBytes > 0 && after.MaxBytes != s.MaxBytes || after.Duplicates != max(s.Duplicates, 100*time.Millisecond) ||
			after.AllowMsgSchedules != s.Schedules || after.AllowAtomicPublish != s.AtomicBatches || after.AllowDirect != s.Direct {
			t.Errorf("%s is not as declared: %+v", s.Name, after)
		}
	}
	for _, bucket := range events.Buckets() {
		var err error
		if bucket.Objects {
			_, err = b.JetStream().ObjectStore(t.Context(), bucket.Name)
		} else {
			_, err = b.JetStream().KeyValue(t.Context(), bucket.Name)
		}
		if err != nil {
			t.Errorf("bucket %s: %v", bucket.Name, err)
		}
	}
}

func TestProvisioningWidensAndNeverNarrows(t *testing.T) {
	b := eventstest.Bus(t, eventstest.Broker(t), events.ServiceSource("scheduling"))
	publish(t, b, events.CollectionChanged, collection("a"))
	c := streamConfig(t, b, events.StreamEvents)
	declared := c
	c.MaxAge, c.MaxBytes, c.Subjects, c.AllowDirect = time.Hour, 1<<20, []string{"chandler.event.x"}, false
	if _, err := b.JetStream().UpdateStream(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	logs := streamConfig(t, b, events.StreamLogs)
	logs.MaxAge, logs.MaxBytes = 0, -1
	if _, err := b.JetStream().UpdateStream(t.Context(), logs); err != nil {
		t.Fatal(err)
	}
	kv, err := b.JetStream().UpdateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: events.BucketAgents, History: 9})
	if err != nil {
		t.Fatal(err)
	}
	eventstest.Provision(t, b)
	if diff := cmp.Diff(declared, streamConfig(t, b, events.StreamEvents), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("what was narrower is not as declared: %s", diff)
	}
	if got := streamConfig(t, b, events.StreamLogs); got.MaxAge != 0 || got.MaxBytes != -1 {
		t.Errorf("what was without limit has the limits %s, %d", got.MaxAge, got.MaxBytes)
	}
	if status, err := kv.Status(t.Context()); err != nil || status.History() != 9 {
		t.Errorf("history of a bucket: %v %v", status, err)
	}
	eventstest.ExpectExactly(t, b, events.CollectionChanged, nil, 1)
}

func TestAStreamThatCannotBeMadeToFitIsNamed(t *testing.T) {
	tests := map[string]struct {
		config jetstream.StreamConfig
		says   string
	}{
		"other subjects":    {jetstream.StreamConfig{Name: events.StreamLogs, Subjects: []string{"theirs.>"}}, "theirs.>"},
		"another partition": {jetstream.StreamConfig{Name: events.StreamStatus, Subjects: []string{"chandler.job.*.*"}, SubjectTransform: &jetstream.SubjectTransformConfig{Source: "chandler.job.*.*", Destination: "chandler.job.{{wildcard(1)}}.{{wildcard(2)}}.{{partition(4,2)}}"}}, "drain it"},
		"in memory":         {jetstream.StreamConfig{Name: events.StreamLogs, Subjects: []string{"chandler.log.*"}, Storage: jetstream.MemoryStorage}, "Memory"},
		"a queue":           {jetstream.StreamConfig{Name: events.StreamLogs, Subjects: []string{"chandler.log.*"}, Retention: jetstream.WorkQueuePolicy}, "retention"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b, err := bus.New(bus.Options{Conn: eventstest.Connect(t, eventstest.Broker(t))})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := b.JetStream().CreateStream(t.Context(), tt.config); err != nil {
				t.Fatal(err)
			}
			before := streamConfig(t, b, tt.config.Name)
			err = b.Provision(t.Context(), bus.Topology{})
			if err == nil || !strings.Contains(err.Error(), tt.says) || !strings.Contains(err.Error(), tt.config.Name) {
				t.Errorf("error %v, want one that names %s and says %q", err, tt.config.Name, tt.says)
			}
			if diff := cmp.Diff(before, streamConfig(t, b, tt.config.Name)); diff != "" {
				t.Errorf("the stream was changed: %s", diff)
			}
		})
	}
}

func TestSizesAreScaledToTheBrokersStorage(t *testing.T) {
	srv := eventstest.Broker(t, func(o *server.Options) { o.JetStreamMaxStore = 1 << 30 })
	b, err := bus.New(bus.Options{Conn: eventstest.Connect(t, srv)})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Provision(t.Context(), bus.Topology{}); err == nil || !strings.Contains(err.Error(), "size scale") {
		t.Errorf("177 GiB in one: %v", err)
	}
	if err := b.Provision(t.Context(), bus.Topology{MaxBytesScale: 0.001}); err != nil {
		t.Error(err)
	}
	for _, bad := range []bus.Topology{{Replicas: -1}, {Replicas: 7}, {MaxBytesScale: -1}} {
		if b.Provision(t.Context(), bad) == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
}

func TestServicesMayProvisionAtTheSameTime(t *testing.T) {
	srv := eventstest.Broker(t)
	errs := make(chan error, 4)
	for range cap(errs) {
		b, err := bus.New(bus.Options{Conn: eventstest.Connect(t, srv)})
		if err != nil {
			t.Fatal(err)
		}
		go func() { errs <- b.Provision(t.Context(), bus.Topology{}) }()
	}
	for range cap(errs) {
		if err := receive(t, errs); err != nil {
			t.Error(err)
		}
	}
}
