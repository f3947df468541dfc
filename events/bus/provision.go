package bus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
)

// What the broker answers while it has trouble with its disk, which may pass: a broker that is just starting, a disk
// that is full for the moment.
const (
	errStreamCreate = 10049
	storeTrouble    = "creating store"
)

// leastDuplicates is the shortest duplicate window that the broker takes; it reads 0 as two minutes.
const leastDuplicates = 100 * time.Millisecond

// settling is how long Provision waits before it makes what is missing beside what is there: a broker that is asked
// to make a stream while it still deletes one of that name makes one that answers nobody (seen with nats-server
// 2.15), and an operator who restores one is not to be overtaken.
const settling = time.Second

// Topology is what is configured about the stored topology; the rest is declared in package events.
type Topology struct {
	// Replicas of every stream and bucket: 1, 3 or 5; 0: 1. A stream that has more keeps them.
	Replicas int
	// MaxBytesScale multiplies the size limit of every stream, because the broker reserves the limits when
	// it makes the streams and refuses more than it has; 0: 1.
	MaxBytesScale float64
}

// Provision makes what is missing of the streams and buckets that package events declares, and widens what
// is there. It never deletes, shrinks or narrows. While the broker is away or not ready it waits, until
// ctx is done. An error names the stream and the difference that only an operator can resolve.
func (b *Bus) Provision(ctx context.Context, t Topology) error {
	if t.Replicas == 0 {
		t.Replicas = 1
	}
	if t.MaxBytesScale == 0 {
		t.MaxBytesScale = 1
	}
	if t.Replicas < 1 || t.Replicas > 5 || t.MaxBytesScale < 0 {
		return fmt.Errorf("topology of %d replicas and size scale %g is not possible", t.Replicas, t.MaxBytesScale)
	}
	if b.inPieces(ctx) && !wait(ctx, settling) {
		return fmt.Errorf("provision: %w", context.Cause(ctx))
	}
	for _, s := range events.Streams() {
		if err := b.patiently(ctx, "stream "+s.Name, func(ctx context.Context) error { return b.provisionStream(ctx, s, t) }); err != nil {
			return err
		}
	}
	for _, bucket := range events.Buckets() {
		if err := b.patiently(ctx, "bucket "+bucket.Name, func(ctx context.Context) error { return b.provisionBucket(ctx, bucket, t) }); err != nil {
			return err
		}
	}
	b.mu.Lock()
	b.topology = &t
	b.mu.Unlock()
	return nil
}

// inPieces is whether some of the streams are there and some are not. A look that fails counts as neither.
func (b *Bus) inPieces(ctx context.Context) bool {
	ctx, cancel := b.asking(ctx)
	defer cancel()
	var there, missing bool
	look := func(stream string) {
		_, err := b.js.Stream(ctx, stream)
		there, missing = there || err == nil, missing || errors.Is(err, jetstream.ErrStreamNotFound)
	}
	for _, s := range events.Streams() {
		look(s.Name)
	}
	for _, bucket := range events.Buckets() {
		if !bucket.Objects {
			look("KV_" + bucket.Name)
		}
	}
	return there && missing
}

// patiently repeats while the broker cannot answer yet. Each attempt has its own time: a request that got
// lost with a connection must not use up the caller's.
func (b *Bus) patiently(ctx context.Context, what string, do func(context.Context) error) error {
	for attempt := uint64(1); ; attempt++ {
		asking, cancel := b.asking(ctx)
		err := do(asking)
		cancel()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil || !unready(err) {
			return fmt.Errorf("provision %s: %w", what, err)
		}
		b.log.WarnContext(ctx, "broker is not ready, provisioning waits", "what", what, "error", err)
		if !wait(ctx, reconnectPause(attempt)) {
			return fmt.Errorf("provision %s: %w", what, err)
		}
	}
}

// unready errors pass by themselves: the broker is away, starting, or electing a leader.
func unready(err error) bool {
	if api, ok := errors.AsType[*jetstream.APIError](err); ok && api.ErrorCode == errStreamCreate && strings.Contains(api.Description, storeTrouble) {
		return true
	}
	// A name that is in use by now was taken by another process that provisions, one that is gone by now was deleted
	// by somebody: look again.
	return away(err) || errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) || errors.Is(err, jetstream.ErrStreamNotFound)
}

