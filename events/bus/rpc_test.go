package bus_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/eventstest"
)

// serve runs a service until the test ends, and waits until it answers.
func serve(t *testing.T, b *bus.Bus, name string, endpoints ...bus.Endpoint) (stop func() error) {
	t.Helper()
	stop = start(t, func(ctx context.Context) error { return b.Serve(ctx, name, "0.1.0", endpoints...) })
	eventually(t, "the service is there", func() bool {
		_, err := b.Conn().Request("$SRV.PING."+name, nil, time.Second)
		return err == nil
	})
	return stop
}

func TestARequestReachesItsServiceInItsCallersName(t *testing.T) {
	srv := eventstest.Broker(t)
	b := eventstest.Bus(t, srv, events.ServiceSource("execution"))
	serve(t, b, "execution", bus.Answer(events.ExecutionSync, func(_ context.Context, caller string, req events.SyncRequest) (events.SyncAnswer, error) {
		return events.SyncAnswer{Offers: []events.Outstanding{{JobOffer: events.JobOffer{Agent: caller}, Transition: uint32(req.OfferFormat)}}}, nil
	}), bus.Answer(events.ExecutionJobs, func(_ context.Context, caller string, req events.JobQuery) (events.JobRows, error) {
		return events.JobRows{Jobs: []events.JobRow{{Agent: caller, Deployment: req.Deployment}}}, nil
	}))
	client := eventstest.Bus(t, srv, "")

	sync, err := bus.Request(t.Context(), client, agent, events.ExecutionSync, events.SyncRequest{OfferFormat: 7})
	if err != nil || len(sync.Offers) != 1 || sync.Offers[0].Agent != agent || sync.Offers[0].Transition != 7 {
		t.Errorf("%+v %v", sync, err)
	}
	rows, err := bus.Request(t.Context(), client, "admin", events.ExecutionJobs, events.JobQuery{Deployment: "d"})
	if diff := cmp.Diff(events.JobRows{Jobs: []events.JobRow{{Agent: "admin", Deployment: "d"}}}, rows); diff != "" || err != nil {
		t.Errorf("%s %v", diff, err)
	}
	info, err := client.Conn().Request("$SRV.INFO.execution", nil, 5*time.Second)
	if err != nil || !strings.Contains(string(info.Data), `"subject":"chandler.rpc.execution.sync.*"`) || !strings.Contains(string(info.Data), `"queue_group":"execution"`) {
		t.Errorf("the service describes itself as %s (%v)", info.Data, err)
	}
}

