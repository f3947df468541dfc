package inbox

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"chandler/agent/journal"
	"chandler/events"
	"chandler/events/bus"
	"chandler/events/eventstest"
)

const me, other = "agent0001", "agent0002"

// receiver keeps what arrives.
type receiver struct {
	got chan string
}

func (r *receiver) Offer(_ context.Context, o events.JobOffer, _ string, known *events.Outstanding) error {
	if o.Deployment == "unreadable" {
		return &Refused{errors.New("it cannot be read")}
	}
	what := "offer "
	if known != nil {
		what = "outstanding "
	}
	r.got <- what + o.Deployment
	return nil
}
func (r *receiver) Cancel(_ context.Context, c events.CancelRequest) error {
	r.got <- "cancel " + c.Deployment
	return nil
}
func (r *receiver) Freeze(_ context.Context, f []events.Freeze) error {
	for _, one := range f {
		r.got <- "freeze " + one.ID
	}
	return nil
}
func (r *receiver) Retell(context.Context) error {
	r.got <- "retell"
	return nil
}

// rig is a broker, a stand-in for execution, and the inbox of one agent.
type rig struct {
	t         *testing.T
	broker    *eventstest.Server
	execution *bus.Bus
	journal   *journal.Journal
	receiver  *receiver

	mu     sync.Mutex
	answer events.SyncAnswer
	late   []string // deployments that are outstanding from the second answer on
	asked  chan events.SyncRequest
	silent int // questions that get no answer but an error
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t, broker: eventstest.Broker(t), receiver: &receiver{make(chan string, 100)}, asked: make(chan events.SyncRequest, 100)}
	r.execution = eventstest.Bus(t, r.broker, events.ServiceSource("execution"))
	r.answer.JobsGeneration, r.answer.StatusGeneration = events.Generation{Created: 1}, events.Generation{Created: 2}
	store, err := journal.Open(filepath.Join(t.TempDir(), "journal.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	if r.journal, err = store.Agent(me); err != nil {
		t.Fatal(err)
	}
	r.background(func(ctx context.Context) error {
		return r.execution.Serve(ctx, "execution", "0.1.0", bus.Answer(events.ExecutionSync, func(_ context.Context, _ string, req events.SyncRequest) (events.SyncAnswer, error) {
			r.asked <- req
			r.mu.Lock()
			defer r.mu.Unlock()
			if r.silent > 0 {
				r.silent--
				return events.SyncAnswer{}, errors.New("it starts")
			}
			answer := r.answer
			if r.late != nil {
				r.answer.Offers, r.late = outstanding(r.late), nil
			}
			return answer, nil
		}))
	})
	return r
}

func (r *rig) background(run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	r.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			r.t.Error(err)
		}
	})
}

// listen starts the inbox and waits for its first sync.
func (r *rig) listen() *Inbox { return r.listenEvery(100 * time.Millisecond) }

func (r *rig) listenEvery(check time.Duration) *Inbox {
	r.t.Helper()
	b, err := bus.New(bus.Options{Conn: eventstest.Connect(r.t, r.broker), Source: events.AgentSource(me)})
	if err != nil {
		r.t.Fatal(err)
	}
	in, err := New(Options{Agent: me, Bus: b, Journal: r.journal, Receiver: r.receiver, Metrics: NewMetrics(prometheus.NewRegistry()),
		Log: slog.New(slog.DiscardHandler), CheckEvery: check, BeaconEvery: 10 * time.Second})
	if err != nil {
		r.t.Fatal(err)
	}
	r.background(in.Run)
	in.WaitCurrent(context.Background(), 10*time.Second)
	return in
}

func (r *rig) offer(agent, deployment string) {
	r.t.Helper()
	o := events.JobOffer{Format: 1, Agent: agent, Job: events.JobID(deployment, 1, agent, 0, ""), Deployment: deployment, Revision: 1,
		Order: events.DigestOf(nil), Attempt: 1}
	_, err := bus.Publish(context.Background(), r.execution, events.JobOffered, events.Event[events.JobOffer]{ID: events.DeriveID("offer", o.Job), Subject: agent, Data: o})
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) want(what string) {
	r.t.Helper()
	limit := time.After(15 * time.Second)
	for {
		select {
		case got := <-r.receiver.got:
			if got == what {
				return
			}
			r.t.Logf("on the way: %s", got)
		case <-limit:
			r.t.Fatalf("%q did not arrive", what)
		}
	}
}

func (r *rig) outstanding(deployments ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer.Offers = outstanding(deployments)
}

func outstanding(deployments []string) (offers []events.Outstanding) {
	for _, d := range deployments {
		offers = append(offers, events.Outstanding{JobOffer: events.JobOffer{Agent: me, Deployment: d, Revision: 1, Attempt: 1}, State: events.Offered})
	}
	return offers
}

func TestAnOfferArrivesAfterItWasStored(t *testing.T) {
	r := newRig(t)
	r.listen()
	r.offer(other, "not-mine")
	r.offer(me, "mine")
	if got := <-r.receiver.got; got != "offer mine" {
		t.Fatalf("got %q", got)
	}
}

func TestAnOfferMadeWhileAwayIsFetchedBySync(t *testing.T) {
	r := newRig(t)
	r.outstanding("early")
	r.offer(me, "early")
	r.listen()
	r.want("outstanding early")
	if p, _ := r.journal.Position(); p.JobsSequence != 1 || p.JobsGeneration.Created != 1 {
		t.Fatalf("position %+v", p)
	}
}

