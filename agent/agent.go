// Package agent is the part of Chandler on each machine: it receives offers, verifies the signed orders
// behind them, and carries them out.
//
// A job goes through the stages of pipeline.go, in order: verify, decide (also as whom: whom.go), prepare (content), wait
// (for time, users, installers, room), verify again, run (and what follows it: afterwards.go), detect. Each stage lets
// the job pass, ends it with a state and a reason, or is interrupted. What the order names to run first goes through the
// same ones from decide on, before the order's own program waits (steps.go). The job of an order that recurs, or that
// local users start, runs nothing: it opens jobs of its own for the occurrences (standing.go).
//
// Under failure: every transition is journalled and synced before it is published, and a program's start
// before the program. A killed agent goes on where it was: jobs that had not started begin again at
// their first stage, which is harmless; a program that had started is never started again, its
// supervisor tells what came of it, else detection does, else the job fails as outcome_unknown. Without
// a broker the agent carries out what it knows; what it has to say waits in the journal.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"chandler/agent/detect"
	"chandler/agent/enrol"
	"chandler/agent/execute"
	"chandler/agent/external"
	"chandler/agent/fetch"
	"chandler/agent/host"
	"chandler/agent/inbox"
	"chandler/agent/journal"
	"chandler/agent/lease"
	"chandler/agent/logon"
	"chandler/agent/reconnect"
	"chandler/agent/report"
	"chandler/agent/source"
	"chandler/events"
	"chandler/events/bus"
	"chandler/events/trust"
)

// Version of the agent, as facts and heartbeats name it.
const Version = "0.1.0"

// Options of an Agent. Required: StateDir, Enrolment (or Servers and Trust), Supervisor, Runners, Kinds, Sources.
type Options struct {
	StateDir string // everything the agent keeps; 0700
	// Enrolment keeps the identity and whom the agent trusts. Without one the agent has none, for a broker that
	// asks for none, and obeys Trust for ever.
	Enrolment *enrol.Keeper
	Servers   []string // broker URLs; with Enrolment: instead of those that the token named
	Domain    string   // JetStream domain, behind a leaf node
	Trust     trust.Bundle

	Hostname    string // instead of the machine's own
	Site        string
	Tags        []string
	ClientKind  events.ClientKind // default advanced
	Environment []string          // added to every program's environment, NAME=value; never secrets

	Supervisor []string                  // command that runs `supervise`, to which the run's directory is added
	Runners    map[string]execute.Runner // by identity.Who.Runner; what is missing the agent refuses
	Kinds      map[string]detect.Kind
	Sources    map[string]fetch.Source // by the scheme of an address of a distribution point
	// External reads external sources, by the scheme of an address, and UserSources does so as a logged-on user; nil: none
	// are read.
	External    map[string]source.Source
	UserSources UserSources
	// Rights keeps what runners give to accounts; nil: none of them gives anything.
	Rights Rights
	// Logon watches who is logged on, for the agent runs it; nil: nobody ever is.
	Logon *logon.Watcher
	// LockHolder says in words who holds an installer's lock (dpkg, rpm, msiexec), "" if nobody does; nil: nobody.
	LockHolder func(installer string) (string, error)
	Restart    func(ctx context.Context, why string) error // restarts the machine; nil: it cannot
	// Zone is the machine's own now, for wall-clock times; nil: the system's, which may change while the agent runs.
	Zone func() *time.Location
	// LocalSocket is where local users ask (see package local); "": nowhere.
	LocalSocket string
	UserRuns    string // directory for programs that run as users; default: chandler-runs beside StateDir

	CacheSize    int64         // bytes of content kept; default 5 GiB, as the original's
	Bandwidth    int64         // bytes/s of all downloads together; 0: no limit
	MaxRuns      int           // programs at once; default 4
	RetryAfter   time.Duration // instead of the pause that a failure's class prescribes; 0: that
	CheckEvery   time.Duration // see inbox.Options
	BeaconEvery  time.Duration
	ReconnectMax time.Duration                    // longest pause between attempts to reach the broker; default 90 s
	FreeBytes    func(path string) (int64, error) // how much may be written to the file system of a path; default host.FreeBytes
	KeepJobs     time.Duration                    // how long ended jobs are remembered; default 400 days

	Registerer prometheus.Registerer
	Log        *slog.Logger
	Clock      func() time.Time
}

func (o *Options) setDefaults() {
	o.ClientKind = orDefault(o.ClientKind, events.Advanced)
	o.CacheSize = orDefault(o.CacheSize, 5<<30)
	o.MaxRuns = orDefault(o.MaxRuns, 4)
	o.ReconnectMax = orDefault(o.ReconnectMax, reconnect.Most)
	o.KeepJobs = orDefault(o.KeepJobs, 400*24*time.Hour)
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Registerer == nil {
		o.Registerer = prometheus.NewRegistry()
	}
	if o.Logon == nil {
		o.Logon = logon.New(logon.Options{Driver: nobody{}, Log: o.Log})
	}
	if o.LockHolder == nil {
		o.LockHolder = func(string) (string, error) { return "", nil }
	}
	if o.FreeBytes == nil {
		o.FreeBytes = host.FreeBytes
	}
	if o.Zone == nil {
		o.Zone = newSystemZone().location
	}
	if o.Restart == nil {
		o.Restart = func(context.Context, string) error { return errors.New("this agent does not restart machines") }
	}
}

