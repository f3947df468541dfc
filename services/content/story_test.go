package content

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/eventstest"
	"chandler/events/manifest"
	"chandler/events/sign"
	"chandler/services/content/publish"
)

const agent = "amrqzcs6aqpwdvsh3k7b2"

var clock = time.Date(2026, 12, 1, 8, 0, 0, 0, time.UTC)

// story is a service with a broker, and an administrator beside it.
type story struct {
	*Service
	t      *testing.T
	broker *eventstest.Server
	admin  *bus.Bus
	dir    string
	told   int           // events of deployments
	drift  time.Duration // of scheduling's clock from one to the next
}

// begin starts a service on a running broker.
func begin(t *testing.T) *story {
	t.Helper()
	broker := eventstest.Broker(t)
	s := &story{t: t, broker: broker, admin: eventstest.Bus(t, broker, ""), dir: t.TempDir(), drift: -time.Second}
	s.start()
	return s
}

// start runs a service over the same directory and broker, until the test ends or stop is called.
func (s *story) start() (stop func()) {
	s.t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	b, err := bus.New(bus.Options{Conn: eventstest.Connect(s.t, s.broker), Source: events.ServiceSource("content"), CheckPublished: true})
	if err != nil {
		s.t.Fatal(err)
	}
	s.Service, err = New(Options{Bus: b, Dir: s.dir, Listener: listener, Registerer: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler),
		Provision: func(ctx context.Context) error { return b.Provision(ctx, bus.Topology{}) }})
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			s.t.Errorf("run: %v", err)
		}
	}
	s.t.Cleanup(stop)
	if s.broker.Broker() != nil {
		s.until("the service answers", func() bool {
			_, err := bus.Request(s.t.Context(), s.admin, "admin", events.ContentList, events.Nothing{})
			return err == nil
		})
	}
	return stop
}

func (s *story) until(what string, ok func() bool) {
	s.t.Helper()
	deadline := time.After(30 * time.Second)
	for !ok() {
		select {
		case <-deadline:
			s.t.Fatalf("it never came that %s", what)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// Upload and Commit are the administrator's side of publishing.
func (s *story) Upload(ctx context.Context, r events.UploadRequest) (events.UploadAnswer, error) {
	return bus.Request(ctx, s.admin, "admin", events.ContentUpload, r)
}

func (s *story) Commit(ctx context.Context, r events.CommitRequest) (events.PackageInfo, error) {
	return bus.Request(ctx, s.admin, "admin", events.ContentCommit, r)
}

func (s *story) show(name, version string) (events.PackageInfo, error) {
	return bus.Request(s.t.Context(), s.admin, "admin", events.ContentShow, events.Named{Name: name, Version: version})
}

func (s *story) remove(name, version string) (events.PackageInfo, error) {
	return bus.Request(s.t.Context(), s.admin, "admin", events.ContentRemove, events.Named{Name: name, Version: version})
}

func (s *story) list() []string {
	s.t.Helper()
	l, err := bus.Request(s.t.Context(), s.admin, "admin", events.ContentList, events.Nothing{})
	if err != nil {
		s.t.Fatal(err)
	}
	out := []string{}
	for _, p := range l.Packages {
		out = append(out, p.Manifest.Package+"@"+p.Manifest.Version)
	}
	return out
}

// publisher's key.
func publisher(name string) sign.Key {
	key, err := sign.NewKey([]byte(fmt.Sprintf("%-32s", name)))
	if err != nil {
		panic(err) // the seed has the right length
	}
	return key
}

// signedBy makes a package that was read one that these publishers sign.
func signedBy(names ...string) func(events.Manifest) ([]byte, error) {
	var signers []sign.Signer
	for _, name := range names {
		signers = append(signers, publisher(name))
	}
	return func(m events.Manifest) ([]byte, error) { return manifest.Seal(m, signers...) }
}

// pack reads a package of the given files, which ada signs.
func (s *story) pack(name, version string, at time.Time, files map[string]string) *publish.Plan {
	s.t.Helper()
	return s.packBy(signedBy("ada"), name, version, at, files)
}

func (s *story) packBy(seal func(events.Manifest) ([]byte, error), name, version string, at time.Time, files map[string]string) *publish.Plan {
	s.t.Helper()
	dir := s.t.TempDir()
	files[publish.SpecName] = fmt.Sprintf("api: chandler/v1\npackage: %s\nversion: %q\nprograms: {install: {command: [sh, a.sh], run: user}}\n", name, version)
	writeAll(s.t, dir, files)
	p, err := publish.Read(s.t.Context(), dir, publish.Options{Seal: seal, Now: func() time.Time { return at }})
	if err != nil {
		s.t.Fatal(err)
	}
	return p
}

func writeAll(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for path, text := range files {
		if err := os.WriteFile(filepath.Join(dir, path), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func (s *story) publish(p *publish.Plan) (events.PackageInfo, error) {
	return publish.Upload(s.t.Context(), p, s, nil, nil)
}

func (s *story) mustPublish(p *publish.Plan) events.PackageInfo {
	s.t.Helper()
	info, err := s.publish(p)
	if err != nil {
		s.t.Fatal(err)
	}
	return info
}

func about(name string) func(events.Event[events.PackageNotice]) bool {
	return func(e events.Event[events.PackageNotice]) bool { return e.Data.Package == name }
}

// deployment says, as scheduling does, that a deployment was created or removed.
// The sender's clock runs backwards, which must not matter.
func (s *story) deployment(name, pkg, version string, revision uint64, removed bool) {
	s.t.Helper()
	s.told++
	s.deploymentAbout(name, name, pkg, version, revision, removed, clock.Add(time.Duration(s.told)*s.drift))
}

func (s *story) deploymentAbout(subject, name, pkg, version string, revision uint64, removed bool, at time.Time) {
	s.t.Helper()
	n := events.DeploymentNotice{Deployment: name, Revision: revision, Order: events.DigestOf(nil), Package: pkg, Version: version, Program: "install", Collection: "all", At: at}
	b, err := bus.New(bus.Options{Conn: s.admin.Conn(), Source: events.ServiceSource("scheduling"), CheckPublished: true})
	if err != nil {
		s.t.Fatal(err)
	}
	if removed {
		_, err = bus.Publish(s.t.Context(), b, events.DeploymentRemoved, events.Event[events.DeploymentNotice]{ID: events.DeriveID("removed", name, at.String()), Subject: subject, Data: n})
	} else {
		_, err = bus.Publish(s.t.Context(), b, events.DeploymentCreated, events.Event[events.DeploymentOrder]{ID: events.DeriveID("created", name, at.String()), Subject: subject,
			Data: events.DeploymentOrder{DeploymentNotice: n, Envelope: []byte("{}")}})
	}
	if err != nil {
		s.t.Fatal(err)
	}
}
