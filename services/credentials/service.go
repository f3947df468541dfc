package credentials

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"chandler/events"
	"chandler/events/bus"
)

// serviceName in subjects, sources and among the broker's services.
const serviceName = "credentials"

// lookTime bounds one look at all accounts.
const lookTime = 30 * time.Second

// retryWait bounds the pause before something is tried again that the broker refused.
const retryWait = 2 * time.Second

// Options of the service. Bus, Dir, Log and Registerer are needed.
type Options struct {
	Bus        *bus.Bus // with the source of this service
	Dir        string   // holds the keyset; made with mode 0700 if it is not there
	Log        *slog.Logger
	Registerer prometheus.Registerer
	Version    string // of this program, x.y.z; empty: 0.0.0
	// Provision makes the bucket if it turns out not to exist, also later; nil: somebody else does.
	Provision func(context.Context) error
	Now       func() time.Time // nil: time.Now
	// Tick is how often all accounts are looked at, whether something changed or not; 0: a minute.
	Tick time.Duration
}

// Service is one replica of credentials.
type Service struct {
	bus       *bus.Bus
	log       *slog.Logger
	metrics   *metrics
	sealer    sealer
	provision func(context.Context) error
	version   string
	now       func() time.Time
	tick      time.Duration
	lookTime  time.Duration // the constant
	wake      chan struct{} // holds one token while there is something to tell

	mu      sync.Mutex
	problem error // of the last look at the accounts
}

// New makes a replica and opens its keyset, or makes it at the very first start. It starts nothing.
func New(o Options) (*Service, error) {
	if o.Bus == nil || o.Log == nil || o.Registerer == nil || o.Dir == "" {
		return nil, errors.New("credentials needs a bus, a directory, a log and a metrics registry")
	}
	if want := events.ServiceSource(serviceName); o.Bus.Source() != want {
		return nil, fmt.Errorf("credentials needs a bus of source %s, not %q", want, o.Bus.Source())
	}
	sealer, err := openKeyset(o.Dir)
	if err != nil {
		return nil, err
	}
	m, err := newMetrics(o.Registerer)
	if err != nil {
		return nil, err
	}
	s := &Service{bus: o.Bus, log: o.Log.With("component", serviceName), metrics: m, sealer: sealer, provision: o.Provision, version: o.Version, now: o.Now, tick: o.Tick, lookTime: lookTime,
		wake: make(chan struct{}, 1), problem: errors.New("accounts are not read yet")}
	if s.version == "" {
		s.version = "0.0.0"
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.tick == 0 {
		s.tick = time.Minute
	}
	return s, nil
}

// Run works until ctx ends and everything it started has stopped. It returns an error only if it can never
// work; a broker that is away is waited for.
func (s *Service) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var looking sync.WaitGroup
	defer looking.Wait()
	defer cancel()
	looking.Go(func() { s.look(ctx) })
	return s.bus.Serve(ctx, serviceName, s.version,
		bus.Answer(events.AccountSetCall, s.accountSet), bus.Answer(events.AccountList, s.accountList),
		bus.Answer(events.AccountRemove, s.accountRemove), bus.Answer(events.CredentialLease, s.lease))
}

func (s *Service) wakeUp() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// look tells what is owed and checks every account, at start, after changes, and at every tick.
func (s *Service) look(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-s.wake:
		}
		failed, unusable := s.reconcile(ctx)
		if ctx.Err() != nil {
			return
		}
		s.mu.Lock()
		s.problem = errors.Join(failed, unusable)
		s.mu.Unlock()
		next := s.tick
		if failed != nil {
			s.log.Warn("looking at the accounts failed and will be tried again", "error", failed)
			next = rand.N(retryWait) + time.Millisecond
		}
		timer.Reset(next)
	}
}

// reconcile returns what failed and is worth trying again soon, and apart from it what only an
// administrator can put right.
func (s *Service) reconcile(ctx context.Context) (failed, unusable error) {
	ctx, cancel := context.WithTimeout(ctx, s.lookTime)
	defer cancel()
	all, err := s.all(ctx)
	if err != nil {
		return err, nil
	}
	kinds := map[events.AccountKind]int{events.NetworkAccess: 0, events.SoftwareInstallation: 0, events.ClientTokenDomain: 0}
	var failures []error
	var lost []string
	for _, r := range all {
		if !r.Told {
			failures = append(failures, s.announce(ctx, r))
		}
		if r.Removed {
			continue
		}
		kinds[r.Kind]++
		if s.sealer.check(r.Account, r.Version, r.Sealed) != nil {
			lost = append(lost, r.Account)
		}
	}
	for kind, n := range kinds {
		s.metrics.accounts.WithLabelValues(string(kind)).Set(float64(n))
	}
	s.metrics.unusable.Set(float64(len(lost)))
	if len(lost) > 0 {
		unusable = fmt.Errorf("the secrets of %s cannot be opened with this keyset: restore it from a backup, or set them again", strings.Join(lost, ", "))
		s.log.Error("accounts are unusable", "error", unusable)
	}
	return errors.Join(failures...), unusable
}

// Healthy says what keeps this replica from its work, and which accounts cannot be used.
func (s *Service) Healthy(context.Context) error {
	if !s.bus.Conn().IsConnected() {
		return errors.New("the broker is away")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.problem
}
