package access_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
	"chandler/events/access"
	"chandler/events/bus"
	"chandler/events/eventstest"
)

// next waits for a message.
func next(t *testing.T, ch <-chan *nats.Msg) *nats.Msg {
	t.Helper()
	select {
	case m := <-ch:
		return m
	case <-time.After(eventstest.Patience):
		t.Fatal("nothing came")
		return nil
	}
}

// kept is what all streams and buckets hold, but for STATUS, which the attacks themselves add to.
func kept(t *testing.T, admin *bus.Bus) string {
	t.Helper()
	var names []string
	for _, s := range events.Streams() {
		if s.Name != events.StreamStatus {
			names = append(names, s.Name)
		}
	}
	for _, b := range events.Buckets() {
		names = append(names, access.BucketStream(b))
	}
	var out strings.Builder
	for _, name := range names {
		stream, err := admin.JetStream().Stream(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		state := stream.CachedInfo().State
		fmt.Fprintf(&out, "%s holds %d of %d..%d\n", name, state.Msgs, state.FirstSeq, state.LastSeq)
	}
	return out.String()
}

func offer(t *testing.T, execution *bus.Bus, agent, deployment string) {
	t.Helper()
	e := events.Event[events.JobOffer]{ID: events.DeriveID("test", agent, deployment), Subject: agent, Data: events.JobOffer{
		Format: 1, Agent: agent, Job: events.JobID(deployment, 1, agent, 0, ""), Deployment: deployment, Revision: 1, Order: strings.Repeat("0", 64), Attempt: 1}}
	if _, err := bus.Publish(t.Context(), execution, events.JobOffered, e); err != nil {
		t.Fatal(err)
	}
}

func TestAnswersThatAreSentElsewhereReachNothingOfTheFleet(t *testing.T) {
	b := eventstest.Secure(t)
	me, other := b.Agent(t), b.Agent(t)
	execution, admin := b.Bus(t, access.Service("execution"), "execution"), b.Bus(t, access.Administrator, "ada")
	offer(t, execution, me, "one")
	if _, err := bus.Publish(t.Context(), b.Bus(t, access.Service("scheduling"), "scheduling"), events.CollectionChanged, events.Event[events.Collection]{ID: "1", Subject: "c", Data: events.Collection{Name: "c"}}); err != nil {
		t.Fatal(err)
	}
	reached := make(chan *nats.Msg, 64) // requests to services
	for name, subject := range map[string]string{"execution": "chandler.rpc.execution.sync.*", "credentials": "chandler.rpc.credentials.renew.*"} {
		conn := b.Connect(t, access.Service(name), name, loud(t))
		if _, err := conn.ChanSubscribe(subject, reached); err != nil {
			t.Fatal(err)
		}
		if err := conn.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	conn := b.Connect(t, access.Agent, me, quiet)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	before := kept(t, admin)
	statuses := uint64(0)
	for _, ask := range []string{"$JS.API.DIRECT.GET.JOBS.chandler.offer." + me, events.JobSucceeded.Subject(me)} {
		for _, reply := range []string{
			"$JS.API.STREAM.PURGE.EVENTS", "$JS.API.STREAM.DELETE.JOBS", "$KV.chandler_accounts.x", "$O.chandler_fold.C.x", "chandler.offer." + other, "chandler.event.agent.reported." + other,
			"chandler.event.deployment.created.x", "chandler.event.audit.recorded.scheduling", "chandler.log." + other, "chandler.fold.0", "chandler.timer.scheduling.x", "chandler.deadletter.EVENTS",
			"chandler.job.failed." + other, "chandler.rpc.execution.sync." + other, "chandler.rpc.credentials.renew." + other,
		} {
			if err := conn.PublishRequest(ask, reply, []byte("{}")[:0]); err != nil {
				t.Fatal(err)
			}
			if strings.HasPrefix(ask, events.Prefix) {
				statuses++
			}
		}
	}
	// Requests of one connection are answered in order: once this one is, all before it were.
	ack, err := js.Publish(t.Context(), events.JobSucceeded.Subject(me), nil)
	if err != nil {
		t.Fatal(err)
	}
	if ack.Sequence != statuses+1 {
		t.Errorf("STATUS ends at %d, but %d statuses were published: an answer was stored as one", ack.Sequence, statuses+1)
	}
	if after := kept(t, admin); after != before {
		t.Errorf("an answer was stored: before\n%safter\n%s", before, after)
	}
	select {
	case m := <-reached:
		t.Errorf("an answer became the request %s %s", m.Subject, m.Data)
	default:
	}
	for _, reply := range []string{"$JS.ACK.EVENTS.execution.1.1.1.1.1", "_R_.x", "_GR_.x.y.z"} {
		if err := conn.PublishRequest("$JS.API.DIRECT.GET.JOBS.chandler.offer."+me, reply, nil); err != nil {
			t.Fatal(err)
		}
		if !refused(t, conn, reply) {
			t.Errorf("an answer may be sent to %s", reply)
		}
	}
}

func TestAnAnswerThatIsSentToAnotherAgentCanBeToldFromAnOffer(t *testing.T) {
	b := eventstest.Secure(t)
	me, other := b.Agent(t), b.Agent(t)
	execution := b.Bus(t, access.Service("execution"), "execution")
	offer(t, execution, me, "one")
	arriving := make(chan *nats.Msg, 8)
	victim := b.Connect(t, access.Agent, other, loud(t))
	if _, err := victim.ChanSubscribe(events.AgentInbox(other), arriving); err != nil {
		t.Fatal(err)
	}
	if err := victim.Flush(); err != nil {
		t.Fatal(err)
	}
	conn := b.Connect(t, access.Agent, me, loud(t))
	if err := conn.PublishRequest("$JS.API.DIRECT.GET.JOBS.chandler.offer."+me, events.OfferRepublished(other), nil); err != nil {
		t.Fatal(err)
	}
	// Within one account the broker delivers it. It says itself whose offer it is, in a header that its sender
	// cannot write, and so does the event.
	m := next(t, arriving)
	if subject := m.Header.Get(jetstream.SubjectHeader); subject != events.OfferStored(me) {
		t.Errorf("it was stored as %q, want %q", subject, events.OfferStored(me))
	}
	raw, err := bus.Decode(m)
	if err != nil {
		t.Fatal(err)
	}
	if e, err := bus.Typed[events.JobOffer](raw); err != nil || e.Data.Agent != me {
		t.Errorf("the event is about %q (%v)", e.Data.Agent, err)
	}
	offer(t, execution, other, "two")
	if m = next(t, arriving); m.Header.Get(jetstream.SubjectHeader) != events.OfferStored(other) {
		t.Errorf("an offer of its own was stored as %q", m.Header.Get(jetstream.SubjectHeader))
	}
}

func TestPeoplesAnswersStayAmongPeople(t *testing.T) {
	b := eventstest.Secure(t)
	viewer, admin := b.Connect(t, access.Viewer, "vera", quiet), b.Bus(t, access.Administrator, "ada")
	offer(t, b.Bus(t, access.Service("execution"), "execution"), b.Agent(t), "one")
	before := kept(t, admin)
	for _, reply := range []string{"$JS.API.STREAM.PURGE.JOBS", "$KV.chandler_trust.x", "chandler.offer." + b.Agent(t), "chandler.event.deployment.created.x", "$JS.API.DIRECT.GET.JOBS"} {
		if err := viewer.PublishRequest("$JS.API.DIRECT.GET.JOBS", reply, []byte(`{"seq":1}`)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := viewer.Request("$JS.API.DIRECT.GET.JOBS", []byte(`{"seq":1}`), eventstest.Patience); err != nil { // answered after those before it
		t.Fatal(err)
	}
	if after := kept(t, admin); after != before {
		t.Errorf("an answer was stored: before\n%safter\n%s", before, after)
	}
	if err := viewer.PublishRequest("$JS.API.DIRECT.GET.JOBS", "$JS.ACK.EVENTS.execution.1.1.1.1.1", []byte(`{"seq":9}`)); err != nil {
		t.Fatal(err)
	}
	if !refused(t, viewer, "$JS.ACK.EVENTS.execution.1.1.1.1.1") {
		t.Error("a viewer acknowledges what execution has not read")
	}
}
