package bus_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"chandler/events"
	"chandler/events/access"
	"chandler/events/bus"
	"chandler/events/eventstest"
)

const auditLost = "chandler_bus_audit_lost_total"

// digestOf is the digest of a value's JSON.
func digestOf(t testing.TB, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return events.DigestOf(data)
}

// records waits for exactly n of the audit.
func records(t testing.TB, b *bus.Bus, n int) []events.AuditRecord {
	t.Helper()
	var found []events.AuditRecord
	for _, e := range eventstest.ExpectExactly(t, b, events.AuditRecorded, nil, n) {
		if e.Source != events.ServiceSource(e.Data.Service) || e.Subject != e.Data.Service {
			t.Errorf("%+v says it is by %s about %s", e.Data, e.Source, e.Subject)
		}
		if age := time.Since(e.Data.At); age < 0 || age > patience {
			t.Errorf("it is of %s", e.Data.At)
		}
		found = append(found, e.Data)
	}
	return found
}

func TestWhatPeopleChangeOrAreDeniedIsRecorded(t *testing.T) {
	srv := eventstest.Broker(t)
	b := eventstest.Bus(t, srv, events.ServiceSource("scheduling"))
	was, is := events.Collection{Name: "all"}, events.Collection{Name: "all", Expression: "true"}
	var none *events.Collection
	fail := map[string]error{
		"denied": bus.Denied(errors.New("not\x1b[31m yours\u202e")), "missing": bus.NotFound(errors.New("no such")), "late": fmt.Errorf("wait: %w", context.DeadlineExceeded),
	}
	serve(t, b, "scheduling",
		bus.Answer(events.CollectionSet, func(ctx context.Context, _ string, c events.Collection) (events.CollectionView, error) {
			bus.NoteChange(ctx, none, is)
			bus.NoteChange(ctx, was, is)
			return events.CollectionView{Collection: events.Collection{Comment: bus.CallerKey(ctx)}}, nil
		}),
		bus.Answer(events.CollectionRemove, func(ctx context.Context, _ string, n events.Named) (events.Nothing, error) {
			bus.NoteChange(ctx, was, none)
			if n.Name == "panic" {
				panic("a bug")
			}
			return events.Nothing{}, fail[n.Name]
		}),
		bus.Answer(events.CollectionShow, func(_ context.Context, _ string, n events.Named) (events.CollectionView, error) {
			return events.CollectionView{}, fail[n.Name]
		}))
	client := eventstest.Bus(t, srv, "")
	ctx := bus.WithTrace(t.Context(), trace)

	view, err := bus.Request(ctx, client, "ada", events.CollectionSet, is)
	if err != nil || view.Comment != events.NoKey {
		t.Errorf("the handler saw the key %q (%v)", view.Comment, err)
	}
	eventstest.ExpectExactly(t, b, events.AuditRecorded, func(e events.Event[events.AuditRecord]) bool { return e.Trace == trace }, 1)
	for _, name := range []string{"gone", "denied", "missing", "late", "panic"} {
		_, _ = bus.Request(ctx, client, "ada", events.CollectionRemove, events.Named{Name: name})
	}
	for _, name := range []string{"all", "missing", "denied"} { // of which the last alone is recorded
		_, _ = bus.Request(ctx, client, "vera", events.CollectionShow, events.Named{Name: name})
	}
	for range 2 { // equal requests are two
		_, _ = bus.Request(ctx, client, "ada", events.CollectionRemove, events.Named{Name: "gone"})
	}
	removed := func(name, result, text string) events.AuditRecord {
		return events.AuditRecord{By: "ada", Key: events.NoKey, Service: "scheduling", Verb: "collection_remove", About: name, Request: digestOf(t, events.Named{Name: name}),
			Before: digestOf(t, was), Result: result, Error: text}
	}
	want := []events.AuditRecord{
		{By: "ada", Key: events.NoKey, Service: "scheduling", Verb: "collection_set", About: "all", Request: digestOf(t, is), Before: digestOf(t, was), After: digestOf(t, is), Result: "ok"},
		removed("gone", "ok", ""),
		removed("denied", bus.CodeDenied, "not[31m yours"),
		removed("missing", bus.CodeNotFound, "no such"),
		removed("late", bus.CodeInternal, "internal error: wait: context deadline exceeded"),
		removed("panic", bus.CodeInternal, "internal error: handler panicked: a bug"),
		{By: "vera", Key: events.NoKey, Service: "scheduling", Verb: "collection_show", About: "denied", Request: digestOf(t, events.Named{Name: "denied"}), Result: bus.CodeDenied, Error: "not[31m yours"},
		removed("gone", "ok", ""),
		removed("gone", "ok", ""),
	}
	if diff := cmp.Diff(want, records(t, b, len(want)), cmpopts.IgnoreFields(events.AuditRecord{}, "At")); diff != "" {
		t.Error(diff)
	}
}

