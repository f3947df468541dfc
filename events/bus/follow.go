package bus

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// ErrWentBack says that a stream ends before the position of its reader: it was made anew or restored from
// an older copy. The reader's position means nothing any more.
var ErrWentBack = errors.New("the stream ends before its reader's position")

// Follow reads the messages of a stream that match filter, from startSeq on (0 and 1: from the first), in
// order, each once, for readers that keep their own position. It blocks until ctx is done (and returns
// nil), fn fails (and returns its error), or the stream went back ([ErrWentBack]). It goes on after the
// broker was away. No durable consumer is made. Messages come as they are: see [Decode] and [Typed]; those
// that the broker itself sent on into the stream are passed over and counted.
func (b *Bus) Follow(ctx context.Context, stream, filter string, startSeq uint64, fn func(jetstream.Msg) error) error {
	_, err := b.read(ctx, stream, filter, startSeq, false, fn)
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	return err
}

// Replay is Follow up to the last matching message that the stream held when it was asked. It returns the
// sequence to go on from.
func (b *Bus) Replay(ctx context.Context, stream, filter string, startSeq uint64, fn func(jetstream.Msg) error) (next uint64, err error) {
	return b.read(ctx, stream, filter, startSeq, true, fn)
}

// failed marks an error of the reader's own function.
type failed struct{ error }

func (f failed) Unwrap() error { return f.error }

func (b *Bus) read(ctx context.Context, stream, filter string, startSeq uint64, toEnd bool, fn func(jetstream.Msg) error) (uint64, error) {
	p := passage{bus: b, stream: stream, filter: filter, next: max(startSeq, 1), toEnd: toEnd, fn: fn}
	for failures := uint64(1); ; failures++ {
		before := p.next
		done, err := p.run(ctx)
		if own, ok := errors.AsType[failed](err); ok {
			return p.next, own.error
		}
		if errors.Is(err, ErrWentBack) {
			return p.next, fmt.Errorf("follow %s from %d: %w", stream, p.next, err)
		}
		if done {
			return max(p.next, p.last+1), nil
		}
		if p.next > before {
			failures = 1
		}
		if ctx.Err() == nil {
			b.log.WarnContext(ctx, "reading a stream is interrupted and will go on", "stream", stream, "next", p.next, "error", err)
		}
		if !wait(ctx, reconnectPause(failures)) {
			return p.next, ctx.Err()
		}
	}
}

// passage is one reader's way through a stream.
type passage struct {
	bus            *Bus
	stream, filter string
	next           uint64 // sequence to read from
	toEnd          bool
	last           uint64 // of the stream when the passage began, if toEnd
	fn             func(jetstream.Msg) error
}

// followBatch is the number of messages that a passage asks for at once.
const followBatch = 512

var (
	errEnd = errors.New("the end is reached")
	// errNothing: what was to come may have been purged meanwhile, of which a reader is told nothing. Another look shows it.
	errNothing = errors.New("none of the messages came that were there")
)

// run reads by a consumer of its own, which the broker forgets soon after, until the broker fails it, or
// to the end.
func (p *passage) run(ctx context.Context) (done bool, err error) {
	name, pending, err := p.open(ctx)
	if err != nil {
		return false, err
	}
	defer p.forget(name)
	if p.toEnd && (pending == 0 || p.next > p.last) {
		return true, nil
	}
	puller, err := p.bus.newPuller(p.stream, name, followBatch, "")
	if err != nil {
		return false, err
	}
	defer puller.close(func(*delivery) {})
	for expected := uint64(1); ctx.Err() == nil; {
		before := expected
		err := puller.fetch(ctx, func(d *delivery) error {
			if d.meta.Sequence.Consumer != expected {
				return fmt.Errorf("delivery %d came where %d was awaited", d.meta.Sequence.Consumer, expected)
			}
			expected++
			return p.take(ctx, d)
		})
		if errors.Is(err, errEnd) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
		if p.toEnd && expected == before && ctx.Err() == nil {
			return false, errNothing
		}
	}
	return false, ctx.Err()
}

func (p *passage) take(ctx context.Context, d *delivery) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	sequence := d.meta.Sequence.Stream
	if p.toEnd && sequence > p.last {
		return errEnd
	}
	if refusal := relayed(d.Headers()); refusal != nil {
		p.bus.refuse(ctx, d.Subject(), refusal)
	} else if err := p.fn(d); err != nil {
		return failed{err}
	}
	p.next = sequence + 1
	if p.toEnd && (d.meta.NumPending == 0 || p.next > p.last) {
		return errEnd
	}
	return nil
}

// open checks that the stream has not gone back, and makes the consumer.
func (p *passage) open(ctx context.Context) (name string, pending uint64, err error) {
	ctx, cancel := p.bus.asking(ctx)
	defer cancel()
	stream, err := p.bus.js.Stream(ctx, p.stream)
	if err != nil {
		return "", 0, err
	}
	last := stream.CachedInfo().State.LastSeq
	if last+1 < p.next {
		return "", 0, fmt.Errorf("%w: it ends at %d", ErrWentBack, last)
	}
	if p.toEnd && p.last == 0 {
		p.last = last
	}
	consumer, err := stream.CreateConsumer(ctx, jetstream.ConsumerConfig{
		FilterSubject: p.filter, DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: p.next, AckPolicy: jetstream.AckNonePolicy,
		MemoryStorage: true, Replicas: 1, InactiveThreshold: 5 * pullExpiry, MaxDeliver: -1})
	if err != nil {
		return "", 0, err
	}
	info := consumer.CachedInfo()
	return info.Name, info.NumPending, nil
}

func (p *passage) forget(name string) {
	ctx, cancel := context.WithTimeout(context.Background(), graceTime)
	defer cancel()
	_ = p.bus.js.DeleteConsumer(ctx, p.stream, name) // it lapses by itself
}
