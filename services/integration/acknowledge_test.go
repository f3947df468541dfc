package integration

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chandler/events"
	"chandler/events/calendar"
	"chandler/events/eventstest"
	"chandler/events/order"
)

// unacknowledged is an event that a service works on and dies before it acknowledges.
type unacknowledged struct {
	service, stream, consumer string // consumer: the beginning of its name
	event                     events.Declaration
	// bring makes the event happen; nil: the deployment does.
	bring func(f *fleet, m *machine)
	order func(*order.Order)
	more  string // lines of the program
	runs  int    // 0: once
}

// TestAServiceDiesBetweenReceivingAndAcknowledging has each service do its work for an event and vanish
// before the broker hears of it. Its successor does the work again, and nothing happens twice.
func TestAServiceDiesBetweenReceivingAndAcknowledging(t *testing.T) {
	t.Parallel()
	soon := func(o *order.Order) {
		at := time.Now().Add(2 * time.Second)
		o.Available = new(calendar.At(at))
	}
	for name, c := range map[string]unacknowledged{
		"execution folds the end of a job": {service: "execution", stream: events.StreamStatus, consumer: "execution-", event: events.JobSucceeded.Declaration},
		"execution offers a release":       {service: "execution", stream: events.StreamEvents, consumer: "execution", event: events.DeploymentReleased.Declaration},
		"execution's timer offers a retry": {service: "execution", stream: events.StreamTimers, consumer: "execution-timers", event: events.TimerDue.Declaration,
			more: "    return-codes: {82: retry}\n", runs: 2},
		"scheduling keeps an agent's facts": {service: "scheduling", stream: events.StreamEvents, consumer: "scheduling", event: events.AgentReported.Declaration,
			bring: func(_ *fleet, m *machine) { m.stop(); m.start() }},
		"scheduling's timer starts a deployment": {service: "scheduling", stream: events.StreamTimers, consumer: "scheduling", event: events.TimerDue.Declaration, order: soon},
		"content notes a package's use":          {service: "content", stream: events.StreamEvents, consumer: "content", event: events.DeploymentCreated.Declaration},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.tell(t)
		})
	}
}

func (c unacknowledged) tell(t *testing.T) {
	f := newFleet(t)
	m := f.machine("ws1")
	p := f.publish("1.0", payload, c.more)
	f.everyone(1)
	if c.runs == 2 {
		m.write("exit-once", "82")
	}
	f.stopService(c.service)
	proxy := newFaultProxy(t, f.broker.URL())
	f.startServiceAt(c.service, proxy.url())
	proxy.arm(c.picks(f))

	var change []func(*order.Order)
	if c.order != nil {
		change = append(change, c.order)
	}
	request := f.sign("once", p, change...)
	if c.bring != nil {
		c.bring(f, m)
	} else {
		mustAsk(f, events.DeploymentCreate, request)
	}
	lost := proxy.awaitLoss(t)
	f.killService(c.service)
	f.startService(c.service)
	mustAsk(f, events.DeploymentCreate, request)
	// The broker would give the event to the successor when it has waited long enough. It need not wait.
	must(t, f.owner.Conn().Publish(lost, []byte("-NAK")))

	consumer := strings.Split(lost, ".")[3]
	eventually(t, "the successor has done the work again", func() bool {
		return f.counted(c.service, "chandler_bus_handled_total", fmt.Sprintf(`consumer=%q`, consumer), fmt.Sprintf(`type=%q`, c.event.Name), `result="ok"`) >= 1
	})
	f.want("once", m, events.Succeeded)
	c.verify(f, m, p)
}

// awaitLoss waits for the acknowledgement that is swallowed.
func (p *faultProxy) awaitLoss(t *testing.T) (subject string) {
	t.Helper()
	select {
	case subject = <-p.lost:
	case <-time.After(time.Minute):
		t.Fatal("waited a minute in vain for an acknowledgement to swallow")
	}
	return subject
}

// picks the acknowledgement of the first event of the type.
func (c unacknowledged) picks(f *fleet) func(subject string) bool {
	stream, err := f.owner.JetStream().Stream(f.t.Context(), c.stream)
	must(f.t, err)
	return func(subject string) bool {
		// $JS.ACK.<stream>.<consumer>.<deliveries>.<sequence>.…
		parts := strings.Split(subject, ".")
		if len(parts) < 6 || parts[2] != c.stream || !strings.HasPrefix(parts[3], c.consumer) {
			return false
		}
		sequence, err := strconv.ParseUint(parts[5], 10, 64)
		if err != nil {
			return false
		}
		m, err := stream.GetMsg(f.t.Context(), sequence)
		return err == nil && strings.HasPrefix(m.Subject, c.event.Subject(""))
	}
}

func (c unacknowledged) verify(f *fleet, m *machine, p events.PackageInfo) {
	f.t.Helper()
	runs := max(c.runs, 1)
	f.check("once", m)
	if got := m.ran(); len(got) != runs {
		f.t.Errorf("ran %v, want %d runs", got, runs)
	}
	eventstest.ExpectExactly(f.t, f.owner, events.JobOffered, nil, runs)
	eventstest.ExpectExactly(f.t, f.owner, events.JobFinished, nil, 1)
	progress := mustAsk(f, events.ExecutionProgress, events.Named{Name: "once"})
	if diff := cmp.Diff(map[events.State]int64{events.Succeeded: 1}, progress.States); diff != "" || progress.Total != 1 {
		f.t.Errorf("counted %d jobs: %s", progress.Total, diff)
	}
	if agents := mustAsk(f, events.AgentList, events.AgentQuery{}).Agents; len(agents) != 1 {
		f.t.Errorf("%d agents are listed", len(agents))
	}
	eventually(f.t, "content knows the one use of the package", func() bool {
		used := mustAsk(f, events.ContentShow, events.Named{Name: p.Manifest.Package, Version: p.Manifest.Version}).Deployments
		return len(used) == 1 && used[0] == "once"
	})
}
