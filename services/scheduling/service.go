package scheduling

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/trust"
)

// Options of the service. Bus, Log and Registerer are needed.
type Options struct {
	Bus        *bus.Bus // with the source of this service
	Log        *slog.Logger
	Registerer prometheus.Registerer
	Version    string // of this program, x.y.z; empty: 0.0.0
	// Fleet refuses orders for another one early; empty: the fleet of the trust bundle, once it is known.
	Fleet string
	// Provision makes buckets that turn out not to exist, also later; nil: somebody else does.
	Provision func(context.Context) error
	Now       func() time.Time // nil: time.Now
	// Tick is how often everything is looked at, whether something changed or not; 0: a minute.
	Tick time.Duration
	// PackagePatience is how long an order waits for news of its package; 0: 3 s.
	PackagePatience time.Duration
}

// Service is one replica of scheduling.
type Service struct {
	bus       *bus.Bus
	log       *slog.Logger
	metrics   *metrics
	version   string
	fleetName string
	now       func() time.Time
	tick      time.Duration
	patience  time.Duration

	agentStore, collectionStore, deploymentStore *mirror

	fleet  *fleet
	work   *work
	queues *queueCache

	twinsFound chan *twins // to be told; what finds no room is found again

	// mu guards what follows. Whoever holds it calls neither the mirrors nor the broker; the mirrors take it
	// while they hold their own lock.
	mu              sync.RWMutex
	collections     map[string]collectionRecord
	trust           *trust.Bundle // the newest that was heard of; nil: none
	packages        map[string]packageRecord
	packagesChanged chan struct{} // closed and replaced at each change
	deployments     map[string]*deployment
	drafts          map[string]*deployment              // dropped ones too, without their orders, until they are forgotten
	removed         map[string]uint64                   // revision of deployments that were removed
	releases        map[string]map[uint64]*releaseLog   // by deployment and revision
	rollouts        map[string]map[uint64]rolloutRecord // by deployment and revision
	memberships     map[string]*membership              // by what the target is, for all deployments of one target
	byProgram       map[string]programIndex             // deployments by package
	progressed      map[string]progress                 // newest that is known, by deployment
	flights         map[string]flight                   // jobs in flight by deployment
	inFlight        flight                              // of all of them
	held            map[string]int                      // agents that only a limit holds back, by deployment
	stuck           map[string]bool                     // deployments whose next phase is due and has nobody
	limits          limitsRecord
	events          jetstream.Stream
	problem         error // of the last reconciling
}

