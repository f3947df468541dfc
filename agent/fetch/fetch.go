package fetch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"chandler/events"
)

const (
	// chunk is what is read, paid for by the limiter and written at once.
	chunk = 128 << 10
	// locateAtOnce is the most blobs that content is asked about in one request.
	locateAtOnce = 1000

	defaultCache    = 10 << 30
	defaultPause    = 500 * time.Millisecond
	defaultAttempts = 5
	parallel        = 4
)

// Options of a Fetcher.
type Options struct {
	Dir      string            // of the cache, for this agent alone; made where it is not there
	MaxBytes int64             // of the cache; 0: 10 GiB
	Sources  map[string]Source // by the scheme of an address: "http", "https"
	// Locate asks content for the addresses of up to 1,000 blobs, nearest first; a blob nobody has is absent.
	Locate func(ctx context.Context, blobs []string) (map[string][]string, error)
	// BytesPerSecond throttles all transfers together; 0: no limit.
	BytesPerSecond int64
	// Attempts is how often all addresses of a blob are tried without a byte gained; 0: 5. Pause is the time
	// before the second, doubled each time; 0: half a second.
	Attempts   int
	Pause      time.Duration
	Registerer prometheus.Registerer // nil: metrics are kept but not registered
	Log        *slog.Logger          // nil: slog.Default()
}

// Fetcher gets blobs and stages files. All methods may be called concurrently.
type Fetcher struct {
	sources  map[string]Source
	locate   func(context.Context, []string) (map[string][]string, error)
	cache    *cache
	limiter  *rate.Limiter // nil: no limit
	attempts int
	pause    time.Duration
	metrics  *metrics
	log      *slog.Logger
}

// New opens the cache and counts what is in it.
func New(o Options) (*Fetcher, error) {
	switch {
	case o.Dir == "":
		return nil, errors.New("fetch: the cache needs a directory")
	case o.Locate == nil || len(o.Sources) == 0:
		return nil, errors.New("fetch: locate and at least one source are needed")
	case o.MaxBytes < 0 || o.BytesPerSecond < 0 || o.Attempts < 0 || o.Pause < 0:
		return nil, errors.New("fetch: a limit is negative")
	}
	m, err := newMetrics(o.Registerer)
	if err != nil {
		return nil, err
	}
	c, err := openCache(o.Dir, orDefault(o.MaxBytes, defaultCache), m)
	if err != nil {
		return nil, fmt.Errorf("open cache %s: %w", o.Dir, err)
	}
	f := &Fetcher{sources: o.Sources, locate: o.Locate, cache: c, metrics: m, log: o.Log,
		attempts: orDefault(o.Attempts, defaultAttempts), pause: orDefault(o.Pause, defaultPause)}
	if f.log == nil {
		f.log = slog.Default()
	}
	f.log = f.log.With("component", "fetch")
	if o.BytesPerSecond > 0 {
		f.limiter = rate.NewLimiter(rate.Limit(o.BytesPerSecond), chunk)
	}
	return f, nil
}

func orDefault[N int | int64 | time.Duration](n, otherwise N) N {
	if n == 0 {
		return otherwise
	}
	return n
}

// Fetched says what a Fetch did.
type Fetched struct {
	Bytes  int64  // that came over the network
	Cached int64  // that were in the cache
	From   string // the address of the last blob fetched, without its query; empty where all was cached
}

// blob is what is to be fetched.
type blob struct {
	sha256  string
	size    int64
	blocks  []string // digests of each events.BlockSize block; none: the blob is one block
	address string   // on an external source; "": distribution points have it
}

// Outside is where files lie that are not on distribution points, and who reads them there. The zero value: there are
// none.
type Outside struct {
	Address  func(events.File) string // "" of a file that is on distribution points
	Source   Source                   // opens the address; an error whose reason is permanent is not tried again
	Identity string                   // who reads
}

