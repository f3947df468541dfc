package credentials

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"chandler/events/bus"
)

// outbox is the part of every record that says whether its last change was told. What is to be told is
// stored with the change, in one write, and told afterwards until the broker has it.
type outbox struct {
	// Told is false until the event of the last change is stored.
	Told bool `json:"told"`
	// Change counts the changes that are told of.
	Change int `json:"change,omitempty"`
}

func (o *outbox) box() *outbox { return o }

// owe notes a change that is to be told of.
func (o *outbox) owe() { o.Told, o.Change = false, o.Change+1 }

// entry is a record that is kept by compare-and-set and tells of its changes.
type entry[T any] interface {
	*T
	box() *outbox
	// tell publishes the event of the last change. Its id is derived from the record: telling again is harmless.
	tell(ctx context.Context, b *bus.Bus) error
}

// casAttempts is how often a change is tried when others change the same record.
const casAttempts = 16

var errKeep = errors.New("nothing to change")

// bucket is one key-value bucket of this service. A key's new value takes the place of all earlier ones at
// once, and is stored only over the revision that the writer has read.
type bucket struct {
	name string
	noun string // of what it keeps, in words
	bus  *bus.Bus
	log  *slog.Logger
	// provision makes the bucket if it turns out not to exist; nil: somebody else does.
	provision func(context.Context) error
}

// change edits a record: it reads it, and stores the edited one if nobody came between, else does both
// again. edit may return errKeep. The record as it is at the end is returned.
func change[T any, P entry[T]](ctx context.Context, b *bucket, key string, edit func(old T, found bool) (T, error)) (T, error) {
	var none T
	for range casAttempts {
		var old T
		revision, err := b.load(ctx, key, &old)
		if err != nil {
			return none, err
		}
		edited, err := edit(old, revision > 0)
		if errors.Is(err, errKeep) {
			return old, nil
		}
		if err != nil {
			return none, err
		}
		// An earlier change that was not told yet is told first: afterwards nobody knows of it.
		if was := P(&old).box(); revision > 0 && !was.Told && was.Change != P(&edited).box().Change {
			if err := P(&old).tell(ctx, b.bus); err != nil {
				return none, err
			}
		}
		err = b.save(ctx, key, edited, revision)
		if err == nil {
			return edited, nil
		}
		if !lostRace(err) {
			return none, err
		}
	}
	return none, bus.Conflict(fmt.Errorf("%s: others changed it %d times meanwhile: try again", b.called(key), casAttempts))
}

// announce tells of a record's last change, and notes that it did.
func announce[T any, P entry[T]](ctx context.Context, b *bucket, key string, r T) error {
	if err := P(&r).tell(ctx, b.bus); err != nil {
		return err
	}
	_, err := change[T, P](ctx, b, key, func(old T, found bool) (T, error) {
		box := P(&old).box()
		if !found || box.Told || box.Change != P(&r).box().Change {
			return old, errKeep
		}
		box.Told = true
		return old, nil
	})
	return err
}

// called is how a key is named in errors: by its kind where the bucket keeps several, else by the bucket's noun.
func (b *bucket) called(key string) string {
	if kind, name, ok := strings.Cut(key, "."); ok {
		return kind + " " + name
	}
	return b.noun + " " + key
}

// each visits the values of all keys, in no order. One that is replaced meanwhile may be missed.
func (b *bucket) each(ctx context.Context, visit func(jetstream.KeyValueEntry) error) error {
	kv, err := b.open(ctx)
	if err != nil {
		return err
	}
	watch, err := kv.WatchAll(ctx, jetstream.IgnoreDeletes())
	if err != nil {
		return fmt.Errorf("list bucket %s: %w", b.name, err)
	}
	defer func() { _ = watch.Stop() }() // what it leaves behind ends by itself
	if err := visitAll(ctx, watch.Updates(), visit); err != nil {
		return fmt.Errorf("list bucket %s: %w", b.name, err)
	}
	return nil
}

