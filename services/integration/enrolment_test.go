package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"chandler/agent/enrol"
	"chandler/events"
	"chandler/events/access"
	"chandler/events/bus"
	"chandler/events/enrolment"
	"chandler/events/eventstest"
	"chandler/services/credentials"
)

// lightAgents are machines of which only the identity is there: the real keeper of it, with a real
// connection. Their clock is the test's.
type lightAgents struct {
	f    *fleet
	dir  string
	tell func() time.Time
	all  []*lightAgent
}

type lightAgent struct {
	*enrol.Keeper
	machine string
}

// virtualClock can be set.
type virtualClock struct{ nanos atomic.Int64 }

func (c *virtualClock) now() time.Time      { return time.Unix(0, c.nanos.Load()) }
func (c *virtualClock) set(t time.Time)     { c.nanos.Store(t.UnixNano()) }
func clockAt(t time.Time) (c *virtualClock) { c = &virtualClock{}; c.set(t); return c }

func (l *lightAgents) add(t testing.TB, number int, hostname string) *lightAgent {
	t.Helper()
	return l.open(t, filepath.Join(l.dir, fmt.Sprint(number)), fmt.Sprintf("machine %d", number), hostname)
}

func (l *lightAgents) open(t testing.TB, dir, machine, hostname string) *lightAgent {
	t.Helper()
	k, err := enrol.New(enrol.Options{Dir: dir, Clock: l.tell, LookEvery: 100 * time.Millisecond, TrustDelay: 10 * time.Millisecond, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	must(t, err)
	must(t, k.BindMachine(machine))
	k.Describe(events.Facts{ID: k.ID(), Hostname: hostname, OS: "linux"})
	a := &lightAgent{k, machine}
	l.all = append(l.all, a)
	return a
}

// enrolAll lets all agents enrol, some at the same time.
func (l *lightAgents) enrolAll(token enrolment.Token, each func(a *lightAgent, err error)) {
	work := make(chan *lightAgent)
	var workers sync.WaitGroup
	for range 16 {
		workers.Go(func() {
			for a := range work {
				facts := events.Facts{ID: a.ID(), Hostname: "host of " + a.machine, OS: "linux"}
				each(a, a.Enrol(context.Background(), token, facts))
			}
		})
	}
	for _, a := range l.all {
		work <- a
	}
	close(work)
	workers.Wait()
}

// switchOn lets an agent connect and keep its identity until the test ends; connected tells whether the
// broker takes it.
func (l *lightAgents) switchOn(t testing.TB, a *lightAgent) (connected func() bool) {
	t.Helper()
	options, err := a.NATSOptions()
	must(t, err)
	nc, err := nats.Connect(l.f.broker.URL(), append(options, nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.IgnoreAuthErrorAbort(),
		nats.CustomReconnectDelay(func(int) time.Duration { return 500 * time.Millisecond }))...)
	must(t, err)
	b, err := bus.New(bus.Options{Conn: nc, Source: events.AgentSource(a.ID()), Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx, b) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("agent %s: %v", a.ID(), err)
		}
		nc.Close()
	})
	return func() bool { return nc.IsConnected() && a.Valid() }
}

// credentialsAt runs the credential service, and no other, by a clock.
func credentialsAt(t *testing.T, clock *virtualClock) *fleet {
	t.Helper()
	f := bareFleet(t)
	f.change = func(o *credentials.Options) { o.Now = clock.now }
	f.startService("credentials")
	f.trust.Issued = clock.now().UTC().Truncate(time.Second)
	f.setTrust(f.trust, f.roots...)
	return f
}

func parsedToken(t testing.TB, text string) enrolment.Token {
	t.Helper()
	token, err := enrolment.ParseToken(text)
	must(t, err)
	return token
}

const day = 24 * time.Hour

