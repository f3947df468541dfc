package integration

import (
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/eventstest"
)

// TestOneTraceShowsAJobsWholeJourney deploys with a trace and reads every event that has to do with the
// deployment, from the order to the last status: each carries the trace, also after agent and execution
// were away.
func TestOneTraceShowsAJobsWholeJourney(t *testing.T) {
	const trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	f := newFleet(t)
	here, away := f.machine("ws1"), f.machine("laptop")
	p := f.publish("1.0", payload, "")
	f.everyone(2)
	away.stop()
	here.write("hold", "")
	if _, err := bus.Request(bus.WithTrace(t.Context(), trace), f.owner, "admin", events.DeploymentCreate, f.sign("traced", p)); err != nil {
		t.Fatal(err)
	}
	f.want("traced", here, events.Running)
	f.want("traced", away, events.Offered)
	here.kill() // the journal knows the trace
	f.stopService("execution")
	f.purge(events.StreamJobs) // the laptop hears of its job by asking
	f.startService("execution")
	here.remove("hold")
	here.start()
	away.start()
	for _, m := range []*machine{here, away} {
		f.want("traced", m, events.Succeeded)
	}
	f.check("traced", here, away)

	eventstest.Expect(t, f.owner, events.DeploymentProgressed, func(e events.Event[events.Progress]) bool { return e.Data.States[events.Succeeded] == 2 })

	types := map[string]int{}
	for _, stream := range []string{events.StreamEvents, events.StreamStatus, events.StreamLogs} {
		_, err := f.owner.Replay(t.Context(), stream, ">", 1, func(m jetstream.Msg) error {
			if !strings.Contains(string(m.Data()), `"traced"`) {
				return nil
			}
			e, err := bus.Decode(&nats.Msg{Subject: m.Subject(), Header: m.Headers(), Data: m.Data()})
			if err != nil {
				return err
			}
			types[e.Type()]++
			if got, _ := e.Extensions()["traceparent"].(string); got != trace {
				t.Errorf("%s about %s carries the trace %q", e.Type(), e.Subject(), got)
			}
			return nil
		})
		must(t, err)
	}
	for _, want := range []events.Declaration{events.DeploymentCreated.Declaration, events.DeploymentReleased.Declaration, events.DeploymentProgressed.Declaration,
		events.JobAccepted.Declaration, events.JobRunning.Declaration, events.JobSucceeded.Declaration, events.JobFinished.Declaration, events.JobLogged.Declaration} {
		if types[want.Name] == 0 {
			t.Errorf("no %s was seen, but %v", want.Name, types)
		}
	}
}
