package execution

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
	"chandler/events/bus"
)

// partition is one part of all jobs, with its place in FOLD.
type partition struct {
	number  int
	subject string

	// turn is held while a change is computed, said and appended, and while others' changes are applied:
	// whoever holds it may read jobs. mu is taken after it, to change jobs, and alone, by readers.
	turn   sync.Mutex
	mu     sync.RWMutex
	jobs   *jobs
	loaded bool
	// since the newest snapshot
	deltas, bytes int
	created       int64 // creation of the FOLD that jobs.sequence belongs to, Unix nanoseconds
	foreign       bool  // snapshots of another life of FOLD may be there; the next change makes one that replaces them all
	incomplete    bool  // it was loaded from less than there once was, or from nothing
	budget        budget
}

const (
	// appendAttempts bounds how often a change is computed again because other replicas were first.
	appendAttempts = 20
	// changeSize is the number of jobs in one delta: with the longest names it stays below the broker's
	// message size.
	changeSize = 1000
)

var (
	errNotLoaded = bus.Unavailable(errors.New("execution is still loading its state: ask again in a few seconds"))
	// errBroken says that deltas between the state and the next delta are missing.
	errBroken = errors.New("the fold has a gap")
)

// change is the only way in which the jobs of a partition change: compute looks at them and says what is to
// change; it is called again, against the newer state, when another replica was first.
func (s *Service) change(ctx context.Context, p *partition, compute func(*jobs) outcome) error {
	p.turn.Lock()
	defer p.turn.Unlock()
	if !p.loaded {
		return errNotLoaded
	}
	for range appendAttempts {
		o := compute(p.jobs)
		if err := s.say(ctx, o); err != nil {
			return fmt.Errorf("partition %d: %w", p.number, err)
		}
		if o.empty(p.jobs) {
			s.metrics.stored(o)
			return nil
		}
		err := s.append(ctx, p, o.delta)
		if err == nil {
			s.metrics.stored(o)
			s.snapshotIfDue(ctx, p)
			return nil
		}
		if !wrongSequence(err) {
			return fmt.Errorf("append to partition %d: %w", p.number, err)
		}
		s.metrics.conflicts.Inc()
		if err := s.catchUp(ctx, p, true); err != nil {
			return fmt.Errorf("catch up partition %d: %w", p.number, err)
		}
	}
	return fmt.Errorf("append to partition %d: other replicas were first %d times", p.number, appendAttempts)
}

