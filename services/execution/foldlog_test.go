package execution

import (
	"context"
	"errors"
	"testing"

	"chandler/events"
)

func TestWhoWaitsForAnAnswerIsToldThatTheConnectionBroke(t *testing.T) {
	w := newWorld(t)
	r := w.start()
	ctx, stop := r.whileConnected(t.Context())
	defer stop()
	w.server.Stop()
	<-ctx.Done()
	if err := context.Cause(ctx); !errors.Is(err, errCut) {
		t.Errorf("it ends by %v", err)
	}
	w.server.Start()
	// And all goes on with a connection that is there again.
	d, ids := w.deploy("hello", 1), agents(3)
	w.release(d, 0, ids...)
	w.states(r, "hello", map[events.State]int64{events.Offered: 3})
	again, end := r.whileConnected(t.Context())
	end()
	if err := context.Cause(again); errors.Is(err, errCut) {
		t.Errorf("what ended in order says %v", err)
	}
}
