package agent

import (
	"context"
	"sync"
	"time"

	"chandler/events"
)

// fetchPause is how long an umbrella waits after content could not be fetched.
const fetchPause = 15 * time.Minute

// fetchAhead brings the content of a standing order into the cache before an occurrence needs it. It stops for whatever
// the umbrella has to do, and goes on where it was at the next look. A failure is none of the job: each occurrence fetches
// what is missing, and says so.
func (t *task) fetchAhead(ctx context.Context, next time.Time, logons <-chan struct{}) error {
	if t.fetched || t.readsAsUser() || t.a.Clock().Before(t.fetchAgain) {
		return nil
	}
	if len(t.manifest.Files) == 0 && len(t.order.First) == 0 {
		t.fetched = true
		return nil
	}
	t.pass(ctx, events.Downloading, status{})
	q, err := t.fetchUntil(ctx, next, logons)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err == nil:
		t.fetched = true
		t.say(info, "Content of %s %s is in the cache, ahead of the occurrences that need it", t.order.Package, t.order.Version)
		t.pass(ctx, events.Downloaded, status{reader: t.reader()})
	case err != errInterrupted:
		t.fetchAgain = t.a.Clock().Add(fetchPause)
		t.say(warning, "The content is not fetched ahead, which is tried again after %s: %v", fetchPause, err)
	}
	if q != nil {
		return t.heed(ctx, *q)
	}
	return nil
}

// fetchAll fetches the content of the program and of what runs first, as far as that has something to do.
func (t *task) fetchAll(ctx context.Context) error {
	if err := t.fetchContent(ctx); err != nil {
		return err
	}
	manifest, program, who := t.manifest, t.program, t.who
	defer func() {
		t.leaveOutside()
		t.step, t.manifest, t.program, t.who, t.fetched = nil, manifest, program, who, false
	}()
	return t.eachLeft(ctx, func() error {
		if t.readsAsUser() {
			return nil
		}
		return t.fetchContent(ctx)
	})
}

// errInterrupted is no failure of a download.
var errInterrupted = context.Canceled

// fetchUntil fetches until it is done or there is something else to do; q is a user's word that came meanwhile.
func (t *task) fetchUntil(ctx context.Context, next time.Time, logons <-chan struct{}) (q *ask, err error) {
	fetching, cancel := context.WithCancel(ctx)
	defer cancel()
	var timer <-chan time.Time
	if !next.IsZero() {
		due := time.NewTimer(max(0, next.Sub(t.a.Clock())))
		defer due.Stop()
		timer = due.C
	}
	var beside sync.WaitGroup
	beside.Go(func() {
		select {
		case asked := <-t.asks:
			q = &asked
		case <-logons:
		case <-timer:
		case <-fetching.Done():
		}
		cancel()
	})
	err = t.fetchAll(fetching)
	stopped := fetching.Err() != nil
	cancel()
	beside.Wait()
	if err != nil && stopped {
		err = errInterrupted
	}
	return q, err
}

// either is closed when one of two is, or ctx ends.
func either(ctx context.Context, a, b <-chan struct{}) <-chan struct{} {
	one := make(chan struct{})
	go func() {
		defer close(one)
		select {
		case <-a:
		case <-b:
		case <-ctx.Done():
		}
	}()
	return one
}
