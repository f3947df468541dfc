package clustertest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
)

// Identity is whose users the brokers let in.
type Identity struct {
	Operator string            // JWT
	System   string            // public key of the system's account
	Accounts map[string]string // JWTs by public key
}

// config is what a broker's process is told.
type config struct {
	Name           string
	Client, Routes int // ports on loopback
	Monitor        int
	Peers          []string // host:port of the links to the others
	StoreDir       string
	Log            string
	MaxPayload     int32
	SyncAlways     bool
	Identity       Identity
}

const (
	clusterName = "soak"
	// nowhere is what brokers advertise to each other: they know the links that they are to use.
	nowhere = "127.0.0.1:1"
	// leaving is how long a broker that is asked to end sees off its clients.
	leaving = time.Second
)

// RunBroker is a broker's process: it serves what the file says until it is interrupted, then hands its leaderships on and
// sees its clients off.
func RunBroker(file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var c config
	if err := json.Unmarshal(data, &c); err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	options, err := c.options()
	if err != nil {
		return err
	}
	s, err := server.NewServer(options)
	if err != nil {
		return fmt.Errorf("make broker %s: %w", c.Name, err)
	}
	s.ConfigureLogger()
	EndWithParent()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	go s.Start()
	<-ctx.Done()
	s.LameDuckShutdown()
	s.WaitForShutdown()
	return nil
}

func (c config) options() (*server.Options, error) {
	operator, err := jwt.DecodeOperatorClaims(c.Identity.Operator)
	if err != nil {
		return nil, fmt.Errorf("read operator: %w", err)
	}
	accounts := &server.MemAccResolver{}
	for account, text := range c.Identity.Accounts {
		if err := accounts.Store(account, text); err != nil {
			return nil, fmt.Errorf("store account %s: %w", account, err)
		}
	}
	o := &server.Options{
		ServerName: c.Name, Host: "127.0.0.1", Port: c.Client, HTTPHost: "127.0.0.1", HTTPPort: c.Monitor, NoSigs: true, MaxPayload: c.MaxPayload, LogFile: c.Log, Logtime: true,
		JetStream: true, StoreDir: c.StoreDir, JetStreamMaxStore: 1 << 42, JetStreamMaxMemory: 1 << 30, SyncAlways: c.SyncAlways, DisableJetStreamBanner: true,
		TrustedOperators: []*jwt.OperatorClaims{operator}, SystemAccount: c.Identity.System, AccountResolver: accounts,
		PingInterval: 5 * time.Second, LameDuckDuration: leaving, LameDuckGracePeriod: -leaving / 2,
		Cluster: server.ClusterOpts{Name: clusterName, Host: "127.0.0.1", Port: c.Routes, Advertise: nowhere, NoAdvertise: true, PingInterval: 2 * time.Second},
	}
	for _, peer := range c.Peers {
		o.Routes = append(o.Routes, &url.URL{Scheme: "nats-route", Host: peer})
	}
	return o, nil
}

// EndWithParent ends this process when its standard input does, which [Process] keeps open.
func EndWithParent() {
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(1)
	}()
}
