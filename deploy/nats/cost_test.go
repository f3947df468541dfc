// Package nats_test measures what it costs a broker to ask everybody who he is: connections of agents and
// statuses that are stored, with no authentication, with JWTs, and with JWTs and TLS, in turn and in one run.
// The broker has the configuration of nats-server.conf and is a process of its own, so that its share is told
// apart from that of the agents, which are all in the test's process.
//
//	go test ./deploy/nats -run '^$' -bench . -benchtime 5x -agents 2000
package nats_test

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"chandler/events"
)

var agents = flag.Int("agents", 100, "how many agents connect in a benchmark")

// atOnce is how many agents connect at the same time.
const atOnce = 32

func TestMain(m *testing.M) {
	if text := os.Getenv(brokerVariable); text != "" {
		if err := runBroker(text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// way is how a broker is secured.
type way struct {
	Name     string
	Accounts bool // users of the fleet's accounts, by JWT
	TLS      bool
}

func ways() []way {
	return []way{{Name: "none"}, {Name: "JWT", Accounts: true}, {Name: "JWT+TLS", Accounts: true, TLS: true}}
}

// cost of one thing of many.
type cost struct {
	perSecond float64       // as many were done, with both processes on the same cores
	cpu       time.Duration // of the broker, user and system
	memory    float64       // bytes of the broker that are resident after a garbage collection
}

func BenchmarkConnecting(b *testing.B) {
	f := newFleet(b, *agents)
	rounds := map[string][]cost{}
	for b.Loop() {
		for _, w := range ways() {
			rounds[w.Name] = append(rounds[w.Name], connecting(b, f, w))
		}
	}
	report(b, "agent", rounds, "none", "JWT", "JWT+TLS")
}

// connecting measures agents that come one after the other and stay.
func connecting(t testing.TB, f *fleet, w way) cost {
	t.Helper()
	broker := f.start(t, w)
	defer broker.stop()
	first, err := broker.connect(f.agents[0]) // the broker learns of the account once
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	before, started := broker.usage(t), time.Now()
	conns, err := broker.connectAll(f.agents[1:])
	took := time.Since(started)
	defer hangUp(conns)
	if err != nil {
		t.Fatal(err)
	}
	return broker.usage(t).since(before, len(conns), took)
}

// connectAll connects agents, [atOnce] at a time. What is connected is given also with an error.
func (b *broker) connectAll(agents []user) ([]*nats.Conn, error) {
	conns := make([]*nats.Conn, len(agents))
	err := together(atOnce, func(first int) (err error) {
		for i := first; i < len(agents) && err == nil; i += atOnce {
			conns[i], err = b.connectAgent(agents[i])
		}
		return err
	})
	return slices.DeleteFunc(conns, func(c *nats.Conn) bool { return c == nil }), err
}

// together does n things at the same time.
func together(n int, do func(i int) error) error {
	errs := make([]error, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { errs[i] = do(i) })
	}
	all.Wait()
	return errors.Join(errs...)
}

func hangUp(conns []*nats.Conn) {
	for _, c := range conns {
		c.Close()
	}
}

// connectAgent connects as an agent does, and waits until the broker knows everything that it listens to.
func (b *broker) connectAgent(a user) (*nats.Conn, error) {
	conn, err := b.connect(a)
	if err != nil {
		return nil, err
	}
	for _, subject := range []string{events.AgentInbox(a.name), events.Beacon.Subject(""), events.TrustAnnounced.Pattern, a.inbox() + ".x.*"} {
		if _, err := conn.Subscribe(subject, func(*nats.Msg) {}); err != nil {
			return conn, fmt.Errorf("listen on %s: %w", subject, err)
		}
	}
	if err := conn.FlushTimeout(patience); err != nil {
		return conn, fmt.Errorf("agent %s: %w", a.name, err)
	}
	return conn, conn.LastError() // a subscription that was refused
}

// report gives the medians of the rounds, and each as a multiple of the first's.
func report(b *testing.B, what string, rounds map[string][]cost, names ...string) {
	b.Helper()
	b.ReportMetric(0, "ns/op") // a round of everything means nothing
	base := median(rounds[names[0]])
	var table strings.Builder
	for _, name := range names {
		m := median(rounds[name])
		b.ReportMetric(m.perSecond, name+"/s")
		b.ReportMetric(float64(m.cpu.Microseconds()), name+"-µs")
		fmt.Fprintf(&table, "\n%-12s %7.0f/s %s %8.3f ms of the broker's CPU each %s", name, m.perSecond, times(m.perSecond, base.perSecond), m.cpu.Seconds()*1000, times(float64(m.cpu), float64(base.cpu)))
		if what == "agent" {
			fmt.Fprintf(&table, " %6.1f KiB each %s", m.memory/1024, times(m.memory, base.memory))
		}
	}
	b.Logf("medians of %d rounds, by %s (as a multiple of %s):%s", len(rounds[names[0]]), what, names[0], &table)
}

func times(v, base float64) string { return fmt.Sprintf("(%5.2f)", v/base) }

// median of each measure by itself.
func median(all []cost) cost {
	return cost{
		perSecond: middle(all, func(c cost) float64 { return c.perSecond }),
		cpu:       middle(all, func(c cost) time.Duration { return c.cpu }),
		memory:    middle(all, func(c cost) float64 { return c.memory }),
	}
}

func middle[T cmp.Ordered](all []cost, of func(cost) T) T {
	values := make([]T, len(all))
	for i, c := range all {
		values[i] = of(c)
	}
	slices.Sort(values)
	return values[len(values)/2]
}

// TestWhatIsMeasuredIsSecured keeps the benchmarks honest: each way lets in those that it should, as it should.
func TestWhatIsMeasuredIsSecured(t *testing.T) {
	f := newFleet(t, 3)
	for _, w := range ways() {
		t.Run(w.Name, func(t *testing.T) {
			if c := connecting(t, f, w); c.perSecond <= 0 || c.cpu < 0 {
				t.Errorf("measured %+v", c)
			}
			broker := f.start(t, w)
			conn, err := broker.connect(f.agents[0])
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if state, err := conn.TLSConnectionState(); w.TLS != (err == nil) || w.TLS && state.Version != tlsVersion {
				t.Errorf("the connection has TLS %x (%v)", state.Version, err)
			}
			stranger, err := broker.connect(user{name: "stranger"})
			if err == nil {
				stranger.Close()
			}
			if w.Accounts != errors.Is(err, nats.ErrAuthorization) {
				t.Errorf("a stranger is told %v", err)
			}
		})
	}
}