func orDefault[T comparable](v, standard T) T {
	var zero T
	if v == zero {
		return standard
	}
	return v
}

func (o *Options) validate() error {
	switch {
	case o.StateDir == "":
		return errors.New("agent: no state directory")
	case o.Enrolment != nil && !o.Enrolment.Enrolled():
		return errors.New("agent: this machine has not enrolled")
	case len(o.Servers) == 0 && o.Enrolment == nil:
		return errors.New("agent: no broker named")
	case len(o.Supervisor) == 0 || len(o.Runners) == 0 || len(o.Sources) == 0:
		return errors.New("agent: supervisor, runners and sources must be given")
	case o.ClientKind != events.Advanced && o.ClientKind != events.Legacy:
		return fmt.Errorf("agent: client kind %q must be advanced or legacy", o.ClientKind)
	}
	if o.Site != "" {
		if err := events.ValidToken(o.Site); err != nil {
			return fmt.Errorf("agent: site: %w", err)
		}
	}
	return nil
}

// Agent is one agent. Make it with New, start it with Run.
type Agent struct {
	Options
	id       string
	log      *slog.Logger
	made     chan struct{} // closed when the connection and all that uses it are there
	changed  atomic.Bool   // the status file is out of date
	metrics  *metrics
	store    *journal.Store
	journal  *journal.Journal
	conn     *nats.Conn
	bus      *bus.Bus
	inbox    *inbox.Inbox
	reporter *report.Reporter
	fetcher  *fetch.Fetcher
	executor *execute.Executor
	detector *detect.Detector
	jobLogs  *jobLogs

	logins   external.Logins
	presence presence

	offering sync.Mutex // held while an offer is taken in

	mu          sync.Mutex
	facts       events.Facts
	tasks       map[string]*task
	beat        chan struct{} // asks for a heartbeat at once
	factsOld    chan struct{} // asks tellFacts to read the facts again
	factsWanted chan struct{} // asks tellFacts to publish though nothing changed

	// askTrust asks for trust bundles that this machine lacks; nil: there is no enrolment.
	askTrust func(context.Context) error
	// askLease asks for an account; nil: there is no enrolment.
	askLease func(context.Context, lease.Query) (*lease.Lease, error)
	heeding  sync.Mutex // guards heeded
	heeded   uint64     // the connection on which bundles were asked for before a start, counted from 1

	freezes     []events.Freeze
	thawed      chan struct{}      // closed and replaced when freezes change
	readers     map[string]lender  // of external sources, by job
	unmountable string             // why programs' references cannot be; "": they can
	restarts    map[string]awaited // jobs whose programs wait for a restart
	left        chan struct{}      // closed when rights that an earlier process gave are taken back; nil: none are left
	running     sync.WaitGroup
	ctx         context.Context // of Run; jobs live in it
	slots       *slots
}

// ID is the agent's id, derived from its key.
func (a *Agent) ID() string { return a.id }

// New opens the state directory and makes the parts; nothing is started and nothing is asked of the
// broker. An agent that is never run is to be closed.
func New(o Options) (a *Agent, err error) {
	o.setDefaults()
	if err := o.validate(); err != nil {
		return nil, err
	}
	if o.StateDir, err = filepath.Abs(o.StateDir); err != nil { // programs run elsewhere
		return nil, fmt.Errorf("find state directory: %w", err)
	}
	if err := os.MkdirAll(o.StateDir, 0o700); err != nil {
		return nil, fmt.Errorf("make state directory: %w", err)
	}
	if o.UserRuns, err = filepath.Abs(orDefault(o.UserRuns, filepath.Join(filepath.Dir(o.StateDir), "chandler-runs"))); err != nil {
		return nil, fmt.Errorf("find directory of users' runs: %w", err)
	}
	id, err := identify(&o)
	if err != nil {
		return nil, err
	}
	a = &Agent{Options: o, made: make(chan struct{}), id: id, log: o.Log.With("component", "agent", "agent", id), metrics: newMetrics(o.Registerer),
		tasks: map[string]*task{}, readers: map[string]lender{}, restarts: map[string]awaited{}, jobLogs: newJobLogs(o.StateDir), thawed: make(chan struct{}), factsWanted: make(chan struct{}, 1), factsOld: make(chan struct{}, 1), beat: make(chan struct{}, 1), slots: newSlots(o.MaxRuns)}
	defer func(made *Agent) {
		if err != nil {
			made.close()
		}
	}(a)
	if o.Enrolment != nil {
		a.askLease = a.leaseAsker()
		a.askTrust = func(ctx context.Context) error {
			return a.ask(ctx, func(ctx context.Context) error { return o.Enrolment.AskTrust(ctx, a.bus) })
		}
	}
	if a.store, err = journal.Open(filepath.Join(o.StateDir, "journal.db")); err != nil {
		return nil, err
	}
	if a.journal, err = a.store.Agent(id); err != nil {
		return nil, err
	}
	if a.freezes, err = a.journal.Freezes(); err != nil {
		return nil, err
	}
	if a.detector, err = detect.New(detect.Options{Kinds: o.Kinds}); err != nil {
		return nil, err
	}
	if a.fetcher, err = newFetcher(a); err != nil {
		return nil, err
	}
	if a.executor, err = newExecutor(a); err != nil {
		return nil, err
	}
	if a.Rights != nil {
		a.Rights.Tell(a.noteAccount)
	}
	return a, nil
}

