package execution

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
)

// Keys of the bucket of control begin with one of these.
const (
	keyStop       = "stop."
	keyFreeze     = "freeze."
	keyCollection = "collection."
	keyGeneration = "generation."
	keyHalt       = "halt."
	keyLimits     = "limits"
)

// stopMark says that a deployment was stopped, up to a revision, or that a newer revision took the place of those. It is
// never removed: whatever is replayed later, what was stopped stays so. Only a newer revision can be released.
type stopMark struct {
	ID         string    `json:"id"`
	Deployment string    `json:"deployment"`
	Revision   uint64    `json:"revision"`
	Kill       bool      `json:"kill,omitempty"`
	By         string    `json:"by"`
	Why        string    `json:"why,omitempty"`
	At         time.Time `json:"at"`
	// Until is when the time of the orders ended that were forgotten since; zero: none were.
	Until time.Time `json:"until,omitzero"`
}

func (m stopMark) cancel(agent string) events.CancelRequest {
	by := m.By
	if m.By == byScheduling {
		by += " (" + m.Why + ")" // nobody stopped the deployment
	}
	return events.CancelRequest{Agent: agent, Deployment: m.Deployment, Revision: m.Revision, Kill: m.Kill, By: by, Stop: m.ID}
}

// control is the bucket of control in memory, kept by a watch. It is safe for concurrent use.
type control struct {
	mu          sync.RWMutex
	stops       map[string]stopMark          // by deployment
	halts       map[string]halt              // by deployment
	freezes     map[string]events.Freeze     // by id
	collections map[string]events.Collection // by name, as last heard
	limits      map[string]events.Limits     // under one key
}

func newControl() *control {
	return &control{stops: map[string]stopMark{}, halts: map[string]halt{}, freezes: map[string]events.Freeze{}, collections: map[string]events.Collection{},
		limits: map[string]events.Limits{}}
}

func (c *control) stop(deployment string, revision uint64) (stopMark, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	m, ok := c.stops[deployment]
	return m, ok && m.Revision >= revision
}

// stopsThat lists the stops that which names.
func (c *control) stopsThat(which func(stopMark) bool) []stopMark {
	c.mu.RLock()
	defer c.mu.RUnlock()
	var all []stopMark
	for _, m := range c.stops {
		if which(m) {
			all = append(all, m)
		}
	}
	slices.SortFunc(all, func(a, b stopMark) int { return cmp.Compare(a.Deployment, b.Deployment) })
	return all
}

// peoplesFreezes lists what people froze.
func (c *control) peoplesFreezes() []events.Freeze {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return slices.AppendSeq([]events.Freeze{}, maps.Values(c.freezes))
}

// freezesWith lists what is frozen: what people froze, and the halted deployments that which names.
func (c *control) freezesWith(which func(deployment string) bool) []events.Freeze {
	return sortFreezes(append(c.peoplesFreezes(), c.haltFreezes(which)...))
}

// retriesPerMinute of the whole fleet.
func (c *control) retriesPerMinute() int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return cmp.Or(c.limits[keyLimits].RetriesPerMinute, events.DefaultRetriesPerMinute)
}

func (c *control) freeze(id string) (events.Freeze, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	found, ok := c.freezes[id]
	return found, ok
}

func (c *control) collection(name string) (events.Collection, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	found, ok := c.collections[name]
	return found, ok
}

// see takes the newest value of a key; nil for one that was deleted. It says whether agents must hear of it.
func (c *control) see(key string, value []byte) (beacon bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if name, ok := strings.CutPrefix(key, keyStop); ok {
		return false, keep(c.stops, name, value)
	}
	if name, ok := strings.CutPrefix(key, keyHalt); ok {
		return true, keep(c.halts, name, value)
	}
	if key == keyLimits {
		return false, keep(c.limits, key, value)
	}
	if name, ok := strings.CutPrefix(key, keyFreeze); ok {
		return true, keep(c.freezes, name, value)
	}
	if name, ok := strings.CutPrefix(key, keyCollection); ok {
		return false, keep(c.collections, name, value)
	}
	return strings.HasPrefix(key, keyGeneration), nil
}

