package logon

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// driver is what the test says it is.
type driver struct {
	mu       sync.Mutex
	sessions []Session
	err      error // of List
	hangs    bool  // List does not answer
	deaf     error // of Watch, at once
	changed  func()
	looks    int
	watches  int
	gone     []string // ids logged off
}

func (d *driver) List(ctx context.Context) ([]Session, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.looks++
	if d.hangs {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return append([]Session(nil), d.sessions...), d.err
}

func (d *driver) Watch(ctx context.Context, changed func()) error {
	d.mu.Lock()
	d.watches++
	d.changed = changed
	deaf := d.deaf
	d.mu.Unlock()
	if deaf != nil {
		return deaf
	}
	<-ctx.Done()
	return nil
}

func (d *driver) LogOff(_ context.Context, s Session) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s.ID == "stuck" {
		return errors.New("the system refuses")
	}
	d.gone, d.sessions = append(d.gone, s.ID), nil
	return nil
}

func (d *driver) set(change func(d *driver)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change(d)
}

// watch runs a watcher with a look every hour within a bubble, until the function ends.
func watch(t *testing.T, d *driver, f func(t *testing.T, w *Watcher, log *bytes.Buffer)) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		w := New(Options{Driver: d, Every: time.Hour, Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- w.Run(ctx) }()
		synctest.Wait()
		f(t, w, &log)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestBeforeTheFirstLookNothingIsKnown(t *testing.T) {
	w := New(Options{Driver: &driver{}, Log: slog.New(slog.DiscardHandler)})
	if sessions, err := w.Sessions(); err == nil {
		t.Errorf("sessions %v without a look", sessions)
	}
	changed := w.Changed()
	w.Refresh(t.Context())
	if sessions, err := w.Sessions(); err != nil || len(sessions) != 0 || !closed(changed) {
		t.Errorf("then %v, %v, told: %v", sessions, err, closed(changed))
	}
}

func TestALogonIsSeenAtTheNextLook(t *testing.T) {
	d := &driver{}
	watch(t, d, func(t *testing.T, w *Watcher, _ *bytes.Buffer) {
		changed, start := w.Changed(), time.Now()
		d.set(func(d *driver) { d.sessions = []Session{{ID: "2", User: "bob"}, {ID: "1", User: "alice"}} })
		<-changed
		if after := time.Since(start); after > time.Hour {
			t.Errorf("seen after %v", after)
		}
		sessions, err := w.Sessions()
		if diff := cmp.Diff([]Session{{ID: "1", User: "alice"}, {ID: "2", User: "bob"}}, sessions); diff != "" || err != nil {
			t.Errorf("%v %s", err, diff)
		}
	})
}

func TestALogonIsSeenAtOnceWhereTheSystemTells(t *testing.T) {
	d := &driver{}
	watch(t, d, func(t *testing.T, w *Watcher, _ *bytes.Buffer) {
		changed, start := w.Changed(), time.Now()
		d.set(func(d *driver) { d.sessions = []Session{{ID: "1", User: "alice"}} })
		d.changed()
		<-changed
		if after := time.Since(start); after > leastPause {
			t.Errorf("seen after %v", after)
		}
	})
}

func TestASystemThatTellsIsLookedAtLessOften(t *testing.T) {
	d := &driver{}
	watch(t, d, func(t *testing.T, _ *Watcher, _ *bytes.Buffer) {
		looks := func(span time.Duration) int {
			synctest.Wait()
			var before, after int
			d.set(func(d *driver) { before = d.looks })
			time.Sleep(span) // in the bubble
			synctest.Wait()
			d.set(func(d *driver) { after = d.looks })
			return after - before
		}
		if got := looks(24 * time.Hour); got != 24 {
			t.Errorf("a system that never told was looked at %d times", got)
		}
		d.changed()
		if got := looks(24 * time.Hour); got != 24/toldFactor {
			t.Errorf("one that tells was looked at %d times", got)
		}
		d.set(func(d *driver) { d.err = errors.New("no answer") })
		d.changed()
		if got := looks(24 * time.Hour); got != 24 {
			t.Errorf("one that does not answer was looked at %d times", got)
		}
	})
}

func TestASystemThatTellsWithoutEndIsNotAskedWithoutEnd(t *testing.T) {
	d := &driver{}
	watch(t, d, func(t *testing.T, w *Watcher, _ *bytes.Buffer) {
		d.looks = 0
		for range 1000 {
			d.changed()
			time.Sleep(time.Millisecond) // in the bubble: a second in all
		}
		synctest.Wait()
		if most := int(time.Second/leastPause) + 1; d.looks > most || d.looks == 0 {
			t.Errorf("%d looks in a second, at most %d are wanted", d.looks, most)
		}
	})
}

func TestOnlyARealChangeIsTold(t *testing.T) {
	since := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	a, b := Session{ID: "1", User: "alice", Since: since}, Session{ID: "2", User: "bob"}
	elsewhere := a
	elsewhere.Since = since.In(time.FixedZone("east", 3600))
	active := a
	active.Active = true
	for _, test := range []struct {
		name          string
		before, after []Session
		told          bool
	}{
		{"nothing", nil, []Session{}, false},
		{"another order", []Session{a, b}, []Session{b, a}, false},
		{"the same time written otherwise", []Session{a}, []Session{elsewhere}, false},
		{"one more", []Session{a}, []Session{a, b}, true},
		{"one less", []Session{a, b}, []Session{b}, true},
		{"one comes to the foreground", []Session{a}, []Session{active}, true},
		{"all are gone", []Session{a}, nil, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := &driver{sessions: test.before}
			watch(t, d, func(t *testing.T, w *Watcher, _ *bytes.Buffer) {
				changed := w.Changed()
				d.set(func(d *driver) { d.sessions = test.after })
				w.Refresh(t.Context())
				if closed(changed) != test.told {
					t.Errorf("told: %v", !test.told)
				}
			})
		})
	}
}

