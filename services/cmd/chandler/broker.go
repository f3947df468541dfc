package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/jwt/v2"
	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/shirou/gopsutil/v4/disk"

	"chandler/events"
	"chandler/events/access"
	"chandler/services/daemon"
)

const (
	// syncInterval of the broker's files: what was stored may be lost in a power cut for so long. Agents
	// keep what they reported for longer and tell it again.
	syncInterval = 10 * time.Second
	// storeShare is the part of the free disk that the streams may fill together.
	storeShare = 0.5
	// tlsTimeout bounds a handshake; thousands may come at once after a restart.
	tlsTimeout = 10 * time.Second
	// accountSync is how often brokers of a cluster compare what accounts may; a single one has none to ask.
	accountSync = time.Minute
)

// broker is a nats-server in this process.
type broker struct {
	server *natsserver.Server
	scale  float64
	store  *daemon.Syncer
}

// brokerOptions say what an embedded broker is.
type brokerOptions struct {
	Dir    string // of what it stores
	Listen string // host:port
	// LeafListen is where sites' leaf nodes connect, host:port; empty: nowhere.
	LeafListen string
	// Identity is the directory of the fleet's identities, Accounts that of what its accounts may. Without
	// them the broker asks nobody who he is, which is for tests alone.
	Identity, Accounts string
	TLS                *tls.Config // nil: clear text
	Log                *slog.Logger
}

// startBroker gives up when ctx ends: opening a large store takes a while.
func startBroker(ctx context.Context, o brokerOptions) (*broker, error) {
	options, err := o.nats()
	if err != nil {
		return nil, fmt.Errorf("broker: %w", err)
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("broker: make directory: %w", err)
	}
	usage, err := disk.Usage(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("broker: ask for the free space of %s: %w", o.Dir, err)
	}
	scale, store := streamSizes(usage.Free)
	options.JetStreamMaxStore = store
	server, err := natsserver.NewServer(options)
	if err != nil {
		return nil, fmt.Errorf("broker: %w", err)
	}
	server.SetLoggerV2(brokerLog{o.Log.With("component", "broker")}, false, false, false)
	b := &broker{server, scale, daemon.NewSyncer(o.Dir)}
	if err := b.start(ctx, o.Listen); err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

// nats are the options of the nats-server.
func (o brokerOptions) nats() (*natsserver.Options, error) {
	host, port, err := listenAddress(o.Listen)
	if err != nil {
		return nil, err
	}
	options := &natsserver.Options{
		ServerName: "chandler", Host: host, Port: port, JetStream: true, StoreDir: o.Dir, JetStreamDomain: access.Domain,
		SyncInterval: syncInterval, MaxPayload: events.MaxPayload, NoSigs: true,
	}
	if o.TLS != nil {
		options.TLS, options.TLSConfig, options.TLSTimeout = true, o.TLS.Clone(), tlsTimeout.Seconds()
	}
	if o.LeafListen != "" {
		leaf := &options.LeafNode
		if leaf.Host, leaf.Port, err = listenAddress(o.LeafListen); err != nil {
			return nil, err
		}
		leaf.IsolateLeafnodeInterest = true // no site needs to hear what another's agents listen to
		if o.TLS != nil {
			leaf.TLSConfig, leaf.TLSTimeout = o.TLS.Clone(), tlsTimeout.Seconds()
		}
	}
	if o.Identity == "" {
		return options, nil
	}
	return options, o.authenticate(options)
}

// listenAddress takes host:port apart, and makes sure that it can be listened on.
func listenAddress(address string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, fmt.Errorf("address %q is not host:port: %w", address, err)
	}
	if port, err = strconv.Atoi(text); err != nil || port < 0 || port > 65535 {
		return "", 0, fmt.Errorf("port %q is not a number up to 65535", text)
	}
	if port == 0 {
		port = natsserver.RANDOM_PORT
	}
	return host, port, checkListen("listen", address)
}

// authenticate makes the broker let in only users of the operator's accounts. What accounts may is in a
// directory, where an administrator's changes (who was revoked) are kept.
func (o brokerOptions) authenticate(options *natsserver.Options) error {
	fleet, err := readFleet(o.Identity)
	if err != nil {
		return err
	}
	operator, err := natsserver.ReadOperatorJWT(filepath.Join(o.Identity, operatorName))
	if err != nil {
		return fmt.Errorf("read the operator: %w", err)
	}
	if operator.Subject != fleet.Operator {
		return fmt.Errorf("%s is of operator %s, and %s says %s", operatorName, operator.Subject, fleetName, fleet.Operator)
	}
	resolver, err := natsserver.NewDirAccResolver(o.Accounts, 0, accountSync, natsserver.NoDelete)
	if err != nil {
		return fmt.Errorf("open the accounts %s: %w", o.Accounts, err)
	}
	options.TrustedOperators, options.SystemAccount, options.AccountResolver = []*jwt.OperatorClaims{operator}, fleet.Accounts[access.System], resolver
	return nil
}

