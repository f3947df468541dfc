package eventstest

import (
	"encoding/json"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"chandler/events"
	"chandler/events/access"
	"chandler/events/bus"
	"chandler/events/enrolment"
)

// FleetName is the name of the fleet of every secure broker.
const FleetName = "test"

// SecureBroker is a broker with the accounts and permissions of a real fleet, for one test. Streams and
// buckets are provisioned.
type SecureBroker struct {
	*Server
	Keys access.Keys

	mu       sync.Mutex
	accounts map[access.Account]string // JWTs, as the broker knows them
	users    map[userName]User
}

type userName struct {
	role access.Role
	name string
}

// User is somebody who may connect to a secure broker.
type User struct {
	Role access.Role
	Name string
	Key  string // public
	JWT  string
	Seed []byte // nil: the JWT needs no proof of the key
}

// Secure starts a broker as the administrator of a fleet would. change may alter its options before it starts.
func Secure(t testing.TB, change ...func(*server.Options)) *SecureBroker {
	t.Helper()
	keys, err := access.NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	operatorJWT, err := keys.OperatorJWT(FleetName)
	if err != nil {
		t.Fatalf("make operator: %v", err)
	}
	operator, err := jwt.DecodeOperatorClaims(operatorJWT)
	if err != nil {
		t.Fatalf("read operator: %v", err)
	}
	accounts, err := keys.AccountJWTs(FleetName)
	if err != nil {
		t.Fatalf("make accounts: %v", err)
	}
	s := &SecureBroker{Server: newServer(t, change), Keys: keys, accounts: accounts, users: map[userName]User{}}
	resolver := t.TempDir()
	s.prepare = func(o *server.Options) {
		// The broker closes its resolver when it stops, so that each start needs one.
		dir, err := server.NewDirAccResolver(resolver, 0, time.Minute, server.NoDelete)
		if err != nil {
			t.Fatalf("make resolver: %v", err)
		}
		for account, text := range s.AccountJWTs() {
			if err := dir.Store(s.Account(account), text); err != nil {
				t.Fatalf("store account %s: %v", account, err)
			}
		}
		o.TrustedOperators, o.SystemAccount, o.AccountResolver = []*jwt.OperatorClaims{operator}, s.Account(access.System), dir
	}
	s.Start()
	t.Cleanup(s.Stop)
	Provision(t, s.Bus(t, access.Provisioner, string(access.Provisioner)))
	return s
}

// Account is an account's public key.
func (s *SecureBroker) Account(a access.Account) string {
	public, err := s.Keys.Accounts[a].PublicKey()
	if err != nil {
		s.t.Fatalf("account %s: %v", a, err)
	}
	return public
}

// AccountJWTs are the accounts as the broker knows them now.
func (s *SecureBroker) AccountJWTs() map[access.Account]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.accounts)
}

// Agent makes an agent's key and returns its id, the name under which it connects as [access.Agent].
func (s *SecureBroker) Agent(t testing.TB) string {
	t.Helper()
	seed, public := newKey(t)
	id := events.AgentID([]byte(public))
	s.mint(t, access.Agent, access.User{Name: id, Key: public, Expires: time.Now().Add(24 * time.Hour)}, seed)
	return id
}

// Integrator makes an integrator that may hear these event types.
func (s *SecureBroker) Integrator(t testing.TB, name string, types ...string) {
	t.Helper()
	seed, public := newKey(t)
	s.mint(t, access.Integrator, access.User{Name: name, Key: public, Events: types}, seed)
}

// User is the user of that role and name; it is made when it is asked for first, but for agents and
// integrators. They have methods of their own.
func (s *SecureBroker) User(t testing.TB, role access.Role, name string) User {
	t.Helper()
	s.mu.Lock()
	user, ok := s.users[userName{role, name}]
	s.mu.Unlock()
	switch {
	case ok:
		return user
	case role == access.Agent || role == access.Integrator:
		t.Fatalf("%s %s was not made", role, name)
	}
	seed, public := newKey(t)
	return s.mint(t, role, access.User{Name: name, Key: public, Bearer: role == access.Enrolling}, seed)
}

