package execution

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
)

const (
	// A partition is stored as a whole after so many deltas, or so many bytes of them; a large one later, when the deltas
	// are as large as itself, so that snapshots cost each change the same however many jobs there are.
	snapshotDeltas = 512
	snapshotBytes  = 1 << 20
	// jobSize is about what one job takes in a delta or, before it is compressed, in a snapshot, in bytes; deltaSize how
	// many bytes of them are read in the time that one more delta takes.
	jobSize, deltaSize = 40, 4096
	// loadAttempts: while one replica loads, another may store a newer snapshot and purge what it covers.
	loadAttempts = 3
)

// snapshotIfDue stores the partition when enough has changed since the last time; turn is held. A failure
// only means that the next start reads more deltas.
func (s *Service) snapshotIfDue(ctx context.Context, p *partition) {
	size := p.jobs.total() * jobSize
	if p.deltas < max(snapshotDeltas, size/deltaSize) && p.bytes < max(snapshotBytes, size) && !p.foreign {
		return
	}
	if err := s.takeSnapshot(ctx, p); err != nil && ctx.Err() == nil {
		s.log.WarnContext(ctx, "snapshot could not be stored and will be tried again", "partition", p.number, "error", err)
	}
}

// takeSnapshot stores the partition and purges the deltas that it covers, but for the last: an empty subject
// would forget the sequence that the next append names. turn is held.
func (s *Service) takeSnapshot(ctx context.Context, p *partition) error {
	stream, err := s.js.Stream(ctx, events.StreamFold)
	if err != nil {
		return err
	}
	store, err := s.js.ObjectStore(ctx, events.BucketFold)
	if err != nil {
		return fmt.Errorf("open bucket %s: %w", events.BucketFold, err)
	}
	shot := snapshot{created: stream.CachedInfo().Created.UnixNano(), sequence: p.jobs.sequence, delta: unchanged(p.jobs).delta}
	shot.jobs, shot.places = slices.Collect(p.jobs.all("")), p.jobs.places()
	data := shot.encode(s.zipper)
	name := snapshotName(p.number, shot.created, shot.sequence)
	if _, err := store.PutBytes(ctx, name, data); err != nil {
		return fmt.Errorf("store %s: %w", name, err)
	}
	s.metrics.snapshotBytes.WithLabelValues(fmt.Sprint(p.number)).Set(float64(len(data)))
	p.deltas, p.bytes = 0, 0
	if shot.sequence > 1 {
		if err := stream.Purge(ctx, jetstream.WithPurgeSubject(p.subject), jetstream.WithPurgeSequence(shot.sequence)); err != nil {
			return fmt.Errorf("purge what %s covers: %w", name, err)
		}
	}
	if err := removeSnapshots(ctx, store, p, name); err != nil {
		return err
	}
	p.foreign = false
	return nil
}

// removeSnapshots deletes those of a partition that are older than the one kept, or of another life of FOLD.
func removeSnapshots(ctx context.Context, store jetstream.ObjectStore, p *partition, kept string) error {
	names, err := snapshotNames(ctx, store, p.number)
	if err != nil {
		return err
	}
	for _, name := range names {
		if name < kept || p.foreign && name != kept {
			if err := store.Delete(ctx, name); err != nil && !errors.Is(err, jetstream.ErrObjectNotFound) {
				return fmt.Errorf("delete %s: %w", name, err)
			}
		}
	}
	return nil
}

// snapshotName orders the snapshots of a partition by life of FOLD and sequence.
func snapshotName(partition int, created int64, sequence uint64) string {
	return fmt.Sprintf("%s%020d.%020d", snapshotPrefix(partition), created, sequence)
}

func snapshotPrefix(partition int) string { return fmt.Sprintf("p%d.", partition) }

