package scheduling

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"chandler/events/bus"
)

// checkInterval is how often a mirror looks whether its bucket is still the same.
const checkInterval = 10 * time.Second

// retryWait bounds the pause before something is tried again that the broker refused.
const retryWait = 2 * time.Second

// mirror follows one bucket and tells apply every key's present value, in the order of the changes. It
// begins again from nothing when the bucket turns out to be another one (lost, restored).
type mirror struct {
	bucket string
	bus    *bus.Bus
	log    *slog.Logger
	// apply gets a key's new value; nil: the key is gone. It is called by one goroutine at a time, must not
	// call the mirror, and keeps the bytes.
	apply func(key string, value []byte)
	// missing makes a bucket that does not exist; nil: somebody else does.
	missing func(context.Context) error
	check   time.Duration // how often to look whether the bucket is still the same

	ready chan struct{} // closed when the bucket was read to its end for the first time

	mu      sync.Mutex
	store   jetstream.KeyValue  // nil until the bucket was found
	known   map[string]sighting // every key that was applied
	problem error               // why the mirror is behind; nil: it is not
}

// sighting is what was applied last of a key.
type sighting struct {
	revision uint64
	gone     bool
}

func newMirror(bucket string, b *bus.Bus, log *slog.Logger, missing func(context.Context) error, apply func(string, []byte)) *mirror {
	return &mirror{bucket: bucket, bus: b, log: log, apply: apply, missing: missing, check: checkInterval, ready: make(chan struct{}), known: map[string]sighting{}, problem: errors.New("not read yet")}
}

// run follows the bucket until ctx ends.
func (m *mirror) run(ctx context.Context) {
	for ctx.Err() == nil {
		err := m.follow(ctx)
		if ctx.Err() != nil {
			return
		}
		m.mu.Lock()
		m.problem = err
		m.mu.Unlock()
		m.log.Warn("reading a bucket is interrupted and begins again", "bucket", m.bucket, "error", err)
		pause(ctx, rand.N(retryWait))
	}
}

func (m *mirror) follow(ctx context.Context) error {
	store, created, err := m.open(ctx)
	if err != nil {
		return err
	}
	m.mu.Lock()
	before := m.known
	m.store, m.known, m.problem = store, map[string]sighting{}, errors.New("being read")
	m.mu.Unlock()

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var guard sync.WaitGroup
	defer guard.Wait()
	defer cancel(nil)
	guard.Go(func() { m.guard(ctx, created, cancel) })
	stream, filter := "KV_"+m.bucket, "$KV."+m.bucket+".>"
	next, err := m.bus.Replay(ctx, stream, filter, 1, m.see)
	if err != nil {
		return errors.Join(err, context.Cause(ctx))
	}
	m.loaded(before)
	err = m.bus.Follow(ctx, stream, filter, next, m.see)
	return errors.Join(err, context.Cause(ctx))
}

// open finds the bucket and when its stream was made.
func (m *mirror) open(ctx context.Context) (jetstream.KeyValue, time.Time, error) {
	store, err := m.bus.JetStream().KeyValue(ctx, m.bucket)
	if errors.Is(err, jetstream.ErrBucketNotFound) && m.missing != nil {
		m.log.Error("a bucket does not exist and is made", "bucket", m.bucket)
		if err := m.missing(ctx); err != nil {
			return nil, time.Time{}, fmt.Errorf("make bucket %s: %w", m.bucket, err)
		}
		store, err = m.bus.JetStream().KeyValue(ctx, m.bucket)
	}
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("open bucket %s: %w", m.bucket, err)
	}
	created, _, err := m.identity(ctx, store)
	return store, created, err
}

func (m *mirror) identity(ctx context.Context, store jetstream.KeyValue) (created time.Time, last uint64, err error) {
	status, err := store.Status(ctx)
	if err != nil {
		return time.Time{}, 0, fmt.Errorf("look at bucket %s: %w", m.bucket, err)
	}
	bucket, ok := status.(*jetstream.KeyValueBucketStatus)
	if !ok {
		return time.Time{}, 0, fmt.Errorf("look at bucket %s: unexpected status %T", m.bucket, status)
	}
	return bucket.StreamInfo().Created, bucket.StreamInfo().State.LastSeq, nil
}

