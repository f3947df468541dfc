package bus_test

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	sdk "github.com/cloudevents/sdk-go/protocol/nats_jetstream/v2"
	"github.com/cloudevents/sdk-go/v2/binding"
	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/eventstest"
)

// first is the first message that a stream keeps on a subject.
func first(t *testing.T, b *bus.Bus, stream, subject string) *nats.Msg {
	t.Helper()
	var out *nats.Msg
	if _, err := b.Replay(t.Context(), stream, subject, 1, func(m jetstream.Msg) error {
		if out == nil {
			out = &nats.Msg{Subject: m.Subject(), Header: m.Headers(), Data: m.Data()}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if out == nil {
		t.Fatalf("%s keeps nothing on %s", stream, subject)
	}
	return out
}

func TestTheBindingOfSDKGoReadsOurs(t *testing.T) {
	b := eventstest.Bus(t, eventstest.Broker(t), events.ServiceSource("scheduling"))
	e := collection("a")
	e.Trace = trace
	publish(t, b, events.CollectionChanged, e)
	m := first(t, b, events.StreamEvents, events.CollectionChanged.Filter())
	theirs, err := binding.ToEvent(t.Context(), sdk.NewMessage(m))
	if err != nil {
		t.Fatal(err)
	}
	ours, err := bus.Decode(m)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(ours.String(), theirs.String()); diff != "" {
		t.Errorf("ours -, theirs +:\n%s", diff)
	}

	text, err := json.Marshal(ours)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err = binding.ToEvent(t.Context(), sdk.NewMessage(&nats.Msg{Header: nats.Header{"Content-Type": {event.ApplicationCloudEventsJSON}}, Data: text}))
	if err != nil || theirs.ID() != ours.ID() {
		t.Errorf("structured: %v %v", theirs, err)
	}
}

func TestWeReadTheBindingOfSDKGo(t *testing.T) {
	modes := map[string]func(context.Context) context.Context{"binary": binding.WithForceBinary, "structured": binding.WithForceStructured}
	for name, mode := range modes {
		t.Run(name, func(t *testing.T) {
			srv := eventstest.Broker(t)
			b := eventstest.Bus(t, srv, "")
			e := collection("a")
			raw, err := bus.Decode(encode(t, events.CollectionChanged, e))
			if err != nil {
				t.Fatal(err)
			}
			sender, err := sdk.NewSenderFromConn(eventstest.Connect(t, srv), events.StreamEvents, events.CollectionChanged.Subject("a"), nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := sender.Send(mode(t.Context()), binding.ToMessage(&raw)); err != nil {
				t.Fatal(err)
			}
			got := make(chan events.Event[events.Collection], 1)
			start(t, func(ctx context.Context) error {
				return b.Handle(ctx, bus.Consumer{Stream: events.StreamEvents, Name: "test"}, bus.On(events.CollectionChanged, func(_ context.Context, e events.Event[events.Collection], _ bus.Meta) error {
					got <- e
					return nil
				}))
			})
			if diff := cmp.Diff(e, receive(t, got)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestTheJavaScriptSDKAndWeReadEachOther runs the npm packages cloudevents and @nats-io against our broker.
func TestTheJavaScriptSDKAndWeReadEachOther(t *testing.T) {
	dir := filepath.Join("testdata", "interop")
	node, err := exec.LookPath("node")
	if _, statErr := os.Stat(filepath.Join(dir, "node_modules")); err != nil || statErr != nil {
		missing(t, "node 20 or newer, and `npm ci` in events/bus/"+dir)
	}
	srv := eventstest.Broker(t)
	b := eventstest.Bus(t, srv, events.ServiceSource("scheduling"))
	e := collection("a")
	e.Data.Comment, e.Trace = `größe 100% "x"`, trace
	publish(t, b, events.CollectionChanged, e)

	run := func(script string, arguments ...string) []byte {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), node, append([]string{script, srv.URL()}, arguments...)...)
		cmd.Dir = dir
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s: %v\n%s", script, err, stderr.String())
		}
		return out
	}
	var read struct {
		ID, Source, Type, Subject, Time, DataContentType, DataSchema, TraceParent string
		Data                                                                      events.Collection
	}
	if err := json.Unmarshal(run("read.mjs", events.StreamEvents, events.CollectionChanged.Subject("a")), &read); err != nil {
		t.Fatal(err)
	}
	back := events.Event[events.Collection]{ID: read.ID, Source: read.Source, Subject: read.Subject, Time: e.Time, Trace: read.TraceParent, Data: read.Data}
	if diff := cmp.Diff(e, back); diff != "" || read.Type != events.CollectionChanged.Name || read.DataSchema != events.CollectionChanged.SchemaID() || read.Time != "2026-12-01T08:00:00.000Z" {
		t.Errorf("JavaScript read %+v %s", read, diff)
	}

	for _, mode := range []string{"binary", "structured"} {
		kind, e := status(agent, events.Failed, 7)
		e.ID, e.Data.Explanation = events.DeriveID("test", mode), `größe 100% "x"`
		data, err := json.Marshal(e.Data)
		if err != nil {
			t.Fatal(err)
		}
		run("write.mjs", mode, kind.Subject(agent), e.ID, e.Source, kind.Name, e.Subject, string(data))
		got := eventstest.Expect(t, b, kind, func(x events.Event[events.JobStatus]) bool { return x.ID == e.ID })
		e.Time = got.Time
		if diff := cmp.Diff(e, got); diff != "" {
			t.Errorf("%s: JavaScript wrote -, we read +:\n%s", mode, diff)
		}
	}
}

// missing skips a test for want of a component, or fails where all components must be there.
func missing(t *testing.T, component string) {
	t.Helper()
	if os.Getenv("CHANDLER_TEST_REQUIRE") == "1" {
		t.Fatalf("this test needs %s", component)
	}
	t.Skipf("this test needs %s", component)
}