func TestAFailureTellsItsCodeAndItsWords(t *testing.T) {
	srv := eventstest.Broker(t)
	b := eventstest.Bus(t, srv, events.ServiceSource("content"))
	told := map[string]error{
		"bad":      bus.BadRequest(errors.New("no “name”")),
		"missing":  fmt.Errorf("show package: %w", bus.NotFound(errors.New("no package hello"))),
		"conflict": bus.Conflict(errors.New("hello 1 is published already")),
		"denied":   bus.Denied(errors.New("not yours")),
		"later":    bus.Unavailable(errors.New("still loading")),
		"broken":   errors.New("disk full"),
		"sentinel": bus.ErrNotFound,
	}
	serve(t, b, "content",
		bus.Answer(events.ContentShow, func(_ context.Context, _ string, req events.Named) (events.PackageInfo, error) {
			if req.Name == "panic" {
				panic("a bug")
			}
			return events.PackageInfo{}, told[req.Name]
		}),
		bus.Answer(events.ContentLocate, func(context.Context, string, events.LocateRequest) (events.LocateAnswer, error) {
			return events.LocateAnswer{}, errors.New("open /var/lib/secret-path: disk full")
		}))
	tests := []struct {
		name string
		is   error
		says string
	}{
		{"bad", bus.ErrBadRequest, "no “name”"},
		{"missing", bus.ErrNotFound, "show package: no package hello"},
		{"conflict", bus.ErrConflict, "hello 1 is published already"},
		{"denied", bus.ErrDenied, "not yours"},
		{"later", bus.ErrUnavailable, "still loading"},
		{"broken", bus.ErrInternal, "disk full"},
		{"panic", bus.ErrInternal, "a bug"},
		{"sentinel", bus.ErrNotFound, "not_found"},
	}
	for _, tt := range tests {
		_, err := bus.Request(t.Context(), b, "admin", events.ContentShow, events.Named{Name: tt.name})
		if !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, want %v that says %q", tt.name, err, tt.is, tt.says)
		}
		if strings.Contains(err.Error(), "goroutine") {
			t.Errorf("%s: the caller is told the stack: %v", tt.name, err)
		}
		for _, other := range []error{bus.ErrBadRequest, bus.ErrNotFound, bus.ErrConflict, bus.ErrDenied, bus.ErrUnavailable, bus.ErrInternal} {
			if other != tt.is && errors.Is(err, other) {
				t.Errorf("%s is also %v", tt.name, other)
			}
		}
	}
	_, err := bus.Request(t.Context(), b, agent, events.ContentLocate, events.LocateRequest{})
	if !errors.Is(err, bus.ErrInternal) || strings.Contains(err.Error(), "secret-path") {
		t.Errorf("an agent is told %v", err)
	}
	if _, err := bus.Request(t.Context(), b, "admin", events.AgentList, events.AgentQuery{}); !errors.Is(err, bus.ErrUnavailable) || !strings.Contains(err.Error(), "chandler serve scheduling") {
		t.Errorf("without a service: %v", err)
	}
	if _, err := bus.Request(t.Context(), b, "*", events.ContentShow, events.Named{}); !errors.Is(err, bus.ErrBadRequest) {
		t.Errorf("a caller named *: %v", err)
	}
	large := events.UploadRequest{Blobs: []events.BlobRef{{SHA256: strings.Repeat("x", 1<<20)}}}
	if _, err := bus.Request(t.Context(), b, "admin", events.ContentUpload, large); !errors.Is(err, bus.ErrBadRequest) {
		t.Errorf("a request above the limit: %v", err)
	}
}

func TestAServiceAnswersInboxesOnlyAndReadsStrictly(t *testing.T) {
	srv := eventstest.Broker(t)
	b := eventstest.Bus(t, srv, events.ServiceSource("content"))
	called := make(chan string, 10)
	serve(t, b, "content",
		bus.Answer(events.ContentShow, func(_ context.Context, caller string, _ events.Named) (events.PackageInfo, error) {
			called <- caller
			return events.PackageInfo{}, nil
		}),
		bus.Answer(events.ContentLocate, func(_ context.Context, caller string, _ events.LocateRequest) (events.LocateAnswer, error) {
			called <- caller
			return events.LocateAnswer{}, nil
		}))
	everything := make(chan *nats.Msg, 100) // but for the audit of who was denied
	sub, err := b.Conn().ChanSubscribe("chandler.event.collection.>", everything)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	for _, reply := range []string{"chandler.event.collection.changed.x", "_INBOXES.x", ""} {
		if err := b.Conn().PublishMsg(&nats.Msg{Subject: events.ContentShow.Subject(events.NoKey, "admin"), Reply: reply, Data: []byte(`{}`)}); err != nil {
			t.Fatal(err)
		}
	}
	ask := func(subject, body string) string {
		t.Helper()
		answer, err := b.Conn().Request(subject, []byte(body), patience)
		if err != nil {
			t.Fatal(err)
		}
		return answer.Header.Get("Nats-Service-Error-Code")
	}
	if code := ask(events.ContentShow.Subject(events.NoKey, "admin"), `{"name":`); code != bus.CodeBadRequest {
		t.Errorf("half a request is answered %q", code)
	}
	if code := ask(events.ContentShow.Subject(events.NoKey, "ADMIN"), `{}`); code != bus.CodeDenied {
		t.Errorf("a caller that is no token is answered %q", code)
	}
	if code := ask(events.ContentLocate.Subject(events.NoKey, "admin"), `{}`); code != bus.CodeDenied {
		t.Errorf("a caller that is no agent is answered %q", code)
	}
	if code := ask(events.ContentShow.Subject(events.NoKey, "admin"), ``); code != "" {
		t.Errorf("a request without a body is answered %q", code)
	}
	if caller := receive(t, called); caller != "admin" || len(called) != 0 {
		t.Errorf("called by %s and %d more", caller, len(called))
	}
	if len(everything) != 0 {
		t.Errorf("the service answered to %s", (<-everything).Subject)
	}
}

