package checker

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/eventstest"
	"chandler/events/order"
	"chandler/events/sign"
)

// stage is a broker on which a test plays all services and agents.
type stage struct {
	testing.TB
	server *eventstest.Server
	bus    *bus.Bus
	pipe   *bus.Pipeline
	orders map[string]events.DeploymentOrder
	rows   []events.JobRow
	counts map[string]int
	began  time.Time
}

func newStage(t testing.TB) *stage {
	server := eventstest.Broker(t)
	b := eventstest.Bus(t, server, "")
	s := &stage{TB: t, server: server, bus: b, pipe: b.NewPipeline(), orders: map[string]events.DeploymentOrder{}, counts: map[string]int{}, began: time.Now().UTC()}
	s.serve()
	return s
}

// serve answers as scheduling and execution do.
func (s *stage) serve() {
	jobs := bus.Answer(events.ExecutionJobs, func(_ context.Context, _ string, q events.JobQuery) (events.JobRows, error) {
		var found events.JobRows
		for _, r := range s.rows {
			switch {
			case q.Deployment != "" && r.Deployment != q.Deployment || !strings.HasPrefix(r.Job, q.Job):
			case len(found.Jobs) == q.Limit:
				found.More = true
			default:
				found.Jobs = append(found.Jobs, r)
			}
		}
		return found, nil
	})
	freezes := bus.Answer(events.ExecutionFreezes, func(context.Context, string, events.Nothing) (events.FreezeList, error) {
		return events.FreezeList{Freezes: []events.Freeze{{ID: "deployment-held", Scope: "deployment", Name: "held", Revision: 1, At: s.began}}}, nil
	})
	show := bus.Answer(events.DeploymentShow, func(_ context.Context, _ string, n events.Named) (events.DeploymentView, error) {
		d, ok := s.orders[n.Name]
		if !ok {
			return events.DeploymentView{}, bus.NotFound(fmt.Errorf("there is no %s", n.Name))
		}
		return events.DeploymentView{DeploymentNotice: d.DeploymentNotice, Released: s.counts[n.Name]}, nil
	})
	for name, endpoints := range map[string][]bus.Endpoint{"execution": {jobs, freezes}, "scheduling": {show}} {
		b := eventstest.Bus(s, s.server, events.ServiceSource(name))
		ctx, cancel := context.WithCancel(s.Context())
		ended := make(chan error, 1)
		go func() { ended <- b.Serve(ctx, name, "1.0.0", endpoints...) }()
		s.Cleanup(func() {
			cancel()
			if err := <-ended; err != nil {
				s.Errorf("serve %s: %v", name, err)
			}
		})
	}
}

func (s *stage) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func say[T any](s *stage, t events.Type[T], source, subject, id string, at time.Time, data T) {
	s.Helper()
	m, err := bus.Message(t, events.Event[T]{ID: id, Source: source, Subject: subject, Time: at, Data: data})
	s.must(err)
	s.must(s.pipe.Add(s.Context(), m))
}

// deploy creates an order for everybody and releases it.
func (s *stage) deploy(name string, agents ...string) {
	s.Helper()
	key, err := sign.NewKey(bytes.Repeat([]byte{7}, 32))
	s.must(err)
	now := time.Now().UTC().Truncate(time.Second)
	o := order.Order{Fleet: "testfleet", Deployment: name, Revision: 1, Package: "hello", Version: "1", Manifest: events.DigestOf(nil), Program: "install", Run: events.RunAdministrative,
		Collection: "everyone", Expression: "true", Assignments: []order.Assignment{{ASAP: true}}, Rerun: order.RerunAlways, Issued: now, NotAfter: now.Add(time.Hour)}
	envelope, err := order.Sign(o, key)
	s.must(err)
	_, digest, err := order.Open(envelope)
	s.must(err)
	at := time.Now().UTC()
	d := events.DeploymentOrder{Envelope: envelope, DeploymentNotice: events.DeploymentNotice{Deployment: name, Revision: 1, Order: digest, Package: "hello", Version: "1", Program: "install", Collection: "everyone", By: "admin", At: at}}
	s.orders[name], s.counts[name] = d, len(agents)
	scheduling := events.ServiceSource("scheduling")
	say(s, events.DeploymentCreated, scheduling, name, name, at, d)
	for i := 0; i*events.ReleaseSize < len(agents); i++ {
		batch := agents[i*events.ReleaseSize : min(len(agents), (i+1)*events.ReleaseSize)]
		say(s, events.DeploymentReleased, scheduling, name, fmt.Sprintf("%s %d", name, i), at, events.Release{Deployment: name, Revision: 1, Order: digest, Wave: "1", Batch: i, Agents: batch})
	}
}