func keep[T any](m map[string]T, name string, value []byte) error {
	if value == nil {
		delete(m, name)
		return nil
	}
	var v T
	if err := json.Unmarshal(value, &v); err != nil {
		return err
	}
	m[name] = v
	return nil
}

// put stores a value of control and takes it into memory.
func (s *Service) put(ctx context.Context, key string, v any) error {
	value, err := json.Marshal(v)
	if err != nil {
		return err
	}
	kv, err := s.controlBucket(ctx)
	if err != nil {
		return err
	}
	if _, err := kv.Put(ctx, key, value); err != nil {
		return fmt.Errorf("store %s: %w", key, err)
	}
	_, err = s.control.see(key, value)
	return err
}

// drop deletes a value of control.
func (s *Service) drop(ctx context.Context, key string) error {
	kv, err := s.controlBucket(ctx)
	if err != nil {
		return err
	}
	if err := kv.Delete(ctx, key); err != nil {
		return fmt.Errorf("delete %s: %w", key, err)
	}
	_, err = s.control.see(key, nil)
	return err
}

func (s *Service) controlBucket(ctx context.Context) (jetstream.KeyValue, error) {
	kv, err := s.js.KeyValue(ctx, events.BucketControl)
	if err != nil {
		return nil, fmt.Errorf("open bucket %s: %w", events.BucketControl, err)
	}
	return kv, nil
}

// watchBuckets keeps orders and control in memory until ctx is done; ready is closed once both are read.
func (s *Service) watchBuckets(ctx context.Context, ready chan<- struct{}) error {
	var first, all sync.WaitGroup
	first.Add(2)
	errs := make([]error, 2)
	all.Go(func() { errs[0] = s.watch(ctx, events.BucketOrders, &first, s.seeOrder) })
	all.Go(func() { errs[1] = s.watch(ctx, events.BucketControl, &first, s.seeControl) })
	all.Go(func() {
		first.Wait()
		close(ready)
	})
	all.Wait()
	return errors.Join(errs...)
}

func (s *Service) seeControl(entry jetstream.KeyValueEntry) error {
	value := entry.Value()
	if entry.Operation() != jetstream.KeyValuePut {
		value = nil
	}
	beacon, err := s.control.see(entry.Key(), value)
	if beacon {
		kick(s.beaconNow)
	}
	return err
}

// watch passes every value of a bucket to see, now and later. It begins again when the watch breaks.
func (s *Service) watch(ctx context.Context, bucket string, first *sync.WaitGroup, see func(jetstream.KeyValueEntry) error) error {
	var once sync.Once
	done := func() { once.Do(first.Done) }
	defer done()
	for ctx.Err() == nil {
		err := s.watchOnce(ctx, bucket, done, see)
		if errors.Is(err, jetstream.ErrBucketNotFound) {
			return fmt.Errorf("watch %s: %w", bucket, err)
		}
		if ctx.Err() == nil {
			s.log.WarnContext(ctx, "watch of a bucket broke and begins again", "bucket", bucket, "error", err)
			pause(ctx, s.pace.check)
		}
	}
	return nil
}

func (s *Service) watchOnce(ctx context.Context, bucket string, done func(), see func(jetstream.KeyValueEntry) error) error {
	kv, err := s.js.KeyValue(ctx, bucket)
	if err != nil {
		return err
	}
	watcher, err := kv.WatchAll(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = watcher.Stop() }() // it ends with ctx anyway
	for {
		select {
		case <-ctx.Done():
			return nil
		case entry, more := <-watcher.Updates():
			if !more {
				return errors.New("the watch ended")
			}
			if entry == nil {
				done()
				continue
			}
			if err := see(entry); err != nil {
				s.log.ErrorContext(ctx, "value of a bucket cannot be read and is passed over", "bucket", bucket, "key", entry.Key(), "error", err)
			}
		}
	}
}
