package report

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"chandler/agent/journal"
	"chandler/events"
	"chandler/events/bus"
	"chandler/events/eventstest"
)

const me = "agent0001"

type rig struct {
	t        *testing.T
	broker   *eventstest.Server
	services *bus.Bus
	journal  *journal.Journal
	reporter *Reporter
	lost     chan struct{}
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t, broker: eventstest.Broker(t), lost: make(chan struct{}, 10)}
	r.services = eventstest.Bus(t, r.broker, events.ServiceSource("execution"))
	store, err := journal.Open(filepath.Join(t.TempDir(), "journal.db"))
	must(t, err)
	t.Cleanup(func() { store.Close() })
	r.journal, err = store.Agent(me)
	must(t, err)
	b, err := bus.New(bus.Options{Conn: eventstest.Connect(t, r.broker), Source: events.AgentSource(me), CheckPublished: true})
	must(t, err)
	r.reporter = New(Options{Agent: me, Bus: b, Journal: r.journal, Metrics: NewMetrics(prometheus.NewRegistry()), Log: slog.New(slog.DiscardHandler),
		StatusLost: func() { r.lost <- struct{}{} }})
	return r
}

func (r *rig) run() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.reporter.Run(ctx) }()
	r.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			r.t.Error(err)
		}
	})
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// advance journals a transition of a job.
func (r *rig) advance(deployment string, transition uint32, state events.State) {
	r.t.Helper()
	job := events.JobID(deployment, 1, me, 0, "")
	must(r.t, r.journal.Advance(journal.Job{
		Offer: events.JobOffer{Job: job, Deployment: deployment, Revision: 1, Attempt: 1},
		Last: events.JobStatus{Job: job, Deployment: deployment, Revision: 1, Order: events.DigestOf(nil), Agent: me, Attempt: 1, Transition: transition,
			State: state, At: time.Now().UTC()},
	}))
	r.reporter.Wake()
}

func of(deployment string, transition uint32) func(events.Event[events.JobStatus]) bool {
	return func(e events.Event[events.JobStatus]) bool {
		return e.Data.Deployment == deployment && e.Data.Transition == transition
	}
}

func TestStatusesAreStoredInOrderAndOnce(t *testing.T) {
	r := newRig(t)
	r.run()
	for i := range uint32(200) {
		r.advance("d", i+1, events.Waiting)
	}
	list := eventstest.ExpectExactly(t, r.services, events.JobWaiting, nil, 200)
	for i, e := range list {
		if e.Data.Transition != uint32(i+1) {
			t.Fatalf("transition %d came as number %d", e.Data.Transition, i+1)
		}
	}
	if left, err := r.journal.Unsent(0, 1); err != nil || len(left) != 0 {
		t.Fatalf("unsent %v, %v", left, err)
	}
}

func TestWhatHappenedWithoutABrokerIsToldWhenItIsBack(t *testing.T) {
	r := newRig(t)
	r.run()
	r.advance("d", 1, events.Accepted)
	eventstest.Expect(t, r.services, events.JobAccepted, of("d", 1))
	r.broker.Stop()
	r.advance("d", 2, events.Running)
	r.advance("d", 3, events.Succeeded)
	r.broker.Start()
	eventstest.Expect(t, r.services, events.JobSucceeded, of("d", 3))
	eventstest.ExpectExactly(t, r.services, events.JobRunning, of("d", 2), 1)
}

func TestAStreamThatWentBackIsNoticedByItsSequences(t *testing.T) {
	r := newRig(t)
	r.run()
	for i := range uint32(5) {
		r.advance("d", i+1, events.Waiting)
	}
	eventstest.Expect(t, r.services, events.JobWaiting, of("d", 5))
	must(t, r.services.JetStream().DeleteStream(t.Context(), events.StreamStatus))
	eventstest.Provision(t, r.services)
	r.advance("d", 6, events.Waiting)
	<-r.lost
	p, err := r.journal.Position()
	if err != nil || !p.StatusLost {
		t.Fatalf("position %+v, %v", p, err)
	}
	// What execution asks for in answer to that is told although the broker has seen its ids before.
	must(t, r.journal.Retell(true))
	r.reporter.Wake()
	eventstest.Expect(t, r.services, events.JobWaiting, of("d", 1))
}

