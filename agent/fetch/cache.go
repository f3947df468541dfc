package fetch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"chandler/events"
)

// cache is a directory of verified blobs, at blobs/ab/abcdef…, and of partial ones, at partial/abcdef….
// The modification time of a file is when it was last used, so that it outlives the agent.
type cache struct {
	dir     string
	max     int64
	metrics *metrics

	mu       sync.Mutex // guards all below, and that files and what is known of them change together
	total    int64      // bytes of blobs and partial files, those under way counted as they will be
	blobs    map[string]kept
	partials map[string]kept
	held     map[string]int                 // by how many owners
	owners   map[string]map[string]struct{} // what each holds
	turns    map[string]*turn
	latest   time.Time // the last moment
}

// kept is a file of the cache.
type kept struct {
	size   int64
	used   time.Time
	active bool // a partial file that is being filled
}

// turn serialises the work on one blob.
type turn struct {
	free    chan struct{} // holds one token while nobody works
	waiting int           // who has or wants it
}

func openCache(dir string, limit int64, m *metrics) (*cache, error) {
	c := &cache{dir: dir, max: limit, metrics: m, blobs: map[string]kept{}, partials: map[string]kept{},
		held: map[string]int{}, owners: map[string]map[string]struct{}{}, turns: map[string]*turn{}}
	for _, d := range []string{c.dir, filepath.Join(dir, "blobs"), filepath.Join(dir, "partial")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, err
		}
	}
	// The umask may have let others in, or somebody else.
	if err := os.Chmod(c.dir, 0o700); err != nil {
		return nil, err
	}
	if err := c.count(filepath.Join(dir, "partial"), c.partials); err != nil {
		return nil, err
	}
	shards, err := os.ReadDir(filepath.Join(dir, "blobs"))
	if err != nil {
		return nil, err
	}
	for _, s := range shards {
		if err := c.count(filepath.Join(dir, "blobs", s.Name()), c.blobs); err != nil {
			return nil, err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	// The limit may have been lowered.
	c.evict(0)
	c.metrics.cacheBytes.Set(float64(c.total))
	return c, nil
}

func (c *cache) count(dir string, into map[string]kept) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() || events.ValidDigest(e.Name()) != nil {
			continue
		}
		into[e.Name()] = kept{size: info.Size(), used: info.ModTime()}
		c.total += info.Size()
	}
	return nil
}

func (c *cache) blobPath(sha256 string) string {
	return filepath.Join(c.dir, "blobs", sha256[:2], sha256)
}

func (c *cache) partialPath(sha256 string) string { return filepath.Join(c.dir, "partial", sha256) }

// moment is now, and later than the one before: clocks of some systems stand still for longer than a blob takes. The
// caller holds mu.
func (c *cache) moment() time.Time {
	now := time.Now()
	if least := c.latest.Add(time.Microsecond); now.Before(least) {
		now = least
	}
	c.latest = now
	return now
}

// has says whether a blob is there, in the right size, and marks it used.
func (c *cache) has(sha256 string, size int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	k, ok := c.blobs[sha256]
	if !ok {
		return false
	}
	info, err := os.Stat(c.blobPath(sha256))
	if err != nil || info.Size() != k.size || size >= 0 && k.size != size {
		c.remove(sha256)
		return false
	}
	k.used = c.moment()
	c.blobs[sha256] = k
	// Only the order of eviction after a restart depends on it.
	_ = os.Chtimes(c.blobPath(sha256), k.used, k.used)
	return true
}

func (c *cache) open(sha256 string) (*os.File, error) {
	if err := events.ValidDigest(sha256); err != nil {
		return nil, err
	}
	return os.Open(c.blobPath(sha256))
}

// drop throws out a blob whose bytes are wrong.
func (c *cache) drop(sha256 string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.remove(sha256)
}

// remove needs the lock.
func (c *cache) remove(sha256 string) {
	if err := os.Remove(c.blobPath(sha256)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return // it is still there and still counts
	}
	c.resize(-c.blobs[sha256].size)
	delete(c.blobs, sha256)
}

func (c *cache) resize(by int64) {
	c.total += by
	c.metrics.cacheBytes.Set(float64(c.total))
}

func (c *cache) hold(owner, sha256 string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.owners[owner] == nil {
		c.owners[owner] = map[string]struct{}{}
	}
	if _, ok := c.owners[owner][sha256]; !ok {
		c.owners[owner][sha256] = struct{}{}
		c.held[sha256]++
	}
}

func (c *cache) release(owner string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for sha256 := range c.owners[owner] {
		if c.held[sha256]--; c.held[sha256] == 0 {
			delete(c.held, sha256)
		}
	}
	delete(c.owners, owner)
}

