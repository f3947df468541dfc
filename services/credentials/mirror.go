package credentials

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
	"chandler/events/bus"
)

// bucketReader reads what was stored in a bucket since it read last, whenever it is asked: afterwards its owner
// knows every change that was made before, by whichever replica. It begins again when the bucket turns out
// to be another one (lost, restored).
type bucketReader struct {
	bucket *bucket
	// reset forgets everything, apply takes a key's new value; nil: the key is gone. One call at a time.
	reset func()
	apply func(key string, value []byte)

	turn  chan struct{} // holds one token: who has it reads
	begun atomic.Uint64 // readings so far

	// Of whoever has the turn.
	ended   uint64 // the last reading that went well
	created time.Time
	next    uint64 // sequence to read from
}

func newBucketReader(b *bucket, reset func(), apply func(string, []byte)) *bucketReader {
	return &bucketReader{bucket: b, reset: reset, apply: apply, turn: make(chan struct{}, 1), next: 1}
}

// refresh reads up to what the bucket holds now. Those that ask at the same time share one reading that
// began after they asked.
func (r *bucketReader) refresh(ctx context.Context) error {
	arrived := r.begun.Load()
	select {
	case r.turn <- struct{}{}:
	case <-ctx.Done():
		return bus.Unavailable(fmt.Errorf("read bucket %s: %w", r.bucket.name, context.Cause(ctx)))
	}
	defer func() { <-r.turn }()
	if r.ended > arrived {
		return nil
	}
	n := r.begun.Add(1)
	if err := r.read(ctx); err != nil {
		return bus.Unavailable(fmt.Errorf("read bucket %s: %w", r.bucket.name, err))
	}
	r.ended = n
	return nil
}

func (r *bucketReader) read(ctx context.Context) error {
	created, last, err := r.bucket.made(ctx)
	if err != nil {
		return err
	}
	if !created.Equal(r.created) || last+1 < r.next {
		r.reset()
		r.created, r.next = created, 1
	}
	if last+1 == r.next {
		return nil
	}
	kv, err := r.bucket.open(ctx)
	if err != nil {
		return err
	}
	watch, err := kv.WatchAll(ctx, jetstream.ResumeFromRevision(r.next))
	if err != nil {
		return err
	}
	defer func() { _ = watch.Stop() }() // what it leaves behind ends by itself
	return r.take(ctx, watch.Updates())
}