// guard ends the following when the bucket is another one than was read: readers at a position do not
// notice a bucket that was made anew and has grown beyond it.
func (m *mirror) guard(ctx context.Context, created time.Time, cancel context.CancelCauseFunc) {
	for pause(ctx, m.check) {
		store, err := m.kv()
		if err != nil {
			continue
		}
		m.mu.Lock()
		var seen uint64
		for _, k := range m.known {
			seen = max(seen, k.revision)
		}
		m.mu.Unlock()
		now, last, err := m.identity(ctx, store)
		switch {
		case errors.Is(err, jetstream.ErrStreamNotFound), errors.Is(err, jetstream.ErrBucketNotFound):
			cancel(err)
			return
		case err != nil:
			continue // the broker is away: the connection's own check says so
		case !now.Equal(created) || last < seen:
			cancel(fmt.Errorf("bucket %s is not the one that was read: it was lost or restored", m.bucket))
			return
		}
	}
}

// see takes one message of the bucket's stream.
func (m *mirror) see(msg jetstream.Msg) error {
	meta, err := msg.Metadata()
	if err != nil {
		return err
	}
	value := msg.Data()
	if h := msg.Headers(); h.Get("KV-Operation") != "" || h.Get(jetstream.MarkerReasonHeader) != "" {
		value = nil
	}
	m.learn(strings.TrimPrefix(msg.Subject(), "$KV."+m.bucket+"."), value, meta.Sequence.Stream)
	return nil
}

// learn applies a value unless a newer one is known. A writer calls it for what it wrote, so that this
// replica answers by it at once.
func (m *mirror) learn(key string, value []byte, revision uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if revision <= m.known[key].revision {
		return
	}
	m.known[key] = sighting{revision, value == nil}
	m.apply(key, value)
}

// loaded forgets what the bucket held before it was read anew.
func (m *mirror) loaded(before map[string]sighting) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for key, k := range before {
		if _, there := m.known[key]; !there && !k.gone {
			m.apply(key, nil)
		}
	}
	m.problem = nil
	select {
	case <-m.ready:
	default:
		close(m.ready)
	}
}

// missed forgets the keys under a filter (of subjects within the bucket) that were purged before this replica met
// their last value: a purge leaves nothing that a reader could be told. It asks the stream's leader, whose
// answer is of one moment.
func (m *mirror) missed(ctx context.Context, filter string) error {
	prefix := "$KV." + m.bucket + "."
	stream, err := m.bus.JetStream().Stream(ctx, "KV_"+m.bucket)
	if err != nil {
		return fmt.Errorf("look at bucket %s: %w", m.bucket, err)
	}
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(prefix+filter))
	if err != nil {
		return fmt.Errorf("look at bucket %s: %w", m.bucket, err)
	}
	under := strings.TrimSuffix(filter, ">")
	m.mu.Lock()
	defer m.mu.Unlock()
	for key, k := range m.known {
		of := key == filter || under != filter && strings.HasPrefix(key, under)
		if _, there := info.State.Subjects[prefix+key]; of && !there && !k.gone && k.revision <= info.State.LastSeq {
			m.known[key] = sighting{info.State.LastSeq, true} // what is still on its way of it is older
			m.apply(key, nil)
		}
	}
	return nil
}

// kv is the bucket itself.
func (m *mirror) kv() (jetstream.KeyValue, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.store == nil {
		return nil, bus.Unavailable(fmt.Errorf("scheduling has not read bucket %s yet: try again", m.bucket))
	}
	return m.store, nil
}

func (m *mirror) healthy() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.problem != nil {
		return fmt.Errorf("bucket %s: %w", m.bucket, m.problem)
	}
	return nil
}

// pause waits; it is false once ctx has ended.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
