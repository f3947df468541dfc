package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
	"github.com/prometheus/client_golang/prometheus"

	"chandler/events"
	"chandler/events/access"
	"chandler/events/bus"
	"chandler/services/content"
	"chandler/services/credentials"
	"chandler/services/daemon"
	"chandler/services/execution"
	"chandler/services/scheduling"
)

var serviceNames = []string{"content", "scheduling", "execution", "credentials"}

// serviceFile is what a replica of a service is told.
type serviceFile struct {
	Server, Dir string // Server: one URL, or several with commas between
	ClockFile   string // holds by how much the replica's clock is ahead; empty: it is right
	ContentAt   string // where content listens
	Credentials string // file of the service's user
	Synced      string // the broker's store, which is written to the disk before a change is answered; empty: it is not
	// AgentSigner, AgentsAccount and EnrolmentJWT are for credentials: it makes the identities of agents.
	AgentSigner, AgentsAccount, EnrolmentJWT string
}

// replica is one service, connected and not yet run.
type replica struct {
	conn *nats.Conn
	run  func(context.Context) error
}

// openService connects a replica of a service and makes it.
func openService(name string, file serviceFile, change func(*credentials.Options), log *slog.Logger, reg *prometheus.Registry) (*replica, error) {
	nc, err := daemon.Connect(daemon.ConnectOptions{URLs: strings.Split(file.Server, ","), Name: name, Caller: name, CredentialsFile: file.Credentials, MaxReconnectWait: 300 * time.Millisecond, Log: log, Registerer: reg})
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(file.Credentials)
	if err != nil {
		return nil, err
	}
	_, _, key, _, _, err := access.ParseCredentials(data)
	if err != nil {
		return nil, err
	}
	o := bus.Options{Conn: nc, Source: events.ServiceSource(name), Key: key, Registerer: reg, Log: log, CheckPublished: true}
	if file.Synced != "" {
		o.Durable = daemon.NewSyncer(file.Synced).Sync
	}
	b, err := bus.New(o)
	if err != nil {
		return nil, err
	}
	run, err := makeService(name, file, change, b, log, reg)
	return &replica{nc, run}, err
}

func makeService(name string, file serviceFile, change func(*credentials.Options), b *bus.Bus, log *slog.Logger, reg *prometheus.Registry) (func(context.Context) error, error) {
	switch name {
	case "content":
		listener, err := net.Listen("tcp", file.ContentAt)
		if err != nil {
			return nil, err
		}
		s, err := content.New(content.Options{Bus: b, Registerer: reg, Log: log, Dir: filepath.Join(file.Dir, "blobs"), Listener: listener})
		return runOf(s, err)
	case "scheduling":
		s, err := scheduling.New(scheduling.Options{Bus: b, Registerer: reg, Log: log, Version: "0.1.0", Tick: 2 * time.Second, Now: file.clock()})
		return runOf(s, err)
	case "execution":
		s, err := execution.New(execution.Options{Bus: b, Registerer: reg, Log: log, Now: file.clock()})
		return runOf(s, err)
	case "credentials":
		signer, err := nkeys.FromSeed([]byte(file.AgentSigner))
		if err != nil {
			return nil, err
		}
		o := credentials.Options{Bus: b, Registerer: reg, Log: log, Dir: filepath.Join(file.Dir, "credentials"),
			AgentSigner: signer, AgentsAccount: file.AgentsAccount, EnrolmentJWT: file.EnrolmentJWT, AnnounceEvery: 2 * time.Second}
		if change != nil {
			change(&o)
		}
		s, err := credentials.New(o)
		return runOf(s, err)
	}
	return nil, fmt.Errorf("no service %s", name)
}

func runOf(s interface{ Run(context.Context) error }, err error) (func(context.Context) error, error) {
	if err != nil {
		return nil, err
	}
	return s.Run, nil
}

// running is one replica of a service of this process.
type running struct {
	*replica
	cancel context.CancelFunc
	done   chan error
}

func (f *fleet) startServices() {
	f.t.Helper()
	for _, name := range serviceNames {
		f.startService(name)
	}
}

func (f *fleet) stopServices() {
	f.t.Helper()
	for _, name := range serviceNames {
		f.stopService(name)
	}
}

func (f *fleet) startService(name string) {
	f.t.Helper()
	f.startServiceAt(name, f.broker.URL())
}

