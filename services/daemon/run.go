package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

// DefaultGrace is how long parts may take to stop.
const DefaultGrace = 15 * time.Second

// Part is one thing that a process runs. Run blocks until all it started has stopped, and returns soon
// after ctx ends.
type Part struct {
	Name string
	Run  func(ctx context.Context) error
}

// RunOptions says how Run ends.
type RunOptions struct {
	Log   *slog.Logger
	Grace time.Duration // 0: DefaultGrace
}

// Run runs all parts until ctx or the first of them ends, then tells the others to stop and waits for them
// within the grace period. It returns the errors of the parts that failed; stopping because ctx ended is
// none. A part that ends by itself without error also ends the others.
func Run(ctx context.Context, o RunOptions, parts ...Part) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type end struct {
		name string
		err  error
	}
	ends := make(chan end, len(parts))
	running := map[string]bool{}
	for _, p := range parts {
		running[p.Name] = true
		go func() { ends <- end{p.Name, p.Run(ctx)} }()
	}
	grace := o.Grace
	if grace == 0 {
		grace = DefaultGrace
	}
	var failed []error
	done := ctx.Done()
	var tooLate <-chan time.Time
	for len(running) > 0 {
		select {
		case e := <-ends:
			delete(running, e.name)
			if e.err != nil && !(errors.Is(e.err, context.Canceled) && ctx.Err() != nil) {
				failed = append(failed, fmt.Errorf("%s: %w", e.name, e.err))
			}
			if ctx.Err() == nil {
				o.Log.Info("a part ended, stopping the others", "component", "daemon", "part", e.name, "error", e.err)
			}
			cancel()
		case <-done:
			done, tooLate = nil, time.After(grace)
		case <-tooLate:
			return errors.Join(append(failed, stillRunning(running, grace))...)
		}
	}
	return errors.Join(failed...)
}

func stillRunning(running map[string]bool, grace time.Duration) error {
	var names []string
	for name := range running {
		names = append(names, name)
	}
	slices.Sort(names)
	return fmt.Errorf("still running %s after being told to stop: %s", grace, strings.Join(names, ", "))
}

// UntilSignal gives a context that ends at the first interrupt or termination signal. A second one ends the
// process at once, as if nobody listened. stop releases the signals.
func UntilSignal(parent context.Context) (ctx context.Context, stop func()) {
	ctx, stop = signal.NotifyContext(parent, os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}
