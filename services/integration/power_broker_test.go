package integration

import (
	"bytes"
	"encoding/json"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"

	"chandler/events"
	"chandler/events/access"
	"chandler/events/eventstest"
	"chandler/services/integration/clustertest"
)

// brokerFile is what the process of a single broker is told.
type brokerFile struct {
	Port     int // on loopback
	StoreDir string
	Sync     time.Duration     // between syncs of what is stored
	Operator string            // JWT
	System   string            // public key of the system's account
	Accounts map[string]string // JWTs by public key
}

// cutSync is the broker's sync interval. That of `chandler up` is shorter, but a slow machine must not have synced everything
// before the power is cut.
const cutSync = time.Minute

// runBroker is a broker's process, with the store of `chandler up`. It ends when it is killed, or the test's process ends.
func runBroker(file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var f brokerFile
	if err := json.Unmarshal(data, &f); err != nil {
		return err
	}
	operator, err := jwt.DecodeOperatorClaims(f.Operator)
	if err != nil {
		return err
	}
	accounts := &server.MemAccResolver{}
	for name, text := range f.Accounts {
		if err := accounts.Store(name, text); err != nil {
			return err
		}
	}
	s, err := server.NewServer(&server.Options{
		ServerName: "chandler", Host: "127.0.0.1", Port: f.Port, JetStream: true, StoreDir: f.StoreDir, SyncInterval: f.Sync, JetStreamMaxStore: 1 << 40,
		MaxPayload: events.MaxPayload, TrustedOperators: []*jwt.OperatorClaims{operator}, SystemAccount: f.System, AccountResolver: accounts,
	})
	if err != nil {
		return err
	}
	s.ConfigureLogger()
	clustertest.EndWithParent()
	s.Start()
	s.WaitForShutdown()
	return nil
}

// brokerProcess is a broker in a process of its own, for the users that another one was made for.
type brokerProcess struct {
	clustertest.Process
	t   testing.TB
	url string
	log logBuffer
}

// newBrokerProcess makes what the process is told; maker has ended.
func newBrokerProcess(t testing.TB, maker *eventstest.SecureBroker, store string, sync time.Duration) *brokerProcess {
	t.Helper()
	at, err := url.Parse(maker.URL())
	must(t, err)
	_, port, err := net.SplitHostPort(at.Host)
	must(t, err)
	number, err := strconv.Atoi(port)
	must(t, err)
	operator, err := maker.Keys.OperatorJWT(eventstest.FleetName)
	must(t, err)
	f := brokerFile{Port: number, StoreDir: store, Sync: sync, Operator: operator, System: maker.Account(access.System), Accounts: map[string]string{}}
	for account, text := range maker.AccountJWTs() {
		f.Accounts[maker.Account(account)] = text
	}
	data, err := json.Marshal(f)
	must(t, err)
	file := filepath.Join(t.TempDir(), "broker.json")
	must(t, os.WriteFile(file, data, 0o600))
	self, err := os.Executable()
	must(t, err)
	b := &brokerProcess{t: t, url: at.Host}
	b.Command, b.Output = []string{self, "broker", file}, &b.log
	return b
}

// start starts the process and waits until it takes connections.
func (b *brokerProcess) start() {
	b.t.Helper()
	must(b.t, b.Start())
	eventually(b.t, "the broker takes connections", func() bool {
		conn, err := net.DialTimeout("tcp", b.url, time.Second)
		if err != nil {
			return false
		}
		defer conn.Close()
		said := make([]byte, 5)
		_ = conn.SetReadDeadline(time.Now().Add(time.Second))
		_, err = conn.Read(said)
		return err == nil && bytes.HasPrefix(said, []byte("INFO"))
	})
}
