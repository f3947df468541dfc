package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"chandler/events"
	"chandler/events/bus"
	"chandler/services/daemon"
)

// assembly puts the parts of a server together.
type assembly struct {
	serverOptions
	registry *prometheus.Registry
	checks   map[string]daemon.Check
	broker   *broker
	monitor  *daemon.Monitor
	conns    []*nats.Conn
	parts    []daemon.Part
	public   string // URL of content
}

// service is what every service is to a process.
type service interface {
	Run(ctx context.Context) error
	// Healthy says what keeps it from its work, also that the broker is away.
	Healthy(ctx context.Context) error
}

// build connects each service by itself, so that none waits for another's traffic, and provisions once.
func (a *assembly) build(ctx context.Context) error {
	if a.Clock == nil {
		a.Clock = time.Now
	}
	makers := a.makers()
	for i, name := range a.Services {
		maker, ok := makers[name]
		if !ok || slices.Index(a.Services, name) != i {
			return fmt.Errorf("service %q is not known or named twice: there are %s", name, joined(services()))
		}
		b, err := a.connect(name)
		if err != nil {
			return err
		}
		if i == 0 {
			if err := a.provision(b)(ctx); err != nil {
				return err
			}
		}
		s, err := maker(b)
		if err != nil {
			return fmt.Errorf("make service %s: %w", name, err)
		}
		a.checks[name] = s.Healthy
		a.parts = append(a.parts, daemon.Part{Name: name, Run: s.Run})
	}
	monitor, err := daemon.NewMonitor(a.serverOptions.Metrics, a.Log, a.registry, a.checks)
	if err != nil {
		return explainListen(err, a.serverOptions.Metrics)
	}
	a.monitor = monitor
	a.parts = append(a.parts, daemon.Part{Name: "metrics", Run: monitor.Run})
	return nil
}

// provision makes what is missing of streams and buckets.
func (a *assembly) provision(b *bus.Bus) func(context.Context) error {
	return func(ctx context.Context) error {
		return b.Provision(ctx, bus.Topology{Replicas: a.Replicas, MaxBytesScale: a.broker.sizeScale()})
	}
}

func (a *assembly) connect(name string) (*bus.Bus, error) {
	options := daemon.ConnectOptions{URLs: a.Server, Name: name, Caller: name, CredentialsFile: a.Credentials, CAFile: a.CA, Log: a.Log, Registerer: a.registry}
	if a.broker != nil {
		options.InProcess = a.broker.server
	}
	nc, err := daemon.Connect(options)
	if err != nil {
		return nil, err
	}
	a.conns = append(a.conns, nc)
	return bus.New(bus.Options{Conn: nc, Source: events.ServiceSource(name), Registerer: a.registry, Log: a.Log})
}

func (a *assembly) closeAll() {
	for _, nc := range a.conns {
		nc.Close()
	}
}