func TestALargeAnswerComesInParts(t *testing.T) {
	srv := eventstest.Broker(t)
	b := eventstest.Bus(t, srv, events.ServiceSource("scheduling"))
	want := events.CollectionView{Collection: events.Collection{Name: "all"}}
	for i := range 100_000 {
		want.Members = append(want.Members, events.AgentID([]byte(fmt.Sprint(i))))
	}
	blobs := map[string][]string{"x": {strings.Repeat("x", 600<<10)}}
	serve(t, b, "scheduling",
		bus.Answer(events.CollectionShow, func(context.Context, string, events.Named) (events.CollectionView, error) { return want, nil }),
		bus.Answer(events.ContentLocate, func(context.Context, string, events.LocateRequest) (events.LocateAnswer, error) {
			return events.LocateAnswer{Blobs: blobs}, nil
		}))
	client := eventstest.Bus(t, srv, "")
	got, err := bus.Request(t.Context(), client, "admin", events.CollectionShow, events.Named{})
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%d of %d members came (%v)", len(got.Members), len(want.Members), err)
	}
	if _, err := bus.Request(t.Context(), client, agent, events.ContentLocate, events.LocateRequest{}); !errors.Is(err, bus.ErrInternal) {
		t.Errorf("an answer too large for an agent: %v", err)
	}
}

func TestManyRequestsAreAnsweredAtOnce(t *testing.T) {
	srv := eventstest.Broker(t)
	b := eventstest.Bus(t, srv, events.ServiceSource("scheduling"))
	const n = 20 // below the bound of one endpoint
	var inside sync.WaitGroup
	inside.Add(n)
	serve(t, b, "scheduling", bus.Answer(events.CollectionList, func(context.Context, string, events.Nothing) (events.CollectionViews, error) {
		inside.Done()
		inside.Wait() // until all are inside
		return events.CollectionViews{}, nil
	}))
	errs := make(chan error, n)
	for range n {
		go func() {
			_, err := bus.Request(t.Context(), b, "admin", events.CollectionList, events.Nothing{})
			errs <- err
		}()
	}
	for range n {
		if err := receive(t, errs); err != nil {
			t.Error(err)
		}
	}
}

func TestAServiceThatEndsFinishesItsRequests(t *testing.T) {
	srv := eventstest.Broker(t)
	b := eventstest.Bus(t, srv, events.ServiceSource("scheduling"))
	entered, leave := make(chan struct{}), make(chan struct{})
	stop := serve(t, b, "scheduling", bus.Answer(events.CollectionList, func(ctx context.Context, _ string, _ events.Nothing) (events.CollectionViews, error) {
		close(entered)
		<-leave
		return events.CollectionViews{Collections: []events.CollectionView{{Members: []string{"a"}}}}, ctx.Err()
	}))
	client := eventstest.Bus(t, srv, "")
	answered := make(chan error, 1)
	go func() {
		_, err := bus.Request(t.Context(), client, "admin", events.CollectionList, events.Nothing{})
		answered <- err
	}()
	receive(t, entered)
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	eventually(t, "no further requests are taken", func() bool {
		_, err := bus.Request(t.Context(), client, "admin", events.CollectionList, events.Nothing{})
		return errors.Is(err, bus.ErrUnavailable)
	})
	close(leave)
	if err := receive(t, answered); err != nil {
		t.Errorf("the request under way: %v", err)
	}
	if err := receive(t, stopped); err != nil {
		t.Error(err)
	}
}

func TestAServiceAnswersAgainAfterTheBrokerRestarted(t *testing.T) {
	srv := eventstest.Broker(t)
	b := eventstest.Bus(t, srv, events.ServiceSource("scheduling"))
	serve(t, b, "scheduling", bus.Answer(events.CollectionList, func(context.Context, string, events.Nothing) (events.CollectionViews, error) {
		return events.CollectionViews{}, nil
	}))
	client := eventstest.Bus(t, srv, "")
	srv.Restart()
	eventually(t, "the service answers", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := bus.Request(ctx, client, "admin", events.CollectionList, events.Nothing{})
		return err == nil
	})
}
