package access_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
	"chandler/events/access"
	"chandler/events/bus"
	"chandler/events/eventstest"
)

// open makes a bus whose connection fails the test when the broker refuses something.
func open(t *testing.T, b *eventstest.SecureBroker, role access.Role, name string) *bus.Bus {
	t.Helper()
	o := bus.Options{Conn: b.Connect(t, role, name, loud(t)), Key: b.User(t, role, name).Key, Log: slog.New(slog.DiscardHandler)}
	if role == access.Service(name) {
		o.Source = events.ServiceSource(name)
	}
	if role == access.Agent {
		o.Source, o.Key = events.AgentSource(name), ""
	}
	made, err := bus.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func TestEachServiceMayDoWhatItsTableSays(t *testing.T) {
	b := eventstest.Secure(t)
	agent := b.Agent(t)
	status(t, b, agent)
	for _, name := range access.Services() {
		t.Run(name, func(t *testing.T) {
			service := open(t, b, access.Service(name), name)
			needs := access.Readers()[name]
			publishes(t, service, name)
			for stream, readers := range needs.Durable() {
				for _, reader := range readers {
					reads(t, b, service, stream, reader)
				}
				if err := service.Browse(t.Context(), bus.BrowseOptions{Stream: stream}, func(jetstream.Msg) error { return nil }); err != nil {
					t.Errorf("look %s up: %v", stream, err)
				}
			}
			for _, stream := range needs.Follows() {
				if _, err := service.Replay(t.Context(), stream, ">", 1, func(jetstream.Msg) error { return nil }); err != nil {
					t.Errorf("follow %s: %v", stream, err)
				}
			}
			for _, stream := range needs.Looks() {
				if err := service.Browse(t.Context(), bus.BrowseOptions{Stream: stream}, func(jetstream.Msg) error { return nil }); err != nil {
					t.Errorf("look %s up: %v", stream, err)
				}
			}
			for _, bucket := range events.Buckets() {
				if bucket.Owner == name {
					keeps(t, service, bucket)
				}
			}
			if err := service.Conn().FlushTimeout(eventstest.Patience); err != nil {
				t.Error(err)
			}
		})
	}
}

func status(t *testing.T, b *eventstest.SecureBroker, agent string) events.JobStatus {
	t.Helper()
	s := events.JobStatus{Job: events.JobID("d", 1, agent, 0, ""), Deployment: "d", Revision: 1, Order: strings.Repeat("0", 64), Agent: agent, Attempt: 1, Transition: 1, State: events.Accepted, At: time.Now().UTC()}
	e := events.Event[events.JobStatus]{ID: s.StatusID(), Subject: agent, Time: s.At, Data: s}
	speaker := open(t, b, access.Agent, agent)
	for _, duplicate := range []bool{false, true} {
		ack := must(bus.Publish(t.Context(), speaker, events.JobAccepted, e))(t)
		if ack.Duplicate != duplicate {
			t.Errorf("the status was acknowledged with duplicate %v, want %v", ack.Duplicate, duplicate)
		}
	}
	return s
}

// publishes every event type and everything else that the service stores.
func publishes(t *testing.T, service *bus.Bus, name string) {
	t.Helper()
	needs := access.Readers()[name]
	subjects := slices.Clone(needs.Writes())
	for _, d := range events.Types() {
		switch {
		case d.Sender == name && d.Stream == "":
			if err := service.Conn().Publish(d.Subject("x"), nil); err != nil {
				t.Error(err)
			}
		case d.Sender == name:
			subjects = append(subjects, d.Subject("x"))
		case d.Sender == events.EveryService:
			subjects = append(subjects, d.Subject(name))
		}
	}
	for stream := range needs.Durable() {
		subjects = append(subjects, events.DeadLetterSubject(stream))
		if stream == events.StreamTimers {
			timer := &nats.Msg{Subject: events.TimerSubject(name, "x"), Data: []byte("{}")}
			if _, err := service.JetStream().PublishMsg(t.Context(), timer, jetstream.WithScheduleAt(time.Now().Add(time.Hour)), jetstream.WithScheduleTarget(events.TimerDue.Subject(name))); err != nil {
				t.Errorf("set timer: %v", err)
			}
		}
	}
	for _, subject := range subjects {
		subject = strings.ReplaceAll(subject, "*", "x")
		if _, err := service.JetStream().Publish(t.Context(), subject, []byte("{}")); err != nil {
			t.Errorf("publish on %s: %v", subject, err)
		}
	}
}

// reads lets the bus run the reader until it has handled everything that is there.
func reads(t *testing.T, b *eventstest.SecureBroker, service *bus.Bus, stream, reader string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), eventstest.Patience)
	defer cancel()
	var done sync.WaitGroup
	defer done.Wait()
	defer cancel()
	c := bus.Consumer{Stream: stream, Name: reader, Filters: []string{"chandler.>"}}
	if partition, ok := strings.CutPrefix(reader, "execution-"); ok && stream == events.StreamStatus {
		c.Pinned, c.Filters = true, []string{events.StatusPartition(partition)}
	}
	done.Go(func() {
		var err error
		switch stream {
		case events.StreamStatus:
			err = bus.HandleBatch(ctx, service, c, func(context.Context, []bus.Received[events.JobStatus]) error { return nil })
		case events.StreamTimers:
			c.Filters = []string{events.TimerDue.Subject(service.Source()[len("/services/"):])}
			err = service.Handle(ctx, c, bus.On(events.TimerDue, func(context.Context, events.Event[events.TimerNote], bus.Meta) error { return nil }))
		default: // what the test stored is no event, and goes to the dead letters
			err = service.Handle(ctx, c, bus.On(events.CollectionChanged, func(context.Context, events.Event[events.Collection], bus.Meta) error { return nil }))
		}
		if err != nil {
			t.Errorf("read %s as %s: %v", stream, reader, err)
		}
	})
	admin := b.Bus(t, access.Administrator, "ada")
	eventually(t, fmt.Sprintf("%s has read %s", reader, stream), func() bool {
		consumer, err := admin.JetStream().Consumer(ctx, stream, reader)
		if errors.Is(err, jetstream.ErrConsumerNotFound) {
			return false
		}
		if err != nil {
			t.Fatal(err)
		}
		info := consumer.CachedInfo()
		return info.NumPending == 0 && info.NumAckPending == 0 && info.NumWaiting > 0
	})
}

