package execution

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"chandler/events"
)

// watchedJetStream tells when a stream was looked at.
type watchedJetStream struct {
	jetstream.JetStream
	looked chan string
}

func (w watchedJetStream) Stream(ctx context.Context, name string) (jetstream.Stream, error) {
	s, err := w.JetStream.Stream(ctx, name)
	w.looked <- name
	return s, err
}

// heard keeps what is logged.
type heard struct {
	mu   sync.Mutex
	text strings.Builder
}

func (h *heard) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.text.Write(p)
}

func (h *heard) wentBack() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return strings.Contains(h.text.String(), "the fold went back")
}

func TestAChangeWhileTheFoldIsCheckedIsNoLossOfTheFold(t *testing.T) {
	w := newWorld(t)
	s := w.replicaWithoutReaders()
	var log heard
	watched := watchedJetStream{s.js, make(chan string, 100)}
	s.js, s.log = watched, slog.New(slog.NewTextHandler(&log, nil))
	p := s.partitions[0]
	offered := job{deployment: "hello", agent: agents(1)[0], revision: 1}.offered(1, w.now())

	p.turn.Lock() // as a change does, which the check meets
	checked := make(chan error, 1)
	go func() { checked <- s.checkFold(t.Context()) }()
	<-watched.looked
	d := unchanged(p.jobs).delta
	d.jobs = []job{offered}
	if err := s.append(t.Context(), p, d); err != nil {
		t.Fatal(err)
	}
	p.turn.Unlock()
	if err := <-checked; err != nil || log.wentBack() {
		t.Errorf("the check took a change for a loss: %v", err)
	}

	w.deleteStream(events.StreamFold)
	if err := s.checkFold(t.Context()); err != nil || !log.wentBack() {
		t.Errorf("the check overlooked a loss: %v", err)
	}
	if _, ok := p.jobs.find(offered.key()); !ok {
		t.Error("the job is forgotten")
	}
}