func TestWhatCannotBeReadIsRecordedToo(t *testing.T) {
	srv := eventstest.Broker(t)
	b := eventstest.Bus(t, srv, events.ServiceSource("content"))
	serve(t, b, "content",
		bus.Answer(events.ContentRemove, func(context.Context, string, events.Named) (events.PackageInfo, error) {
			return events.PackageInfo{}, bus.NotFound(errors.New(strings.Repeat("ä", 4000)))
		}),
		bus.Answer(events.ContentLocate, func(context.Context, string, events.LocateRequest) (events.LocateAnswer, error) {
			return events.LocateAnswer{}, nil
		}))
	ask := func(subject, body string) {
		t.Helper()
		if _, err := b.Conn().Request(subject, []byte(body), patience); err != nil {
			t.Fatal(err)
		}
	}
	long := `{"name":"` + strings.Repeat("ä", 4000) + `"}`
	ask(events.ContentRemove.Subject(events.NoKey, "ada"), `{"name":`)
	ask(events.ContentRemove.Subject("KEY", "ADA"), `{}`)
	ask(events.ContentRemove.Subject(events.NoKey, "ada"), long)
	ask(events.ContentLocate.Subject(events.NoKey, "ADA"), `{}`) // an agent's
	got := records(t, b, 3)
	for i, want := range []events.AuditRecord{
		{By: "ada", Key: events.NoKey, Request: events.DigestOf([]byte(`{"name":`)), Result: bus.CodeBadRequest},
		{By: "ADA", Key: "KEY", Request: events.DigestOf([]byte(`{}`)), Result: bus.CodeDenied},
		{By: "ada", Key: events.NoKey, Request: events.DigestOf([]byte(long)), Result: bus.CodeNotFound},
	} {
		want.Service, want.Verb = "content", "remove"
		if diff := cmp.Diff(want, got[i], cmpopts.IgnoreFields(events.AuditRecord{}, "At", "Error", "About")); diff != "" || got[i].Error == "" {
			t.Errorf("error %q %s", got[i].Error, diff)
		}
	}
	if n, m := len(got[2].About), len(got[2].Error); n > 256 || n < 250 || m > 1024 || m < 1000 || !strings.HasSuffix(got[2].About, "ä…") {
		t.Errorf("%d bytes about, and %d of the error: %s", n, m, got[2].About)
	}
}

func TestNoSecretIsInTheAudit(t *testing.T) {
	srv := eventstest.Broker(t)
	b := eventstest.Bus(t, srv, events.ServiceSource("credentials"))
	serve(t, b, "credentials", bus.Answer(events.AccountSetCall, func(context.Context, string, events.AccountRequest) (events.AccountNotice, error) {
		return events.AccountNotice{}, nil
	}))
	req := events.AccountRequest{Account: "corp-reader", Kind: events.NetworkAccess, User: "reader", Secret: []byte("hunter2")}
	if _, err := bus.Request(t.Context(), b, "ada", events.AccountSetCall, req); err != nil {
		t.Fatal(err)
	}
	half := `{"account":"corp-reader","secret":"aHVudGVyMg==",`
	if _, err := b.Conn().Request(events.AccountSetCall.Subject(events.NoKey, "ada"), []byte(half), patience); err != nil {
		t.Fatal(err)
	}
	got := records(t, b, 2)
	if got[0].About != "corp-reader (network-access)" || got[0].Request == digestOf(t, req) || got[0].Request == "" {
		t.Errorf("%+v", got[0])
	}
	other := req
	other.Secret = []byte("hunter3")
	if got[0].Request != digestOf(t, other.WithoutSecret()) {
		t.Error("the digest depends on the secret")
	}
	if got[1].Request != "" || got[1].Result != bus.CodeBadRequest {
		t.Errorf("what could not be read is recorded as %+v", got[1])
	}
	if whole := fmt.Sprint(got); strings.Contains(whole, "hunter") || strings.Contains(whole, "aHVudGVy") {
		t.Error(whole)
	}
}