// changeEach changes those jobs that pick names, some at a time. alter adds to the outcome what follows for
// one of them; pick is asked again before.
func (s *Service) changeEach(ctx context.Context, p *partition, deployment string, pick func(job) bool, alter func(job, *outcome)) error {
	var keys []jobKey
	p.mu.RLock()
	for j := range p.jobs.all(deployment) {
		if pick(j) {
			keys = append(keys, j.key())
		}
	}
	p.mu.RUnlock()
	for len(keys) > 0 {
		some := keys[:min(len(keys), changeSize)]
		keys = keys[len(some):]
		err := s.change(ctx, p, func(jobs *jobs) outcome {
			o := unchanged(jobs)
			for _, k := range some {
				if j, ok := jobs.find(k); ok && pick(j) {
					alter(j, &o)
				}
			}
			return o
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// append stores a delta, if the one it was computed from is still the newest, and applies it.
func (s *Service) append(ctx context.Context, p *partition, d delta) error {
	d.previous, d.author = p.jobs.sequence, s.author
	data := d.encode()
	ctx, stop := s.whileConnected(ctx)
	defer stop()
	ack, err := s.js.PublishMsg(ctx, &nats.Msg{Subject: p.subject, Data: data}, jetstream.WithExpectLastSequencePerSubject(d.previous))
	if errors.Is(err, context.Canceled) && context.Cause(ctx) != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return err
	}
	return s.applyDelta(p, ack.Sequence, d, len(data))
}

// applyDelta changes the state; turn is held.
func (s *Service) applyDelta(p *partition, sequence uint64, d delta, size int) error {
	granted := p.jobs.granted
	p.mu.Lock()
	err := p.jobs.apply(sequence, d)
	p.mu.Unlock()
	if err != nil {
		return err
	}
	if n := p.jobs.granted - granted; n > 0 {
		p.budget.charge(float64(n), s.retriesPerMinute(), s.now())
	}
	p.deltas++
	p.bytes += size
	for _, r := range d.removed {
		// Whoever has not yet heard that the order is gone must not fold for it any more.
		s.orders.forget(r.deployment, r.revision)
	}
	s.progress.note(d, s.author)
	return nil
}

// wrongSequence says that another delta than the expected is the newest.
func wrongSequence(err error) bool {
	api, ok := errors.AsType[*jetstream.APIError](err)
	return ok && (api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant)
}

// catchUp applies the deltas that others appended; turn is held. conflict says that there must be some: if
// not, FOLD went back, and the state in memory is carried on into the new one.
func (s *Service) catchUp(ctx context.Context, p *partition, conflict bool) error {
	if !p.loaded {
		return errNotLoaded
	}
	stream, err := s.js.Stream(ctx, events.StreamFold)
	if err != nil {
		return err
	}
	applied := 0
	for {
		m, err := stream.GetMsg(ctx, p.jobs.sequence+1, jetstream.WithGetMsgSubject(p.subject))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			break
		}
		if err != nil {
			return err
		}
		if err := s.receive(ctx, p, m.Sequence, m.Data); err != nil {
			return err
		}
		applied++
	}
	if !conflict || applied > 0 {
		return nil
	}
	last, err := stream.GetLastMsgForSubject(ctx, p.subject)
	if err != nil && !errors.Is(err, jetstream.ErrMsgNotFound) {
		return err
	}
	if last != nil && last.Sequence >= p.jobs.sequence {
		return nil // a follower of the stream's leader was behind: the next attempt sees more
	}
	return s.carryOn(ctx, p, stream)
}

// carryOn goes on with the state in memory where FOLD was lost or went back: of what the stream holds now,
// only what is newer than memory is taken. turn is held.
func (s *Service) carryOn(ctx context.Context, p *partition, stream jetstream.Stream) error {
	s.log.ErrorContext(ctx, "the fold went back: execution goes on from memory", "partition", p.number, "sequence", p.jobs.sequence)
	var last uint64
	_, err := s.bus.Replay(ctx, events.StreamFold, p.subject, 1, func(m jetstream.Msg) error {
		d, sequence, err := readDelta(m)
		if err != nil {
			return err
		}
		last = sequence
		return s.applyDelta(p, sequence, s.onlyNewer(p.jobs, d), 0)
	})
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.jobs.sequence = last
	p.mu.Unlock()
	p.foreign, p.created = true, stream.CachedInfo().Created.UnixNano()
	return s.takeSnapshot(ctx, p)
}

// onlyNewer leaves out of a delta of another life of FOLD what the state surpasses.
func (s *Service) onlyNewer(have *jobs, d delta) delta {
	d.status, d.folded = have.status, have.folded
	d.removed = slices.DeleteFunc(d.removed, func(r removal) bool { return s.orders.knows(r.deployment) })
	d.jobs = slices.DeleteFunc(d.jobs, func(j job) bool {
		old, ok := have.find(j.key())
		return ok && !j.newerThan(old)
	})
	return d
}

func readDelta(m jetstream.Msg) (delta, uint64, error) {
	meta, err := m.Metadata()
	if err != nil {
		return delta{}, 0, err
	}
	d, err := decodeDelta(m.Data())
	if err != nil {
		return delta{}, 0, fmt.Errorf("delta %d: %w", meta.Sequence.Stream, err)
	}
	return d, meta.Sequence.Stream, nil
}

// receive applies one delta of FOLD, if it follows what is known; turn is held.
func (s *Service) receive(ctx context.Context, p *partition, sequence uint64, data []byte) error {
	if sequence <= p.jobs.sequence {
		return nil
	}
	d, err := decodeDelta(data)
	if err != nil {
		return fmt.Errorf("delta %d: %w", sequence, err)
	}
	if d.previous == p.jobs.sequence {
		return s.applyDelta(p, sequence, d, len(data))
	}
	stream, err := s.js.Stream(ctx, events.StreamFold)
	if err != nil {
		return err
	}
	if stream.CachedInfo().Created.UnixNano() != p.created {
		return s.carryOn(ctx, p, stream)
	}
	return s.load(ctx, p) // what lies between was purged after a snapshot
}

// followFold applies what other replicas append.
func (s *Service) followFold(ctx context.Context) error {
	for ctx.Err() == nil {
		next := s.foldPosition() + 1
		err := s.bus.Follow(ctx, events.StreamFold, events.FoldSubject("*"), next, func(m jetstream.Msg) error {
			meta, err := m.Metadata()
			if err != nil {
				return err
			}
			p, ok := s.partitionNamed(m.Subject())
			if !ok {
				return nil
			}
			p.turn.Lock()
			defer p.turn.Unlock()
			return s.receive(ctx, p, meta.Sequence.Stream, m.Data())
		})
		if ctx.Err() != nil {
			return nil
		}
		s.log.WarnContext(ctx, "following the fold is interrupted", "error", err)
		if errors.Is(err, bus.ErrWentBack) {
			err = s.checkFold(ctx)
		}
		if err != nil {
			s.log.WarnContext(ctx, "the fold cannot be followed yet", "error", err)
			pause(ctx, s.pace.check)
		}
	}
	return nil
}

// foldPosition is the sequence up to which all partitions are known.
func (s *Service) foldPosition() uint64 {
	lowest := ^uint64(0)
	for _, p := range s.partitions {
		p.mu.RLock()
		lowest = min(lowest, p.jobs.sequence)
		p.mu.RUnlock()
	}
	return lowest
}

// checkFold looks whether FOLD is still the one that the partitions' positions belong to, and carries them
// on into the new one if not.
func (s *Service) checkFold(ctx context.Context) error {
	stream, err := s.js.Stream(ctx, events.StreamFold)
	if err != nil {
		return err
	}
	for _, p := range s.partitions {
		err = errors.Join(err, s.checkPartition(ctx, p, stream))
	}
	return err
}

// checkPartition looks at the stream once more before it believes that FOLD went back: between the first
// look and our turn the partition may have been appended to.
func (s *Service) checkPartition(ctx context.Context, p *partition, stream jetstream.Stream) error {
	p.turn.Lock()
	defer p.turn.Unlock()
	if !p.surpasses(stream.CachedInfo()) {
		return nil
	}
	info, err := stream.Info(ctx)
	if err != nil {
		return err
	}
	if !p.surpasses(info) {
		return nil
	}
	return s.carryOn(ctx, p, stream)
}

// surpasses says that the partition's position is not one in this FOLD; turn is held.
func (p *partition) surpasses(fold *jetstream.StreamInfo) bool {
	return p.created != fold.Created.UnixNano() || p.jobs.sequence > fold.State.LastSeq
}

func (s *Service) partitionNamed(subject string) (*partition, bool) {
	for _, p := range s.partitions {
		if p.subject == subject {
			return p, true
		}
	}
	return nil, false
}

// errCut says that an acknowledgement that was waited for will never come.
var errCut = bus.Unavailable(errors.New("the connection to the broker broke"))

// whileConnected ends when the connection breaks: whoever waits for an answer on it holds the partition, which others could
// go on with as soon as the broker is back.
func (s *Service) whileConnected(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	conn := s.bus.Conn()
	broke := conn.StatusChanged(nats.RECONNECTING, nats.DISCONNECTED, nats.CLOSED)
	go func() {
		select {
		case <-broke:
			cancel(errCut)
		case <-ctx.Done():
		}
		conn.RemoveStatusListener(broke)
	}()
	return ctx, func() { cancel(nil) }
}
