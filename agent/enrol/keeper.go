// Package enrol keeps who this machine is in the fleet, and whom it trusts: its key, the identity that the
// broker asks for, the pinned CA, and the trust bundles that say whose orders it obeys.
//
// The key is made here and never leaves. A token pins the fleet's root keys and CA; nothing of what the
// enrolment service says is kept before it fits both. Bundles are kept as they were signed and verified
// anew, from the pinned root on, whenever they are loaded.
//
// Under failure: New asks nobody, so an agent without a broker starts and goes on with what it knows. An
// identity is renewed long before it expires; one that has expired, or that the broker does not take, is
// replaced by proof of the key, for as long as it takes, in pauses that grow and are drawn at random. A
// crash at any point leaves an identity that is whole, or one that is asked for again with the same key.
// A bundle that is refused is told in the log and changes nothing. A refusal that only an administrator can turn is
// kept, so that a restart knows it, and asked about again.
package enrol

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"chandler/events"
	"chandler/events/enrolment"
	"chandler/events/trust"
)

// Options of a Keeper. Dir is required.
type Options struct {
	Dir     string   // the agent's state directory; made if it is missing
	Servers []string // broker URLs instead of those that the token named

	// Connection is added to every connection that the Keeper makes of its own, to enrol and to return.
	Connection []nats.Option
	// TrustDelay bounds the random delay before bundles are asked for, so that a fleet does not ask at once;
	// default 60 s.
	TrustDelay time.Duration
	// LookEvery bounds how long a clock that was set goes unnoticed; default a minute.
	LookEvery time.Duration

	Log   *slog.Logger
	Clock func() time.Time // may be far from the broker's
	Rand  func() float64   // in [0, 1)
}

func (o *Options) setDefaults() {
	if o.TrustDelay == 0 {
		o.TrustDelay = time.Minute
	}
	if o.LookEvery == 0 {
		o.LookEvery = time.Minute
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Rand == nil {
		o.Rand = rand.Float64
	}
}

// Keeper keeps one agent's identity. It is safe for concurrent use.
type Keeper struct {
	Options
	id, public string
	seed       []byte
	log        *slog.Logger
	wake       chan struct{} // holds one

	asking sync.Mutex // held while an identity or bundles are asked for and kept

	mu       sync.Mutex
	identity *identity // nil: not enrolled
	jwt      string    // "": pending, or damaged
	life     lifetime  // of jwt
	share    float64   // of life after which it is renewed
	chain    chain
	refused  *RefusedError // the last answer, if it was a refusal
	shown    string        // the jwt that the broker was shown last
	rejected bool          // the broker does not take jwt
	hurry    bool          // it said so since Run last looked
	machine  string        // hash of the machine's own id
	facts    events.Facts
	heard    int // newest version of a bundle that was announced
	onChange func()
}

// New loads what the state directory holds and makes the key if there is none. It asks nobody. It fails
// where what is kept was altered, and where the key is missing or does not fit.
func New(o Options) (*Keeper, error) {
	o.setDefaults()
	if o.Dir == "" {
		return nil, errors.New("enrol: no state directory")
	}
	seed, err := makeKey(o.Dir)
	if err != nil {
		return nil, err
	}
	k := &Keeper{Options: o, seed: seed, wake: make(chan struct{}, 1)}
	if k.public, err = enrolment.PublicKey(seed); err != nil {
		return nil, damagedKey(o.Dir, err)
	}
	k.id = events.AgentID([]byte(k.public))
	k.log = o.Log.With("component", "enrol", "agent", k.id)
	if err := k.load(); err != nil {
		return nil, err
	}
	return k, nil
}

// load reads what was kept of an enrolment, if there was one.
func (k *Keeper) load() error {
	id, err := readIdentity(k.Dir)
	if err != nil || id == nil {
		return err
	}
	kept, err := readChain(k.Dir, id.Root)
	if err != nil {
		return err
	}
	k.identity, k.chain, k.share = id, kept, k.drawShare()
	if id.Refused != "" {
		k.refused = &RefusedError{Refused: id.Refused, Why: id.Why}
	}
	jwt, err := readJWT(k.Dir)
	if err != nil {
		return err
	}
	if jwt == "" || len(kept.envelopes) == 0 { // a machine that returns gets both
		return nil
	}
	issued, expires, err := k.checkJWT(jwt)
	if errors.Is(err, errOtherKey) {
		return fmt.Errorf("%s does not fit the identity beside it: put the machine's own key back, or make it another agent with `chandler-agent enrol --anew`", filepath.Join(k.Dir, keyFile))
	}
	if err != nil { // a new one is asked for, by proof of the key
		k.log.Warn("kept identity not usable", "error", err)
		return nil
	}
	k.jwt, k.life = jwt, lifetime{issued: issued, expires: expires, received: id.Received}
	return nil
}

// ID is the agent's id, derived from its key.
func (k *Keeper) ID() string { return k.id }

// PublicKey is the agent's public user nkey.
func (k *Keeper) PublicKey() string { return k.public }

// Enrolled says whether this machine has enrolled, though it may still wait for approval or have to return.
func (k *Keeper) Enrolled() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.identity != nil
}