// succeed plays a whole job.
func (s *stage) succeed(deployment, agent string) {
	s.Helper()
	job, digest, execution := events.JobID(deployment, 1, agent, 0, ""), s.orders[deployment].Order, events.ServiceSource("execution")
	say(s, events.JobOffered, execution, agent, "offer "+job, time.Now().UTC(), events.JobOffer{Format: 1, Agent: agent, Job: job, Deployment: deployment, Revision: 1, Order: digest, Attempt: 1})
	var last events.JobStatus
	for i, state := range []events.State{events.Accepted, events.Downloading, events.Downloaded, events.Running, events.Succeeded} {
		last = events.JobStatus{Job: job, Deployment: deployment, Revision: 1, Order: digest, Agent: agent, Attempt: 1, Transition: uint32(i + 1), State: state, At: time.Now().UTC()}
		if state == events.Succeeded {
			last.ExitCode = new(0)
		}
		kind, _ := events.StatusType(state)
		say(s, kind, events.AgentSource(agent), agent, last.StatusID(), last.At, last)
	}
	end := events.JobEnd{JobStatus: last}
	say(s, events.JobFinished, execution, agent, "finished "+job, last.At, end)
	data, err := json.Marshal(end)
	s.must(err)
	_, err = s.bus.JetStream().PublishMsgAsync(&nats.Msg{Subject: events.HistorySubject(agent), Data: data})
	s.must(err)
	s.rows = append(s.rows, events.JobRow{Job: job, Deployment: deployment, Revision: 1, Agent: agent, State: events.Succeeded, Attempt: 1, Changed: last.At.Truncate(time.Second)})
}

func (s *stage) collect(deployments ...string) Evidence {
	s.Helper()
	s.must(s.pipe.Flush(s.Context()))
	<-s.bus.JetStream().PublishAsyncComplete()
	c := collector{bus: s.bus, caller: "admin", page: 3, only: map[string]bool{}, words: map[string]string{}}
	e, err := c.collect(s.Context(), deployments)
	s.must(err)
	return e
}

func agentNames(n int) (all []string) {
	for i := range n {
		all = append(all, events.AgentID(fmt.Append(nil, i)))
	}
	return all
}

func TestWhatIsCollectedIsWhatTheStreamsAndServicesHold(t *testing.T) {
	s, agents := newStage(t), agentNames(20)
	s.deploy("hello", agents...)
	s.deploy("other", agents...)
	for _, agent := range agents {
		s.succeed("hello", agent)
		s.succeed("other", agent)
	}
	s.rubbish()
	e := s.collect("hello")
	if found := Check(e); len(found) > 0 {
		t.Error(Report(found, 5))
	}
	got := []int{len(e.Orders), len(e.Released), len(e.Offers), len(e.Stored), len(e.Finished), len(e.History), len(e.Jobs), len(e.Freezes)}
	if diff := cmp.Diff([]int{1, 1, 20, 100, 20, 20, 20, 1}, got); diff != "" {
		t.Errorf("orders, releases, offers, statuses, ends, history, rows, freezes: %s", diff)
	}
	if diff := cmp.Diff([]Count{{"hello", 1, 20}}, e.Counts); diff != "" {
		t.Error(diff)
	}
	last := e.Stored[len(e.Stored)-1]
	want := Status{Name: Name{events.JobID("hello", 1, agents[19], 0, ""), "hello", 1, agents[19], 0, ""}, Order: s.orders["hello"].Order, Attempt: 1, Transition: 5, State: events.Succeeded, Exited: true,
		ID: events.JobStatus{Job: last.Job, Attempt: 1, Transition: 5}.StatusID(), At: last.At, Sequence: last.Sequence}
	if diff := cmp.Diff(want, last); diff != "" {
		t.Error(diff)
	}
	for _, stream := range []Witness{InEvents, InJobs, InStatus, InHistory} {
		if since := e.Since[stream]; since.IsZero() || since.After(last.At) {
			t.Errorf("%s is whole since %s", stream, since)
		}
	}
	if all := s.collect(); len(all.Stored) != 200 || len(Check(all)) > 0 {
		t.Errorf("of all deployments %d statuses are collected: %s", len(all.Stored), Report(Check(all), 3))
	}
}