// Fetch brings the files' blobs into the cache and holds them there for owner (a job) until Release, also
// after an error: calling again goes on where this call ended. progress hears of the bytes in the cache; it
// may be nil and is called concurrently. The error is an *[Error], or the context's.
func (f *Fetcher) Fetch(ctx context.Context, owner string, files []events.File, outside Outside, progress func(done, total int64)) (Fetched, error) {
	blobs, total := distinct(files, outside)
	if total > f.cache.max {
		return Fetched{}, f.failed(ctx, &Error{Reason: events.CacheTooSmall, Identity: Agent, Resource: f.cache.dir,
			Answer: fmt.Sprintf("the package has %d bytes, the cache may hold %d", total, f.cache.max)})
	}
	run := fetching{Fetcher: f, outside: outside, total: total, progress: progress}
	var missing []blob
	for _, b := range blobs {
		f.cache.hold(owner, b.sha256)
		if f.cache.has(b.sha256, b.size) {
			run.out.Cached += b.size
		} else {
			missing = append(missing, b)
		}
	}
	f.metrics.bytes.WithLabelValues("cache").Add(float64(run.out.Cached))
	run.advance(run.out.Cached)
	for part := range slices.Chunk(missing, locateAtOnce) { // those outside need not be located, and are few
		if err := run.get(ctx, part); err != nil {
			return run.result(), f.failed(ctx, err)
		}
	}
	return run.result(), nil
}

// Release gives up what an owner holds; its blobs stay until their room is needed.
func (f *Fetcher) Release(owner string) { f.cache.release(owner) }

// failed counts a failure; where the context is done, that is the failure.
func (f *Fetcher) failed(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	e := known(err, events.AgentFault, f.cache.dir)
	f.metrics.failures.WithLabelValues(string(e.Reason)).Inc()
	return e
}

func distinct(files []events.File, outside Outside) (blobs []blob, total int64) {
	seen := make(map[string]bool, len(files))
	for _, file := range files {
		if seen[file.SHA256] {
			continue
		}
		seen[file.SHA256] = true
		b := blob{sha256: file.SHA256, size: file.Size, blocks: file.Blocks}
		if outside.Address != nil {
			b.address = outside.Address(file)
		}
		blobs = append(blobs, b)
		total += file.Size
	}
	return blobs, total
}

// fetching is one call of Fetch.
type fetching struct {
	*Fetcher
	outside  Outside
	total    int64
	done     atomic.Int64
	progress func(done, total int64)

	mu  sync.Mutex // guards out
	out Fetched
}

func (r *fetching) advance(n int64) {
	done := r.done.Add(n)
	if r.progress != nil {
		r.progress(done, r.total)
	}
}

func (r *fetching) arrived(n int64, from string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.out.Bytes += n
	r.out.From = from
}

func (r *fetching) cached(n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.out.Cached += n
}

func (r *fetching) result() Fetched {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.out
}

// get fetches some blobs, a few at a time; a throttled agent takes one after the other, so that none of them
// comes to stand still. The first failure ends all.
func (r *fetching) get(ctx context.Context, blobs []blob) error {
	addresses := r.located(ctx, blobs)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	slots := make(chan struct{}, parallel)
	if r.limiter != nil {
		slots = make(chan struct{}, 1)
	}
	var wait sync.WaitGroup
	for _, b := range blobs {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			break
		}
		wait.Go(func() {
			defer func() { <-slots }()
			if err := r.one(ctx, b, addresses[b.sha256]); err != nil {
				cancel(err)
			}
		})
	}
	wait.Wait()
	return context.Cause(ctx)
}

// located says where blobs are. Where it cannot find out, each blob asks again by itself.
func (r *fetching) located(ctx context.Context, blobs []blob) map[string][]string {
	var names []string
	for _, b := range blobs {
		if b.address == "" {
			names = append(names, b.sha256)
		}
	}
	if len(names) == 0 {
		return nil
	}
	addresses, err := r.locate(ctx, names)
	if err != nil {
		r.log.WarnContext(ctx, "content did not say where blobs are, asking again", "blobs", len(names), "error", err)
	}
	return addresses
}

