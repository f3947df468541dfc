package execution

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
	"chandler/events/bus"
)

const (
	// generationAttempts bounds how often a generation is written against other replicas.
	generationAttempts = 10
	// raisePause is the least time between two generations that agents asked for: each makes every agent of
	// the fleet ask and tell again, and STATUS be folded from its beginning.
	raisePause = 10 * time.Minute
)

// storedGeneration is a value of the bucket of control.
type storedGeneration struct {
	events.Generation
	Last uint64 `json:"last"` // sequence of the stream when last looked at
}

// next is what follows from looking at the stream: another creation is a new generation, and so is a last
// sequence that went back.
func (g storedGeneration) next(created int64, last uint64) storedGeneration {
	switch {
	case g.Created != created:
		return storedGeneration{events.Generation{Created: created}, last}
	case last < g.Last:
		return storedGeneration{events.Generation{Created: created, Counter: g.Counter + 1}, last}
	}
	return storedGeneration{g.Generation, last}
}

// orLater is the state that is known here, where it is of the same generation and the stream was seen further on: what
// was seen must not be lost unnoticed because it was not written yet.
func (g storedGeneration) orLater(here storedGeneration) storedGeneration {
	if here.Generation == g.Generation && here.Last > g.Last {
		return here
	}
	return g
}

// generations of JOBS and STATUS, as all replicas agree on them in the bucket of control. It is safe for
// concurrent use.
type generations struct {
	js jetstream.JetStream

	checking sync.Mutex // one check at a time
	mu       sync.RWMutex
	known    map[string]storedGeneration
	raised   map[string]time.Time
}

func newGenerations(js jetstream.JetStream) *generations {
	return &generations{js: js, known: map[string]storedGeneration{}, raised: map[string]time.Time{}}
}

func (g *generations) of(stream string) storedGeneration {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.known[stream]
}

func (g *generations) jobs() events.Generation   { return g.of(events.StreamJobs).Generation }
func (g *generations) status() events.Generation { return g.of(events.StreamStatus).Generation }

// check looks at both streams.
func (g *generations) check(ctx context.Context) error {
	g.checking.Lock()
	defer g.checking.Unlock()
	for _, stream := range []string{events.StreamJobs, events.StreamStatus} {
		if err := g.update(ctx, stream, func(s storedGeneration) storedGeneration { return s }); err != nil {
			return fmt.Errorf("check generation of %s: %w", stream, err)
		}
	}
	return nil
}

// raise begins a new generation of a stream because an administrator says so.
func (g *generations) raise(ctx context.Context, stream string, now time.Time) (events.Generation, error) {
	g.checking.Lock()
	defer g.checking.Unlock()
	err := g.update(ctx, stream, func(s storedGeneration) storedGeneration {
		s.Counter++
		return s
	})
	if err != nil {
		return events.Generation{}, fmt.Errorf("raise generation of %s: %w", stream, err)
	}
	g.noteRaised(stream, now)
	return g.of(stream).Generation, nil
}

func (g *generations) noteRaised(stream string, at time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.raised[stream] = at
}

// lost is called when an agent knows of more than the stream holds: suspected is the generation it knows,
// sequence the highest it has seen (the highest there can be, if it saw it go back). The stream is looked
// at once more before a new generation begins; raised says that one began.
func (g *generations) lost(ctx context.Context, stream string, suspected events.Generation, sequence uint64, now time.Time) (raised bool, err error) {
	g.checking.Lock()
	defer g.checking.Unlock()
	// A fleet that comes back is ahead of what was known: of all who wait here, the first has made it look.
	if known := g.of(stream); sequence <= known.Last || suspected != known.Generation {
		return false, nil
	}
	there, err := g.look(ctx, stream)
	if err != nil {
		return false, err
	}
	if known := g.of(stream); there.Created == known.Created && there.Last >= max(sequence, known.Last) {
		g.set(stream, storedGeneration{known.Generation, there.Last}) // it grew, which is noted at the next check
		return false, nil
	}
	g.mu.RLock()
	soon := now.Sub(g.raised[stream]) < raisePause
	g.mu.RUnlock()
	if soon {
		return false, nil
	}
	err = g.update(ctx, stream, func(s storedGeneration) storedGeneration {
		if raised = s.Generation == suspected && sequence > s.Last; raised {
			s.Counter++
		}
		return s
	})
	if err != nil || !raised {
		return false, err
	}
	g.noteRaised(stream, now)
	return true, nil
}

