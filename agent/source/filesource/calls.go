package filesource

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// maxCalls of the file system are under way at once, with those that were left behind.
const maxCalls = 64

// errSilent is said of a file system that does not answer.
var errSilent = errors.New("the file system does not answer")

// calls are waited for no longer than the patience.
type calls struct {
	patience time.Duration
	slots    chan struct{}
}

// enter waits for its turn. Whoever was let in calls wait, or leave.
func (c *calls) enter(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	patience := time.NewTimer(c.patience)
	defer patience.Stop()
	select {
	case c.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-patience.C:
		return fmt.Errorf("%w: %d calls wait for it", errSilent, maxCalls)
	}
}

func (c *calls) leave() { <-c.slots }

// wait gives what do gives, which is certainly called. What comes too late goes to late, unless it is an error.
func wait[T any](ctx context.Context, c *calls, do func() (T, error), late func(T)) (result T, err error) {
	type answer struct {
		result T
		err    error
	}
	answered, left := make(chan answer), make(chan struct{})
	go func() {
		defer c.leave()
		result, err := do()
		select {
		case answered <- answer{result, err}:
		case <-left:
			if err == nil {
				late(result)
			}
		}
	}()
	patience := time.NewTimer(c.patience)
	defer patience.Stop()
	select {
	case a := <-answered:
		return a.result, a.err
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-patience.C:
		err = errSilent
	}
	close(left)
	return result, err
}

// inTime enters and waits for what needs no care when it comes too late.
func inTime[T any](ctx context.Context, c *calls, do func() (T, error)) (result T, err error) {
	if err := c.enter(ctx); err != nil {
		return result, err
	}
	return wait(ctx, c, do, func(T) {})
}
