package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"chandler/events"
	"chandler/events/access"
	"chandler/events/bus"
	"chandler/services/daemon"
)

// assembly puts the parts of a server together.
type assembly struct {
	serverOptions
	identities  *identities // nil: see serverOptions.Identity
	registry    *prometheus.Registry
	checks      map[string]daemon.Check
	broker      *broker
	monitor     *daemon.Monitor
	provisioner *bus.Bus
	conns       []*nats.Conn // of the services, in their order, and then the provisioner's
	parts       []daemon.Part
	public      string // URL of content
	listeners   []listener
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
	if err := a.identify(); err != nil {
		return err
	}
	if a.broker != nil {
		a.listens("broker", a.broker.address())
		if leaves := a.broker.leafAddress(); leaves != "" {
			a.listens("broker (leaf nodes)", leaves)
		}
	}
	buses, err := a.connectAll()
	if err != nil {
		return err
	}
	if err := a.provision(ctx); err != nil {
		return err
	}
	makers := a.makers()
	for i, name := range a.Services {
		s, err := makers[name](buses[i])
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
	monitor.TLS = a.TLS.Clone() // servers change theirs
	a.monitor = monitor
	a.listens("metrics", monitor.Addr())
	a.parts = append(a.parts, daemon.Part{Name: "metrics", Run: monitor.Run})
	return nil
}

// identify reads the fleet's identities, if there are any.
func (a *assembly) identify() error {
	for i, name := range a.Services {
		if !slices.Contains(services(), name) || slices.Index(a.Services, name) != i {
			return fmt.Errorf("service %q is not known or named twice: there are %s", name, joined(services()))
		}
	}
	if a.Identity == "" {
		return nil
	}
	i, err := openIdentities(a.Identity, a.Services)
	if err != nil {
		return err
	}
	a.identities = &i
	if a.Fleet == "" {
		a.Fleet = i.fleet.Fleet
	}
	return nil
}

// fleetAccount is the account of the services, by its public key; empty without identities.
func (a *assembly) fleetAccount() string {
	if a.identities == nil {
		return ""
	}
	return a.identities.fleet.Accounts[access.Fleet]
}

// connectAll connects every service, and whoever makes streams and buckets, each as the user it is.
func (a *assembly) connectAll() (buses []*bus.Bus, err error) {
	for _, name := range a.Services {
		b, err := a.connect(name, a.credentialsOf(name), access.Service(name), events.ServiceSource(name))
		if err != nil {
			return nil, err
		}
		buses = append(buses, b)
	}
	switch {
	case a.identities != nil:
		a.provisioner, err = a.connect("provisioner", a.identities.provisioner(), access.Provisioner, "")
	case a.Credentials == "":
		a.provisioner, err = a.connect("provisioner", "", access.Provisioner, "")
	}
	return buses, err
}

// credentialsOf is the file with the user that a service is; empty: it speaks as nobody.
func (a *assembly) credentialsOf(service string) string {
	if a.identities != nil {
		return a.identities.service(service)
	}
	return a.Credentials
}

// provision makes what is missing of streams and buckets. A service that was given no more than its own user
// may not; then they must be there.
func (a *assembly) provision(ctx context.Context) error {
	if a.provisioner == nil {
		return nil
	}
	return a.provisioner.Provision(ctx, bus.Topology{Replicas: a.Replicas, MaxBytesScale: a.broker.sizeScale()})
}

// connect speaks as the user in a file, who must have the role, or as nobody ("").
func (a *assembly) connect(name, credentials string, role access.Role, source string) (*bus.Bus, error) {
	options := daemon.ConnectOptions{URLs: a.Server, Name: name, Caller: name, CredentialsFile: credentials, CAFile: a.CA, Log: a.Log, Registerer: a.registry}
	if a.broker != nil {
		options.InProcess, options.CAFile = a.broker.server, ""
	}
	key := ""
	if credentials != "" {
		user, err := readUser(credentials)
		if err != nil {
			return nil, err
		}
		if user.role != role {
			return nil, fmt.Errorf("%s is of a user with role %s: %s needs one with role %s", credentials, user.role, name, role)
		}
		options.Caller, key = user.name, user.key
	}
	nc, err := daemon.Connect(options)
	if err != nil {
		return nil, err
	}
	a.conns = append(a.conns, nc)
	return bus.New(bus.Options{Conn: nc, Source: source, Key: key, Registerer: a.registry, Log: a.Log, Durable: a.broker.durable()})
}

func (a *assembly) closeAll() {
	for _, nc := range a.conns {
		nc.Close()
	}
}