// update looks at the stream, lets alter have its say, and writes the generation where it differs.
func (g *generations) update(ctx context.Context, stream string, alter func(storedGeneration) storedGeneration) error {
	kv, err := g.js.KeyValue(ctx, events.BucketControl)
	if err != nil {
		return err
	}
	for range generationAttempts {
		there, err := g.look(ctx, stream)
		if err != nil {
			return err
		}
		old, revision, err := readGeneration(ctx, kv, stream)
		if err != nil {
			return err
		}
		now := alter(old.orLater(g.of(stream)).next(there.Created, there.Last))
		if now == old {
			g.set(stream, now)
			return nil
		}
		value, err := json.Marshal(now)
		if err != nil {
			return err
		}
		if _, err = kv.Update(ctx, keyGeneration+stream, value, revision); err == nil {
			g.set(stream, now)
			return nil
		}
		if !wrongSequence(err) && !errors.Is(err, jetstream.ErrKeyExists) {
			return err
		}
	}
	return errors.New("other replicas keep changing it")
}

// look asks the broker how far a stream is. The generation says only when it was created.
func (g *generations) look(ctx context.Context, stream string) (storedGeneration, error) {
	there, err := g.js.Stream(ctx, stream)
	if err != nil {
		return storedGeneration{}, err
	}
	info := there.CachedInfo()
	return storedGeneration{events.Generation{Created: info.Created.UnixNano()}, info.State.LastSeq}, nil
}

func (g *generations) set(stream string, now storedGeneration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.known[stream] = now
}

// readGeneration gives the value and its revision, both zero where there is none.
func readGeneration(ctx context.Context, kv jetstream.KeyValue, stream string) (storedGeneration, uint64, error) {
	entry, err := kv.Get(ctx, keyGeneration+stream)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return storedGeneration{}, 0, nil
	}
	if err != nil {
		return storedGeneration{}, 0, err
	}
	var stored storedGeneration
	if err := json.Unmarshal(entry.Value(), &stored); err != nil {
		return storedGeneration{}, 0, err
	}
	return stored, entry.Revision(), nil
}

// checkGenerations looks at the streams often, and at once when this replica began a generation itself. A
// new FOLD is carried on from memory. If JOBS or STATUS began anew, agents hear of it at once, and STATUS is
// folded from its beginning.
func (s *Service) checkGenerations(ctx context.Context) error {
	jobs, status := s.generations.jobs(), s.generations.status() // as acted upon
	return s.every(ctx, s.pace.check, s.generationNow, "check of generations", func(ctx context.Context) error {
		if err := s.checkFold(ctx); err != nil {
			return fmt.Errorf("check the fold: %w", err)
		}
		if err := s.generations.check(ctx); err != nil {
			return err
		}
		if jobs == s.generations.jobs() && status == s.generations.status() {
			return nil
		}
		anew := status != s.generations.status()
		jobs, status = s.generations.jobs(), s.generations.status()
		s.log.WarnContext(ctx, "a stream began anew: agents are told to ask and to tell again", "jobs", jobs, "status", status)
		kick(s.beaconNow)
		if !anew {
			return nil
		}
		var failures []error
		for _, p := range s.partitions {
			failures = append(failures, (&statusReader{Service: s, p: p}).readOn(ctx)) // what fails is read before the next batch
		}
		return errors.Join(failures...)
	})
}

// retellCall makes every agent tell again what it keeps, by a new generation of STATUS, and folds what
// STATUS holds once more.
func (s *Service) retellCall(ctx context.Context, caller string, _ events.Nothing) (events.RetellAnswer, error) {
	before := s.generations.status()
	generation, err := s.generations.raise(ctx, events.StreamStatus, s.now())
	if err != nil {
		return events.RetellAnswer{}, err
	}
	bus.NoteChange(ctx, before, generation)
	s.log.WarnContext(ctx, "an administrator lets every agent tell its jobs again", "by", caller)
	kick(s.generationNow)
	return events.RetellAnswer{StatusGeneration: generation}, nil
}