// visitAll visits up to the nil that ends what is there. A listing that is cut before is an error: a short one
// would look whole.
func visitAll(ctx context.Context, updates <-chan jetstream.KeyValueEntry, visit func(jetstream.KeyValueEntry) error) error {
	for {
		select {
		case entry, ok := <-updates:
			switch {
			case !ok:
				return errors.Join(errors.New("the broker's answer was cut"), context.Cause(ctx))
			case entry == nil:
				return nil
			}
			if err := visit(entry); err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// drop forgets a key for good, if its value is still the one of the given revision.
func (b *bucket) drop(ctx context.Context, key string, revision uint64) error {
	stream, err := b.bus.JetStream().Stream(ctx, b.stream())
	if err == nil {
		err = stream.Purge(ctx, jetstream.WithPurgeSubject(b.subject(key)), jetstream.WithPurgeSequence(revision+1))
	}
	if err != nil {
		return fmt.Errorf("forget %s: %w", b.called(key), err)
	}
	return nil
}

// load reads a record; revision 0: there is none.
func (b *bucket) load(ctx context.Context, key string, into any) (revision uint64, err error) {
	kv, err := b.open(ctx)
	if err != nil {
		return 0, err
	}
	entry, err := kv.Get(ctx, key)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", b.called(key), err)
	}
	if err := json.Unmarshal(entry.Value(), into); err != nil {
		return 0, fmt.Errorf("read %s: %w", b.called(key), err)
	}
	return entry.Revision(), nil
}

// save stores a record over the given revision of its key.
func (b *bucket) save(ctx context.Context, key string, record any, over uint64) error {
	return b.put(ctx, key, record, jetstream.WithExpectLastSequencePerSubject(over))
}

func (b *bucket) put(ctx context.Context, key string, record any, over jetstream.PublishOpt) error {
	value, err := json.Marshal(record)
	if err != nil {
		return fmt.Errorf("store %s: %w", b.called(key), err)
	}
	m := &nats.Msg{Subject: b.subject(key), Data: value, Header: nats.Header{jetstream.MsgRollup: {jetstream.MsgRollupSubject}}}
	if _, err := b.bus.JetStream().PublishMsg(ctx, m, over); err != nil {
		return fmt.Errorf("store %s: %w", b.called(key), err)
	}
	return nil
}

func (b *bucket) subject(key string) string { return "$KV." + b.name + "." + key }

func (b *bucket) stream() string { return "KV_" + b.name }

func lostRace(err error) bool {
	api, ok := errors.AsType[*jetstream.APIError](err)
	return ok && (api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant)
}

// open finds the bucket each time, so that one that was lost is noticed and made again.
func (b *bucket) open(ctx context.Context) (jetstream.KeyValue, error) {
	kv, err := b.bus.JetStream().KeyValue(ctx, b.name)
	if errors.Is(err, jetstream.ErrBucketNotFound) && b.provision != nil {
		b.log.Error("a bucket does not exist and is made", "bucket", b.name)
		if err := b.provision(ctx); err != nil {
			return nil, fmt.Errorf("make bucket %s: %w", b.name, err)
		}
		kv, err = b.bus.JetStream().KeyValue(ctx, b.name)
	}
	if err != nil {
		return nil, bus.Unavailable(fmt.Errorf("open bucket %s: %w", b.name, err))
	}
	return kv, nil
}

// made is when the bucket's stream was made, and the sequence of the last message that it took.
func (b *bucket) made(ctx context.Context) (created time.Time, last uint64, err error) {
	stream, err := b.bus.JetStream().Stream(ctx, b.stream())
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		if _, err = b.open(ctx); err == nil {
			stream, err = b.bus.JetStream().Stream(ctx, b.stream())
		}
	}
	if err != nil {
		return created, 0, bus.Unavailable(fmt.Errorf("look at bucket %s: %w", b.name, err))
	}
	info := stream.CachedInfo()
	return info.Created, info.State.LastSeq, nil
}
