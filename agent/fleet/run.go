package fleet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"chandler/agent/journal"
)

// startsAtOnce bounds the members that are being started at the same time.
const startsAtOnce = 64

// Run carries out jobs of all members until ctx is done, and returns when all have stopped. Programs that run then are
// ended with it. An error is a fault of this process; that a broker is away is none.
func (f *Fleet) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	f.mu.Lock()
	if f.ctx != nil {
		f.mu.Unlock()
		return errors.New("fleet: it runs only once")
	}
	f.ctx, f.stop = ctx, stop
	f.mu.Unlock()
	f.arrive(ctx)
	<-ctx.Done()
	f.executor.stop()
	for _, m := range f.all {
		m.waitGone() // they start programs
	}
	f.executor.forking.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fault
}

// fail ends the fleet for a fault of this process.
func (f *Fleet) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fault == nil {
		f.fault = err
	}
	f.stop()
}

// arrive starts the members, each in its time and not more of them a second than allowed.
func (f *Fleet) arrive(ctx context.Context) {
	type arrival struct {
		m     *member
		after time.Duration
	}
	arrivals := make([]arrival, len(f.all))
	for i, m := range f.all {
		arrivals[i] = arrival{m, f.Presence.Comes(m.ID)}
	}
	slices.SortStableFunc(arrivals, func(a, b arrival) int { return cmp.Compare(a.after, b.after) })

	began, apart := time.Now(), time.Second/time.Duration(f.ConnectRate)
	next := began
	places := make(chan struct{}, startsAtOnce)
	var starting sync.WaitGroup
	defer starting.Wait()
	for _, a := range arrivals {
		if due := began.Add(a.after); due.After(next) {
			next = due
		}
		if !sleep(ctx, time.Until(next)) {
			return
		}
		next = next.Add(apart)
		places <- struct{}{}
		starting.Go(func() {
			defer func() { <-places }()
			if err := a.m.start(ctx, true); err != nil && ctx.Err() == nil {
				f.fail(err)
			}
		})
	}
}

// Connected counts the members whose connection is there.
func (f *Fleet) Connected() int {
	connected, _ := f.there()
	return connected
}

// there counts the members whose connection is there, and those among them whom execution has answered since.
func (f *Fleet) there() (connected, current int) {
	for _, m := range f.all {
		l := m.alive()
		if l == nil || !l.conn.IsConnected() {
			continue
		}
		connected++
		if l.inbox.Current() {
			current++
		}
	}
	return connected, current
}

// Kill is like kill -9 of one agent: its connection is dropped, its memory forgotten, nothing is flushed. Its programs go
// on. It does not wait, so that it may be called by Options.Observe. One that has not come yet stays away until Start.
func (f *Fleet) Kill(id string) {
	if m := f.members[id]; m != nil {
		m.kill()
	}
}

// Start starts an agent that was killed, or that has not come yet: it goes on with its journal as a real one does. It
// waits until nothing of the killed one is left.
func (f *Fleet) Start(id string) error {
	m := f.members[id]
	if m == nil {
		return fmt.Errorf("fleet: there is no agent %s", id)
	}
	f.mu.Lock()
	ctx := f.ctx
	f.mu.Unlock()
	if ctx == nil {
		return fmt.Errorf("fleet: start agent %s: the fleet does not run yet", id)
	}
	return m.start(ctx, false)
}

// Disconnect breaks the connection of an agent; it comes back by itself.
func (f *Fleet) Disconnect(id string) {
	if m := f.members[id]; m != nil {
		if l := m.alive(); l != nil {
			l.line.cut(false)
		}
	}
}

// member is one light agent over all its lives.
type member struct {
	f *Fleet
	Member
	zone *time.Location

	starting sync.Mutex // held while a life begins

	mu     sync.Mutex
	life   *life // the last one; nil: none yet
	killed bool  // since the last start
}

// alive is the life that the agent leads now, nil where it leads none.
func (m *member) alive() *life {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.killed {
		return nil
	}
	return m.life
}

// start begins a life, once the one before is over. One who comes by itself does so unless it is there, or was killed.
func (m *member) start(ctx context.Context, byItself bool) error {
	m.starting.Lock()
	defer m.starting.Unlock()
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("fleet: start agent %s: the fleet stops: %w", m.ID, err)
	}
	m.mu.Lock()
	before, killed := m.life, m.killed
	there := before != nil && !killed
	switch {
	case byItself && (there || killed):
		m.mu.Unlock()
		return nil
	case there:
		m.mu.Unlock()
		return fmt.Errorf("fleet: agent %s runs already", m.ID)
	}
	m.killed = false
	m.life = nil
	m.mu.Unlock()
	if before != nil {
		<-before.gone
	}
	l, err := newLife(ctx, m)
	if err != nil {
		return fmt.Errorf("fleet: start agent %s: %w", m.ID, err)
	}
	m.mu.Lock()
	m.life, killed = l, m.killed
	m.mu.Unlock()
	if killed { // meanwhile
		l.kill()
		return nil
	}
	return l.begin()
}

func (m *member) kill() {
	m.mu.Lock()
	l, again := m.life, m.killed
	m.killed = true
	m.mu.Unlock()
	if l != nil && !again {
		l.kill()
	}
}

// waitGone waits until nothing of the agent is left, after the fleet's end.
func (m *member) waitGone() {
	m.starting.Lock()
	defer m.starting.Unlock()
	m.mu.Lock()
	l := m.life
	m.mu.Unlock()
	if l != nil {
		<-l.gone
	}
}

// Journals calls each for every job of every agent in a store, by agent and job.
func Journals(store *journal.Store, each func(agent string, job journal.Job) error) error {
	agents, err := store.Agents()
	if err != nil {
		return fmt.Errorf("list journals: %w", err)
	}
	for _, id := range agents {
		j, err := store.Agent(id)
		if err != nil {
			return err
		}
		if err := j.Jobs(func(job journal.Job) error { return each(id, job) }); err != nil {
			return fmt.Errorf("read journal of agent %s: %w", id, err)
		}
	}
	return nil
}
