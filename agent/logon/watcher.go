package logon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Limits of one question to the operating system.
const (
	listLimit   = 10 * time.Second
	logOffLimit = 30 * time.Second
)

const (
	defaultEvery = 5 * time.Second
	leastPause   = 100 * time.Millisecond // between two looks, however often the system says that something changed
	// toldFactor is how much rarer the looks are while the system tells what changes: each wakes a process that has nothing
	// to do otherwise.
	toldFactor = 12
)

var errUnknownYet = errors.New("who is logged on is not known yet")

// Driver asks an operating system.
type Driver interface {
	// List gives all sessions of users. No session and no error means that nobody is logged on.
	List(ctx context.Context) ([]Session, error)
	// Watch calls changed once it listens, and when the sessions may have changed, until ctx ends; nil then. An error means that it cannot
	// tell any more, and may be called again. One that has nothing to tell waits for the end of ctx.
	Watch(ctx context.Context, changed func()) error
	// LogOff ends the session, with the programs in it, if it is still there. It may return before it has ended.
	LogOff(ctx context.Context, session Session) error
}

// Options of New.
type Options struct {
	Driver Driver
	Every  time.Duration // between two looks where the system does not tell what changes; 0 is 5 s
	Log    *slog.Logger
}

// Watcher follows the sessions. Its methods may be called at once by many.
type Watcher struct {
	driver Driver
	every  time.Duration
	log    *slog.Logger
	hint   chan struct{} // holds one: look now
	told   atomic.Bool   // the system tells what changes
	asking sync.Mutex    // so that an older answer never replaces a newer one

	mu       sync.Mutex
	sessions []Session // sorted by id
	err      error
	changed  chan struct{}
}

// New starts nothing; until Run has looked, Sessions gives an error.
func New(options Options) *Watcher {
	return &Watcher{
		driver: options.Driver, every: cmp.Or(options.Every, defaultEvery), log: options.Log,
		hint: make(chan struct{}, 1), err: errUnknownYet, changed: make(chan struct{}),
	}
}

// Run follows the sessions until ctx ends, which is no error.
func (w *Watcher) Run(ctx context.Context) error {
	var listening sync.WaitGroup
	defer listening.Wait()
	listening.Go(func() { w.listen(ctx) })
	next := time.NewTimer(w.every)
	defer next.Stop()
	for ctx.Err() == nil {
		w.Refresh(ctx)
		next.Reset(w.pause())
		select {
		case <-ctx.Done():
		case <-time.After(leastPause):
		}
		select {
		case <-ctx.Done():
		case <-next.C:
		case <-w.hint:
		}
	}
	return nil
}

// pause until the next look of its own accord. What could not be found out is asked for again soon.
func (w *Watcher) pause() time.Duration {
	if _, err := w.Sessions(); err == nil && w.told.Load() {
		return toldFactor * w.every
	}
	return w.every
}

// listen is told by the driver, again and again. Between two attempts polling is all there is, so a change that the driver
// missed meanwhile is looked for when it listens again.
func (w *Watcher) listen(ctx context.Context) {
	for ctx.Err() == nil {
		err := w.driver.Watch(ctx, func() {
			w.told.Store(true)
			w.lookNow()
		})
		if err != nil && ctx.Err() == nil {
			w.log.DebugContext(ctx, "logons are only polled for now", "error", err)
		}
		if w.told.Swap(false) {
			w.lookNow() // and at the shorter pace from then on
		}
		select {
		case <-ctx.Done():
		case <-time.After(w.every):
		}
	}
}

func (w *Watcher) lookNow() {
	select {
	case w.hint <- struct{}{}:
	default: // somebody has asked for it already
	}
}

// Sessions are those of the last look, sorted by id, for the caller to keep. An error says why they are not known.
func (w *Watcher) Sessions() ([]Session, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.sessions), w.err
}

// Changed is closed at the next change of what Sessions gives, errors included. Take it before Sessions.
func (w *Watcher) Changed() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.changed
}

// Refresh looks now, and returns when Sessions tells what was seen.
func (w *Watcher) Refresh(ctx context.Context) {
	w.asking.Lock()
	defer w.asking.Unlock()
	limited, cancel := context.WithTimeout(ctx, listLimit)
	defer cancel()
	sessions, err := w.driver.List(limited)
	if ctx.Err() != nil {
		return // whoever asked is gone; this says nothing about the system
	}
	if err != nil {
		sessions = nil
	}
	slices.SortFunc(sessions, func(a, b Session) int { return cmp.Compare(a.ID, b.ID) })
	w.take(ctx, sessions, err)
}

func (w *Watcher) take(ctx context.Context, sessions []Session, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	before := w.err
	same := (err == nil) == (before == nil) && !errors.Is(before, errUnknownYet) && slices.EqualFunc(sessions, w.sessions, equal)
	w.sessions, w.err = sessions, err
	if same {
		return
	}
	switch {
	case err != nil:
		w.log.WarnContext(ctx, "who is logged on cannot be found out", "error", err)
	case before != nil && !errors.Is(before, errUnknownYet):
		w.log.InfoContext(ctx, "who is logged on is known again", "users", Users(sessions))
	}
	close(w.changed)
	w.changed = make(chan struct{})
}

func equal(a, b Session) bool {
	sameTime := a.Since.Equal(b.Since)
	a.Since, b.Since = time.Time{}, time.Time{}
	return sameTime && a == b
}

// LogOff ends the session, with the programs in it. It may return before it has ended.
func (w *Watcher) LogOff(ctx context.Context, session Session) error {
	ctx, cancel := context.WithTimeout(ctx, logOffLimit)
	defer cancel()
	if err := w.driver.LogOff(ctx, session); err != nil {
		return fmt.Errorf("log off user %s, session %s: %w", session.User, session.ID, err)
	}
	w.lookNow()
	return nil
}
