package credentials

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/nats-io/nkeys"
	"github.com/prometheus/client_golang/prometheus"

	"chandler/events"
	"chandler/events/access"
	"chandler/events/bus"
	"chandler/services/credentials/vault"
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
	Dir        string   // holds the keyset file; made with mode 0700 if it is not there
	Log        *slog.Logger
	Registerer prometheus.Registerer
	// KeyEncryption encrypts the keyset; nil: a key in a file, in the directory beside Dir that is called as Dir is
	// and -key. FormerKeyEncryption is what encrypted it before, where that changes now; else nil.
	KeyEncryption, FormerKeyEncryption vault.Wrapper

	Version string // of this program, x.y.z; empty: 0.0.0
	// Provision makes the bucket if it turns out not to exist, also later; nil: somebody else does.
	Provision func(context.Context) error
	Now       func() time.Time // nil: time.Now
	// Tick is how often all that is kept is looked at, whether something changed or not; 0: a minute.
	Tick time.Duration

	// What identities are made with; all three or none. Without them the fleet has no identities, and
	// whoever enrols is told so.
	AgentSigner   nkeys.KeyPair // signing key of role agent
	AgentsAccount string        // public key of the account that agents belong to
	EnrolmentJWT  string        // identity of machines that enrol; part of every token

	JWTLife       time.Duration // of an agent's identity; 0: a day
	Grace         time.Duration // after its last identity in which an agent may return; 0: 90 days
	AnnounceEvery time.Duration // between announcements of the newest trust bundle; 0: a minute
}

// Service is one replica of credentials.
type Service struct {
	bus      *bus.Bus
	log      *slog.Logger
	metrics  *metrics
	sealer   *vault.Vault
	version  string
	now      func() time.Time
	tick     time.Duration
	lookTime time.Duration // the constant
	wake     chan struct{} // holds one token while there is something to tell

	accounts, enrolments  *bucket
	leases                *bucket
	lent                  *leaseStore
	testWait              time.Duration // the constant
	known                 *accountStore // of accounts
	mirror                *mirror       // of enrolments
	trust                 *trustStore
	limits                *limits
	taking                chan struct{} // holds one token while a token's use is counted
	signer                nkeys.KeyPair // nil: the fleet has no identities
	account, enrolmentJWT string
	jwtLife, grace        time.Duration
	announceEvery         time.Duration

	mu      sync.Mutex
	problem error // of the last look at what is kept
}

// New makes a replica and opens the keyset, or makes it at the very first start; see [vault.Open]. It starts nothing.
func New(o Options) (*Service, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	sealer, err := openVault(o)
	if err != nil {
		return nil, err
	}
	m, err := newMetrics(o.Registerer)
	if err != nil {
		return nil, err
	}
	log := o.Log.With("component", serviceName)
	kept := func(name, noun string) *bucket {
		return &bucket{name: name, noun: noun, bus: o.Bus, log: log, provision: o.Provision}
	}
	s := &Service{bus: o.Bus, log: log, metrics: m, sealer: sealer, version: o.Version, now: o.Now, tick: o.Tick, lookTime: lookTime,
		testWait: testWait, wake: make(chan struct{}, 1), problem: errors.New("what is kept is not read yet"),
		accounts: kept(events.BucketAccounts, "account"), enrolments: kept(events.BucketEnrolments, "record"), leases: kept(events.BucketLeases, "lease"),
		limits: newLimits(), taking: make(chan struct{}, 1), signer: o.AgentSigner, account: o.AgentsAccount, enrolmentJWT: o.EnrolmentJWT,
		jwtLife: o.JWTLife, grace: o.Grace, announceEvery: o.AnnounceEvery}
	s.mirror = newMirror(s.enrolments, s.grace, log)
	s.known = newAccountStore(s.accounts, log)
	s.lent = newLeaseStore(s.leases, log)
	s.trust = newTrustStore(kept(events.BucketTrust, "trust bundle"), log)
	return s, nil
}