func TestABrokerThatLostWhatItAcknowledgedIsToldAgainAndNothingElseTwice(t *testing.T) {
	r := newRig(t)
	r.run()
	r.advance("hello", 1, events.Accepted)
	kept := eventstest.Expect(t, r.services, events.JobAccepted, of("hello", 1))
	r.advance("hello", 2, events.Running)
	lost := eventstest.Expect(t, r.services, events.JobRunning, of("hello", 2))
	eventually(t, "both are acknowledged", func() bool { return len(unsent(t, r.journal)) == 0 })
	stream, err := r.services.JetStream().Stream(t.Context(), events.StreamStatus)
	must(t, err)
	must(t, stream.SecureDeleteMsg(t.Context(), 2)) // as a power cut would
	r.broker.Restart()
	eventually(t, "the connection is back", r.reporter.Bus.Conn().IsConnected)
	r.reporter.Wake() // as an agent does then
	again := eventstest.Expect(t, r.services, events.JobRunning, of("hello", 2))
	if again.ID != lost.ID {
		t.Errorf("it was told as %s, and before that as %s", again.ID, lost.ID)
	}
	eventually(t, "both are acknowledged again", func() bool { return len(unsent(t, r.journal)) == 0 })
	info, err := stream.Info(t.Context())
	must(t, err)
	if info.State.Msgs != 2 || info.State.LastSeq != 3 {
		t.Errorf("%d statuses up to %d: what was not lost, %s, was stored twice", info.State.Msgs, info.State.LastSeq, kept.ID)
	}
	before := testutil.ToFloat64(r.reporter.Metrics.statuses)
	r.reporter.Doubt() // where the connection tells nothing
	eventually(t, "both are told once more", func() bool { return testutil.ToFloat64(r.reporter.Metrics.statuses) == before+2 })
}

func TestNothingIsForgottenWhileTheBrokerThatAcknowledgedItIsAway(t *testing.T) {
	r := newRig(t)
	if !r.reporter.ForgetBefore().IsZero() {
		t.Error("before anything was told to a broker")
	}
	r.run()
	acknowledged := func() bool { return len(unsent(t, r.journal)) == 0 && !r.reporter.ForgetBefore().IsZero() }
	r.advance("hello", 1, events.Accepted)
	eventually(t, "it is acknowledged", acknowledged)
	if age := time.Since(r.reporter.ForgetBefore()); age < KeepAcknowledged || age > KeepAcknowledged+time.Minute {
		t.Errorf("what is %s old may be forgotten", age)
	}
	r.broker.Stop()
	eventually(t, "the broker is away", func() bool { return !r.reporter.Bus.Conn().IsConnected() })
	// Hours later; its power was cut, and it will know nothing of what it took last.
	r.reporter.Clock = func() time.Time { return time.Now().Add(5 * time.Hour) }
	must(t, r.journal.Forget(r.reporter.ForgetBefore(), time.Time{}))
	r.broker.Start()
	eventually(t, "the connection is back", r.reporter.Bus.Conn().IsConnected)
	if !r.reporter.ForgetBefore().IsZero() {
		t.Error("before it was told to the new one")
	}
	before := testutil.ToFloat64(r.reporter.Metrics.statuses)
	r.reporter.Wake() // as an agent does then
	eventually(t, "it is told again", func() bool { return testutil.ToFloat64(r.reporter.Metrics.statuses) == before+1 && acknowledged() })
	r.reporter.doubted.Store(true)
	if !r.reporter.ForgetBefore().IsZero() {
		t.Error("while it is doubted")
	}
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(30 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			t.Fatal("never: ", what)
		case <-tick.C:
		}
	}
}

func unsent(t *testing.T, j *journal.Journal) []journal.Entry {
	t.Helper()
	list, err := j.Unsent(0, 100)
	must(t, err)
	return list
}