func snapshotNames(ctx context.Context, store jetstream.ObjectStore, partition int) ([]string, error) {
	objects, err := store.List(ctx)
	if err != nil && !errors.Is(err, jetstream.ErrNoObjectsFound) {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	var names []string
	for _, o := range objects {
		if strings.HasPrefix(o.Name, snapshotPrefix(partition)) {
			names = append(names, o.Name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// loadFirst gives a partition its state when the process starts.
func (s *Service) loadFirst(ctx context.Context, p *partition) error {
	p.turn.Lock()
	defer p.turn.Unlock()
	return s.load(ctx, p)
}

// load replaces the state by the newest snapshot and the deltas after it; turn is held.
func (s *Service) load(ctx context.Context, p *partition) error {
	for attempt := 1; ; attempt++ {
		l, err := s.readPartition(ctx, p, attempt >= loadAttempts)
		if errors.Is(err, errBroken) && ctx.Err() == nil {
			continue
		}
		if err != nil {
			return err
		}
		p.mu.Lock()
		p.jobs, p.loaded = l.state, true
		p.mu.Unlock()
		p.created, p.deltas, p.bytes = l.created, 0, l.size
		p.foreign, p.incomplete = l.foreign, l.foreign || l.broken || l.state.sequence == 0
		s.progress.noteAll(l.state)
		return nil
	}
}

// loading is what is read of a partition.
type loading struct {
	state   *jobs
	created int64 // of FOLD
	size    int   // of the deltas read, in bytes
	foreign bool  // the snapshot belongs to another FOLD
	broken  bool  // deltas are missing
}

// readPartition reads a partition. If it is incomplete, and that is tolerated, everything is to be folded
// from STATUS again.
func (s *Service) readPartition(ctx context.Context, p *partition, tolerant bool) (*loading, error) {
	shot, err := s.newestSnapshot(ctx, p.number)
	if err != nil {
		return nil, err
	}
	stream, err := s.js.Stream(ctx, events.StreamFold) // after the snapshot: it must not end before it
	if err != nil {
		return nil, fmt.Errorf("open stream %s: %w", events.StreamFold, err)
	}
	info := stream.CachedInfo()
	l := &loading{state: newJobs(p.jobs.codes), created: info.Created.UnixNano()}
	if err := l.state.apply(shot.sequence, shot.delta); err != nil {
		return nil, err
	}
	if l.foreign = shot.sequence > 0 && (shot.created != l.created || shot.sequence > info.State.LastSeq); l.foreign {
		l.state.sequence = 0
	}
	_, err = s.bus.Replay(ctx, events.StreamFold, p.subject, l.state.sequence+1, func(m jetstream.Msg) error {
		d, sequence, err := readDelta(m)
		if err != nil {
			return err
		}
		switch {
		case l.foreign:
			d = s.onlyNewer(l.state, d)
		case d.previous == l.state.sequence:
		case tolerant:
			l.broken = true
		default:
			return errBroken
		}
		l.size += len(m.Data())
		return l.state.apply(sequence, d)
	})
	if err != nil {
		return nil, err
	}
	if l.foreign || l.broken {
		s.log.ErrorContext(ctx, "the fold is incomplete: every status is folded again", "partition", p.number)
		l.state.folded = 0
	}
	return l, nil
}

// newestSnapshot of a partition; an empty one if there is none.
func (s *Service) newestSnapshot(ctx context.Context, partition int) (snapshot, error) {
	store, err := s.js.ObjectStore(ctx, events.BucketFold)
	if err != nil {
		return snapshot{}, fmt.Errorf("open bucket %s: %w", events.BucketFold, err)
	}
	names, err := snapshotNames(ctx, store, partition)
	if err != nil || len(names) == 0 {
		return snapshot{}, err
	}
	name := names[len(names)-1]
	data, err := store.GetBytes(ctx, name)
	if errors.Is(err, jetstream.ErrObjectNotFound) {
		return snapshot{}, errBroken // replaced just now by a newer one
	}
	if err != nil {
		return snapshot{}, fmt.Errorf("read %s: %w", name, err)
	}
	shot, err := decodeSnapshot(data, s.unzipper)
	if err != nil {
		return snapshot{}, fmt.Errorf("%s (without it, everything is folded from STATUS): %w", name, err)
	}
	return shot, nil
}
