package enrol

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"chandler/events"
	"chandler/events/bus"
)

// connectTime bounds one attempt to reach one broker.
const connectTime = 5 * time.Second

var errNoIdentity = errors.New("this agent has no identity yet")

// NATSOptions are the identity's part of the options of the agent's connection. They stand behind all that
// set handlers, because they listen in on errors.
func (k *Keeper) NATSOptions() ([]nats.Option, error) {
	options := []nats.Option{
		nats.CustomInboxPrefix("_INBOX." + k.id),
		k.present, k.listenIn,
	}
	config, err := k.TLS()
	if err != nil {
		return nil, err
	}
	if config != nil {
		options = append(options, nats.Secure(config))
	}
	return options, nil
}

// TLS is how every server of the fleet proves who it is, the broker and those of content alike: by the CA that
// the token named, and no other. It is nil where none is pinned: then the system's authorities are asked.
func (k *Keeper) TLS() (*tls.Config, error) {
	k.mu.Lock()
	pinned := k.identity != nil && k.identity.CA != ""
	k.mu.Unlock()
	if !pinned {
		return nil, nil
	}
	return k.pinnedTLS()
}

// present shows the identity of the moment. nats.UserJWT would want one at once.
func (k *Keeper) present(o *nats.Options) error {
	o.UserJWT, o.SignatureCB = k.presentJWT, k.Sign
	return nil
}

func (k *Keeper) presentJWT() (string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.jwt == "" {
		return "", errNoIdentity
	}
	k.shown = k.jwt
	return k.jwt, nil
}

// Sign signs with the enrolled key: the broker's nonces, and what the agent says to a service that proves its keys.
func (k *Keeper) Sign(message []byte) ([]byte, error) {
	pair, err := nkeys.FromSeed(k.seed)
	if err != nil {
		return nil, err
	}
	defer pair.Wipe()
	return pair.Sign(message)
}

// listenIn hears that the broker does not take the identity, beside the handlers that are there.
func (k *Keeper) listenIn(o *nats.Options) error {
	onError, onReconnect := o.AsyncErrorCB, o.ReconnectErrCB
	o.AsyncErrorCB = func(c *nats.Conn, s *nats.Subscription, err error) {
		k.hear(err)
		if onError != nil {
			onError(c, s, err)
		}
	}
	o.ReconnectErrCB = func(c *nats.Conn, err error) {
		k.hear(err)
		if onReconnect != nil {
			onReconnect(c, err)
		}
	}
	return nil
}

// hear notes an error of the connection that is about the identity, unless it comes late and is about one that
// was replaced meanwhile.
func (k *Keeper) hear(err error) {
	if !errors.Is(err, nats.ErrAuthorization) && !errors.Is(err, nats.ErrAuthExpired) && !errors.Is(err, nats.ErrAuthRevoked) {
		return
	}
	k.mu.Lock()
	first := !k.rejected && k.shown == k.jwt
	if first {
		k.rejected, k.hurry = true, true
	}
	k.mu.Unlock()
	if first {
		k.Wake()
	}
}

// pinnedTLS is the configuration that takes certificates of the pinned CA alone.
func (k *Keeper) pinnedTLS() (*tls.Config, error) {
	k.mu.Lock()
	hash := k.identity.CA
	k.mu.Unlock()
	ca, err := readCA(k.Dir, hash)
	if err != nil {
		return nil, err
	}
	return trusting(ca), nil
}

// ErrCA says that the pinned CA is missing or another one. Enrol with a token brings it back.
var ErrCA = errors.New("enrol again with a token (`chandler-agent enrol --token-file FILE`), which brings the CA back and changes nothing else")

// CheckCA says whether a state directory holds the CA that the token named, if it named one.
func CheckCA(dir string) error {
	id, err := readIdentity(dir)
	if err != nil || id == nil || id.CA == "" {
		return err
	}
	_, err = readCA(dir, id.CA)
	return err
}

// readCA reads the pinned CA of the given digest.
func readCA(dir, hash string) (*x509.Certificate, error) {
	path := filepath.Join(dir, caFile)
	data, err := readFile(dir, caFile, maxSmall)
	if err != nil {
		return nil, err
	}
	if data == nil {
		return nil, fmt.Errorf("%s is missing, without which no broker is believed: %w", path, ErrCA)
	}
	block, _ := pem.Decode(data)
	if block == nil || digest(block.Bytes) != hash {
		return nil, fmt.Errorf("%s is not the CA that the token named: %w", path, ErrCA)
	}
	ca, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read pinned CA: %w", err)
	}
	return ca, nil
}

func trusting(ca *x509.Certificate) *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool}
}

