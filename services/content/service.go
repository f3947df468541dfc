package content

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"chandler/events"
	"chandler/events/bus"
	"chandler/services/content/blobstore"
)

const (
	// uploadsAtOnce bounds what uploads cost in memory and disk heads.
	uploadsAtOnce = 16
	uploadQueue   = 10 * time.Second
	// tick is how often interrupted work is looked for.
	tick = time.Minute
	// stopTime is for transfers under way when the service ends; agents resume what is cut.
	stopTime = 5 * time.Second
)

// Options of the service. Bus, Dir and Listener are needed.
type Options struct {
	Bus *bus.Bus // with the source of this service
	Dir string   // of the blobs and the key; made where it is not there
	// Listener takes the HTTP requests and is closed at the end of Run. With TLS, they are https.
	Listener net.Listener
	TLS      *tls.Config
	// PublicURL is how agents and administrators reach Listener; empty: by its own address.
	PublicURL string
	// MaxBlob is the largest blob in bytes; 0: 64 GiB.
	MaxBlob int64
	// Provision makes the bucket if it turns out not to exist, also later; nil: somebody else does.
	Provision  func(context.Context) error
	Version    string                // of this program, x.y.z; empty: 0.0.0
	Registerer prometheus.Registerer // nil: metrics are kept but not registered
	Log        *slog.Logger          // nil: slog.Default()
	Now        func() time.Time      // nil: time.Now
}

// Service is the content service of one directory.
type Service struct {
	bus      *bus.Bus
	blobs    *blobstore.Store
	records  *records
	signer   signer
	listener net.Listener
	tls      *tls.Config
	handler  *blobHandler
	metrics  *metrics
	log      *slog.Logger
	version  string
	maxBlob  int64
	now      func() time.Time

	// changing serialises what adds and removes packages: a removal must not delete blobs that a publication
	// just found to be there.
	changing sync.Mutex

	mu      sync.Mutex
	problem error // of the last pass over interrupted work
}

// New opens the directory and starts nothing.
func New(o Options) (*Service, error) {
	switch {
	case o.Bus == nil || o.Dir == "" || o.Listener == nil:
		return nil, errors.New("content needs a bus, a directory and a listener")
	case o.Bus.Source() != events.ServiceSource("content"):
		return nil, fmt.Errorf("content publishes as %s, its bus as %s", events.ServiceSource("content"), o.Bus.Source())
	case o.MaxBlob < 0:
		return nil, errors.New("content: the largest blob is negative")
	}
	complete(&o)
	base, err := publicBase(o.PublicURL)
	if err != nil {
		return nil, fmt.Errorf("content: %w", err)
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("content: %w", err)
	}
	key, err := loadKey(filepath.Join(o.Dir, "url.key"))
	if err != nil {
		return nil, fmt.Errorf("content: %w", err)
	}
	blobs, err := blobstore.Open(filepath.Join(o.Dir, "blobs"))
	if err != nil {
		return nil, fmt.Errorf("content: %w", err)
	}
	m, err := newMetrics(o.Registerer, blobs)
	if err != nil {
		return nil, fmt.Errorf("content: %w", err)
	}
	s := &Service{bus: o.Bus, blobs: blobs, signer: signer{key: key, base: base, now: o.Now}, listener: o.Listener,
		tls: o.TLS, metrics: m, log: o.Log.With("component", "content"), version: o.Version, maxBlob: o.MaxBlob, now: o.Now}
	s.records = &records{js: o.Bus.JetStream(), log: s.log, provision: o.Provision, patience: recordsTime}
	s.handler = &blobHandler{store: blobs, signer: s.signer, metrics: m, log: s.log, slots: make(chan struct{}, uploadsAtOnce), queue: uploadQueue}
	return s, nil
}

// complete fills in what options leave open.
func complete(o *Options) {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.MaxBlob == 0 {
		o.MaxBlob = 64 << 30
	}
	if o.Version == "" {
		o.Version = "0.0.0"
	}
	if o.PublicURL == "" {
		scheme := "http"
		if o.TLS != nil {
			scheme = "https"
		}
		o.PublicURL = scheme + "://" + o.Listener.Addr().String()
	}
}

