package execution

import (
	"testing"
	"time"

	"chandler/events"
)

func TestAStopMeansTheRevisionThatWasToldLast(t *testing.T) {
	w := newWorld(t)
	r := w.start()
	w.deploy("hello", 1)
	w.until("the order is known", func() bool { return r.orders.knows("hello") })
	second := w.deploy("hello", 2) // most likely not handled yet
	must[events.StopAnswer](w)(ask(w, events.ExecutionStop, events.StopRequest{Deployment: "hello"}))
	if mark, ok := r.control.stop("hello", 2); !ok || mark.By != "admin" {
		t.Errorf("stopped is %+v", mark)
	}
	w.until("the order is known", func() bool { _, ok := r.orders.digest(second.Order); return ok })
	r.orders.forget("hello", 2)
	w.until("another replica knows none but the first", func() bool { return !r.orders.knows("hello") })
	first, err := openOrder(storedOrder{DeploymentOrder: w.orderOf("hello", 1)})
	if err != nil {
		t.Fatal(err)
	}
	r.orders.add(first)
	if k, err := r.newestTold(t.Context(), "hello"); err != nil || k.Revision != 2 {
		t.Errorf("told last is %+v, %v", k, err)
	}
}

func TestAStopOutlivesTheRemovalOfItsDeployment(t *testing.T) {
	w := newWorld(t)
	r := w.start()
	d, agent := w.deploy("hello", 1), agents(1)[0]
	w.release(d, 0, agent)
	w.states(r, "hello", map[events.State]int64{events.Offered: 1})
	must[events.StopAnswer](w)(ask(w, events.ExecutionStop, events.StopRequest{Deployment: "hello"}))
	publish(w, events.DeploymentRemoved, events.ServiceSource("scheduling"), "hello", d.DeploymentNotice)
	w.until("the deployment is forgotten", func() bool { return !r.orders.knows("hello") })
	for _, c := range []struct {
		name  string
		ahead time.Duration
		want  int
	}{{"an agent that returns is told of the stop while it may obey the order", 23 * time.Hour, 1}, {"and no longer", 24*time.Hour + r.pace.lapse + time.Hour, 0}} {
		w.ahead.Store(int64(c.ahead))
		if got := r.cancelsFor(agent, nil); len(got) != c.want || c.want > 0 && (got[0].Deployment != "hello" || got[0].Revision != 1) {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
}