// away errors say that the broker, or the leader of what was asked for, did not answer.
func away(err error) bool {
	if api, ok := errors.AsType[*jetstream.APIError](err); ok && api.Code == 503 {
		return true
	}
	for _, one := range []error{nats.ErrNoResponders, nats.ErrTimeout, context.DeadlineExceeded, context.Canceled, nats.ErrDisconnected, nats.ErrReconnectBufExceeded,
		jetstream.ErrNoStreamResponse, jetstream.ErrJetStreamNotEnabled} {
		if errors.Is(err, one) {
			return true
		}
	}
	return false
}

func (b *Bus) provisionStream(ctx context.Context, s events.Stream, t Topology) error {
	want := streamConfig(s, t)
	there, err := b.js.Stream(ctx, s.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		_, err := b.js.CreateStream(ctx, want)
		return storageHint(err, want)
	}
	if err != nil {
		return err
	}
	info, err := there.Info(ctx)
	if err != nil {
		return err
	}
	merged, err := widen(info.Config, want)
	if err != nil {
		return err
	}
	if sameStream(info.Config, merged) {
		return nil
	}
	_, err = b.js.UpdateStream(ctx, merged)
	return storageHint(err, merged)
}

func storageHint(err error, c jetstream.StreamConfig) error {
	if api, ok := errors.AsType[*jetstream.APIError](err); ok && strings.Contains(api.Description, "insufficient") {
		return fmt.Errorf("the broker cannot reserve %d MiB on %d replicas: give it more storage, or lower the size scale: %w", c.MaxBytes>>20, c.Replicas, err)
	}
	return err
}

func streamConfig(s events.Stream, t Topology) jetstream.StreamConfig {
	c := jetstream.StreamConfig{
		Name: s.Name, Description: s.Description, Subjects: s.Subjects, Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardOld,
		Storage: jetstream.FileStorage, Replicas: t.Replicas, MaxAge: s.MaxAge, MaxBytes: -1, MaxMsgs: -1, MaxMsgsPerSubject: -1, MaxMsgSize: -1, MaxConsumers: -1,
		Duplicates: max(s.Duplicates, leastDuplicates), AllowDirect: s.Direct, AllowMsgSchedules: s.Schedules, AllowMsgTTL: s.Schedules, AllowAtomicPublish: s.AtomicBatches,
	}
	if s.MaxBytes > 0 {
		c.MaxBytes = max(int64(float64(s.MaxBytes)*t.MaxBytesScale), 1<<20)
	}
	if s.MaxPerSubject > 0 {
		c.MaxMsgsPerSubject = s.MaxPerSubject
	}
	if s.MaxMsgSize > 0 {
		c.MaxMsgSize = s.MaxMsgSize
	}
	if s.RepublishFrom != "" {
		c.RePublish = &jetstream.RePublish{Source: s.RepublishFrom, Destination: s.RepublishTo}
	}
	if s.TransformFrom != "" {
		c.SubjectTransform = &jetstream.SubjectTransformConfig{Source: s.TransformFrom, Destination: s.TransformTo}
	}
	return c
}

// widen is the configuration that is there with what is wanted beyond it. Differences that would lose or
// reinterpret what the stream holds are errors.
func widen(there, want jetstream.StreamConfig) (jetstream.StreamConfig, error) {
	out := there
	for _, s := range there.Subjects {
		if !subjectIn(s, want.Subjects) {
			return out, fmt.Errorf("it takes subject %s, which is not declared (declared: %s): rename or remove that stream", s, strings.Join(want.Subjects, ", "))
		}
	}
	switch {
	case there.Storage != want.Storage:
		return out, fmt.Errorf("it is kept in %s, not %s: back it up and make it anew", there.Storage, want.Storage)
	case there.Retention != want.Retention:
		return out, fmt.Errorf("its retention is %s, not %s", there.Retention, want.Retention)
	case there.Sealed || there.Mirror != nil || len(there.Sources) > 0:
		return out, errors.New("it is sealed, a mirror, or fed from other streams")
	case !samePointer(there.SubjectTransform, want.SubjectTransform):
		return out, fmt.Errorf("it rewrites subjects as %s, not %s: drain it before the number of partitions is changed", describe(there.SubjectTransform), describe(want.SubjectTransform))
	}
	out.Subjects, out.Description, out.RePublish = want.Subjects, want.Description, want.RePublish
	out.Replicas = max(there.Replicas, want.Replicas)
	out.MaxAge = wider(there.MaxAge, want.MaxAge, 0)
	out.MaxBytes = wider(there.MaxBytes, want.MaxBytes, -1)
	out.MaxMsgs = wider(there.MaxMsgs, want.MaxMsgs, -1)
	out.MaxMsgsPerSubject = wider(there.MaxMsgsPerSubject, want.MaxMsgsPerSubject, -1)
	out.MaxMsgSize = wider(there.MaxMsgSize, want.MaxMsgSize, -1)
	out.MaxConsumers = wider(there.MaxConsumers, want.MaxConsumers, -1)
	out.Duplicates = want.Duplicates
	if out.MaxAge > 0 {
		out.Duplicates = min(out.Duplicates, out.MaxAge)
	}
	out.Discard = want.Discard
	out.AllowDirect = there.AllowDirect || want.AllowDirect
	out.AllowMsgSchedules = there.AllowMsgSchedules || want.AllowMsgSchedules
	out.AllowMsgTTL = there.AllowMsgTTL || want.AllowMsgTTL
	out.AllowAtomicPublish = there.AllowAtomicPublish || want.AllowAtomicPublish
	return out, nil
}