// start opens the store and waits until the broker takes connections. When ctx ends, the opening of the
// store is waited for all the same: nothing may write there after this process says that it has stopped.
func (b *broker) start(ctx context.Context, listen string) error {
	started, ready := make(chan struct{}), make(chan bool, 1)
	go func() {
		b.server.Start()
		close(started)
		ready <- b.server.ReadyForConnections(30 * time.Second)
	}()
	select {
	case <-ctx.Done():
		<-started
		return fmt.Errorf("broker: start: %w", ctx.Err())
	case ok := <-ready:
		if !ok {
			return fmt.Errorf("broker: it does not listen on %s: see the log above", listen)
		}
	}
	if !b.server.JetStreamEnabled() {
		return errors.New("broker: its store could not be opened; see the log above")
	}
	return nil
}

// streamSizes fits the declared sizes of the streams to the free disk. The store's own limit is given
// wide, because the broker reserves the streams' sizes and would refuse what it made before once the disk
// has less free space.
func streamSizes(free uint64) (scale float64, store int64) {
	var declared int64
	for _, s := range events.Streams() {
		declared += s.MaxBytes
	}
	return min(1, storeShare*float64(free)/float64(declared)), 2 * declared
}

func (b *broker) url() string { return localURL(b.server.ClientURL()) }

// durable writes what was stored to the disk: what an administrator changed is not told again by anybody, as agents do with
// what they reported. Of a broker that runs elsewhere (nil) whoever runs it decides.
func (b *broker) durable() func(context.Context) error {
	if b == nil {
		return nil
	}
	return b.store.Sync
}

// address is where it listens, host:port.
func (b *broker) address() string { return b.server.Addr().String() }

// leafAddress is where it takes leaf nodes, host:port; empty: nowhere.
func (b *broker) leafAddress() string {
	v, err := b.server.Varz(nil)
	if err != nil || v.LeafNode.Port == 0 {
		return ""
	}
	return net.JoinHostPort(v.LeafNode.Host, strconv.Itoa(v.LeafNode.Port))
}

// answered says which requests of a service nobody takes yet. account is where they are made; empty: in the
// only one.
func (b *broker) answered(account, service string) error {
	listed, err := b.server.Subsz(&natsserver.SubszOptions{Subscriptions: true, Account: account, Limit: maxSubscriptions})
	if err != nil {
		return err
	}
	taken := map[string]bool{}
	for _, sub := range listed.Subs {
		taken[sub.Subject] = true
	}
	for _, c := range events.Calls() {
		if c.Service == service && !taken[c.Filter()] {
			return fmt.Errorf("it does not answer %s", c.Verb)
		}
	}
	return nil
}

// maxSubscriptions bounds what is listed of them, with every agent that is back before the services.
const maxSubscriptions = 1 << 20

// sizeScale is that of an embedded broker; one that runs elsewhere has the declared sizes.
func (b *broker) sizeScale() float64 {
	if b == nil {
		return 1
	}
	return b.scale
}

// close stops the broker in order; nil has nothing to stop.
func (b *broker) close() {
	if b == nil {
		return
	}
	b.server.Shutdown()
	b.server.WaitForShutdown()
}

// brokerLog passes on what an operator acts on; the broker's notices are debugging to us.
type brokerLog struct{ log *slog.Logger }

func (l brokerLog) Noticef(format string, v ...any) {
	l.log.Debug("broker notice", "text", fmt.Sprintf(format, v...))
}
func (l brokerLog) Warnf(format string, v ...any) {
	l.log.Warn("broker warns", "text", fmt.Sprintf(format, v...))
}
func (l brokerLog) Fatalf(format string, v ...any) {
	l.log.Error("broker fails", "text", fmt.Sprintf(format, v...))
}
func (l brokerLog) Errorf(format string, v ...any) {
	if hungUp(format, v) {
		l.Noticef(format, v...)
		return
	}
	l.log.Error("broker reports an error", "text", fmt.Sprintf(format, v...))
}
func (l brokerLog) Debugf(string, ...any) {}
func (l brokerLog) Tracef(string, ...any) {}

// hungUp says whether the broker tells that a client was gone in the middle of a TLS handshake. That is no
// error of the broker: whoever looks whether it listens does so, and each machine that enrols, to see which CA
// it has. A client that does not believe its certificate says so before it goes, and that is an error. The
// broker's own words stand at the end: what a client says of itself comes before them.
func hungUp(format string, v []any) bool {
	if !strings.HasSuffix(format, " - TLS handshake error: %v%s") || len(v) == 0 {
		return false
	}
	err, _ := v[0].(error)
	gone, ok := errors.AsType[*net.OpError](err)
	return errors.Is(err, io.EOF) || ok && !gone.Timeout() && (gone.Op == "read" || gone.Op == "write")
}
