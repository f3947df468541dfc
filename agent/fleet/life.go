package fleet

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"chandler/agent/inbox"
	"chandler/agent/journal"
	"chandler/agent/report"
	"chandler/events"
	"chandler/events/bus"
)

// Intervals of what an agent does without being asked, as the real one's.
const (
	heartbeatEvery = 2 * time.Minute
	sweepEvery     = 10 * time.Minute
	keepJobs       = 400 * 24 * time.Hour
	factsAgain     = 2 * time.Second // facts that were not stored
)

// maxRuns is how many programs an agent runs at once.
const maxRuns = 4

// life is one agent from a start to its end, as a process is of the real one. While it is idle, it is a connection and the
// goroutines of its inbox and reporter; what comes at intervals is timers.
type life struct {
	m        *member
	f        *Fleet
	journal  *journal.Journal
	line     line
	conn     *nats.Conn
	bus      *bus.Bus
	inbox    *inbox.Inbox
	reporter *report.Reporter
	began    time.Time

	ctx  context.Context
	stop context.CancelFunc
	made atomic.Bool   // the parts are there
	gone chan struct{} // closed when nothing of it is left
	ends sync.Once

	offering sync.Mutex // held while an offer is taken in
	parts    sync.WaitGroup
	running  sync.WaitGroup // tasks
	places   chan struct{}  // of programs that run

	mu      sync.Mutex
	leaving bool // no further part may begin
	tasks   map[string]*task
	names   map[journal.ProgramName]chan struct{} // one program runs once at a time
	freezes []events.Freeze
	thawed  chan struct{} // closed and replaced when freezes change
	beat    *time.Timer   // the next heartbeat
	breaks  *time.Timer   // the next break of one that flaps; nil: it does not
	swept   time.Time
	told    int  // version of the trust bundle in the facts that were told last
	telling bool // facts are on their way
}

// newLife opens the journal and makes the connection and all that uses it. Nothing is asked or told yet.
func newLife(ctx context.Context, m *member) (l *life, err error) {
	l = &life{m: m, f: m.f, gone: make(chan struct{}), places: make(chan struct{}, maxRuns), tasks: map[string]*task{},
		names: map[journal.ProgramName]chan struct{}{}, thawed: make(chan struct{}), began: m.f.Clock(), swept: m.f.Clock()}
	l.line.counts = &m.f.counts
	l.ctx, l.stop = context.WithCancel(ctx)
	defer func(made *life) {
		if err != nil {
			made.kill()
		}
	}(l)
	if l.journal, err = m.f.Store.Agent(m.ID); err != nil {
		return nil, err
	}
	if l.freezes, err = l.journal.Freezes(); err != nil {
		return nil, err
	}
	if l.conn, err = nats.Connect(joinServers(m.f.Servers), l.connectOptions()...); err != nil {
		return nil, fmt.Errorf("connect to broker: %w", err)
	}
	f := m.f
	if l.bus, err = bus.New(bus.Options{Conn: l.conn, Source: events.AgentSource(m.ID), Domain: f.Domain, Registerer: f.registry, Log: f.log}); err != nil {
		return nil, err
	}
	log := f.log.With("agent", m.ID)
	l.reporter = report.New(report.Options{Agent: m.ID, Bus: l.bus, Journal: l.journal, Metrics: f.report, Log: log, Clock: f.Clock, StatusLost: func() { l.inbox.Look("status_lost") }, Stored: l.stored})
	l.inbox, err = inbox.New(inbox.Options{Agent: m.ID, Bus: l.bus, Journal: l.journal, Receiver: l, Metrics: f.inbox, Log: log, OpenBeacon: f.beacons.open, BeaconMissed: l.reporter.Doubt, CheckEvery: f.CheckEvery, BeaconEvery: f.BeaconEvery})
	if err != nil {
		return nil, err
	}
	l.made.Store(true)
	context.AfterFunc(l.ctx, l.leave)
	return l, nil
}

// begin goes on with the jobs that had not ended, and starts the parts.
func (l *life) begin() error {
	if err := l.resume(); err != nil {
		return fmt.Errorf("read journal: %w", err)
	}
	l.part(func() {
		if err := l.inbox.Run(l.ctx); err != nil && l.ctx.Err() == nil && !errors.Is(err, nats.ErrConnectionClosed) {
			l.f.fail(fmt.Errorf("fleet: agent %s: %w", l.m.ID, err))
		}
	})
	l.part(func() { _ = l.reporter.Run(l.ctx) }) // what is left is in the journal
	l.mu.Lock()
	if !l.leaving {
		l.beat = time.AfterFunc(heartbeatEvery, l.everySoOften)
		if l.f.Presence.Flaps(l.m.ID) {
			l.breaks = time.AfterFunc(l.f.Presence.Pause(l.m.ID, 1), func() { l.breakAgain(1) })
		}
	}
	l.mu.Unlock()
	l.tellFacts()
	if l.conn.IsConnected() {
		l.beatNow()
	}
	return nil
}

