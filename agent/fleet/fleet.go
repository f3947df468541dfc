// Package fleet holds light agents: thousands of them in one process, each with its own connection, identity and journal,
// for simulations and tests. What a light agent hears, keeps and says goes through the real inbox, journal and reporter,
// and it obeys orders by the real rules (signatures, target, revisions, stops, freezes, rerun, times). Only its programs
// are a play, by a [Script].
//
// Left out is what needs a machine: content is not fetched (manifests neither, so that what they say does not count),
// nothing is detected, nobody is logged on, nothing restarts. An order that asks for more than a light agent has
// (maintenance windows, programs that run first, taking back, a standing order, a user, an account, external sources)
// is rejected as context_unsupported, in words.
//
// Under failure: as the real agent. Every transition is journalled and synced before it is told, and a program's start
// before the program. An agent that was killed goes on where it was; a program that was started is never started again
// for the same attempt: the executor, which outlives the agent as the real supervisors do, tells what came of it. Only
// the end of the process ends programs; a journal that an earlier process left is gone on with all the same, and what ran
// then ends as outcome_unknown.
package fleet

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"chandler/agent/inbox"
	"chandler/agent/journal"
	"chandler/agent/reconnect"
	"chandler/agent/report"
	"chandler/events"
	"chandler/events/trust"
)

// Member is one light agent: an identity and facts.
type Member struct {
	ID    string       // events.AgentID of its public key
	Seed  []byte       // nkey of the user; nil: the broker asks for none
	JWT   string       // empty: the broker asks for none
	Facts events.Facts // ID filled in
}

// Options of a Fleet. Required: Servers, Store, Trust, Members.
type Options struct {
	Servers []string    // broker URLs
	Domain  string      // JetStream domain, behind a leaf node
	TLS     *tls.Config // nil: clear text
	// Store is shared by all members; the caller closes it after Run.
	Store *journal.Store
	// Trust says whose orders the members obey now. That an order is rightly signed is found out once for each bundle and
	// remembered for all members.
	Trust    func() trust.Bundle
	Members  []Member
	Script   Script
	Presence Presence

	ConnectRate  int           // new connections a second at start; 0: 500
	CheckEvery   time.Duration // see inbox.Options
	BeaconEvery  time.Duration
	ReconnectMax time.Duration // longest pause between attempts to reach the broker; 0: reconnect.Most
	RetryAfter   time.Duration // instead of the pause that a failure's class prescribes; 0: that

	Clock   func() time.Time
	Observe func(Observation) // called for what happens; must be quick and safe for concurrent use; nil: nobody
	Log     *slog.Logger      // nil: nothing is logged, for thousands would say the same
}

// Kind of an observation.
type Kind string

// The kinds.
const (
	OfferTaken     Kind = "offer_taken"     // journalled
	StatusStored   Kind = "status_stored"   // acknowledged by the broker; may be the same one again
	ProgramStarted Kind = "program_started" // by the executor
	ProgramEnded   Kind = "program_ended"
)

// Observation is something that happened, for measuring.
type Observation struct {
	What       Kind
	Agent      string
	Job        string
	Deployment string
	Attempt    int
	State      events.State // of the status; of OfferTaken empty
	Transition uint32       // of the status
	At         time.Time    // when it happened, by Options.Clock
	Stream     uint64       // of StatusStored: the sequence in STATUS
}

// Fleet is many light agents. Make it with New, start it with Run.
type Fleet struct {
	Options
	log      *slog.Logger
	registry *prometheus.Registry // of all members together
	inbox    *inbox.Metrics
	report   *report.Metrics
	executor *executor
	programs programs // the executor
	verifier *verifier
	beacons  beacons
	counts   counts
	process  string // tells this process's programs from those of one that is gone
	members  map[string]*member
	all      []*member // as given

	mu    sync.Mutex
	ctx   context.Context // of Run; nil before it
	stop  context.CancelFunc
	fault error // of this process; the first
}

// New checks the options; nothing is started and nothing is asked of the broker.
func New(o Options) (*Fleet, error) {
	o.setDefaults()
	if err := o.validate(); err != nil {
		return nil, fmt.Errorf("fleet: %w", err)
	}
	f := &Fleet{Options: o, log: o.Log.With("component", "fleet"), registry: prometheus.NewRegistry(), verifier: newVerifier(),
		process: strings.ToLower(rand.Text()[:16]), members: make(map[string]*member, len(o.Members))}
	f.inbox, f.report = inbox.NewMetrics(f.registry), report.NewMetrics(f.registry)
	var err error
	if f.executor, err = newExecutor(f); err != nil {
		return nil, fmt.Errorf("fleet: %w", err)
	}
	f.programs = f.executor
	zones := map[string]*time.Location{}
	for _, m := range o.Members {
		if err := events.ValidAgent(m.ID); err != nil {
			return nil, fmt.Errorf("fleet: %w", err)
		}
		if f.members[m.ID] != nil {
			return nil, fmt.Errorf("fleet: agent %s is there twice", m.ID)
		}
		m.Facts.ID, m.Facts.OfferFormat = m.ID, events.OfferFormat
		zone, known := zones[m.Facts.Zone]
		if !known {
			if zone, err = time.LoadLocation(m.Facts.Zone); err != nil {
				return nil, fmt.Errorf("fleet: zone of agent %s: %w", m.ID, err)
			}
			zones[m.Facts.Zone] = zone
		}
		one := &member{f: f, Member: m, zone: zone}
		f.members[m.ID] = one
		f.all = append(f.all, one)
	}
	return f, nil
}

func (o *Options) validate() error {
	switch {
	case len(o.Servers) == 0:
		return errors.New("no broker named")
	case o.Store == nil || o.Trust == nil:
		return errors.New("journal and trust must be given")
	case len(o.Members) == 0:
		return errors.New("no members")
	case o.ConnectRate < 0:
		return fmt.Errorf("%d connections a second", o.ConnectRate)
	}
	return errors.Join(o.Script.validate(), o.Presence.validate())
}

func (o *Options) setDefaults() {
	if o.ConnectRate == 0 {
		o.ConnectRate = 500
	}
	if o.ReconnectMax == 0 {
		o.ReconnectMax = reconnect.Most
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Observe == nil {
		o.Observe = func(Observation) {}
	}
}