func TestAThousandAgentsThatWereOffForThreeWeeksReturnByThemselves(t *testing.T) {
	t.Parallel()
	now := time.Now()
	clock := clockAt(now.Add(-3 * 7 * day))
	f := credentialsAt(t, clock)
	l := &lightAgents{f: f, dir: t.TempDir(), tell: clock.now}
	const agents = 1000
	for i := range agents {
		l.add(t, i, fmt.Sprintf("laptop-%d", i))
	}
	l.enrolAll(parsedToken(t, f.token("laptops", expiring(now))), func(a *lightAgent, err error) { must(t, err) })
	clock.set(now) // they were off: nobody renewed anything
	var on []func() bool
	for _, a := range l.all {
		if a.Valid() {
			t.Fatal("an identity of three weeks ago is still valid")
		}
		on = append(on, l.switchOn(t, a))
	}
	eventually(t, "all are back", func() bool { return count(on) == agents })
}

func TestAgentsOutliveTheCredentialServicesAbsence(t *testing.T) {
	t.Parallel()
	now := time.Now()
	clock := clockAt(now.Add(-36 * time.Hour))
	f := credentialsAt(t, clock)
	l := &lightAgents{f: f, dir: t.TempDir(), tell: clock.now}
	for i := range 50 {
		l.add(t, i, "ws")
	}
	l.enrolAll(parsedToken(t, f.token("office", expiring(now))), func(a *lightAgent, err error) { must(t, err) })
	f.stopService("credentials")
	clock.set(now)
	asks, err := f.owner.Conn().SubscribeSync(events.AgentReturn.Filter())
	must(t, err)
	must(t, f.owner.Conn().Flush())
	var on []func() bool
	for _, a := range l.all {
		on = append(on, l.switchOn(t, a))
	}
	for asked := map[string]bool{}; len(asked) < len(l.all); {
		m, err := asks.NextMsg(time.Minute)
		if err != nil {
			t.Fatalf("only %d agents asked: %v", len(asked), err)
		}
		asked[m.Subject] = true
	}
	must(t, asks.Unsubscribe()) // which looked like a service that does not answer
	if n := count(on); n != 0 {
		t.Fatalf("%d agents are connected with an identity that has expired", n)
	}
	f.startService("credentials")
	eventually(t, "all are back", func() bool { return count(on) == len(on) })
}

func count(on []func() bool) (n int) {
	for _, connected := range on {
		if connected() {
			n++
		}
	}
	return n
}

// expiring lets a token be used up to a time, by the service's clock.
func expiring(at time.Time) func(*events.TokenRequest) {
	return func(r *events.TokenRequest) { r.Expires = at }
}

func TestFiveHundredEnrolmentsWithEqualNamesAndClonesAmongThem(t *testing.T) {
	t.Parallel()
	f := credentialsAt(t, clockAt(time.Now()))
	l := &lightAgents{f: f, dir: t.TempDir(), tell: time.Now}
	for i := range 480 {
		name := fmt.Sprintf("ws-%d", i)
		if i < 50 {
			name = "desktop" // as installed, and never named
		}
		a := l.add(t, i, name)
		if i >= 20 {
			continue
		}
		// A disk that was copied after the agent's first start there: the same key on another machine.
		clone := filepath.Join(l.dir, fmt.Sprintf("clone-%d", i))
		must(t, os.CopyFS(clone, os.DirFS(a.Dir)))
		must(t, errors.Join(os.Chmod(clone, 0o700), os.Chmod(filepath.Join(clone, "agent.key"), 0o600)))
		l.open(t, clone, fmt.Sprintf("other machine %d", i), name)
	}
	var let, clones atomic.Int64
	started := time.Now()
	l.enrolAll(parsedToken(t, f.token("mass")), func(a *lightAgent, err error) {
		var refused *enrol.RefusedError
		switch {
		case err == nil:
			let.Add(1)
		case errors.As(err, &refused) && refused.Refused == events.RefusedMachine:
			clones.Add(1)
		default:
			t.Errorf("%s: %v", a.machine, err)
		}
	})
	t.Logf("500 enrolments in %.1f s", time.Since(started).Seconds())
	if let.Load() != 480 || clones.Load() != 20 {
		t.Errorf("%d were let in, %d clones were refused", let.Load(), clones.Load())
	}
	found := 0
	for after := ""; ; {
		page := mustAsk(f, events.EnrolmentList, events.EnrolmentQuery{State: events.EnrolmentActive, After: after})
		found += len(page.Enrolments)
		if !page.More {
			break
		}
		after = page.Enrolments[len(page.Enrolments)-1].Agent
	}
	if found != 480 {
		t.Errorf("there are %d identities", found)
	}
	eventstest.ExpectExactly(t, f.owner, events.AgentEnrolled, nil, 480)
	if told := len(eventstest.ExpectExactly(t, f.owner, events.EnrolmentRefused, nil, 20)); told != 20 {
		t.Errorf("%d refusals were told", told)
	}
}