// Valid says whether there is an identity that has not expired, as far as this machine knows.
func (k *Keeper) Valid() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.jwt != "" && !k.rejected && !k.life.expired(k.Clock())
}

// Servers are the URLs of the brokers to connect to.
func (k *Keeper) Servers() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.servers()
}

// servers needs the lock.
func (k *Keeper) servers() []string {
	if k.identity == nil {
		return slices.Clone(k.Options.Servers)
	}
	return slices.Clone(k.brokers(*k.identity))
}

// Trust is the present trust bundle; the zero one, whose orders nobody can sign, before there is any.
func (k *Keeper) Trust() trust.Bundle {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.chain.bundle
}

// Conferred is what the fleet says of this machine.
func (k *Keeper) Conferred() events.Conferred {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.identity == nil {
		return events.Conferred{}
	}
	c := k.identity.Conferred
	c.Tags = slices.Clone(c.Tags)
	return c
}

// OnChange sets what is called after the identity, what it confers, the trust bundle or the state changed.
// It is called by whoever changed it, and must not block.
func (k *Keeper) OnChange(f func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.onChange = f
}

func (k *Keeper) changed() {
	k.mu.Lock()
	f := k.onChange
	k.mu.Unlock()
	if f != nil {
		f()
	}
}

// Describe sets what the machine says of itself when it returns.
func (k *Keeper) Describe(facts events.Facts) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.facts = facts
}

// ErrCopied says that a state directory was made on another machine.
var ErrCopied = errors.New("the state directory was copied from another machine")

// BindMachine tells the machine's own id, as package host reads it; "" where the system does not tell. A
// machine that is not the one that enrolled gets ErrCopied: a copy would be a second agent with the first
// one's identity, and both would take its jobs.
func (k *Keeper) BindMachine(id string) error {
	hash := enrolment.MachineHash(id)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.identity != nil && hash != "" && k.identity.Machine != "" && k.identity.Machine != hash {
		return fmt.Errorf("%w, or made by another user of this one: %s; two agents must not have one identity: enrol this machine with `chandler-agent enrol --anew`, "+
			"which gives it a key of its own", ErrCopied, k.Dir)
	}
	if hash != "" {
		k.machine = hash
	}
	return nil
}

// Wake makes Run look at once, as after the clock was set.
func (k *Keeper) Wake() {
	select {
	case k.wake <- struct{}{}:
	default: // it will look anyway
	}
}

// drawShare draws the share of an identity's life after which it is renewed.
func (k *Keeper) drawShare() float64 { return 0.5 + 0.3*k.Rand() }