// lock waits for the turn to work on a blob; unlock gives it on.
func (c *cache) lock(ctx context.Context, sha256 string) (unlock func(), err error) {
	c.mu.Lock()
	t := c.turns[sha256]
	if t == nil {
		t = &turn{free: make(chan struct{}, 1)}
		t.free <- struct{}{}
		c.turns[sha256] = t
	}
	t.waiting++
	c.mu.Unlock()
	leave := func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if t.waiting--; t.waiting == 0 {
			delete(c.turns, sha256)
		}
	}
	select {
	case <-t.free:
		return func() { t.free <- struct{}{}; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, context.Cause(ctx)
	}
}

// begin makes room for a blob and opens its partial file, with what it holds verified as far as possible.
// The caller has the blob's turn and ends with finish or close.
func (c *cache) begin(b blob) (*partial, error) {
	if err := events.ValidDigest(b.sha256); err != nil {
		return nil, &Error{Reason: events.ContentUnavailable, Identity: Agent, Resource: "blob", Err: err}
	}
	if err := c.reserve(b); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(c.partialPath(b.sha256), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		c.forget(b)
		return nil, known(err, events.AgentFault, c.dir)
	}
	p := &partial{blob: b, cache: c, file: f}
	if err := p.resume(); err != nil {
		c.discard(p)
		return nil, known(err, events.AgentFault, c.dir)
	}
	return p, nil
}

func (c *cache) reserve(b blob) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.partials[b.sha256] // what an earlier attempt left
	c.resize(-before.size)
	c.partials[b.sha256] = kept{active: true}
	if !c.evict(b.size) {
		c.resize(before.size)
		c.partials[b.sha256] = before
		if b.size > c.max {
			return &Error{Reason: events.CacheTooSmall, Identity: Agent, Resource: c.dir, Answer: fmt.Sprintf("a blob has %d bytes, the cache may hold %d", b.size, c.max)}
		}
		return &Error{Reason: events.DiskFull, Identity: Agent, Resource: c.dir, Answer: fmt.Sprintf("the cache of %d bytes is full of content that other jobs hold", c.max)}
	}
	c.resize(b.size)
	c.partials[b.sha256] = kept{size: b.size, active: true}
	return nil
}

// evict makes room for need more bytes, the least recently used first; false where what is held is too much.
// It needs the lock.
func (c *cache) evict(need int64) bool {
	for c.total+need > c.max {
		oldest, partial, found := "", false, false
		var when time.Time
		for _, m := range []map[string]kept{c.blobs, c.partials} {
			for sha256, k := range m {
				if c.held[sha256] == 0 && !k.active && (!found || k.used.Before(when)) {
					_, isPartial := c.partials[sha256]
					oldest, partial, found, when = sha256, isPartial, true, k.used
				}
			}
		}
		if !found || !c.removeOldest(oldest, partial) {
			return false
		}
		c.metrics.evictions.Inc()
	}
	return true
}

func (c *cache) removeOldest(sha256 string, partial bool) bool {
	if !partial {
		c.remove(sha256)
		_, still := c.blobs[sha256]
		return !still
	}
	if err := os.Remove(c.partialPath(sha256)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	c.resize(-c.partials[sha256].size)
	delete(c.partials, sha256)
	return true
}

// admit makes a whole and verified partial file a blob.
func (c *cache) admit(p *partial) error {
	err := errors.Join(p.file.Sync(), p.file.Close())
	c.mu.Lock()
	defer c.mu.Unlock()
	path := c.blobPath(p.sha256)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(path), 0o700)
	}
	if err == nil {
		err = os.Rename(c.partialPath(p.sha256), path)
	}
	if err != nil {
		c.abandon(p)
		return known(err, events.AgentFault, c.dir)
	}
	p.file = nil
	delete(c.partials, p.sha256)
	c.blobs[p.sha256] = kept{size: p.size, used: c.moment()}
	return nil
}

// pause closes a partial file that was not finished, to be resumed.
func (c *cache) pause(p *partial) {
	if p.file == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if p.at == 0 || p.file.Close() != nil {
		c.abandon(p)
		return
	}
	p.file = nil
	c.resize(p.at - p.size)
	c.partials[p.sha256] = kept{size: p.at, used: c.moment()}
}

// discard removes a partial file.
func (c *cache) discard(p *partial) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.abandon(p)
}

// abandon needs the lock. A file that cannot be removed is counted when the cache is opened next.
func (c *cache) abandon(p *partial) {
	p.file.Close()
	p.file = nil
	_ = os.Remove(c.partialPath(p.sha256))
	c.resize(-p.size)
	delete(c.partials, p.sha256)
}

// forget takes back a reservation whose file could not be opened.
func (c *cache) forget(b blob) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.resize(-b.size)
	delete(c.partials, b.sha256)
}