func TestWhatCannotBeFoundOutIsAnErrorAndNotAnEmptyMachine(t *testing.T) {
	d := &driver{sessions: []Session{{ID: "1", User: "alice"}}}
	watch(t, d, func(t *testing.T, w *Watcher, log *bytes.Buffer) {
		changed := w.Changed()
		d.set(func(d *driver) { d.err = errors.New("the bus is down") })
		<-changed
		if sessions, err := w.Sessions(); err == nil || len(sessions) != 0 {
			t.Errorf("sessions %v, %v", sessions, err)
		}
		changed = w.Changed()
		time.Sleep(10 * time.Hour) // in the bubble: ten looks
		synctest.Wait()
		if closed(changed) {
			t.Error("the same failure was told again")
		}
		d.set(func(d *driver) { d.err = nil })
		<-changed
		if sessions, err := w.Sessions(); err != nil || len(sessions) != 1 {
			t.Errorf("sessions %v, %v", sessions, err)
		}
		if got := strings.Count(log.String(), "level=WARN"); got != 1 {
			t.Errorf("%d warnings:\n%s", got, log)
		}
		if !strings.Contains(log.String(), "known again") {
			t.Errorf("the end of it is not in the log:\n%s", log)
		}
	})
}

func TestASystemThatDoesNotAnswerIsGivenUp(t *testing.T) {
	d := &driver{sessions: []Session{{ID: "1", User: "alice"}}, hangs: true}
	synctest.Test(t, func(t *testing.T) {
		w := New(Options{Driver: d, Log: slog.New(slog.DiscardHandler)})
		start := time.Now()
		w.Refresh(t.Context())
		if _, err := w.Sessions(); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != listLimit {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

func TestWhoGivesUpAskingLeavesWhatIsKnown(t *testing.T) {
	d := &driver{sessions: []Session{{ID: "1", User: "alice"}}}
	w := New(Options{Driver: d, Log: slog.New(slog.DiscardHandler)})
	w.Refresh(t.Context())
	d.hangs = true
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w.Refresh(ctx)
	if sessions, err := w.Sessions(); err != nil || len(sessions) != 1 {
		t.Errorf("sessions %v, %v", sessions, err)
	}
}

func TestADriverThatStopsTellingIsAskedToAgain(t *testing.T) {
	d := &driver{deaf: errors.New("the bus restarts")}
	watch(t, d, func(t *testing.T, w *Watcher, _ *bytes.Buffer) {
		d.set(func(d *driver) { d.deaf = nil })
		time.Sleep(2 * time.Hour) // in the bubble
		synctest.Wait()
		if d.watches != 2 {
			t.Errorf("%d attempts to listen", d.watches)
		}
	})
}

func TestOneWhoLogsOffIsLookedForAtOnce(t *testing.T) {
	d := &driver{sessions: []Session{{ID: "1", User: "alice"}}}
	watch(t, d, func(t *testing.T, w *Watcher, _ *bytes.Buffer) {
		changed, start := w.Changed(), time.Now()
		if err := w.LogOff(t.Context(), Session{ID: "1", User: "alice"}); err != nil {
			t.Fatal(err)
		}
		<-changed
		if sessions, err := w.Sessions(); err != nil || len(sessions) != 0 || time.Since(start) > leastPause {
			t.Errorf("sessions %v, %v after %v", sessions, err, time.Since(start))
		}
		if diff := cmp.Diff([]string{"1"}, d.gone); diff != "" {
			t.Error(diff)
		}
		err := w.LogOff(t.Context(), Session{ID: "stuck", User: "bob"})
		if err == nil || !strings.Contains(err.Error(), "bob") || !strings.Contains(err.Error(), "the system refuses") {
			t.Errorf("error %v", err)
		}
	})
}
