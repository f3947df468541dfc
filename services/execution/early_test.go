package execution

import (
	"testing"

	"chandler/events"
	"chandler/events/bus"
)

func TestATimerThatIsHeardBeforeItsRetryIsKnownComesAgain(t *testing.T) {
	w := newWorld(t)
	r := w.start()
	d, agent := w.deploy("hello", 1), agents(1)[0]
	w.until("the order is known", func() bool { return r.orders.knows("hello") })
	due := events.Event[events.TimerNote]{Data: events.TimerNote{Service: "execution", Purpose: purposeRetry, Name: "hello",
		Key: retryKey(job{deployment: "hello", revision: 1, attempt: 1, agent: agent})}}
	first := bus.Meta{Delivered: 1}
	if err := r.timerDue(t.Context(), due, first); err == nil {
		t.Error("a timer of a job that is not known was taken for done")
	}
	w.tell(statusOf(w, d, agent, 1, events.Accepted))
	w.tell(statusOf(w, d, agent, 2, events.Running))
	w.states(r, "hello", map[events.State]int64{events.Running: 1})
	if err := r.timerDue(t.Context(), due, first); err == nil {
		t.Error("a timer of a job that still runs was taken for done")
	}
	if err := r.timerDue(t.Context(), due, bus.Meta{Delivered: earlyTimer}); err != nil {
		t.Errorf("a timer came for ever: %v", err)
	}
	w.tell(statusOf(w, d, agent, 3, events.Retrying))
	w.states(r, "hello", map[events.State]int64{events.Retrying: 1})
	if err := r.timerDue(t.Context(), due, first); err != nil {
		t.Errorf("a timer in time: %v", err)
	}
	w.states(r, "hello", map[events.State]int64{events.Offered: 1})
	if err := r.timerDue(t.Context(), due, first); err != nil {
		t.Errorf("a timer of an attempt that is over: %v", err)
	}
}
