package access_test

import (
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"chandler/events"
	"chandler/events/access"
	"chandler/events/eventstest"
)

// getsIn says whether the user gets in, once.
func getsIn(b *eventstest.SecureBroker, options ...nats.Option) error {
	conn, err := nats.Connect(b.URL(), options...)
	if err == nil {
		conn.Close()
	}
	return err
}

func TestRevocationEndsAConnectionAtOnceAndForGood(t *testing.T) {
	b := eventstest.Secure(t)
	agent, other := b.Agent(t), b.Agent(t)
	revoked := []eventstest.User{b.User(t, access.Agent, agent), b.User(t, access.Deployer, "dora"), b.User(t, access.Administrator, "bert")}
	staying := b.Connect(t, access.Agent, other, nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
		if err != nil { // not by the test itself
			t.Errorf("another agent was cut off: %v", err)
		}
	}))
	var cut []chan struct{}
	for _, u := range revoked {
		closed := make(chan struct{})
		conn := b.Connect(t, u.Role, u.Name, quiet, nats.ClosedHandler(func(*nats.Conn) { close(closed) }))
		if err := conn.Flush(); err != nil {
			t.Fatal(err)
		}
		cut = append(cut, closed)
	}
	b.Revoke(t, revoked...)
	for i, u := range revoked {
		select {
		case <-cut[i]: // the client gives up when it is refused twice
		case <-time.After(eventstest.Patience):
			t.Errorf("%s %s is still connected", u.Role, u.Name)
		}
		if err := getsIn(b, u.Options()...); !errors.Is(err, nats.ErrAuthorization) && !errors.Is(err, nats.ErrAuthRevoked) {
			t.Errorf("%s %s comes back: %v", u.Role, u.Name, err)
		}
	}
	if err := staying.Flush(); err != nil {
		t.Error(err)
	}
	works := func(when string) {
		t.Helper()
		viewer := b.Connect(t, access.Viewer, "vera", loud(t))
		for range 20 { // each is answered by the fleet's account alone
			answer, err := viewer.Request("$JS.API.DIRECT.GET.EVENTS", []byte(`{"seq":1}`), eventstest.Patience)
			if err != nil {
				t.Fatal(err)
			}
			if answer.Header.Get("Status") != "404" { // nothing is stored there
				t.Fatalf("%s a viewer is told %v %s", when, answer.Header, answer.Data)
			}
		}
		status(t, b, b.Agent(t))
	}
	works("after the accounts changed")
	staying.Close()
	b.Restart()
	if err := getsIn(b, revoked[0].Options()...); err == nil {
		t.Error("a revoked agent comes back after a restart")
	}
	works("after a restart")
}

func TestARevocationHoldsAlsoWhereTheClockOfWhoeverRevokesIsBehind(t *testing.T) {
	b := eventstest.Secure(t)
	agent := b.User(t, access.Agent, b.Agent(t))
	behind := time.Now().Add(-3 * time.Hour)
	changed, err := access.Revoke(b.AccountJWTs()[access.Agents], b.Keys.Operator, behind, agent.Key)
	if err != nil {
		t.Fatal(err)
	}
	b.UpdateAccount(t, changed)
	if err := getsIn(b, agent.Options()...); !errors.Is(err, nats.ErrAuthorization) && !errors.Is(err, nats.ErrAuthRevoked) {
		t.Errorf("a JWT of after the revocation, as the clocks say, gets in: %v", err)
	}
}

func TestAnIdentityEndsWhenItExpires(t *testing.T) {
	b := eventstest.Secure(t)
	seed, key := newUser(t)
	id := events.AgentID([]byte(key))
	token, err := access.Mint(access.Agent, b.Keys.Roles[access.Agent], b.Account(access.Agents), access.User{Name: id, Key: key, Expires: time.Now().Add(2 * time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	options := eventstest.User{Role: access.Agent, Name: id, Key: key, JWT: token, Seed: seed}.Options()
	gone := make(chan struct{})
	conn, err := nats.Connect(b.URL(), append(options, quiet, nats.NoReconnect(), nats.ClosedHandler(func(*nats.Conn) { close(gone) }))...)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	select {
	case <-gone:
	case <-time.After(eventstest.Patience):
		t.Error("it is still connected")
	}
	// The broker takes an identity until the end of its last second.
	eventually(t, "it does not come back", func() bool {
		err := getsIn(b, options...)
		return errors.Is(err, nats.ErrAuthorization) || errors.Is(err, nats.ErrAuthExpired)
	})
}

func TestStrangersAndForgersDoNotGetIn(t *testing.T) {
	b, other := eventstest.Secure(t), eventstest.Secure(t)
	seed, key := newUser(t)
	mint := func(role access.Role, with access.Keys, signing access.Role, account access.Account, u access.User) eventstest.User {
		t.Helper()
		public, err := with.Accounts[account].PublicKey()
		if err != nil {
			t.Fatal(err)
		}
		u.Key = key
		token, err := access.Mint(role, with.Roles[signing], public, u)
		if err != nil {
			t.Fatal(err)
		}
		return eventstest.User{Role: role, Name: u.Name, JWT: token, Seed: seed}
	}
	thief, _ := newUser(t)
	stolen := b.User(t, access.Viewer, "vera")
	stolen.Seed = thief
	for name, options := range map[string][]nats.Option{
		"nobody":                              nil,
		"a user of another fleet":             other.User(t, access.Administrator, "ada").Options(),
		"a JWT without its key":               stolen.Options(),
		"a viewer in the account of services": mint(access.Viewer, b.Keys, access.Viewer, access.Fleet, access.User{Name: "vera"}).Options(),
		"a bearer outside of enrolment":       eventstest.User{Role: access.Viewer, Name: "vera", JWT: stolen.JWT}.Options(),
	} {
		if err := getsIn(b, options...); !errors.Is(err, nats.ErrAuthorization) {
			t.Errorf("%s gets in: %v", name, err)
		}
	}
	// The signing key decides what a user may do, whatever its JWT says it is: here somebody has the key for
	// viewers only.
	pretender := mint(access.Deployer, b.Keys, access.Viewer, access.People, access.User{Name: "dora"})
	conn := eventstest.Connect(t, b.Server, append(pretender.Options(), quiet)...)
	if subject := events.DeploymentCreate.Subject(key, "dora"); !refusesPublish(t, conn, subject) {
		t.Error("a viewer's signing key made a deployer")
	}
}

func TestAnEnrollingMachineIsKeptSmall(t *testing.T) {
	b := eventstest.Secure(t)
	conn := b.Connect(t, access.Enrolling, "enrolment", quiet, nats.NoReconnect())
	for range 5 {
		if _, err := conn.SubscribeSync(conn.NewInbox() + ".*"); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the fifth subscription ends the connection or is refused", func() bool {
		return conn.IsClosed() || errors.Is(conn.LastError(), nats.ErrMaxSubscriptionsExceeded) || conn.LastError() != nil
	})
	b2 := b.Connect(t, access.Enrolling, "enrolment", quiet, nats.NoReconnect())
	if err := b2.Publish(events.AgentEnrol.Subject("", b.Agent(t)), make([]byte, 200<<10)); err == nil {
		eventually(t, "a payload above the limit ends the connection", b2.IsClosed)
	}
}