func (s *SecureBroker) mint(t testing.TB, role access.Role, u access.User, seed []byte) User {
	t.Helper()
	var token string
	var err error
	if role == access.SystemUser {
		token, err = access.MintSystem(s.Keys.Accounts[access.System], u.Name, u.Key)
	} else {
		token, err = access.Mint(role, s.Keys.Roles[role], s.Account(role.Account()), u)
	}
	if err != nil {
		t.Fatal(err)
	}
	user := User{Role: role, Name: u.Name, Key: u.Key, JWT: token, Seed: seed}
	if u.Bearer {
		user.Seed = nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.users[userName{role, u.Name}] = user
	return user
}

func newKey(t testing.TB) (seed []byte, public string) {
	t.Helper()
	seed, public, err := enrolment.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return seed, public
}

// Options with which the user connects, its own inbox among them.
func (u User) Options() []nats.Option {
	inbox := "_INBOX." + u.Name
	if u.Role == access.Enrolling {
		inbox = "_INBOX.enrol"
	}
	proof := nats.UserJWTAndSeed(u.JWT, string(u.Seed))
	if u.Seed == nil {
		proof = nats.UserJWT(func() (string, error) { return u.JWT, nil }, func([]byte) ([]byte, error) { return nil, nil })
	}
	return []nats.Option{proof, nats.CustomInboxPrefix(inbox)}
}

// Credentials is the user's credentials file.
func (u User) Credentials(t testing.TB) []byte {
	t.Helper()
	data, err := access.Credentials(u.JWT, u.Seed)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// Connect opens a connection of the user of that role and name (an agent's is its id, a service's its own),
// as [Connect] does.
func (s *SecureBroker) Connect(t testing.TB, role access.Role, name string, options ...nats.Option) *nats.Conn {
	t.Helper()
	return Connect(t, s.Server, append(s.User(t, role, name).Options(), options...)...)
}

// Bus opens a bus on a connection of its own, as [Bus] does; nothing is provisioned.
func (s *SecureBroker) Bus(t testing.TB, role access.Role, name string) *bus.Bus {
	t.Helper()
	o := bus.Options{Conn: s.Connect(t, role, name), CheckPublished: true}
	switch role {
	case access.Agent:
		o.Source = events.AgentSource(name)
	case access.Service(name):
		o.Source, o.Key = events.ServiceSource(name), s.User(t, role, name).Key
	default:
		o.Key = s.User(t, role, name).Key
	}
	b, err := bus.New(o)
	if err != nil {
		t.Fatalf("open bus: %v", err)
	}
	return b
}

// Owner opens a bus that may do everything in the fleet's account, for tests that look at what others did.
func (s *SecureBroker) Owner(t testing.TB) *bus.Bus {
	t.Helper()
	seed, public := newKey(t)
	claims := jwt.NewUserClaims(public)
	claims.Name = "owner"
	token, err := claims.Encode(s.Keys.Accounts[access.Fleet])
	if err != nil {
		t.Fatal(err)
	}
	b, err := bus.New(bus.Options{Conn: Connect(t, s.Server, nats.UserJWTAndSeed(token, string(seed))), Key: public, CheckPublished: true})
	if err != nil {
		t.Fatalf("open bus: %v", err)
	}
	return b
}

// Revoke takes the users' identities away, as the administrator would: through the system account of the
// running broker. It returns when the broker has taken the change.
func (s *SecureBroker) Revoke(t testing.TB, users ...User) {
	t.Helper()
	for _, u := range users {
		changed, err := access.Revoke(s.AccountJWTs()[u.Role.Account()], s.Keys.Operator, time.Now(), u.Key)
		if err != nil {
			t.Fatal(err)
		}
		s.UpdateAccount(t, changed)
	}
}

// UpdateAccount hands a changed account to the running broker.
func (s *SecureBroker) UpdateAccount(t testing.TB, text string) {
	t.Helper()
	_, account, err := access.Describe(text)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := s.Connect(t, access.SystemUser, "admin").Request("$SYS.REQ.CLAIMS.UPDATE", []byte(text), Patience)
	if err != nil {
		t.Fatalf("update account %s: %v", account, err)
	}
	var told server.ServerAPIClaimUpdateResponse
	if err := json.Unmarshal(answer.Data, &told); err != nil || told.Error != nil {
		t.Fatalf("update account %s: %s", account, answer.Data)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.accounts[account] = text
}