// awaitSequence waits until the journal has seen an offer.
func (r *rig) awaitSequence(sequence uint64) {
	r.t.Helper()
	limit, tick := time.After(15*time.Second), time.NewTicker(5*time.Millisecond)
	defer tick.Stop()
	for {
		p, err := r.journal.Position()
		if err != nil {
			r.t.Fatal(err)
		}
		if p.JobsSequence == sequence {
			return
		}
		select {
		case <-tick.C:
		case <-limit:
			r.t.Fatalf("the journal is at offer %d, not at %d", p.JobsSequence, sequence)
		}
	}
}

func TestAGapLeadsToASync(t *testing.T) {
	r := newRig(t)
	r.listenEvery(time.Hour)
	r.outstanding("missed")
	// A message of which this connection heard nothing: the journal has not seen its sequence.
	r.offer(me, "first")
	r.want("offer first")
	r.awaitSequence(1) // it is noted after the offer was taken
	if err := r.journal.MovePosition(func(p *journal.Position) { p.JobsSequence = 0 }); err != nil {
		t.Fatal(err)
	}
	r.offer(me, "second")
	r.want("outstanding missed")
}

func TestALostStreamIsNoticedAndEverythingToldAgain(t *testing.T) {
	r := newRig(t)
	r.listen()
	r.mu.Lock()
	r.answer.StatusGeneration = events.Generation{Created: 2, Counter: 1}
	generation := r.answer.StatusGeneration
	r.mu.Unlock()
	err := bus.Send(context.Background(), r.execution, events.Beacon, events.Event[events.BeaconNote]{ID: "b1", Data: events.BeaconNote{
		Jobs: events.Generation{Created: 1}, Status: generation, Freezes: []events.Freeze{{ID: "fleet", Scope: "fleet"}}}})
	if err != nil {
		t.Fatal(err)
	}
	r.want("freeze fleet")
	r.want("retell")
}

func TestARestartedBrokerIsAskedAtOnce(t *testing.T) {
	r := newRig(t)
	in := r.listen()
	in.Bus.Conn().SetReconnectHandler(nil)
	r.broker.Restart()
	in.Reconnected()
	r.outstanding("while-away")
	r.want("outstanding while-away")
}

func TestMessagesThatNameAnotherAgentOrSenderAreRefused(t *testing.T) {
	for name, send := range map[string]func(*rig){
		"an offer for another agent on our subject": func(r *rig) {
			m, err := bus.Message(events.JobOffered, events.Event[events.JobOffer]{ID: "x", Source: events.ServiceSource("execution"), Subject: other,
				Data: events.JobOffer{Format: 1, Agent: other, Job: "j", Deployment: "stray", Revision: 1, Order: events.DigestOf(nil), Attempt: 1}})
			if err != nil {
				r.t.Fatal(err)
			}
			m.Subject = events.OfferRepublished(me)
			r.execution.Conn().PublishMsg(m)
		},
		"bytes that are no event": func(r *rig) { r.execution.Conn().Publish(events.OfferRepublished(me), []byte("stray")) },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.listen()
			send(r)
			r.offer(me, "after")
			if got := <-r.receiver.got; got != "offer after" {
				t.Fatalf("got %q", got)
			}
		})
	}
}

func TestAnOfferThatIsRefusedHoldsUpNoOther(t *testing.T) {
	r := newRig(t)
	r.outstanding("unreadable", "readable")
	in := r.listen()
	r.want("outstanding readable")
	in.WaitCurrent(t.Context(), time.Minute)
	if !in.Current() {
		t.Fatal("the inbox is not current after a sync in which one offer was refused")
	}
}

func TestAnOfferThatExecutionHadNotRecordedYetIsAskedForAgain(t *testing.T) {
	r := newRig(t)
	r.offer(me, "in-between") // stored, and not in the first answer; nobody listened when it was republished
	r.late = []string{"in-between"}
	in := r.listen()
	if p, err := r.journal.Position(); err != nil || p.JobsSequence != 1 {
		t.Fatalf("position %+v, %v", p, err)
	}
	if same, err := in.upToDate(t.Context()); err != nil || !same {
		t.Fatalf("sequences must not show it: %v, %v", same, err)
	}
	r.want("outstanding in-between")
}

func TestAnOfferInBetweenIsAskedForAgainAlsoWhereTheFirstQuestionsGotNoAnswer(t *testing.T) {
	r := newRig(t)
	r.offer(me, "in-between")
	r.late, r.silent = []string{"in-between"}, 2
	r.listen()
	r.want("outstanding in-between")
}

func TestAQuestionWithoutAnAnswerIsAskedAgainSoonAndThenEverMoreRarely(t *testing.T) {
	in := &Inbox{Options: Options{CheckEvery: 10 * time.Minute}}
	for i, middle := range []time.Duration{2, 4, 8, 16, 30, 30} {
		in.failed = i + 1
		for range 100 {
			if got, middle := in.retryPause(), middle*time.Second; got < middle/2 || got > middle*3/2 {
				t.Fatalf("after %d questions it pauses %s, want about %s", i+1, got, middle)
			}
		}
	}
	in.failed = 1 << 30
	if got := in.retryPause(); got > 3*retryMost/2 {
		t.Errorf("after very many questions it pauses %s", got)
	}
}