// audited is a service whose log and metrics are looked at.
func audited(t *testing.T, srv *eventstest.Server) (*bus.Bus, *prometheus.Registry, func() string) {
	t.Helper()
	var mu sync.Mutex
	var text bytes.Buffer
	log := slog.New(slog.NewTextHandler(writer(func(p []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return text.Write(p)
	}), nil))
	reg := prometheus.NewPedanticRegistry()
	b, err := bus.New(bus.Options{Conn: eventstest.Connect(t, srv), Source: events.ServiceSource("scheduling"), Registerer: reg, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	eventstest.Provision(t, b)
	return b, reg, func() string {
		mu.Lock()
		defer mu.Unlock()
		return text.String()
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

func TestARecordThatCannotBeStoredIsLoggedAndStoredLater(t *testing.T) {
	srv := eventstest.Broker(t)
	b, reg, log := audited(t, srv)
	serve(t, b, "scheduling", bus.Answer(events.CollectionRemove, func(ctx context.Context, _ string, _ events.Named) (events.Nothing, error) {
		return events.Nothing{}, b.JetStream().DeleteStream(ctx, events.StreamEvents)
	}))
	if _, err := bus.Request(t.Context(), b, "ada", events.CollectionRemove, events.Named{Name: "lost-and-found"}); err != nil {
		t.Fatalf("the answer: %v", err)
	}
	if late, dropped := counter(t, reg, auditLost, "service", "scheduling", "fate", "late"), counter(t, reg, auditLost, "fate", "dropped"); late != 1 || dropped != 0 {
		t.Errorf("%v are late, %v dropped", late, dropped)
	}
	if text := log(); !strings.Contains(text, "level=ERROR") || !strings.Contains(text, "lost-and-found") {
		t.Errorf("the log has no record:\n%s", text)
	}
	eventstest.Provision(t, b)
	if got := records(t, b, 1); got[0].About != "lost-and-found" || got[0].Result != "ok" {
		t.Errorf("%+v", got)
	}
}

func TestARecordOutlivesABrokerThatGoesAway(t *testing.T) {
	srv := eventstest.Broker(t)
	b, reg, _ := audited(t, srv)
	serve(t, b, "scheduling", bus.Answer(events.CollectionRemove, func(context.Context, string, events.Named) (events.Nothing, error) {
		srv.Stop()
		return events.Nothing{}, nil
	}))
	asker := eventstest.Connect(t, srv)
	if err := asker.PublishRequest(events.CollectionRemove.Subject(events.NoKey, "ada"), asker.NewRespInbox(), []byte(`{"name":"a"}`)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the record is late", func() bool { return counter(t, reg, auditLost, "fate", "late") == 1 })
	srv.Start()
	if got := records(t, b, 1); got[0].About != "a" {
		t.Errorf("%+v", got)
	}
}

func TestARecordThatIsStillLateAtTheEndIsCountedAsDropped(t *testing.T) {
	srv := eventstest.Broker(t)
	b, reg, log := audited(t, srv)
	stop := serve(t, b, "scheduling", bus.Answer(events.CollectionRemove, func(ctx context.Context, _ string, n events.Named) (events.Nothing, error) {
		if n.Name == "0" {
			return events.Nothing{}, b.JetStream().DeleteStream(ctx, events.StreamEvents)
		}
		return events.Nothing{}, nil
	}))
	for i := range 3 {
		if _, err := bus.Request(t.Context(), b, "ada", events.CollectionRemove, events.Named{Name: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if late, dropped := counter(t, reg, auditLost, "fate", "late"), counter(t, reg, auditLost, "fate", "dropped"); late != 3 || dropped != 3 {
		t.Errorf("%v were late, %v dropped:\n%s", late, dropped, log())
	}
}

func TestWhatTheBrokerSendsInAClientsSteadIsNotAnswered(t *testing.T) {
	srv := eventstest.Broker(t)
	b, reg := measured(t, srv, events.ServiceSource("execution"))
	called := make(chan string, 10)
	serve(t, b, "execution", bus.Answer(events.ExecutionRetry, func(_ context.Context, _ string, n events.Named) (events.RetryAnswer, error) {
		called <- n.Name
		return events.RetryAnswer{}, nil
	}))
	subject := events.ExecutionRetry.Subject(events.NoKey, "ada")
	inbox := b.Conn().NewRespInbox()
	send := func(name, reply string, h nats.Header) {
		t.Helper()
		if err := b.Conn().PublishMsg(&nats.Msg{Subject: subject, Reply: reply, Header: h, Data: []byte(`{"name":"` + name + `"}`)}); err != nil {
			t.Fatal(err)
		}
	}
	send("1", inbox, nats.Header{"Nats-Stream": {"JOBS"}})
	send("2", inbox, nats.Header{"Nats-Sequence": {"1"}})
	send("3", inbox, nats.Header{"Nats-Subject": {"x"}})
	send("4", "$JS.API.STREAM.PURGE.EVENTS", nil)
	// A real one: a stored request that a direct get is answered with.
	store(t, b, &nats.Msg{Subject: events.JobLogged.Subject(agent), Data: []byte(`{"name":"5"}`)})
	if err := b.Conn().PublishRequest("$JS.API.DIRECT.GET."+events.StreamLogs, subject, []byte(`{"seq":1}`)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all five are counted", func() bool {
		return counter(t, reg, "chandler_bus_refused_total", "reason", "relayed") == 3 && counter(t, reg, "chandler_bus_refused_total", "reason", "reply") == 2
	})
	send("6", inbox, nats.Header{"X": {"y"}})
	if name := receive(t, called); name != "6" {
		t.Errorf("request %s was taken", name)
	}
	if got := records(t, b, 1); got[0].About != "6" {
		t.Errorf("recorded was %+v", got)
	}
}

func TestADeployersCallIsRecordedWithTheKeyThatItsConnectionProved(t *testing.T) {
	srv := eventstest.Secure(t)
	service := srv.Bus(t, access.Service("scheduling"), "scheduling")
	keys := make(chan string, 1)
	serving := start(t, func(ctx context.Context) error {
		return service.Serve(ctx, "scheduling", "0.1.0", bus.Answer(events.CollectionSet, func(ctx context.Context, _ string, c events.Collection) (events.CollectionView, error) {
			bus.NoteChange(ctx, nil, c)
			keys <- bus.CallerKey(ctx)
			return events.CollectionView{Collection: c}, nil
		}))
	})
	deployer, viewer := srv.Bus(t, access.Deployer, "dora"), srv.Bus(t, access.Viewer, "vera")
	c := events.Collection{Name: "all"}
	eventually(t, "the service answers", func() bool {
		view, err := bus.Request(t.Context(), deployer, "dora", events.CollectionSet, c)
		return err == nil && view.Name == "all"
	})
	key := srv.User(t, access.Deployer, "dora").Key
	if got := receive(t, keys); got != key {
		t.Errorf("the handler saw the key %s, not %s", got, key)
	}
	var got []events.AuditRecord
	if err := viewer.Browse(t.Context(), bus.BrowseOptions{Stream: events.StreamEvents, Filters: []string{events.AuditRecorded.Filter()}, Patience: patience},
		func(m jetstream.Msg) error {
			e, err := bus.Open(events.AuditRecorded, &nats.Msg{Subject: m.Subject(), Header: m.Headers(), Data: m.Data()})
			got = append(got, e.Data)
			return err
		}); err != nil {
		t.Fatal(err)
	}
	want := []events.AuditRecord{{By: "dora", Key: key, Service: "scheduling", Verb: "collection_set", About: "all", Request: digestOf(t, c), After: digestOf(t, c), Result: "ok"}}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(events.AuditRecord{}, "At")); diff != "" {
		t.Error(diff)
	}
	if err := serving(); err != nil {
		t.Error(err)
	}
}