func digest(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// errSeen ends the handshakes of findCA.
var errSeen = errors.New("the chain was looked at")

// findCA asks the brokers for their chains and gives the certificate of the given digest. It believes
// nobody: every handshake is broken off before anything is said, and whoever uses the certificate verifies
// chain and host name against it, as always. A rogue broker can only present what it cannot use.
//
// It hangs up without a word: an alert would tell the broker that its certificate is bad, which is what its
// log is to say of agents that do refuse it.
func (k *Keeper) findCA(ctx context.Context, servers []string, hash string) (*x509.Certificate, error) {
	line := &lastLine{dialer: dialer{ctx}}
	var mu sync.Mutex
	var found *x509.Certificate
	chains := 0
	look := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: true, VerifyConnection: func(s tls.ConnectionState) error {
		mu.Lock()
		defer mu.Unlock()
		chains++
		for _, c := range s.PeerCertificates {
			if digest(c.Raw) == hash {
				found = c
			}
		}
		line.hangUp()
		return errSeen
	}}
	conn, err := nats.Connect(strings.Join(servers, ","), k.own(ctx, nats.Secure(look), nats.SetCustomDialer(line))...)
	if err == nil { // only if there was no handshake
		conn.Close()
		err = errors.New("the connection is not TLS")
	}
	mu.Lock()
	defer mu.Unlock()
	switch {
	case found != nil:
		return found, nil
	case chains > 0:
		return nil, fmt.Errorf("the broker's certificate does not come from the CA that the token names (%.12s…): %s", hash, strings.Join(servers, ", "))
	}
	return nil, unreached(servers, "to look at the broker's certificate", err)
}

// unreached names the brokers that were tried, and what to do.
func unreached(servers []string, as string, err error) error {
	advice := ""
	if Away(err) {
		advice = " (no broker answers there: does it run, is the address right, and does a firewall let this machine through?)"
	}
	return fmt.Errorf("connect to %s %s: %w%s", strings.Join(servers, ", "), as, err, advice)
}

// Away says whether an error of Enrol or Return is that nobody answered, or that the service asks for patience:
// asking again may help.
func Away(err error) bool {
	if r := refusal(err); r != nil {
		return r.Refused == events.RefusedLater || r.Refused == events.RefusedNotSetUp
	}
	_, network := errors.AsType[*net.OpError](err) // not net.Error: that a file is missing is one too
	_, name := errors.AsType[*net.DNSError](err)
	return network || name || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrNoServers) || errors.Is(err, nats.ErrTimeout) || errors.Is(err, nats.ErrNoResponders) ||
		errors.Is(err, nats.ErrConnectionClosed) || errors.Is(err, io.EOF) || errors.Is(err, bus.ErrUnavailable)
}

// brokers are the URLs of an identity's brokers.
func (k *Keeper) brokers(id identity) []string {
	if len(k.Options.Servers) > 0 {
		return k.Options.Servers
	}
	return id.Servers
}

// own are the options of a short connection that ends with ctx.
func (k *Keeper) own(ctx context.Context, more ...nats.Option) []nats.Option {
	options := []nats.Option{nats.Name("chandler-agent " + k.id), nats.NoReconnect(), nats.Timeout(connectTime), nats.SetCustomDialer(dialer{ctx})}
	return append(append(options, more...), k.Connection...)
}

// dialer makes connections that end with the context.
type dialer struct{ ctx context.Context }

func (d dialer) Dial(network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{Timeout: connectTime}).DialContext(d.ctx, network, address)
	if err != nil {
		return nil, err
	}
	context.AfterFunc(d.ctx, func() { conn.Close() })
	return conn, nil
}

// lastLine remembers the connection that it made last.
type lastLine struct {
	dialer
	mu   sync.Mutex
	conn net.Conn
}

func (l *lastLine) Dial(network, address string) (net.Conn, error) {
	conn, err := l.dialer.Dial(network, address)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conn = conn
	return conn, err
}

func (l *lastLine) hangUp() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn != nil {
		l.conn.Close()
	}
}

// whileConnected bounds one question on a connection: by time, and by the connection, since nobody answers what
// was asked on one that is lost.
func whileConnected(ctx context.Context, conn *nats.Conn) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	lost := conn.StatusChanged(nats.DISCONNECTED, nats.RECONNECTING, nats.CLOSED)
	go func() {
		defer conn.RemoveStatusListener(lost)
		select {
		case <-ctx.Done():
		case <-lost:
			cancel()
		}
	}()
	return ctx, cancel
}

// speak connects as the enrolment user, for one question. The inbox is unguessable: everybody who has a
// token is this user.
func (k *Keeper) speak(ctx context.Context, id identity, config *tls.Config, ask func(*bus.Bus) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	options := []nats.Option{
		nats.CustomInboxPrefix("_INBOX.enrol." + strings.ToLower(rand.Text())),
		nats.UserJWT(func() (string, error) { return id.Enrolment, nil }, func([]byte) ([]byte, error) { return nil, nil }),
	}
	if config != nil {
		options = append(options, nats.Secure(config))
	}
	servers := k.brokers(id)
	conn, err := nats.Connect(strings.Join(servers, ","), k.own(ctx, options...)...)
	if err != nil {
		return unreached(servers, "as the enrolment user", err)
	}
	defer conn.Close()
	b, err := bus.New(bus.Options{Conn: conn, Log: k.log})
	if err != nil {
		return err
	}
	return ask(b)
}