// take applies updates until none is pending. It must not stop before: a value that is replaced while it
// reads comes again at the end, and only there.
func (r *bucketReader) take(ctx context.Context, updates <-chan jetstream.KeyValueEntry) error {
	for pending := uint64(0); ; {
		select {
		case entry, ok := <-updates:
			switch {
			case !ok:
				return errors.Join(errors.New("the broker's answer was cut"), context.Cause(ctx))
			case entry == nil && pending == 0: // there is nothing
				return nil
			case entry == nil:
				continue
			}
			value := entry.Value()
			if entry.Operation() != jetstream.KeyValuePut {
				value = nil
			}
			r.apply(entry.Key(), value)
			r.next, pending = entry.Revision()+1, entry.Delta()
			if pending == 0 {
				return nil
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// mirror is this replica's copy of the bucket of enrolments: every listing and count is answered from it. An
// agent's record is kept as its bytes, with what is asked of all of them at once: some 1.2 KB of memory for
// each agent (BenchmarkMirror).
type mirror struct {
	*bucketReader
	log *slog.Logger

	mu     sync.Mutex
	agents map[string]shadow
	order  []string // ids of agents; sorted when it is asked for
	sorted bool
	tokens map[string]tokenRecord // by name, without the removed
	names  map[string]string      // of tokens, by their public keys
	users  map[string]userRecord
	owed   map[string]bool // keys of records whose last change is not told
}

// shadow is what is kept of an agent.
type shadow struct {
	value  []byte // the record's JSON
	state  events.EnrolmentState
	lapses time.Time
	use    string
}

func newMirror(b *bucket, grace time.Duration, log *slog.Logger) *mirror {
	m := &mirror{log: log}
	m.bucketReader = newBucketReader(b, m.forget, func(key string, value []byte) {
		if err := m.learn(key, value, grace); err != nil {
			log.Error("a record cannot be read and is left out", "key", key, "error", err)
		}
	})
	m.forget()
	return m
}

func (m *mirror) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.agents, m.order, m.sorted = map[string]shadow{}, nil, true
	m.tokens, m.names, m.users, m.owed = map[string]tokenRecord{}, map[string]string{}, map[string]userRecord{}, map[string]bool{}
}

func (m *mirror) learn(key string, value []byte, grace time.Duration) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.owed, key)
	if id, ok := strings.CutPrefix(key, agentKeys); ok {
		return m.learnAgent(id, value, grace)
	}
	if name, ok := strings.CutPrefix(key, tokenKeys); ok {
		return m.learnToken(name, value)
	}
	if name, ok := strings.CutPrefix(key, userKeys); ok {
		delete(m.users, name)
		if value == nil {
			return nil
		}
		var r userRecord
		if err := json.Unmarshal(value, &r); err != nil {
			return err
		}
		m.users[name] = r
		m.owe(key, r.outbox)
	}
	return nil
}

func (m *mirror) owe(key string, o outbox) {
	if !o.Told {
		m.owed[key] = true
	}
}

func (m *mirror) learnAgent(id string, value []byte, grace time.Duration) error {
	if value == nil {
		delete(m.agents, id)
		m.order, m.sorted = slices.Collect(maps.Keys(m.agents)), false
		return nil
	}
	var r agentRecord
	if err := json.Unmarshal(value, &r); err != nil {
		return err
	}
	if _, known := m.agents[id]; !known {
		m.order, m.sorted = append(m.order, id), false
	}
	m.agents[id] = shadow{value: bytes.Clone(value), state: r.State, lapses: r.lapses(grace), use: r.Use}
	m.owe(agentKeys+id, r.outbox)
	return nil
}

func (m *mirror) learnToken(name string, value []byte) error {
	if old, known := m.tokens[name]; known {
		delete(m.names, old.Token)
		delete(m.tokens, name)
	}
	if value == nil {
		return nil
	}
	var r tokenRecord
	if err := json.Unmarshal(value, &r); err != nil {
		return err
	}
	m.owe(tokenKeys+name, r.outbox)
	if !r.Removed {
		m.tokens[name], m.names[r.Token] = r, name
	}
	return nil
}

// page is up to limit records of agents whose ids come after one, in the order of ids, of those that wanted
// (nil: all) takes.
func (m *mirror) page(after string, limit int, wanted func(id string, a shadow) bool) (found []agentRecord, more bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.sorted {
		slices.Sort(m.order)
		m.sorted = true
	}
	from, exact := slices.BinarySearch(m.order, after)
	if exact {
		from++
	}
	for _, id := range m.order[from:] {
		a := m.agents[id]
		if !wanted(id, a) {
			continue
		}
		if len(found) == limit {
			return found, true, nil
		}
		var r agentRecord
		if err := json.Unmarshal(a.value, &r); err != nil {
			return nil, false, fmt.Errorf("read agent %s: %w", id, err)
		}
		found = append(found, r)
	}
	return found, false, nil
}

// stateOf an agent by the clock; "" of one that nobody knows.
func (a shadow) stateOf(now time.Time) events.EnrolmentState {
	if a.state == events.EnrolmentActive && now.After(a.lapses) {
		return events.EnrolmentLapsed
	}
	return a.state
}

// stateOf an agent that this replica knows; "" of one that nobody knows.
func (m *mirror) stateOf(agent string, now time.Time) events.EnrolmentState {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.agents[agent].stateOf(now)
}

// states counts agents by their state.
func (m *mirror) states(now time.Time) map[events.EnrolmentState]int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := map[events.EnrolmentState]int{events.EnrolmentPending: 0, events.EnrolmentActive: 0, events.EnrolmentLapsed: 0, events.EnrolmentArchived: 0, events.EnrolmentRevoked: 0}
	for _, a := range m.agents {
		n[a.stateOf(now)]++
	}
	return n
}

// tokenNamed is the name of the token with a public key.
func (m *mirror) tokenNamed(key string) (name string, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	name, ok = m.names[key]
	return name, ok
}

// allTokens and allUsers are sorted by name.
func (m *mirror) allTokens() []tokenRecord {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.SortedFunc(maps.Values(m.tokens), func(a, b tokenRecord) int { return strings.Compare(a.Name, b.Name) })
}

func (m *mirror) allUsers() []userRecord {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.SortedFunc(maps.Values(m.users), func(a, b userRecord) int { return strings.Compare(a.User, b.User) })
}

// debts are the keys of records whose last change is not told, in order.
func (m *mirror) debts() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(maps.Keys(m.owed))
}

// useOf is the use of a token that was counted for an agent; enrolled is false if there is no such agent.
func (m *mirror) useOf(agent string) (use string, enrolled bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	a, ok := m.agents[agent]
	return a.use, ok
}