// rubbish is stored by whoever may publish, and is no evidence.
func (s *stage) rubbish() {
	s.Helper()
	agent := agentNames(1)[0]
	for _, subject := range []string{events.OfferStored(agent), "chandler.job.succeeded." + agent, "chandler.job.nonsense." + agent, "chandler.event.job.finished." + agent, events.HistorySubject(agent),
		"chandler.event.deployment.created.hello", "chandler.event.deployment.released.hello"} {
		_, err := s.bus.JetStream().Publish(s.Context(), subject, []byte("{"))
		s.must(err)
	}
}

func TestWhatIsMissingInAStreamIsFound(t *testing.T) {
	s, agents := newStage(t), agentNames(5)
	s.deploy("hello", agents...)
	for _, agent := range agents[:4] {
		s.succeed("hello", agent)
	}
	want := fmt.Sprintf("not-offered %s", agents[4])
	var got []string
	for _, v := range Check(s.collect("hello")) {
		got = append(got, fmt.Sprintf("%s %s", v.Rule, v.Agent))
	}
	if diff := cmp.Diff([]string{want}, got); diff != "" {
		t.Error(diff)
	}
}

func TestStreamsThatForgotAreWholeSinceTheirOldestMessage(t *testing.T) {
	s, agents := newStage(t), agentNames(3)
	s.deploy("hello", agents...)
	for _, agent := range agents {
		s.succeed("hello", agent)
	}
	s.collect()
	status, err := s.bus.JetStream().Stream(t.Context(), events.StreamStatus)
	s.must(err)
	s.must(status.Purge(t.Context(), jetstream.WithPurgeSequence(8))) // the first job, and the beginning of the second
	history, err := s.bus.JetStream().Stream(t.Context(), events.StreamHistory)
	s.must(err)
	s.must(history.Purge(t.Context()))
	for range mostOfAgent() { // more than JOBS keeps of one agent
		_, err := s.bus.JetStream().Publish(t.Context(), events.OfferStored(agents[2]), []byte("{}"))
		s.must(err)
	}
	e := s.collect("hello")
	if n := len(e.Stored); n != 8 {
		t.Errorf("%d statuses are left", n)
	}
	oldest := e.Stored[0].At
	if since := e.Since[InStatus]; since.Before(oldest) || !e.Since[InHistory].After(since) {
		t.Errorf("STATUS is whole since %s, and its oldest status is of %s; HISTORY since %s", since, oldest, e.Since[InHistory])
	}
	if len(e.OffersSince) != 1 || e.OffersSince[agents[2]].IsZero() || len(e.Offers) != 2 {
		t.Errorf("offers are cut off of %v; %d are left", e.OffersSince, len(e.Offers))
	}
	if found := Check(e); len(found) > 0 {
		t.Error(Report(found, 5))
	}
}

func TestCollectingFailsWithoutServices(t *testing.T) {
	b := eventstest.Bus(t, eventstest.Broker(t), "")
	if _, err := Collect(t.Context(), b, "admin", nil); err == nil || !strings.Contains(err.Error(), "no execution service is running") {
		t.Errorf("the error is %v", err)
	}
}

func BenchmarkCollect(b *testing.B) {
	const agents = 20_000
	s, all := newStage(b), agentNames(agents)
	s.deploy("hello", all...)
	for _, agent := range all {
		s.succeed("hello", agent)
	}
	s.must(s.pipe.Flush(b.Context()))
	<-s.bus.JetStream().PublishAsyncComplete()
	b.ReportAllocs()
	for b.Loop() {
		e, err := Collect(b.Context(), s.bus, "admin", []string{"hello"})
		s.must(err)
		if found := Check(e); len(found) > 0 || len(e.Stored) != 5*agents {
			b.Fatal(Report(found, 3))
		}
	}
	b.ReportMetric(float64(5*agents*b.N)/b.Elapsed().Seconds(), "statuses/s")
}