// identify gives the agent's id, and the brokers if only the enrolment names them.
func identify(o *Options) (id string, err error) {
	if o.Enrolment == nil {
		return enrol.LoadKey(o.StateDir)
	}
	if len(o.Servers) == 0 {
		o.Servers = o.Enrolment.Servers()
	}
	return o.Enrolment.ID(), nil
}

// identityChanged is called by whoever changed it.
func (a *Agent) identityChanged() {
	a.changed.Store(true)
	select {
	case a.factsOld <- struct{}{}:
	default:
	}
}

// connect makes the connection and all that uses it. The client keeps trying by itself, also when the
// broker is away at start.
func (a *Agent) connect() (err error) {
	options, err := connectOptions(a)
	if err != nil {
		return err
	}
	if a.conn, err = nats.Connect(joinServers(a.Servers), options...); err != nil {
		return fmt.Errorf("connect to broker: %w", err)
	}
	if !a.conn.IsConnected() {
		a.log.Warn("broker away, trying again", "servers", a.Servers)
	}
	if a.bus, err = bus.New(bus.Options{Conn: a.conn, Source: events.AgentSource(a.id), Domain: a.Domain, Registerer: a.Registerer, Log: a.log}); err != nil {
		return err
	}
	a.reporter = report.New(report.Options{Agent: a.id, Bus: a.bus, Journal: a.journal, Metrics: a.metrics.report, Log: a.log, Clock: a.Clock, StatusLost: a.statusLost})
	a.inbox, err = inbox.New(inbox.Options{Agent: a.id, Bus: a.bus, Journal: a.journal, Receiver: a, Metrics: a.metrics.inbox, Log: a.log,
		BeaconMissed: a.reporter.Doubt, CheckEvery: a.CheckEvery, BeaconEvery: a.BeaconEvery})
	if err != nil {
		return err
	}
	close(a.made)
	return nil
}

// Run carries out jobs until ctx is done. Programs that run then go on under their supervisors and are
// found again at the next start.
func (a *Agent) Run(ctx context.Context) error {
	defer a.close()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	a.ctx = ctx
	if err := a.readFacts(ctx); err != nil {
		return err
	}
	a.unmountable = Unmountable()
	a.restoreRights(ctx) // before anything else can fail, or give rights anew
	if err := a.connect(); err != nil {
		return err
	}
	a.Logon.Refresh(ctx) // before a job asks who is there
	if err := a.resume(ctx); err != nil {
		return err
	}
	a.log.InfoContext(ctx, "agent runs", "hostname", a.facts.Hostname, "version", Version, "privileged", a.facts.Privileged)

	parts := []func(context.Context) error{a.inbox.Run, a.reporter.Run, a.tellFacts, a.heartbeat, a.sweep, a.keepStatus, a.restoreLeftRights, a.Logon.Run, a.hearWithdrawals, a.hearTests, a.lendToSupervisors, a.listenLocally, a.bePresent}
	if a.Enrolment != nil {
		a.Enrolment.OnChange(a.identityChanged)
		parts = append(parts, func(ctx context.Context) error { return a.Enrolment.Run(ctx, a.bus) })
	}
	failed := make(chan error, len(parts))
	var wait sync.WaitGroup
	for _, part := range parts {
		wait.Go(func() {
			if err := part(ctx); err != nil {
				failed <- err
				stop()
			}
		})
	}
	<-ctx.Done()
	wait.Wait() // first the inbox, which begins tasks
	a.running.Wait()
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

// Close gives up an agent that is never run.
func (a *Agent) Close() { a.close() }

func (a *Agent) close() {
	if a.conn != nil {
		a.conn.Close()
	}
	a.jobLogs.close()
	if a.store != nil {
		a.store.Close()
	}
}

// away says that there is a broker, which cannot be reached now.
func (a *Agent) away() bool { return a.conn != nil && !a.conn.IsConnected() }

// Healthy says what is wrong with the agent's connection; nil: nothing.
func (a *Agent) Healthy(context.Context) error {
	select {
	case <-a.made:
		if a.conn.IsConnected() {
			return nil
		}
	default:
	}
	return errors.New("the broker is away")
}
