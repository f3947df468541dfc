package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"chandler/services/daemon"
)

// serverOptions say what one process runs.
type serverOptions struct {
	// Data is the directory of everything that is kept here: broker/, accounts/, content/, keys/.
	Data string
	// Identity is the directory of the fleet's identities, from which each service takes its own. Empty: all
	// speak as the user in the file Credentials, or as nobody.
	Identity string
	// Listen is where the embedded broker listens, host:port (port 0: any free one). Empty: no broker is
	// embedded, and Server says where one is.
	Listen string
	// LeafListen is where it takes sites' leaf nodes, host:port; empty: nowhere.
	LeafListen string
	Server     []string
	// Credentials and CA are files for the connection to Server; both may be empty.
	Credentials, CA string
	// KeyEncryption says by what credentials encrypts its keyset.
	KeyEncryption keyEncryption
	// TLS is for every listener; nil: clear text.
	TLS *tls.Config
	// HTTP is where content listens, host:port; Advertise is the address that agents are told, if they reach
	// it by another.
	HTTP, Advertise string
	Metrics         string   // where /metrics and /healthz listen
	Services        []string // which to run
	Fleet           string   // name of the fleet: orders for another are refused early; empty: that of Identity, or only agents look
	Replicas        int      // of every stream, when they are made
	Log             *slog.Logger
	Clock           func() time.Time // nil: time.Now
}

// server is a broker and services in this process. The zero value is not usable: see startServer.
type server struct {
	URL     string // of the broker
	Metrics string // where /metrics is served, host:port
	Content string // URL by which agents are told to fetch packages; empty: content does not run here
	broker  *broker
	cancel  context.CancelFunc
	done    chan struct{} // closed when all parts have stopped
	err     error         // why, after done
}

// readyTime bounds the wait for services to answer after their start.
const readyTime = 60 * time.Second

// startServer starts everything and returns when every service answers. The server stops when ctx ends or
// a part of it fails; wait tells. After an error nothing is left running.
func startServer(ctx context.Context, o serverOptions) (*server, error) {
	s := &server{done: make(chan struct{})}
	if o.Listen != "" {
		at := place{o.Data}
		embedded, err := startBroker(ctx, brokerOptions{Dir: at.broker(), Listen: o.Listen, LeafListen: o.LeafListen, Identity: o.Identity, Accounts: at.accounts(), TLS: o.TLS, Log: o.Log})
		if err != nil {
			return nil, err
		}
		s.broker, s.URL = embedded, embedded.url()
	}
	a := &assembly{serverOptions: o, registry: daemon.NewRegistry(), checks: map[string]daemon.Check{}, broker: s.broker}
	err := a.build(ctx)
	if err == nil {
		err = a.noteListeners()
	}
	if err != nil {
		a.closeAll()
		s.broker.close()
		return nil, err
	}
	if s.URL == "" {
		s.URL = a.conns[0].ConnectedUrl()
	}
	s.Metrics, s.Content = a.monitor.Addr(), a.public
	running, cancel := context.WithCancel(ctx)
	s.cancel = cancel
	go func() {
		defer close(s.done)
		s.err = daemon.Run(running, daemon.RunOptions{Log: o.Log}, a.parts...)
		a.closeAll()
		s.broker.close()
		a.forgetListeners()
	}()
	if err := s.ready(ctx, a); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// ready waits until each service takes all its requests, or, where the broker is elsewhere, says that it can
// do its work.
func (s *server) ready(ctx context.Context, a *assembly) error {
	ctx, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	go func() {
		select {
		case <-s.done:
			cancel()
		case <-ctx.Done():
		}
	}()
	for _, name := range a.Services {
		check := a.checks[name]
		if s.broker != nil {
			check = func(context.Context) error { return s.broker.answered(a.fleetAccount(), name) }
		}
		for err := check(ctx); err != nil; err = check(ctx) {
			if !pause(ctx, 10*time.Millisecond) {
				return fmt.Errorf("service %s is not ready: %w", name, err)
			}
		}
	}
	return nil
}

// wait blocks until the server has stopped and says why; nil after close, or when ctx ended.
func (s *server) wait() error {
	<-s.done
	return s.err
}

// close stops everything, within one grace period.
func (s *server) close() error {
	s.cancel()
	return s.wait()
}

// loopback says whether only this machine can reach host:port.
func loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	return err == nil && loopbackHost(host)
}
