package main

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"time"

	"github.com/shirou/gopsutil/v4/disk"

	"chandler/services/daemon"
)

// simulatedServer is what the broker and the services of a simulation are told.
type simulatedServer struct {
	Data       string   `json:"data"`
	Identities bool     `json:"identities"`
	TLS        bool     `json:"tls"`
	Listen     string   `json:"listen"`                // of the broker, host:port
	LeafListen string   `json:"leaf_listen,omitempty"` // where it takes leaf nodes; empty: nowhere
	Broker     []string `json:"broker,omitempty"`      // of services: where the broker is
}

const simulatedAnyPort = "127.0.0.1:0"

// Ports of a broker that is away while thousands try to reach it must not be among those that systems draw for the callers
// (from 32768): on the loopback, one of them would sooner or later call itself there, and hold the port.
const (
	listenFrom  = 20_000
	listenTo    = 32_000
	listenTries = 100
)

// freeAddress finds a port where nobody listens now.
func freeAddress() (string, error) {
	var err error
	for range listenTries {
		address := fmt.Sprintf("127.0.0.1:%d", listenFrom+rand.N(listenTo-listenFrom))
		var l net.Listener
		if l, err = net.Listen("tcp", address); err == nil {
			return address, l.Close()
		}
	}
	return "", fmt.Errorf("find a port to listen on: %w", err)
}

// identity is the directory of the fleet's identities; empty: nobody has one.
func (s simulatedServer) identity() string {
	if !s.Identities {
		return ""
	}
	return place{s.Data}.identity()
}

// shown is the certificate of every listener. The first to ask makes it; each finds the same then.
func (s simulatedServer) shown() (shownCertificate, error) {
	at := place{s.Data}
	return tlsFlags{on: s.TLS}.certificate(at, at.administrator(), namesOf([]string{simulatedAnyPort}), time.Now())
}

func simulatedLog() (*slog.Logger, error) {
	return daemon.NewLogger(os.Stderr, daemon.LogConfig{Level: "error"})
}

// runSimulatedBroker is a broker alone.
func runSimulatedBroker(ctx context.Context, told simulatedServer, in *inside) error {
	log, err := simulatedLog()
	if err != nil {
		return err
	}
	shown, err := told.shown()
	if err != nil {
		return err
	}
	at := place{told.Data}
	b, err := startBroker(ctx, brokerOptions{Dir: at.broker(), Listen: told.Listen, LeafListen: told.LeafListen, Identity: told.identity(), Accounts: at.accounts(), TLS: shown.config, Log: log})
	if err != nil {
		return err
	}
	defer b.close()
	in.say(childWord{Ready: &childReady{URL: shown.reached(b.url())}})
	<-ctx.Done()
	return nil
}

// runSimulatedServices are all services of a fleet.
func runSimulatedServices(ctx context.Context, told simulatedServer, in *inside) error {
	log, err := simulatedLog()
	if err != nil {
		return err
	}
	shown, err := told.shown()
	if err != nil {
		return err
	}
	s, err := startServer(ctx, serverOptions{Data: told.Data, Identity: told.identity(), Server: told.Broker, CA: shown.ca, HTTP: simulatedAnyPort, Metrics: simulatedAnyPort,
		TLS: shown.config, Services: services(), Replicas: 1, Log: log})
	if err != nil {
		return fmt.Errorf("start the services: %w", err)
	}
	in.say(childWord{Ready: &childReady{}})
	return s.wait()
}

// fileSystemOf names the kind of file system that a directory is on, as far as the system tells.
func fileSystemOf(dir string) string {
	usage, err := disk.Usage(dir)
	if err != nil || usage.Fstype == "" {
		return "unknown"
	}
	return usage.Fstype
}