func TestLogLinesComeInChunksWithTheirAttempt(t *testing.T) {
	r := newRig(t)
	r.run()
	ref := JobRef{Job: "j", Deployment: "d", Attempt: 2}
	r.reporter.Line(ref, events.LogLine{At: time.Now().UTC(), Level: "info", Component: "execmgr", Text: "first"})
	r.reporter.Line(ref, events.LogLine{At: time.Now().UTC(), Level: "info", Component: "execmgr", Text: strings.Repeat("x", chunkBytes)})
	r.reporter.Line(ref, events.LogLine{At: time.Now().UTC(), Level: "error", Component: "execmgr", Text: "last"})
	r.reporter.EndLog(ref)
	list := eventstest.ExpectExactly(t, r.services, events.JobLogged, nil, 2)
	if a, b := list[0].Data, list[1].Data; a.Chunk != 0 || len(a.Lines) != 2 || b.Chunk != 1 || b.Lines[0].Text != "last" || b.Attempt != 2 {
		t.Fatalf("chunks %d with %d lines and %d with %v", a.Chunk, len(a.Lines), b.Chunk, b.Lines)
	}
}

func TestALogQueueThatIsFullDropsAndCounts(t *testing.T) {
	r := newRig(t) // not running: nothing takes chunks out
	for i := range queueChunks + 3 {
		ref := JobRef{Job: fmt.Sprint("j", i), Deployment: "d", Attempt: 1}
		r.reporter.Line(ref, events.LogLine{At: time.Now(), Text: "line"})
		r.reporter.EndLog(ref)
	}
	if dropped := testutil.ToFloat64(r.reporter.Metrics.droppedLines); dropped != 3 {
		t.Fatalf("dropped %v lines", dropped)
	}
}

func TestFactsAndHeartbeatsNameTheAgent(t *testing.T) {
	r := newRig(t)
	beats := make(chan events.Event[events.HeartbeatNote], 1)
	ctx, cancel := context.WithCancel(t.Context())
	listening := make(chan error, 1)
	go func() {
		listening <- bus.Listen(ctx, r.services, events.Heartbeat, "", func(e events.Event[events.HeartbeatNote]) {
			select {
			case beats <- e:
			default:
			}
		})
	}()
	must(t, r.reporter.Facts(t.Context(), events.Facts{ID: me, Hostname: "ws1", OS: "linux"}))
	eventstest.Expect(t, r.services, events.AgentReported, func(e events.Event[events.AgentReport]) bool { return e.Data.Facts.Hostname == "ws1" })
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for heard := false; !heard; {
		must(t, r.reporter.Heartbeat(t.Context(), "0.1.0", 3))
		select {
		case e := <-beats:
			heard = e.Data.Agent == me && e.Data.Jobs == 3
		case <-tick.C: // the listener may not have been there yet
		}
	}
	cancel()
	must(t, <-listening)
}

func TestEachStartOfAnAgentHasAnInstanceOfItsOwnThatItsHeartbeatsName(t *testing.T) {
	r := newRig(t)
	sub, err := r.services.Conn().SubscribeSync(events.Heartbeat.Subject(me))
	must(t, err)
	must(t, r.services.Conn().Flush())
	instance := func(reporter *Reporter) string {
		t.Helper()
		must(t, reporter.Heartbeat(t.Context(), "0.1.0", 0))
		m, err := sub.NextMsg(30 * time.Second)
		must(t, err)
		e, err := bus.Open(events.Heartbeat, m)
		must(t, err)
		return e.Data.Instance
	}
	first := instance(r.reporter)
	if !regexp.MustCompile(`^[a-z0-9]{16}$`).MatchString(first) {
		t.Errorf("the instance is %q", first)
	}
	if again := instance(r.reporter); again != first {
		t.Errorf("one agent says %q and %q", first, again)
	}
	if other := instance(New(r.reporter.Options)); other == first {
		t.Errorf("a copy says %q too", other)
	}
}

func TestAStatusThatCanNeverBeStoredHoldsUpNoOther(t *testing.T) {
	r := newRig(t)
	r.advance("d", 1, "no such state")
	r.advance("d", 2, events.Succeeded)
	r.run()
	eventstest.Expect(t, r.services, events.JobSucceeded, of("d", 2))
	if n := testutil.ToFloat64(r.reporter.Metrics.unpublishable); n != 1 {
		t.Fatalf("%v statuses were given up", n)
	}
}