func describe(t *jetstream.SubjectTransformConfig) string {
	if t == nil {
		return "nothing"
	}
	return t.Source + " to " + t.Destination
}

func samePointer[T comparable](a, b *T) bool {
	return a == b || a != nil && b != nil && *a == *b
}

// wider of two limits, of which none (0 or less) stands for no limit.
func wider[N int | int32 | int64 | time.Duration](a, b, none N) N {
	if a <= 0 || b <= 0 {
		return none
	}
	return max(a, b)
}

// sameStream compares what widen may have changed.
func sameStream(a, b jetstream.StreamConfig) bool {
	sorted := func(s []string) []string { return slices.Sorted(slices.Values(s)) }
	return slices.Equal(sorted(a.Subjects), sorted(b.Subjects)) && a.Description == b.Description && samePointer(a.RePublish, b.RePublish) &&
		a.Replicas == b.Replicas && a.MaxAge == b.MaxAge && a.MaxBytes == b.MaxBytes && a.MaxMsgs == b.MaxMsgs && a.MaxMsgsPerSubject == b.MaxMsgsPerSubject &&
		a.MaxMsgSize == b.MaxMsgSize && a.MaxConsumers == b.MaxConsumers && a.Duplicates == b.Duplicates && a.Discard == b.Discard &&
		a.AllowDirect == b.AllowDirect && a.AllowMsgSchedules == b.AllowMsgSchedules && a.AllowMsgTTL == b.AllowMsgTTL && a.AllowAtomicPublish == b.AllowAtomicPublish
}

func (b *Bus) provisionBucket(ctx context.Context, bucket events.Bucket, t Topology) error {
	if bucket.Objects {
		return b.provisionObjects(ctx, bucket, t)
	}
	want := jetstream.KeyValueConfig{Bucket: bucket.Name, Description: bucket.Description, History: max(bucket.History, 1), Storage: jetstream.FileStorage, Replicas: t.Replicas}
	kv, err := b.js.KeyValue(ctx, bucket.Name)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		_, err := b.js.CreateKeyValue(ctx, want)
		return err
	}
	if err != nil {
		return err
	}
	status, err := kv.Status(ctx)
	if err != nil {
		return err
	}
	have := status.Config()
	if have.History >= want.History && have.Replicas >= want.Replicas {
		return nil
	}
	have.History, have.Replicas = max(have.History, want.History), max(have.Replicas, want.Replicas)
	_, err = b.js.UpdateKeyValue(ctx, have)
	return err
}

func (b *Bus) provisionObjects(ctx context.Context, bucket events.Bucket, t Topology) error {
	want := jetstream.ObjectStoreConfig{Bucket: bucket.Name, Description: bucket.Description, Storage: jetstream.FileStorage, Replicas: t.Replicas}
	store, err := b.js.ObjectStore(ctx, bucket.Name)
	if errors.Is(err, jetstream.ErrBucketNotFound) || errors.Is(err, jetstream.ErrStreamNotFound) {
		_, err := b.js.CreateObjectStore(ctx, want)
		return err
	}
	if err != nil {
		return err
	}
	status, err := store.Status(ctx)
	if err != nil {
		return err
	}
	if status.Replicas() >= want.Replicas {
		return nil
	}
	_, err = b.js.UpdateObjectStore(ctx, want)
	return err
}