// one fetches one blob; jobs that want the same at the same time take turns, and the later ones find it.
func (r *fetching) one(ctx context.Context, b blob, addresses []string) error {
	unlock, err := r.cache.lock(ctx, b.sha256)
	if err != nil {
		return err
	}
	defer unlock()
	if r.cache.has(b.sha256, b.size) {
		r.advance(b.size)
		r.cached(b.size)
		return nil
	}
	p, err := r.cache.begin(b)
	if err != nil {
		return err
	}
	defer p.close()
	r.advance(p.at)
	try := func(ctx context.Context, address string) (bool, error) {
		before := p.at
		err := r.transfer(ctx, p, address)
		return p.at > before, err
	}
	if b.address != "" {
		err = r.insist(ctx, b, try)
	} else {
		err = r.rounds(ctx, b.sha256, addresses, try)
	}
	if err != nil {
		return err
	}
	return p.finish()
}

// rounds tries every address, and all of them again after a pause, as long as there is hope. try says
// whether it gained anything.
func (f *Fetcher) rounds(ctx context.Context, sha256 string, addresses []string, try func(context.Context, string) (bool, error)) error {
	pause := f.pause
	var last error
	for fruitless := 0; fruitless < f.attempts; {
		gained := false
		for _, address := range addresses {
			more, err := try(ctx, address)
			if err == nil {
				return nil
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			gained = gained || more
			last = known(err, events.SourceUnreachable, Redact(address))
			if hopeless(last) {
				return last
			}
			f.log.DebugContext(ctx, "transfer was cut", "blob", sha256, "address", Redact(address), "gained", more, "error", last)
		}
		if gained {
			fruitless, pause = 0, f.pause
		} else if fruitless++; fruitless == f.attempts {
			break
		}
		if err := sleep(ctx, pause); err != nil {
			return err
		}
		pause *= 2
		// Addresses expire, and distribution points come and go.
		found, err := f.locate(ctx, []string{sha256})
		if err != nil {
			last = &Error{Reason: events.ContentUnavailable, Identity: Agent, Resource: "the content service", Err: err}
			continue
		}
		addresses = found[sha256]
	}
	return unavailable(sha256, last)
}

// insist tries the one address of a blob outside, and again after a pause as long as what is wrong may pass: a connection
// that was cut, a server that is away. Who was refused once is not sent again.
func (r *fetching) insist(ctx context.Context, b blob, try func(context.Context, string) (bool, error)) error {
	pause := r.pause
	for fruitless := 0; ; {
		gained, err := try(ctx, b.address)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case final(err):
			return err
		case gained:
			fruitless, pause = 0, r.pause
		default:
			if fruitless++; fruitless == r.attempts {
				return err
			}
		}
		r.log.DebugContext(ctx, "reading was cut", "blob", b.sha256, "address", Redact(b.address), "gained", gained, "error", err)
		if err := sleep(ctx, pause); err != nil {
			return err
		}
		pause *= 2
	}
}

// final failures of a source outside are not tried again: the answer would be the same, or is somebody's no.
func final(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && (hopeless(err) || e.Reason.Info().Class == events.Permanent || e.Reason == events.CredentialUnavailable)
}

// hopeless failures would be the same at every address.
func hopeless(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && (e.Reason == events.DiskFull || e.Reason == events.CacheTooSmall || e.Reason == events.AgentFault)
}

// unavailable says in the end why a blob cannot be had. Content named the addresses: that a distribution
// point lacks the blob, or refuses even a fresh address, is its fault and may pass.
func unavailable(sha256 string, last error) error {
	e, ok := errors.AsType[*Error](last)
	switch {
	case !ok:
		return &Error{Reason: events.ContentUnavailable, Identity: Agent, Resource: "blob " + sha256, Answer: "no distribution point has it"}
	case e.Reason == events.SourceNotFound || errors.Is(e, ErrExpired):
		return &Error{Reason: events.ContentUnavailable, Identity: e.Identity, Resource: e.Resource, Answer: e.Answer, Err: e.Err}
	}
	return e
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// source picks the driver of an address.
func (f *Fetcher) source(address string) (Source, error) {
	scheme, _, ok := strings.Cut(address, "://")
	if s := f.sources[strings.ToLower(scheme)]; ok && s != nil {
		return s, nil
	}
	return nil, &Error{Reason: events.SourceUnsupported, Identity: Agent, Resource: Redact(address), Answer: "this agent reads no such addresses"}
}
