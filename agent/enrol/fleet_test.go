package enrol_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"chandler/agent/enrol"
	"chandler/events"
	"chandler/events/bus"
	"chandler/events/enrolment"
	"chandler/events/eventstest"
	"chandler/events/sign"
	"chandler/events/trust"
)

// life of the identities that the fleet gives.
const life = 24 * time.Hour

// fleet is a broker that asks for identities, with an enrolment service that does as it is told.
type fleet struct {
	t       *testing.T
	broker  *eventstest.Server
	service *bus.Bus
	account nkeys.KeyPair
	token   enrolment.Token
	clock   *clock // the broker's and the service's

	mu        sync.Mutex
	bundles   [][]byte
	refuse    *events.EnrolAnswer // of enrol, return and renew
	alter     func(events.EnrolStatement, events.EnrolAnswer) events.EnrolAnswer
	conferred events.Conferred
	asked     map[string]int  // by verb
	presented []string        // JWTs that the broker took, in order
	distrust  map[string]bool // JWTs that it does not
	hold      bool            // trust bundles one at a time
	minted    int
	lastKey   string // of the last statement
}

type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// newFleet starts a fleet with one bundle. change may alter the broker's options.
func newFleet(t *testing.T, change ...func(*server.Options)) *fleet {
	t.Helper()
	account, err := nkeys.CreateAccount()
	if err != nil {
		t.Fatal(err)
	}
	operator, err := nkeys.CreateOperator()
	if err != nil {
		t.Fatal(err)
	}
	trusted, err := operator.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	f := &fleet{t: t, account: account, clock: &clock{at: time.Date(2031, 3, 1, 8, 0, 0, 0, time.UTC)}, asked: map[string]int{}, distrust: map[string]bool{}}
	f.broker = eventstest.Broker(t, append(change, func(o *server.Options) {
		// Without a trusted operator the broker throws JWTs away before anybody sees them.
		o.CustomClientAuthentication, o.AlwaysEnableNonce, o.TrustedKeys, o.JetStream = f, true, []string{trusted}, false
	})...)
	seed, _, err := enrolment.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	f.publish(bundle(1, "a"), "a")
	f.token = enrolment.Token{Servers: []string{f.broker.URL()}, Root: bundle(1, "a").Roots.Fingerprint(), JWT: "e.n.rol", Seed: seed}
	f.serve()
	return f
}

// serve starts the enrolment service.
func (f *fleet) serve() {
	conn := eventstest.Connect(f.t, f.broker, nats.UserInfo("service", "x"), func(o *nats.Options) error {
		o.TLSConfig = &tls.Config{InsecureSkipVerify: true} // used where the broker asks for TLS
		return nil
	})
	b, err := bus.New(bus.Options{Conn: conn, Source: events.ServiceSource("credentials")})
	if err != nil {
		f.t.Fatal(err)
	}
	f.service = b
	f.answerWith(bus.Answer(events.AgentEnrol, f.state(events.AgentEnrol.Verb)), bus.Answer(events.AgentReturn, f.state(events.AgentReturn.Verb)),
		bus.Answer(events.AgentRenew, f.renew), bus.Answer(events.AgentTrust, f.newer))
	eventually(f.t, "the service listens", func() bool { return f.broker.Broker().NumSubscriptions() > 4 })
}

// answerWith serves until the test ends.
func (f *fleet) answerWith(endpoints ...bus.Endpoint) {
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.service.Serve(ctx, "credentials", "0.0.1", endpoints...) }()
	f.t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			f.t.Error(err)
		}
	})
}

func (f *fleet) state(verb string) func(context.Context, string, events.EnrolRequest) (events.EnrolAnswer, error) {
	return func(_ context.Context, caller string, r events.EnrolRequest) (events.EnrolAnswer, error) {
		s, err := enrolment.Verify(r, verb)
		if err != nil {
			return events.EnrolAnswer{}, bus.BadRequest(err)
		}
		if s.Facts.ID != caller {
			return events.EnrolAnswer{}, bus.BadRequest(errors.New("another agent"))
		}
		answer := f.answer(verb, s.Key, s.Trust)
		answer.Nonce = s.Nonce
		f.mu.Lock()
		alter := f.alter
		f.mu.Unlock()
		if alter != nil {
			answer = alter(s, answer)
		}
		return answer, nil
	}
}

