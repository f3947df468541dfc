package nats_test

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/shirou/gopsutil/v4/process"

	"chandler/events"
	"chandler/events/access"
	"chandler/events/enrolment"
)

const (
	patience   = 30 * time.Second
	tlsVersion = tls.VersionTLS13
)

// fleet has what a broker and its agents need of a fleet.
type fleet struct {
	dir    string // of the broker's files
	keys   access.Keys
	public map[access.Account]string
	roots  *x509.CertPool
	agents []user
}

// user of the broker.
type user struct{ name, jwt, seed string }

func (u user) inbox() string { return "_INBOX." + u.name }

// newFleet makes a fleet with so many agents.
func newFleet(t testing.TB, agents int) *fleet {
	t.Helper()
	keys, err := access.NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	f := &fleet{dir: t.TempDir(), keys: keys, public: map[access.Account]string{}, roots: x509.NewCertPool()}
	operator, err := keys.OperatorJWT("test")
	if err != nil {
		t.Fatal(err)
	}
	accounts, err := keys.AccountJWTs("test")
	if err != nil {
		t.Fatal(err)
	}
	f.write(t, "operator.jwt", []byte(operator))
	for a, text := range accounts {
		if f.public[a], err = keys.Accounts[a].PublicKey(); err != nil {
			t.Fatal(err)
		}
		f.write(t, filepath.Join("accounts", f.public[a]+".jwt"), []byte(text))
	}
	f.certify(t)
	for range agents {
		f.agents = append(f.agents, f.user(t, access.Agent, ""))
	}
	return f
}