// part runs something that belongs to this life, unless the life is over.
func (l *life) part(do func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.leaving {
		l.parts.Go(do)
	}
}

// kill ends the life at once. It does not wait.
func (l *life) kill() {
	l.line.cut(true) // before the client could flush anything
	if l.conn != nil {
		l.conn.Close()
	}
	l.leave()
}

// leave ends the life: in order, where its connection is there. It does not wait; gone is closed at the end.
func (l *life) leave() {
	l.ends.Do(func() {
		l.stop()
		l.mu.Lock()
		l.leaving = true
		for _, timer := range []*time.Timer{l.beat, l.breaks} {
			if timer != nil {
				timer.Stop()
			}
		}
		l.mu.Unlock()
		go func() {
			l.parts.Wait() // first the inbox, which begins tasks
			l.running.Wait()
			if l.conn != nil {
				l.conn.Close()
			}
			close(l.gone)
		}()
	})
}

// connected is called by the client's goroutine, possibly before all parts are made; then they look at their start.
func (l *life) connected() {
	if !l.made.Load() {
		return
	}
	l.inbox.Reconnected()
	l.reporter.Wake()
	l.beatNow()
}

func (l *life) beatNow() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.beat != nil && !l.leaving {
		l.beat.Reset(0)
	}
}

// everySoOften says that the agent is there, tells facts that changed, and sweeps the journal.
func (l *life) everySoOften() {
	l.part(func() {
		l.mu.Lock()
		jobs, outdated := len(l.tasks), l.told != l.f.Trust().Version
		sweep := l.f.Clock().Sub(l.swept) >= sweepEvery
		if sweep {
			l.swept = l.f.Clock()
		}
		if !l.leaving {
			l.beat.Reset(heartbeatEvery)
		}
		l.mu.Unlock()
		if l.conn.IsConnected() {
			if err := l.reporter.Heartbeat(l.ctx, l.m.Facts.Version, jobs); err != nil && l.ctx.Err() == nil {
				l.f.log.DebugContext(l.ctx, "heartbeat not sent", "agent", l.m.ID, "error", err)
			}
		}
		if outdated {
			l.tellFacts()
		}
		if sweep {
			now := l.f.Clock()
			if err := l.journal.Forget(l.reporter.ForgetBefore(), now.Add(-keepJobs)); err != nil {
				l.f.log.WarnContext(l.ctx, "journal not swept", "agent", l.m.ID, "error", err)
			}
		}
	})
}

// breakAgain breaks the connection for the nth time.
func (l *life) breakAgain(n int) {
	l.line.cut(false)
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.leaving {
		l.breaks = time.AfterFunc(l.f.Presence.Pause(l.m.ID, n+1), func() { l.breakAgain(n + 1) })
	}
}

// facts are the member's, with the trust bundle that it holds.
func (l *life) facts() events.Facts {
	f := l.m.Facts
	f.Trust = l.f.Trust().Version
	return f
}

// tellFacts publishes the facts until they are stored, however long that takes.
func (l *life) tellFacts() {
	l.mu.Lock()
	again := l.telling
	l.telling = true
	l.mu.Unlock()
	if again {
		return
	}
	l.part(func() {
		for {
			facts := l.facts()
			if l.conn.IsConnected() {
				err := l.reporter.Facts(l.ctx, facts)
				if err == nil {
					l.mu.Lock()
					l.told, l.telling = facts.Trust, false
					l.mu.Unlock()
					return
				}
				l.f.log.DebugContext(l.ctx, "facts not stored yet", "agent", l.m.ID, "error", err)
			}
			if !sleep(l.ctx, factsAgain/2+rand.N(factsAgain)) {
				return
			}
		}
	})
}

// stored is told of every status that the broker acknowledged.
func (l *life) stored(s events.JobStatus, sequence uint64) {
	l.f.counts.statuses.Add(1)
	l.f.Observe(Observation{What: StatusStored, Agent: s.Agent, Job: s.Job, Deployment: s.Deployment, Attempt: s.Attempt, State: s.State, Transition: s.Transition, At: l.f.Clock(), Stream: sequence})
}

// sleep waits and says whether ctx is still alive.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
