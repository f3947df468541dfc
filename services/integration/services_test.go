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
	"github.com/prometheus/client_golang/prometheus"

	"chandler/events"
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
	Server, Dir string
	ContentAt   string // where content listens
}

// replica is one service, connected and not yet run.
type replica struct {
	conn *nats.Conn
	run  func(context.Context) error
}

// openService connects a replica of a service and makes it.
func openService(name string, file serviceFile, log *slog.Logger, reg *prometheus.Registry) (*replica, error) {
	nc, err := daemon.Connect(daemon.ConnectOptions{URLs: []string{file.Server}, Name: name, Caller: name, MaxReconnectWait: 300 * time.Millisecond, Log: log, Registerer: reg})
	if err != nil {
		return nil, err
	}
	b, err := bus.New(bus.Options{Conn: nc, Source: events.ServiceSource(name), Registerer: reg, Log: log, CheckPublished: true})
	if err != nil {
		return nil, err
	}
	run, err := makeService(name, file, b, log, reg)
	return &replica{nc, run}, err
}

func makeService(name string, file serviceFile, b *bus.Bus, log *slog.Logger, reg *prometheus.Registry) (func(context.Context) error, error) {
	switch name {
	case "content":
		listener, err := net.Listen("tcp", file.ContentAt)
		if err != nil {
			return nil, err
		}
		s, err := content.New(content.Options{Bus: b, Registerer: reg, Log: log, Dir: filepath.Join(file.Dir, "blobs"), Listener: listener})
		return runOf(s, err)
	case "scheduling":
		s, err := scheduling.New(scheduling.Options{Bus: b, Registerer: reg, Log: log, Version: "0.1.0", Tick: 2 * time.Second})
		return runOf(s, err)
	case "execution":
		s, err := execution.New(execution.Options{Bus: b, Registerer: reg, Log: log})
		return runOf(s, err)
	case "credentials":
		s, err := credentials.New(credentials.Options{Bus: b, Registerer: reg, Log: log, Dir: filepath.Join(file.Dir, "credentials")})
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
	r, err := openService(name, f.serviceFile(server), log, reg)
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
func (f *fleet) serviceFile(server string) serviceFile {
	f.t.Helper()
	if f.contentAt == "" {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		must(f.t, err)
		f.contentAt = listener.Addr().String()
		must(f.t, listener.Close())
	}
	return serviceFile{Server: server, Dir: f.dir, ContentAt: f.contentAt}
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
	r, err := openService(name, f, slog.New(slog.NewTextHandler(os.Stderr, nil)), prometheus.NewRegistry())
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
	data, err := json.Marshal(f.serviceFile(f.broker.URL()))
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
