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
// broker was away. No durable consumer is made. Messages come as they are: see [Decode] and [Typed].
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
			return p.next, nil
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

// run reads until the broker fails it, or, to the end.
func (p *passage) run(ctx context.Context) (done bool, err error) {
	pending, err := p.look(ctx)
	if err != nil || pending == 0 && p.toEnd {
		return err == nil, err
	}
	consumer, err := p.bus.js.OrderedConsumer(ctx, p.stream, jetstream.OrderedConsumerConfig{
		FilterSubjects: []string{p.filter}, DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: p.next, MaxResetAttempts: 1})
	if err != nil {
		return false, err
	}
	messages, err := consumer.Messages(jetstream.PullExpiry(2*pullExpiry), jetstream.PullHeartbeat(pullHeartbeat))
	if err != nil {
		return false, err
	}
	defer messages.Stop()
	for {
		m, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return false, err
		}
		meta, err := m.Metadata()
		if err != nil {
			return false, err
		}
		if p.toEnd && meta.Sequence.Stream > p.last {
			return true, nil
		}
		if err := p.fn(m); err != nil {
			return false, failed{err}
		}
		p.next = meta.Sequence.Stream + 1
		if p.toEnd && (meta.NumPending == 0 || p.next > p.last) {
			return true, nil
		}
	}
}

// look checks that the stream has not gone back, and counts what matches from next on, if that is asked.
func (p *passage) look(ctx context.Context) (pending uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	stream, err := p.bus.js.Stream(ctx, p.stream)
	if err != nil {
		return 0, err
	}
	state := stream.CachedInfo().State
	if state.LastSeq+1 < p.next {
		return 0, fmt.Errorf("%w: it ends at %d", ErrWentBack, state.LastSeq)
	}
	if !p.toEnd {
		return 0, nil
	}
	if p.last == 0 {
		p.last = state.LastSeq
	}
	if p.next > p.last {
		return 0, nil
	}
	_, err = stream.GetMsg(ctx, p.next, jetstream.WithGetMsgSubject(p.filter))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		p.next = p.last + 1
		return 0, nil
	}
	return 1, err
}