func (f *fleet) renew(_ context.Context, caller string, r events.RenewRequest) (events.EnrolAnswer, error) {
	f.mu.Lock()
	last := f.presented[len(f.presented)-1]
	f.mu.Unlock()
	claims, err := jwt.DecodeUserClaims(last)
	if err != nil || claims.Name != caller {
		return events.EnrolAnswer{}, bus.BadRequest(errors.New("not the agent that is connected"))
	}
	return f.answer(events.AgentRenew.Verb, claims.Subject, r.Trust), nil
}

// refusal is what is answered but for the identity.
func (f *fleet) refusal(verb string, have int) events.EnrolAnswer {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked[verb]++
	if f.refuse != nil {
		return *f.refuse
	}
	return events.EnrolAnswer{Bundles: f.after(have)}
}

// answer gives an identity, unless the fleet was told to refuse.
func (f *fleet) answer(verb, key string, have int) events.EnrolAnswer {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked[verb]++
	if f.refuse != nil {
		return *f.refuse
	}
	conferred := f.conferred
	text, expires := f.mint(key, events.AgentID([]byte(key)))
	return events.EnrolAnswer{Agent: events.AgentID([]byte(key)), JWT: text, Expires: expires, Bundles: f.after(have), Conferred: &conferred}
}

func (f *fleet) mint(key, name string) (string, time.Time) {
	expires := f.clock.now().Add(life)
	c := jwt.NewUserClaims(key)
	f.minted++
	c.Tags.Add("serial:" + strconv.Itoa(f.minted)) // two of the same second would be the same
	c.Name, c.Expires = name, expires.Unix()       // issued, says the encoder, in real time, whatever the fleet's clock says
	text, err := c.Encode(f.account)
	if err != nil {
		f.t.Error(err)
	}
	return text, expires
}

func (f *fleet) after(have int) [][]byte {
	var newer [][]byte
	for _, envelope := range f.bundles {
		if b, err := trust.Open(envelope); err == nil && b.Version > have {
			newer = append(newer, envelope)
		}
	}
	return newer
}

func (f *fleet) newer(_ context.Context, _ string, q events.TrustQuery) (events.TrustAnswer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked[events.AgentTrust.Verb]++
	all := f.after(q.Have)
	if f.hold && len(all) > 1 {
		return events.TrustAnswer{Bundles: all[:1], More: true}, nil
	}
	return events.TrustAnswer{Bundles: all}, nil
}