// check validates the options and puts in what zero stands for.
func (o *Options) check() error {
	if o.Bus == nil || o.Log == nil || o.Registerer == nil || o.Dir == "" {
		return errors.New("credentials needs a bus, a directory, a log and a metrics registry")
	}
	if want := events.ServiceSource(serviceName); o.Bus.Source() != want {
		return fmt.Errorf("credentials needs a bus of source %s, not %q", want, o.Bus.Source())
	}
	if err := o.checkIdentities(); err != nil {
		return err
	}
	o.Version = cmp.Or(o.Version, "0.0.0")
	o.Tick, o.AnnounceEvery = cmp.Or(o.Tick, time.Minute), cmp.Or(o.AnnounceEvery, time.Minute)
	o.JWTLife, o.Grace = cmp.Or(o.JWTLife, 24*time.Hour), cmp.Or(o.Grace, 90*24*time.Hour)
	if o.JWTLife < time.Second || o.JWTLife > access.MaxAgentLife || o.Grace < 0 || o.AnnounceEvery < 0 || o.Tick < 0 {
		return fmt.Errorf("an identity of %s must last for 1s to %s, and no time may be negative", o.JWTLife, access.MaxAgentLife)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return nil
}

func (o *Options) checkIdentities() error {
	if o.AgentSigner == nil && o.AgentsAccount == "" && o.EnrolmentJWT == "" {
		return nil
	}
	if o.AgentSigner == nil || o.EnrolmentJWT == "" || !nkeys.IsValidPublicAccountKey(o.AgentsAccount) {
		return errors.New("credentials needs the agents' signing key, their account's public key and the enrolment identity, or none of them")
	}
	if _, err := o.AgentSigner.PrivateKey(); err != nil {
		return fmt.Errorf("the agents' signing key has no secret: %w", err)
	}
	public, err := o.AgentSigner.PublicKey()
	if err != nil || !nkeys.IsValidPublicAccountKey(public) {
		return errors.New("the agents' signing key is not that of an account")
	}
	return nil
}

// Run works until ctx ends and everything it started has stopped. It returns an error only if it can never
// work; a broker that is away is waited for.
func (s *Service) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var working sync.WaitGroup
	var hearing error
	working.Go(func() { s.look(ctx) })
	working.Go(func() { s.keepAnnouncing(ctx) })
	working.Go(func() {
		defer cancel() // it ends by itself only if it can never work
		hearing = s.handleEvents(ctx)
	})
	serving := s.bus.Serve(ctx, serviceName, s.version, s.endpoints()...)
	cancel()
	working.Wait()
	return errors.Join(serving, hearing)
}

func (s *Service) endpoints() []bus.Endpoint {
	return []bus.Endpoint{
		bus.Answer(events.AccountSetCall, s.accountSet), bus.Answer(events.AccountList, s.accountList), bus.Answer(events.AccountRemove, s.accountRemove), bus.Answer(events.AccountRekey, s.accountRekey),
		bus.Answer(events.AccountRotate, s.accountRotate), bus.Answer(events.AccountTest, s.accountTest), bus.Answer(events.AccountTestAnswer, s.accountTestAnswer),
		bus.Answer(events.CredentialLease, s.lease), bus.Answer(events.LeaseList, s.leaseList), bus.Answer(events.LeaseRevoke, s.leaseRevoke),
		bus.Answer(events.AgentEnrol, s.enrol), bus.Answer(events.AgentReturn, s.comeBack), bus.Answer(events.AgentRenew, s.renew),
		bus.Answer(events.TokenCreate, s.tokenCreate), bus.Answer(events.TokenList, s.tokenList), bus.Answer(events.TokenRemove, s.tokenRemove),
		bus.Answer(events.EnrolmentList, s.enrolmentList), bus.Answer(events.AgentApprove, s.agentApprove), bus.Answer(events.AgentRevoke, s.agentRevoke),
		bus.Answer(events.AgentArchive, s.agentArchive), bus.Answer(events.AgentSetKind, s.agentSetKind),
		bus.Answer(events.AgentTrust, s.trustAfter), bus.Answer(events.TrustShow, s.trustAfter), bus.Answer(events.TrustSet, s.trustSet),
		bus.Answer(events.UserAdd, s.userAdd), bus.Answer(events.UserList, s.userList), bus.Answer(events.UserRevoke, s.userRevoke),
	}
}

func (s *Service) wakeUp() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// look tells what is owed and checks what is kept, at start, after changes, and at every tick.
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
			s.log.Warn("looking at what is kept failed and will be tried again", "error", failed)
			next = rand.N(retryWait) + time.Millisecond
		}
		timer.Reset(next)
	}
}

// reconcile returns what failed and is worth trying again soon, and apart from it what only an
// administrator can put right.
func (s *Service) reconcile(ctx context.Context) (failed, unusable error) {
	failed, unusable = s.reconcileAccounts(ctx)
	return errors.Join(failed, s.reconcileEnrolments(ctx), s.reconcileTrust(ctx), s.finishRekey(ctx), s.reviewLeases(ctx)), unusable
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
