package main

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/order"
	"chandler/events/sign"
)

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

func TestAServerTellsTheHealthOfEachServiceAndRefusesOrdersOfAnotherFleet(t *testing.T) {
	f := newRealFleet(t)
	s := f.server
	status, says := health(t, s)
	for deadline := time.Now().Add(readyTime); status != http.StatusOK && time.Now().Before(deadline); status, says = health(t, s) {
		pause(t.Context(), 20*time.Millisecond) // services answer before they have read their state
	}
	if diff := cmp.Diff(map[string]string{"scheduling": "ok", "content": "ok", "credentials": "ok", "execution": "ok"}, says); diff != "" || status != http.StatusOK {
		t.Errorf("status %d: %s", status, diff)
	}

	c := f.admin(t)
	key, err := sign.NewKey(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().UTC().Truncate(time.Second)
	envelope, err := order.Sign(order.Order{Fleet: "elsewhere", Deployment: "hello", Revision: 1, Package: "hello", Version: "1", Manifest: events.DigestOf(nil), Program: "install",
		Run: events.RunAdministrative, Collection: "everybody", Expression: "true", Assignments: []order.Assignment{{ASAP: true}}, Rerun: order.RerunNever, Issued: now, NotAfter: now.Add(time.Hour)}, key)
	if err != nil {
		t.Fatal(err)
	}
	_, err = ask(t.Context(), c, events.DeploymentCreate, events.DeploymentRequest{Envelope: envelope})
	if err == nil || !strings.Contains(err.Error(), "for fleet elsewhere, this is "+c.Fleet) {
		t.Errorf("an order for another fleet: %v", err)
	}
}

// health asks a server how its services are.
func health(t *testing.T, s *server) (status int, says map[string]string) {
	t.Helper()
	answer, err := http.Get("http://" + s.Metrics + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if err := json.NewDecoder(answer.Body).Decode(&says); err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, says
}

func TestADeadLetterHoldsTheLargestMessageWhole(t *testing.T) {
	b, err := startBroker(t.Context(), brokerOptions{Dir: filepath.Join(t.TempDir(), "broker"), Listen: "127.0.0.1:0", Log: discard()})
	if err != nil {
		t.Fatal(err)
	}
	defer b.close()
	nc, err := nats.Connect("", nats.InProcessServer(b.server))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	made, err := bus.New(bus.Options{Conn: nc, Log: discard()})
	if err != nil {
		t.Fatal(err)
	}
	if err := made.Provision(t.Context(), bus.Topology{MaxBytesScale: b.scale}); err != nil {
		t.Fatal(err)
	}
	m := &nats.Msg{Subject: events.JobRunning.Subject("agent0001"), Header: nats.Header{"Ce-Type": {strings.Repeat("x", 4<<10)}}}
	m.Data = bytes.Repeat([]byte("y"), 1<<20-(m.Size()-len(m.Subject)))
	if _, err := made.JetStream().PublishMsg(t.Context(), m); err != nil {
		t.Fatalf("the stream does not take its largest message: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- made.Handle(ctx, bus.Consumer{Stream: events.StreamStatus, Name: "test"},
			bus.On(events.JobRunning, func(context.Context, events.Event[events.JobStatus], bus.Meta) error { return nil }))
	}()
	done := false
	err = made.Follow(ctx, events.StreamDeadLetter, events.DeadLetterSubject(events.StreamStatus), 1, func(letter jetstream.Msg) error {
		done = true
		if cut := letter.Headers().Get(bus.HeaderTruncated); cut != "" || !bytes.Equal(letter.Data(), m.Data) {
			t.Errorf("the letter has %d bytes of data, the message had %d (cut: %q)", len(letter.Data()), len(m.Data), cut)
		}
		cancel()
		return nil
	})
	if err != nil || !done {
		t.Errorf("no letter came: %v", err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestACollectionOfTooManyListedAgentsIsRefusedBeforeAnybodyIsAsked(t *testing.T) {
	f := helloFleet(t)
	code, _, stderr := command(t, f.app, "", "collection", "set", "all", "--include", strings.Repeat("a,", events.MaxListed)+"a")
	if code != 1 || !strings.Contains(stderr, "name 15,001 agents, at most 15,000 can be") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
}
