package integration

import (
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	light "chandler/agent/fleet"
	"chandler/events"
	"chandler/events/access"
)

// stuck is a connection from which nothing more is read once it is told to.
type stuck struct {
	net.Conn
	still, over chan struct{}
	end         sync.Once
}

func (s *stuck) Read(p []byte) (int, error) {
	select {
	case <-s.still:
		<-s.over
		return 0, io.EOF
	default:
		return s.Conn.Read(p)
	}
}

func (s *stuck) Close() error {
	s.end.Do(func() { close(s.over) })
	return s.Conn.Close()
}

// Dial makes the connection, for nats.go.
func (s *stuck) Dial(network, address string) (net.Conn, error) {
	var err error
	s.Conn, err = net.Dial(network, address)
	return s, err
}

// TestReadersThatStandStillHarmNobody has an integrator that reads nothing of what it subscribed to, and a reader of STATUS that
// takes messages and settles none, while everybody works and says much.
func TestReadersThatStandStillHarmNobody(t *testing.T) {
	f := bareFleet(t, asDeployed, func(o *server.Options) { o.WriteDeadline = 3 * time.Second })
	f.startServices()
	f.setTrust(f.trust, f.roots...)
	// Chunks of 32 KiB: as many as an agent keeps while they are on their way, and altogether several times what may wait for one
	// connection.
	const agents, deployments, output, chunks = 32, 4, 450 << 10, 15
	c := newMultitude(f, agents, light.Script{Output: output}, nil)
	p := f.publish("1.0", payload, "")

	types := []string{events.JobSucceeded.Name, events.JobLogged.Name}
	f.broker.Integrator(t, "siem", types...)
	f.broker.Integrator(t, "stuck", types...)
	heard := make(chan *nats.Msg, 1<<14)
	siem := f.broker.Connect(t, access.Integrator, "siem")
	s := &stuck{still: make(chan struct{}), over: make(chan struct{})}
	slow := f.broker.Connect(t, access.Integrator, "stuck", nats.SetCustomDialer(s), nats.NoReconnect(), nats.RetryOnFailedConnect(false))
	for _, subject := range []string{events.JobSucceeded.Subject("*"), events.JobLogged.Subject("*")} {
		_, err := slow.SubscribeSync(subject)
		must(t, err)
	}
	_, err := siem.ChanSubscribe(events.JobSucceeded.Subject("*"), heard)
	must(t, err)
	must(t, slow.Flush())
	must(t, siem.Flush())
	number, err := slow.GetClientID()
	must(t, err)
	close(s.still)
	hoard := f.hoarder()

	before := heap()
	var names []string
	for i := range deployments {
		names = append(names, fmt.Sprintf("loud-%d", i))
		c.toAll(names[i], p)
	}
	c.allSucceeded(names...)
	for range agents * deployments {
		select {
		case <-heard:
		case <-t.Context().Done():
		}
	}
	eventually(t, "all is logged", func() bool {
		return sum(f.kept(events.StreamLogs, events.JobLogged.Filter())) == agents*deployments*chunks
	})
	eventually(t, "who does not read is cut off", func() bool { return f.broker.Broker().GetClient(number) == nil })
	if n := siem.Stats().Reconnects; n != 0 {
		t.Errorf("who reads was cut off %d times", n)
	}
	for name, s := range f.services {
		if n := s.conn.Stats().Reconnects; n != 0 {
			t.Errorf("the broker cut %s off %d times", name, n)
		}
	}
	if n := c.site.fleet.Stats().Reconnects; n != 0 {
		t.Errorf("agents were cut off %d times", n)
	}
	if i := f.consumer(events.StreamStatus, "hoarder"); i.NumAckPending != hoard || i.NumPending == 0 {
		t.Errorf("who settles nothing holds %d and awaits %d", i.NumAckPending, i.NumPending)
	}
	eventually(t, "memory is given back", func() bool { return heap()-before < 48*mib }) // the broker forgets what it has read after a while
}

// hoarder takes as many statuses as it gets, and gives how many that may be.
func (f *fleet) hoarder() int {
	f.t.Helper()
	const most = 100
	c, err := f.owner.JetStream().CreateConsumer(f.t.Context(), events.StreamStatus, jetstream.ConsumerConfig{Durable: "hoarder", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: most})
	must(f.t, err)
	taken, err := c.Messages(jetstream.PullMaxMessages(10 * most))
	must(f.t, err)
	go func() {
		for {
			if _, err := taken.Next(); err != nil {
				return
			}
		}
	}()
	f.t.Cleanup(taken.Stop)
	return most
}