// eventually waits for a condition of the broker, of which nobody is told.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.After(eventstest.Patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-deadline:
			t.Fatalf("not within %s: %s", eventstest.Patience, what)
		case <-tick.C:
		}
	}
}

// keeps uses a bucket in all the ways that services do.
func keeps(t *testing.T, service *bus.Bus, bucket events.Bucket) {
	t.Helper()
	ctx := t.Context()
	if bucket.Objects {
		store := must(service.JetStream().ObjectStore(ctx, bucket.Name))(t)
		must(store.PutBytes(ctx, "x", make([]byte, 300<<10)))(t)
		if data := must(store.GetBytes(ctx, "x"))(t); len(data) != 300<<10 {
			t.Errorf("%s gave %d bytes back", bucket.Name, len(data))
		}
		must(store.List(ctx))(t)
		if err := store.Delete(ctx, "x"); err != nil {
			t.Error(err)
		}
		return
	}
	kv := must(service.JetStream().KeyValue(ctx, bucket.Name))(t)
	revision := must(kv.Create(ctx, "x", []byte("1")))(t)
	must(kv.Update(ctx, "x", []byte("2"), revision))(t)
	if entry := must(kv.Get(ctx, "x"))(t); string(entry.Value()) != "2" {
		t.Errorf("%s gave %q back", bucket.Name, entry.Value())
	}
	watch := must(kv.WatchAll(ctx))(t)
	if entry := <-watch.Updates(); entry == nil || entry.Key() != "x" {
		t.Errorf("a watch of %s saw %v", bucket.Name, entry)
	}
	if err := watch.Stop(); err != nil {
		t.Error(err)
	}
	must(kv.Keys(ctx))(t)
	seen := 0
	must(service.Replay(ctx, access.BucketStream(bucket), "$KV."+bucket.Name+".>", 1, func(jetstream.Msg) error { seen++; return nil }))(t)
	if seen == 0 {
		t.Errorf("following %s saw nothing", bucket.Name)
	}
	if err := kv.Purge(ctx, "x"); err != nil {
		t.Error(err)
	}
	if err := must(service.JetStream().Stream(ctx, access.BucketStream(bucket)))(t).Purge(ctx); err != nil {
		t.Errorf("shorten %s: %v", bucket.Name, err)
	}
}