func (f *fleet) write(t testing.TB, name string, data []byte) {
	t.Helper()
	path := filepath.Join(f.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// user makes a user of a role; an agent's name is its key's.
func (f *fleet) user(t testing.TB, role access.Role, name string) user {
	t.Helper()
	seed, public, err := enrolment.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	u := access.User{Name: name, Key: public}
	if role == access.Agent {
		u.Name, u.Expires = events.AgentID([]byte(public)), time.Now().Add(24*time.Hour)
	}
	text, err := access.Mint(role, f.keys.Roles[role], f.public[role.Account()], u)
	if err != nil {
		t.Fatal(err)
	}
	return user{u.Name, text, string(seed)}
}

// neighbour makes a user of the account that has the streams who may do there what an agent may in its own. No
// fleet has such a user.
func (f *fleet) neighbour(t testing.TB, name string) user {
	t.Helper()
	seed, public, err := enrolment.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	c := jwt.NewUserClaims(public)
	c.Name = name
	c.Pub.Allow.Add("chandler.job.*." + name)
	c.Sub.Allow.Add("_INBOX." + name + ".>")
	text, err := c.Encode(f.keys.Accounts[access.Fleet])
	if err != nil {
		t.Fatal(err)
	}
	return user{name, text, string(seed)}
}

// certify makes an authority and the broker's certificate as "chandler up --tls" does.
func (f *fleet) certify(t testing.TB) {
	t.Helper()
	authority, caKey := f.certificate(t, &x509.Certificate{Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, nil, nil)
	leaf, key := f.certificate(t, &x509.Certificate{Subject: pkix.Name{CommonName: "broker"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, authority, caKey)
	f.roots.AddCert(authority)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	text := func(kind string, der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}) }
	f.write(t, "server.pem", append(text("CERTIFICATE", leaf.Raw), text("CERTIFICATE", authority.Raw)...))
	f.write(t, "server.key", text("PRIVATE KEY", der))
}

// certificate of a new key, signed by an authority or by itself.
func (f *fleet) certificate(t testing.TB, template, authority *x509.Certificate, signer *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber, template.NotBefore, template.NotAfter = big.NewInt(1), time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	if authority == nil {
		authority, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, authority, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

// brokerVariable turns the test's program into a broker: a brokerSpec as JSON.
const brokerVariable = "CHANDLER_COST_BROKER"

type brokerSpec struct {
	Config string // file
	way
}

// runBroker runs the deployed configuration, but for what the spec leaves out, until its standard input ends.
// Each line there makes it collect its garbage.
func runBroker(text string) error {
	var spec brokerSpec
	if err := json.Unmarshal([]byte(text), &spec); err != nil {
		return err
	}
	o, err := natsserver.ProcessConfigFile(spec.Config)
	if err != nil {
		return err
	}
	o.Host, o.Port, o.HTTPPort, o.NoSigs = "127.0.0.1", natsserver.RANDOM_PORT, 0, true
	o.TLSRateLimit = 0 // which would be all that is measured
	if !spec.Accounts {
		o.TrustedOperators, o.SystemAccount, o.AccountResolver = nil, "", nil
	}
	if !spec.TLS {
		o.TLS, o.TLSConfig = false, nil
	}
	s, err := natsserver.NewServer(o)
	if err != nil {
		return err
	}
	s.Start()
	if !s.ReadyForConnections(patience) {
		return errors.New("the broker did not become ready")
	}
	fmt.Println(s.ClientURL())
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		debug.FreeOSMemory()
		fmt.Println("freed")
	}
	s.Shutdown()
	s.WaitForShutdown()
	return nil
}

// broker is one that runs as a process of its own.
type broker struct {
	fleet   *fleet
	url     string
	process *process.Process
	ask     *json.Encoder
	answers *bufio.Scanner
	stop    func()
}

// config is the deployed configuration, with the fleet's files and a store in dir.
func (f *fleet) config(t testing.TB, dir string) string {
	t.Helper()
	data, err := os.ReadFile("nats-server.conf")
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "nats-server.conf")
	text := strings.NewReplacer("/etc/nats/", f.dir+"/", "/var/lib/nats/accounts", filepath.Join(f.dir, "accounts"), "/var/lib/nats", dir).Replace(string(data))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return config
}

// start runs a broker with an empty store until it is stopped, or the test ends.
func (f *fleet) start(t testing.TB, w way) *broker {
	t.Helper()
	spec, err := json.Marshal(brokerSpec{f.config(t, t.TempDir()), w})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env, cmd.Stderr = append(os.Environ(), brokerVariable+"="+string(spec)), os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop := sync.OnceFunc(func() {
		stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the broker: %v", err)
		}
	})
	t.Cleanup(stop)
	b := &broker{fleet: f, ask: json.NewEncoder(stdin), answers: bufio.NewScanner(stdout), stop: stop}
	b.url = b.answer(t)
	if b.process, err = process.NewProcess(int32(cmd.Process.Pid)); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *broker) answer(t testing.TB) string {
	t.Helper()
	if !b.answers.Scan() {
		t.Fatalf("the broker ended (%v)", b.answers.Err())
	}
	return b.answers.Text()
}

// connect as an agent is: the identity, an inbox of its own, the authority of the broker's certificate.
func (b *broker) connect(u user) (*nats.Conn, error) {
	options := []nats.Option{nats.CustomInboxPrefix(u.inbox()), nats.Timeout(patience), nats.NoReconnect(), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})}
	if u.jwt != "" {
		options = append(options, nats.UserJWTAndSeed(u.jwt, u.seed))
	}
	if strings.HasPrefix(b.url, "tls:") {
		options = append(options, nats.Secure(&tls.Config{RootCAs: b.fleet.roots, MinVersion: tlsVersion}))
	}
	conn, err := nats.Connect(b.url, options...)
	if err != nil {
		return nil, fmt.Errorf("connect %s: %w", u.name, err)
	}
	return conn, nil
}

// usage is what a broker has taken until now.
type usage struct {
	cpu    time.Duration
	memory uint64
}

func (b *broker) usage(t testing.TB) usage {
	t.Helper()
	spent, err := b.process.TimesWithContext(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := b.ask.Encode("free"); err != nil {
		t.Fatal(err)
	}
	b.answer(t)
	memory, err := b.process.MemoryInfoWithContext(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return usage{time.Duration((spent.User + spent.System) * float64(time.Second)), memory.RSS}
}

// since is the cost of each of n things.
func (u usage) since(before usage, n int, took time.Duration) cost {
	return cost{perSecond: float64(n) / took.Seconds(), cpu: (u.cpu - before.cpu) / time.Duration(n), memory: (float64(u.memory) - float64(before.memory)) / float64(n)}
}