// startServiceAt starts a service that reaches the broker at another address.
func (f *fleet) startServiceAt(name, server string) {
	f.t.Helper()
	f.registry[name] = prometheus.NewRegistry()
	f.services[name] = f.startReplica(name, server, f.registry[name])
}

// startReplica starts one more replica of a service, which whoever calls ends.
func (f *fleet) startReplica(name, server string, reg *prometheus.Registry) *running {
	f.t.Helper()
	log := slog.New(slog.NewTextHandler(f.log, &slog.HandlerOptions{Level: slog.LevelInfo}))
	r, err := openService(name, f.serviceFile(name, server), f.change, log, reg)
	must(f.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	s := &running{replica: r, cancel: cancel, done: make(chan error, 1)}
	go func() {
		err := r.run(ctx)
		r.conn.Close()
		s.done <- err
	}()
	return s
}

// serviceFile tells a replica where to work. Content keeps its address over restarts, as it would.
func (f *fleet) serviceFile(name, server string) serviceFile {
	f.t.Helper()
	if f.contentAt == "" {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		must(f.t, err)
		f.contentAt = listener.Addr().String()
		must(f.t, listener.Close())
	}
	file := serviceFile{Server: server, Dir: f.dir, ContentAt: f.contentAt, Credentials: filepath.Join(f.dir, name+".creds"), Synced: f.synced}
	must(f.t, os.WriteFile(file.Credentials, f.broker.User(f.t, access.Service(name), name).Credentials(f.t), 0o600))
	if name == "credentials" {
		seed, err := f.broker.Keys.Roles[access.Agent].Seed()
		must(f.t, err)
		file.AgentSigner, file.AgentsAccount = string(seed), f.broker.Account(access.Agents)
		file.EnrolmentJWT = f.broker.User(f.t, access.Enrolling, "enrolling").JWT
	}
	return file
}

// stopService ends a service as a service manager does, killService as a power button.
func (f *fleet) stopService(name string) {
	f.t.Helper()
	if err := f.services[name].stop(); err != nil {
		f.t.Errorf("service %s ended: %v", name, err)
	}
	delete(f.services, name)
}

func (f *fleet) killService(name string) {
	f.t.Helper()
	f.services[name].kill()
	delete(f.services, name)
}

func (r *running) stop() error {
	r.cancel()
	if err := <-r.done; !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// kill cuts the connection first, so that the replica can say and give back nothing more.
func (r *running) kill() {
	r.conn.Close()
	r.cancel()
	<-r.done // its complaints about the connection are no matter
}

// counted sums what a service of this process counted, over all series of a metric with these labels
// (name="value").
func (f *fleet) counted(service, name string, labels ...string) float64 {
	f.t.Helper()
	file := filepath.Join(f.dir, service+".prom")
	must(f.t, prometheus.WriteToTextfile(file, f.registry[service]))
	return sumOf(f.t, file, name, labels)
}

func sumOf(t testing.TB, file, name string, labels []string) (sum float64) {
	t.Helper()
	text, err := os.ReadFile(file)
	must(t, err)
	for line := range strings.Lines(string(text)) {
		series, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if series != name && !strings.HasPrefix(series, name+"{") {
			continue
		}
		if !slices.ContainsFunc(labels, func(l string) bool { return !strings.Contains(series, l) }) {
			n, err := strconv.ParseFloat(value, 64)
			must(t, err)
			sum += n
		}
	}
	return sum
}

// runService is a service's process.
func runService(name, file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var f serviceFile
	if err := json.Unmarshal(data, &f); err != nil {
		return err
	}
	r, err := openService(name, f, nil, slog.New(slog.NewTextHandler(os.Stderr, nil)), prometheus.NewRegistry())
	if err != nil {
		return err
	}
	ctx, stop := interrupted()
	defer stop()
	return r.run(ctx)
}

// serviceProcess starts a service as a process of its own, whose end the caller waits for.
func (f *fleet) serviceProcess(name string) *exec.Cmd {
	f.t.Helper()
	data, err := json.Marshal(f.serviceFile(name, f.broker.URL()))
	must(f.t, err)
	file := filepath.Join(f.dir, name+".json")
	must(f.t, os.WriteFile(file, data, 0o600))
	self, err := os.Executable()
	must(f.t, err)
	cmd := exec.Command(self, "service", name, file)
	cmd.Stderr = f.log
	must(f.t, cmd.Start())
	return cmd
}