func TestRequestsAndAnswersPassBetweenTheAccounts(t *testing.T) {
	b := eventstest.Secure(t)
	agent := b.Agent(t)
	scheduling, credentials := open(t, b, access.Service("scheduling"), "scheduling"), open(t, b, access.Service("credentials"), "credentials")
	large := strings.Repeat("x", 2<<20)
	ctx, cancel := context.WithCancel(t.Context())
	var serving sync.WaitGroup
	defer serving.Wait()
	defer cancel()
	serving.Go(func() {
		if err := scheduling.Serve(ctx, "scheduling", "1.0.0",
			bus.Answer(events.DeploymentShow, func(ctx context.Context, caller string, _ events.Named) (events.DeploymentView, error) {
				return events.DeploymentView{Expression: large, Signers: []string{caller, bus.CallerKey(ctx)}}, nil
			}),
			bus.Answer(events.DeploymentRemove, func(context.Context, string, events.Named) (events.Nothing, error) { return events.Nothing{}, nil })); err != nil {
			t.Error(err)
		}
	})
	serving.Go(func() {
		answer := func(_ context.Context, caller string, _ events.EnrolRequest) (events.EnrolAnswer, error) {
			return events.EnrolAnswer{Agent: caller}, nil
		}
		if err := credentials.Serve(ctx, "credentials", "1.0.0", bus.Answer(events.AgentEnrol, answer), bus.Answer(events.AgentReturn, answer),
			bus.Answer(events.AgentTrust, func(_ context.Context, caller string, _ events.TrustQuery) (events.TrustAnswer, error) {
				return events.TrustAnswer{Bundles: [][]byte{[]byte(caller)}}, nil
			})); err != nil {
			t.Error(err)
		}
	})
	for role, name := range map[access.Role]string{access.Viewer: "vera", access.Deployer: "dora", access.Administrator: "ada"} {
		asker := open(t, b, role, name)
		found := map[string]bool{}
		eventually(t, string(role)+" finds both services", func() bool {
			inbox := make(chan *nats.Msg, 16)
			reply := asker.Conn().NewInbox()
			sub := must(asker.Conn().ChanSubscribe(reply, inbox))(t)
			defer func() { _ = sub.Unsubscribe() }()
			if err := asker.Conn().PublishRequest("$SRV.PING", reply, nil); err != nil {
				t.Fatal(err)
			}
			for wait := time.After(100 * time.Millisecond); ; {
				select {
				case m := <-inbox:
					for _, name := range []string{"scheduling", "credentials"} {
						found[name] = found[name] || strings.Contains(string(m.Data), `"`+name+`"`)
					}
				case <-wait:
					return found["scheduling"] && found["credentials"]
				}
			}
		})
		view, err := bus.Request(ctx, asker, name, events.DeploymentShow, events.Named{Name: "d"})
		if err != nil || view.Expression != large || !slices.Equal(view.Signers, []string{name, b.User(t, role, name).Key}) {
			t.Errorf("%s: an answer in parts: %d bytes as %v (%v)", role, len(view.Expression), view.Signers, err)
		}
		if role == access.Viewer {
			continue
		}
		if _, err := bus.Request(ctx, asker, name, events.DeploymentRemove, events.Named{Name: "d"}); err != nil {
			t.Errorf("%s: %v", role, err)
		}
	}
	if answer, err := bus.Request(ctx, open(t, b, access.Agent, agent), agent, events.AgentTrust, events.TrustQuery{}); err != nil || string(answer.Bundles[0]) != agent {
		t.Errorf("an agent got %v (%v)", answer, err)
	}
	if answer, err := bus.Request(ctx, open(t, b, access.Enrolling, "enrolment"), agent, events.AgentEnrol, events.EnrolRequest{}); err != nil || answer.Agent != agent {
		t.Errorf("an enrolling machine got %v (%v)", answer, err)
	}
	// A service that is not there is told from one that is slow, also beyond the account.
	started := time.Now()
	_, err := bus.Request(ctx, open(t, b, access.Viewer, "vera"), "vera", events.ContentList, events.Nothing{})
	if told, ok := errors.AsType[*bus.RequestError](err); !ok || told.Code != bus.CodeUnavailable {
		t.Errorf("no content service: %v after %s", err, time.Since(started))
	}
}

func TestPeopleReadAndHearWhatAgentsAndServicesSay(t *testing.T) {
	b := eventstest.Secure(t)
	agent := b.Agent(t)
	for role, name := range map[access.Role]string{access.Viewer: "vera", access.Administrator: "ada"} {
		reader := open(t, b, role, name)
		heard := make(chan *nats.Msg, 16)
		for _, s := range []string{"chandler.event.>", "chandler.job.*.*", "chandler.heartbeat.*", "chandler.beacon"} {
			must(reader.Conn().ChanSubscribe(s, heard))(t)
		}
		if err := reader.Conn().Flush(); err != nil {
			t.Fatal(err)
		}
		speaker, execution := b.Connect(t, access.Agent, agent, loud(t)), b.Connect(t, access.Service("execution"), "execution", loud(t))
		for _, s := range []struct {
			conn    *nats.Conn
			subject string
		}{
			{speaker, events.AgentReported.Subject(agent)}, {speaker, events.JobSucceeded.Subject(agent)}, {speaker, events.Heartbeat.Subject(agent)},
			{execution, events.DeploymentHalted.Subject("d")}, {execution, events.Beacon.Subject("")},
		} {
			if err := s.conn.Publish(s.subject, []byte("{}")); err != nil {
				t.Fatal(err)
			}
			if m := next(t, heard); m.Subject != s.subject {
				t.Errorf("%s heard %s, want %s, once", role, m.Subject, s.subject)
			}
		}
	}
	status(t, b, agent)
	for role, name := range map[access.Role]string{access.Viewer: "vera", access.Administrator: "ada"} {
		states := 0
		if err := open(t, b, role, name).Browse(t.Context(), bus.BrowseOptions{Stream: events.StreamStatus, Filters: []string{"chandler.job.accepted.*.*"}}, func(jetstream.Msg) error { states++; return nil }); err != nil || states != 1 {
			t.Errorf("%s read %d statuses, want 1 (%v)", role, states, err)
		}
	}
}