// Run works until ctx is done and everything it started has stopped. It survives a broker that is away; an
// error means that HTTP cannot be served or a consumer can never work.
func (s *Service) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var group sync.WaitGroup
	start := func(what string, run func(context.Context) error) {
		group.Go(func() {
			if err := run(ctx); err != nil && ctx.Err() == nil {
				cancel(fmt.Errorf("content: %s: %w", what, err))
			}
		})
	}
	start("serve blobs", s.serveBlobs)
	start("answer requests", s.serveRequests)
	start("follow deployments", s.follow)
	start("complete interrupted work", s.complete)
	group.Wait()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) && !errors.Is(cause, context.DeadlineExceeded) {
		return cause
	}
	return nil
}

// Healthy says what is wrong with the service; nil: nothing.
func (s *Service) Healthy(context.Context) error {
	if c := s.bus.Conn(); !c.IsConnected() {
		return fmt.Errorf("the broker is away (%s): blobs are served, nothing can be published", c.Status())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.problem
}

// URL is the address under which the service is reached.
func (s *Service) URL() string { return s.signer.base }

func (s *Service) serveBlobs(ctx context.Context) error {
	server := &http.Server{
		Handler: s.handler.routes(), TLSConfig: s.tls, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug), // of single connections
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
		defer cancel()
		if server.Shutdown(grace) != nil {
			server.Close()
		}
	})
	s.log.InfoContext(ctx, "serving blobs", "address", s.listener.Addr().String(), "url", s.signer.base)
	err := s.serve(server)
	if !stop() {
		<-stopped
		return nil
	}
	return err
}

func (s *Service) serve(server *http.Server) error {
	if s.tls != nil {
		return server.ServeTLS(s.listener, "", "")
	}
	return server.Serve(s.listener)
}

// serveRequests begins again when the broker refuses the service for a time.
func (s *Service) serveRequests(ctx context.Context) error {
	for {
		err := s.bus.Serve(ctx, "content", s.version,
			bus.Answer(events.ContentUpload, s.upload), bus.Answer(events.ContentCommit, s.commit), bus.Answer(events.ContentList, s.list),
			bus.Answer(events.ContentShow, s.show), bus.Answer(events.ContentRemove, s.remove), bus.Answer(events.ContentLocate, s.locate))
		if ctx.Err() != nil {
			return nil
		}
		s.log.WarnContext(ctx, "requests cannot be answered, trying again", "error", err)
		if !wait(ctx, 5*time.Second) {
			return nil
		}
	}
}

// follow learns which packages deployments need, and who may publish.
func (s *Service) follow(ctx context.Context) error {
	return s.bus.Handle(ctx, bus.Consumer{Stream: events.StreamEvents, Name: "content"},
		bus.On(events.TrustChanged, func(ctx context.Context, e events.Event[events.TrustNotice], _ bus.Meta) error {
			return s.noteTrust(ctx, e)
		}),
		bus.On(events.DeploymentCreated, func(ctx context.Context, e events.Event[events.DeploymentOrder], _ bus.Meta) error {
			return s.noteUse(ctx, e.Subject, e.Data.DeploymentNotice, e.Data.RollbackTo, false)
		}),
		bus.On(events.DeploymentRemoved, func(ctx context.Context, e events.Event[events.DeploymentNotice], _ bus.Meta) error {
			return s.noteUse(ctx, e.Subject, e.Data, "", true)
		}))
}

// complete finishes what a crash or an absent broker interrupted, soon after the start and then now and again.
func (s *Service) complete(ctx context.Context) error {
	for pause := time.Second; wait(ctx, pause); pause = min(2*pause, tick) {
		err := s.pass(ctx)
		s.mu.Lock()
		s.problem = err
		s.mu.Unlock()
		if err != nil {
			s.log.WarnContext(ctx, "interrupted work could not be completed, trying again", "error", err)
		} else {
			pause = tick
		}
	}
	return nil
}

func (s *Service) pass(ctx context.Context) error {
	err := s.recallFirst(ctx)
	if err == nil {
		err = s.finishPending(ctx)
	}
	if err != nil {
		return fmt.Errorf("interrupted work cannot be completed: %w", err)
	}
	return nil
}

func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// away says that the broker, or another who writes the same records, is at fault, not the request.
func away(err error) error {
	if err == nil || errors.Is(err, jetstream.ErrKeyNotFound) {
		return err
	}
	if lostRace(err) {
		return bus.Conflict(fmt.Errorf("somebody else changed the same record at this moment: try again: %w", err))
	}
	return bus.Unavailable(fmt.Errorf("content cannot reach its records: %w", err))
}