// New makes a replica. It starts nothing.
func New(o Options) (*Service, error) {
	if o.Bus == nil || o.Log == nil || o.Registerer == nil {
		return nil, errors.New("scheduling needs a bus, a log and a metrics registry")
	}
	if want := events.ServiceSource(serviceName); o.Bus.Source() != want {
		return nil, fmt.Errorf("scheduling needs a bus of source %s, not %q", want, o.Bus.Source())
	}
	s := newMemory(o)
	if s.version == "" {
		s.version = "0.0.0"
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.tick == 0 {
		s.tick = time.Minute
	}
	if s.patience == 0 {
		s.patience = packagePatience
	}
	if s.tick < 0 || s.patience < 0 {
		return nil, fmt.Errorf("scheduling: tick %s and patience %s must not be negative", s.tick, s.patience)
	}
	s.agentStore = newMirror(events.BucketAgents, o.Bus, s.log, o.Provision, s.applyAgent)
	s.collectionStore = newMirror(events.BucketCollections, o.Bus, s.log, o.Provision, s.applyCollection)
	s.deploymentStore = newMirror(events.BucketDeployments, o.Bus, s.log, o.Provision, s.applyDeploymentKey)
	var err error
	s.metrics, err = newMetrics(o.Registerer, s)
	return s, err
}

// newMemory is a replica that knows nothing yet.
func newMemory(o Options) *Service {
	return &Service{
		bus: o.Bus, log: o.Log.With("component", serviceName), version: o.Version, fleetName: o.Fleet, now: o.Now, tick: o.Tick, patience: o.PackagePatience,
		fleet: newFleet(), work: newWork(), queues: newQueueCache(), twinsFound: make(chan *twins, 64), collections: map[string]collectionRecord{}, packages: map[string]packageRecord{}, packagesChanged: make(chan struct{}),
		deployments: map[string]*deployment{}, drafts: map[string]*deployment{}, removed: map[string]uint64{}, releases: map[string]map[uint64]*releaseLog{},
		rollouts: map[string]map[uint64]rolloutRecord{}, memberships: map[string]*membership{}, byProgram: map[string]programIndex{}, progressed: map[string]progress{},
		flights: map[string]flight{}, inFlight: flight{sites: map[string]int{}}, held: map[string]int{}, stuck: map[string]bool{},
	}
}

// Run works until ctx ends and everything it started has stopped. It returns an error only if it can never
// work; a broker that is away is waited for.
func (s *Service) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var parts sync.WaitGroup
	defer parts.Wait()
	for _, m := range s.mirrors() {
		parts.Go(func() { m.run(ctx) })
	}
	for _, m := range s.mirrors() {
		select {
		case <-ctx.Done():
			return nil
		case <-m.ready:
		}
	}
	s.log.Info("scheduling is ready", "agents", len(s.fleet.all()), "deployments", len(s.deploymentNames()))
	reconciler := &reconciler{Service: s, timed: map[string]string{}, owing: map[string]bool{}, baking: map[string]time.Time{}, refused: map[string]bool{}}
	for _, run := range []func(context.Context) error{
		reconciler.run, s.handleEvents, s.handleTimers, s.hearHeartbeats, s.tellTwins, s.followProgress, s.keepPresence,
		func(ctx context.Context) error { return s.bus.Serve(ctx, serviceName, s.version, s.endpoints()...) },
	} {
		parts.Go(func() {
			if err := run(ctx); err != nil && ctx.Err() == nil {
				cancel(err)
			}
		})
	}
	<-ctx.Done()
	parts.Wait()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) && !errors.Is(cause, context.DeadlineExceeded) {
		return fmt.Errorf("scheduling: %w", cause)
	}
	return nil
}

func (s *Service) mirrors() []*mirror {
	return []*mirror{s.agentStore, s.collectionStore, s.deploymentStore}
}

// handleEvents takes several events at the same time: the handlers keep the order of what they store by the
// broker's time, since events that are tried again come out of order anyway.
func (s *Service) handleEvents(ctx context.Context) error {
	return s.bus.Handle(ctx, bus.Consumer{Stream: events.StreamEvents, Name: serviceName, Workers: 8},
		bus.On(events.AgentReported, s.onReported), bus.On(events.AgentArchived, s.onGone), bus.On(events.AgentRevoked, s.onGone), bus.On(events.AgentApproved, s.onApproved),
		bus.On(events.TrustChanged, s.onTrustChanged), bus.On(events.DeploymentHalted, s.onHalted), bus.On(events.GateSignalled, s.onSignalled),
		bus.On(events.PackagePublished, s.onPackagePublished), bus.On(events.PackageRemoved, s.onPackageRemoved))
}

func (s *Service) handleTimers(ctx context.Context) error {
	return s.bus.Handle(ctx, bus.Consumer{Stream: events.StreamTimers, Name: serviceName, Filters: []string{events.TimerDue.Subject(serviceName)}},
		bus.On(events.TimerDue, s.onTimer))
}

func (s *Service) hearHeartbeats(ctx context.Context) error {
	return bus.Listen(ctx, s.bus, events.Heartbeat, "", s.onHeartbeat)
}

// Healthy says what keeps this replica from its work: a bucket that is not read to its end, or steps that
// fail.
func (s *Service) Healthy(context.Context) error {
	if !s.bus.Conn().IsConnected() {
		return errors.New("the broker is away")
	}
	s.mu.RLock()
	problem := s.problem
	s.mu.RUnlock()
	return errors.Join(s.readable(), problem)
}

// readable says whether memory is what the buckets hold.
func (s *Service) readable() error {
	var problems []error
	for _, m := range s.mirrors() {
		problems = append(problems, m.healthy())
	}
	return errors.Join(problems...)
}

func (s *Service) setProblem(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.problem = err
}