func TestAStolenTokenAndACopiedMachineAndARevokedAgent(t *testing.T) {
	t.Parallel()
	f := credentialsAt(t, clockAt(time.Now()))
	l := &lightAgents{f: f, dir: t.TempDir(), tell: time.Now}
	token := parsedToken(t, f.token("single", func(r *events.TokenRequest) { r.Uses = 1 }))
	victim := l.add(t, 1, "ws1")
	must(t, victim.Enrol(t.Context(), token, events.Facts{ID: victim.ID(), Hostname: "ws1"}))
	on := l.switchOn(t, victim)
	eventually(t, "it is connected", on)

	t.Run("a stolen token used twice", func(t *testing.T) {
		thief := l.add(t, 2, "thief")
		refusedAs(t, thief.Enrol(t.Context(), token, events.Facts{ID: thief.ID(), Hostname: "thief"}), events.RefusedSpent)
	})
	t.Run("a copied machine that does not look", func(t *testing.T) {
		copied := filepath.Join(l.dir, "copied")
		must(t, os.CopyFS(copied, os.DirFS(victim.Dir)))
		k, err := enrol.New(enrol.Options{Dir: copied, Clock: time.Now, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
		must(t, err)
		if err := k.BindMachine("another machine"); err == nil {
			t.Error("the copy does not notice that it is one")
		}
		seed, err := os.ReadFile(filepath.Join(copied, "agent.key"))
		must(t, err)
		statement := events.EnrolStatement{Purpose: "return", Key: victim.PublicKey(), Machine: enrolment.MachineHash("another machine"), Facts: events.Facts{ID: victim.ID()}, Nonce: "n"}
		request, err := enrolment.Sign(statement, seed, nil)
		must(t, err)
		b, err := bus.New(bus.Options{Conn: f.broker.Connect(t, access.Enrolling, "enrolling")})
		must(t, err)
		answer, err := bus.Request(t.Context(), b, victim.ID(), events.AgentReturn, request)
		if err != nil || answer.Refused != events.RefusedMachine || answer.JWT != "" {
			t.Errorf("it is answered %+v, %v", answer, err)
		}
	})
	t.Run("a revoked agent", func(t *testing.T) {
		mustAsk(f, events.AgentRevoke, events.AgentsRequest{Agents: []string{victim.ID()}, Why: "stolen"})
		f.broker.Revoke(t, eventstest.User{Role: access.Agent, Name: victim.ID(), Key: victim.PublicKey()})
		eventually(t, "its connection is ended", func() bool { return !on() })
		eventually(t, "it is told why", func() bool { return victim.State().Refused == events.RefusedRevoked })
		refusedAs(t, victim.Return(t.Context()), events.RefusedRevoked)
		anew := parsedToken(t, f.token("anew"))
		refusedAs(t, victim.Enrol(t.Context(), anew, events.Facts{ID: victim.ID(), Hostname: "ws1"}), events.RefusedRevoked)
		f.broker.Restart()
		eventually(t, "credentials is back", func() bool {
			_, err := ask(f, events.TokenList, events.Nothing{})
			return err == nil
		})
		if on() {
			t.Error("the broker forgot the revocation")
		}
	})
}

func refusedAs(t *testing.T, err error, want events.EnrolRefusal) {
	t.Helper()
	var refused *enrol.RefusedError
	if !errors.As(err, &refused) || refused.Refused != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// statementOf reads what an agent states, as a service would that does not care who proves it.
func statementOf(r events.EnrolRequest) (s events.EnrolStatement, err error) {
	return s, json.Unmarshal(r.Statement, &s)
}

func contains(text, part string) error {
	if !strings.Contains(text, part) {
		return fmt.Errorf("%q does not say %q", text, part)
	}
	return nil
}