// Check is the broker's: it takes services by name, the enrolment user, and agents by JWT and proof.
func (f *fleet) Check(c server.ClientAuthentication) bool {
	o := c.GetOpts()
	if o.Username == "service" {
		c.RegisterUser(&server.User{Username: "service"})
		return true
	}
	if o.JWT == f.token.JWT {
		c.RegisterUser(&server.User{Username: "enrolment", Permissions: &server.Permissions{
			Publish:   &server.SubjectPermission{Allow: []string{events.AgentEnrol.Filter(), events.AgentReturn.Filter()}},
			Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX.enrol.>"}}}})
		return true
	}
	claims, err := jwt.DecodeUserClaims(o.JWT)
	if err != nil {
		return false
	}
	key, err := nkeys.FromPublicKey(claims.Subject)
	if err != nil {
		return false
	}
	signature, err := base64.RawURLEncoding.DecodeString(o.Sig)
	if err != nil || key.Verify(c.GetNonce(), signature) != nil {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.clock.now().Before(time.Unix(claims.Expires, 0)) || f.distrust[o.JWT] {
		return false
	}
	f.presented = append(f.presented, o.JWT)
	c.RegisterUser(&server.User{Username: claims.Name, Permissions: &server.Permissions{
		Publish:   &server.SubjectPermission{Allow: []string{events.AgentRenew.Subject("", claims.Name), events.AgentTrust.Subject("", claims.Name)}},
		Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX." + claims.Name + ".>", events.TrustAnnounced.Pattern}}}})
	return true
}

func (f *fleet) key() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.lastKey
}

// set changes the fleet under its lock.
func (f *fleet) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *fleet) count(verb string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked[verb]
}

// shown is the JWT that the broker took last, and how many it took.
func (f *fleet) shown() (string, int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.presented) == 0 {
		return "", 0
	}
	return f.presented[len(f.presented)-1], len(f.presented)
}

// publish adds a bundle signed by the named roots; announce tells the agents of it.
func (f *fleet) publish(b trust.Bundle, roots ...string) {
	f.t.Helper()
	envelope := signed(f.t, b, roots...)
	f.set(func() { f.bundles = append(f.bundles, envelope) })
}

func (f *fleet) announce(version int) {
	f.t.Helper()
	err := bus.Send(f.t.Context(), f.service, events.TrustAnnounced, events.Event[events.TrustBeacon]{ID: "b1", Data: events.TrustBeacon{Version: version, At: f.clock.now()}})
	if err != nil {
		f.t.Fatal(err)
	}
}

func key(name string) sign.Key {
	seed := sha256.Sum256([]byte(name))
	k, err := sign.NewKey(seed[:])
	if err != nil {
		panic(err)
	}
	return k
}

// bundle is signed by one of its roots; its deployer is named after its version.
func bundle(version int, roots ...string) trust.Bundle {
	b := trust.Bundle{Fleet: "test", Version: version, Threshold: 1, Keys: []sign.PublicKey{key("deployer").Public().Named("deployer")}, Roots: trust.Roots{Threshold: 1}, Issued: time.Unix(int64(version), 0)}
	for _, name := range roots {
		b.Roots.Keys = append(b.Roots.Keys, key(name).Public().Named(name))
	}
	return b
}

func signed(t *testing.T, b trust.Bundle, roots ...string) []byte {
	t.Helper()
	var signers []sign.Signer
	for _, name := range roots {
		signers = append(signers, key(name))
	}
	envelope, err := trust.Sign(b, signers...)
	if err != nil {
		t.Fatal(err)
	}
	return envelope
}

// agent is a machine with a state directory.
type agent struct {
	*enrol.Keeper
	t    *testing.T
	dir  string
	log  *logged
	conn *nats.Conn
}

type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) has(s string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.text.String(), s)
}

// open opens a state directory with the fleet's clock, shifted.
func (f *fleet) open(t *testing.T, dir string, shift time.Duration) (*agent, error) {
	log := &logged{}
	k, err := enrol.New(enrol.Options{Dir: dir, TrustDelay: time.Millisecond, LookEvery: 20 * time.Millisecond, Log: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Clock: func() time.Time { return f.clock.now().Add(shift) }, Rand: func() float64 { return 0 }})
	if err != nil {
		return nil, err
	}
	return &agent{Keeper: k, t: t, dir: dir, log: log}, k.BindMachine("machine 1")
}

func (f *fleet) machine(t *testing.T) *agent {
	t.Helper()
	a, err := f.open(t, filepath.Join(t.TempDir(), "state"), 0)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// enrolled is a machine that has enrolled.
func (f *fleet) enrolled(t *testing.T) *agent {
	t.Helper()
	a := f.machine(t)
	if err := a.Enrol(t.Context(), f.token, events.Facts{Hostname: "ws-1"}); err != nil {
		t.Fatal(err)
	}
	return a
}

// run connects with the identity and keeps it until the test ends.
func (a *agent) run() {
	a.t.Helper()
	options, err := a.NATSOptions()
	if err != nil {
		a.t.Fatal(err)
	}
	heard := nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { fmt.Fprintln(a.log, "connection:", err) })
	options = append([]nats.Option{heard, nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.IgnoreAuthErrorAbort(), nats.ReconnectWait(10 * time.Millisecond), nats.ReconnectJitter(0, 0)}, options...)
	if a.conn, err = nats.Connect(strings.Join(a.Servers(), ","), options...); err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(a.conn.Close)
	b, err := bus.New(bus.Options{Conn: a.conn, Source: events.AgentSource(a.ID())})
	if err != nil {
		a.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx, b) }()
	a.t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			a.t.Error(err)
		}
	})
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(eventstest.Patience); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}
