package execution

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"chandler/events"
	"chandler/events/bus"
)

// Options of the service.
type Options struct {
	Bus        *bus.Bus              // publishes as /services/execution
	Registerer prometheus.Registerer // nil: metrics are kept but not registered
	Log        *slog.Logger          // nil: slog.Default()
	Version    string                // of this program, x.y.z; empty: 0.0.0
	Now        func() time.Time      // nil: time.Now
	// Silence is the time without any status after which a job that was offered or is being prepared counts as
	// silent; 0: 4 h. A running one has 12 h more.
	Silence time.Duration
	// Syncs is the number of agents answered at the same time; others are told to come later. 0: 24.
	Syncs int
}

// pace is how often things are looked at.
type pace struct {
	check, sweep, beacon, progress time.Duration
	// lapse is how long after the end of an order's time its agents may still tell how their jobs ended.
	lapse time.Duration
}

// Service is one replica.
type Service struct {
	bus     *bus.Bus
	js      jetstream.JetStream
	log     *slog.Logger
	now     func() time.Time
	version string
	silence time.Duration
	pace    pace
	author  uint64 // of this replica's deltas

	metrics     *metrics
	zipper      *zstd.Encoder
	unzipper    *zstd.Decoder
	partitions  []*partition
	orders      *orders
	control     *control
	generations *generations
	progress    *progress
	syncing     chan struct{} // one slot for each sync under way
	surveying   chan struct{} // one slot for each question about outcomes
	beaconNow   chan struct{}
	// generationNow is kicked when this replica began a generation.
	generationNow chan struct{}
}

// New makes a replica. It starts nothing and asks the broker nothing.
func New(o Options) (*Service, error) {
	if o.Bus == nil {
		return nil, errors.New("execution needs a bus")
	}
	if o.Bus.Source() != events.ServiceSource("execution") {
		return nil, fmt.Errorf("execution publishes as %s, its bus as %s", events.ServiceSource("execution"), o.Bus.Source())
	}
	if o.Silence < 0 || o.Syncs < 0 {
		return nil, errors.New("execution: silence and syncs must not be negative")
	}
	if o.Silence == 0 {
		o.Silence = 4 * time.Hour
	}
	if o.Syncs == 0 {
		o.Syncs = 24
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Version == "" {
		o.Version = "0.0.0"
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	zipper, unzipper, err := newZstd()
	if err != nil {
		return nil, fmt.Errorf("execution: %w", err)
	}
	s := &Service{
		bus: o.Bus, js: o.Bus.JetStream(), log: o.Log.With("component", "execution"), now: o.Now, version: o.Version, silence: o.Silence, author: rand.Uint64(),
		pace:   pace{check: 5 * time.Second, sweep: 30 * time.Second, beacon: events.BeaconInterval, progress: time.Second, lapse: time.Hour},
		zipper: zipper, unzipper: unzipper, orders: newOrders(), control: newControl(), progress: newProgress(),
		syncing: make(chan struct{}, o.Syncs), surveying: make(chan struct{}, outcomesAsked), beaconNow: make(chan struct{}, 1), generationNow: make(chan struct{}, 1),
	}
	s.generations = newGenerations(s.js)
	codes := newCodes()
	for n := range events.Partitions {
		s.partitions = append(s.partitions, &partition{number: n, subject: events.FoldSubject(fmt.Sprint(n)), jobs: newJobs(codes)})
	}
	if s.metrics, err = newMetrics(o.Registerer, s); err != nil {
		return nil, err
	}
	return s, nil
}

// Run works until ctx is done and everything it started has stopped. An error means that it cannot go on:
// a bucket or stream that is not provisioned.
func (s *Service) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var group sync.WaitGroup
	start := func(what string, run func(context.Context) error) {
		group.Go(func() {
			if err := run(ctx); err != nil && ctx.Err() == nil {
				cancel(fmt.Errorf("execution: %s: %w", what, err))
			}
		})
	}
	defer group.Wait()

	ready := make(chan struct{})
	start("keep buckets in memory", func(ctx context.Context) error { return s.watchBuckets(ctx, ready) })
	select {
	case <-ctx.Done():
		return ended(ctx)
	case <-ready:
	}
	start("answer requests", func(ctx context.Context) error { return s.bus.Serve(ctx, "execution", s.version, s.endpoints()...) })
	if err := s.beginPatiently(ctx); err != nil {
		if ctx.Err() != nil {
			return ended(ctx)
		}
		cancel(err)
		return err
	}
	start("follow the fold", s.followFold)
	for _, p := range s.partitions {
		start("fold statuses", func(ctx context.Context) error { return s.foldStatuses(ctx, p) })
	}
	start("handle deployments", s.handleDeployments)
	start("handle timers", s.handleTimers)
	start("check generations", s.checkGenerations)
	start("send beacons", s.sendBeacons)
	start("publish progress", s.publishProgress)
	start("sweep", s.sweepOften)
	<-ctx.Done()
	group.Wait()
	return ended(ctx)
}

// ended is why Run ends: nil if it was told to.
func ended(ctx context.Context) error {
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) && !errors.Is(cause, context.DeadlineExceeded) {
		return cause
	}
	return nil
}

// beginPatiently waits for a broker that is away or starting, not for what is not provisioned.
func (s *Service) beginPatiently(ctx context.Context) error {
	for {
		err := s.begin(ctx)
		if err == nil || ctx.Err() != nil || errors.Is(err, jetstream.ErrStreamNotFound) || errors.Is(err, jetstream.ErrBucketNotFound) {
			return err
		}
		s.log.WarnContext(ctx, "state could not be loaded and will be loaded again", "error", err)
		pause(ctx, s.pace.check)
	}
}

// begin learns the streams' generations and loads every partition.
func (s *Service) begin(ctx context.Context) error {
	if err := s.generations.check(ctx); err != nil {
		return fmt.Errorf("execution: %w", err)
	}
	for _, p := range s.partitions {
		if err := s.loadFirst(ctx, p); err != nil {
			return fmt.Errorf("execution: load partition %d: %w", p.number, err)
		}
	}
	if err := s.offersFromJobs(ctx); err != nil {
		return fmt.Errorf("execution: %w", err)
	}
	return nil
}

// Healthy says what keeps this replica from its work.
func (s *Service) Healthy(context.Context) error {
	if !s.bus.Conn().IsConnected() {
		return errors.New("the broker is away")
	}
	return s.allLoaded()
}

func (s *Service) partitionOf(agent string) *partition {
	return s.partitions[events.Partition(agent, len(s.partitions))]
}

// every calls do at intervals, and when it is woken, until ctx is done. Errors are noted and tried again.
func (s *Service) every(ctx context.Context, interval time.Duration, wake <-chan struct{}, what string, do func(context.Context) error) error {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		if err := do(ctx); err != nil && ctx.Err() == nil {
			s.log.WarnContext(ctx, "periodic work failed and will be tried again", "work", what, "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		case <-wake:
		}
	}
}

// kick wakes a loop that waits on the channel, once.
func kick(wake chan struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}
