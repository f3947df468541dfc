package daemon

import (
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// lines collects what is logged, from many goroutines.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// eventually waits for a condition that another goroutine makes true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("never: %s", what)
		}
	}
}

func startBroker(t *testing.T, port int) *server.Server {
	t.Helper()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: port, NoSigs: true, NoLog: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the broker does not come up")
	}
	return s
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func TestConnectOutlivesABrokerThatIsAwayAtTheStartAndLater(t *testing.T) {
	port := freePort(t)
	var out lines
	reg := prometheus.NewRegistry()
	nc, err := Connect(ConnectOptions{
		URLs: []string{fmt.Sprintf("nats://127.0.0.1:%d", port)}, Name: "test", Caller: "tester",
		MaxReconnectWait: 50 * time.Millisecond, Log: slog.New(slog.NewTextHandler(&out, nil)), Registerer: reg,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	healthy := func() bool { return Connected(nc)(t.Context()) == nil }
	if healthy() {
		t.Error("healthy without a broker")
	}
	if err := nc.Publish("x", nil); err == nil {
		t.Error("a message was buffered while the broker is away")
	}
	if inbox := nc.NewInbox(); !strings.HasPrefix(inbox, "_INBOX.tester.") {
		t.Errorf("inbox %s", inbox)
	}
	for range 2 {
		s := startBroker(t, port)
		eventually(t, "connected", healthy)
		eventually(t, "gauge is 1", func() bool { return gauge(t, reg) == 1 })
		s.Shutdown()
		s.WaitForShutdown()
		eventually(t, "disconnected", func() bool { return !healthy() && gauge(t, reg) == 0 })
	}
	eventually(t, "disconnection is logged", func() bool { return strings.Contains(out.String(), "disconnected from the broker") })
}

func TestAConnectionThatWeCloseIsNothingToWarnOf(t *testing.T) {
	s := startBroker(t, server.RANDOM_PORT)
	defer s.Shutdown()
	for name, end := range map[string]func(*nats.Conn) error{
		"closed":  func(nc *nats.Conn) error { nc.Close(); return nil },
		"drained": (*nats.Conn).Drain,
	} {
		t.Run(name, func(t *testing.T) {
			var out lines
			reg := prometheus.NewRegistry()
			nc, err := Connect(ConnectOptions{URLs: []string{s.ClientURL()}, Name: "test", Caller: "tester", Log: slog.New(slog.NewTextHandler(&out, nil)), Registerer: reg})
			if err != nil {
				t.Fatal(err)
			}
			eventually(t, "gauge is 1", func() bool { return gauge(t, reg) == 1 })
			if err := end(nc); err != nil {
				t.Fatal(err)
			}
			eventually(t, "gauge is 0", func() bool { return nc.IsClosed() && gauge(t, reg) == 0 })
			if text := out.String(); strings.Contains(text, "level=WARN") {
				t.Errorf("it is logged:\n%s", text)
			}
		})
	}
}

func gauge(t *testing.T, reg *prometheus.Registry) float64 {
	t.Helper()
	all, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range all {
		if family.GetName() == "chandler_daemon_broker_connected" {
			return family.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatal("no gauge")
	return 0
}

func TestConnectInProcess(t *testing.T) {
	s, err := server.NewServer(&server.Options{DontListen: true, NoSigs: true, NoLog: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	defer s.Shutdown()
	reg := prometheus.NewRegistry()
	nc, err := Connect(ConnectOptions{Name: "all-in-one", Caller: "chandler", InProcess: s, Log: quiet(), Registerer: reg})
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	eventually(t, "connected", nc.IsConnected)
	if _, err := nc.Subscribe("", func(*nats.Msg) {}); err == nil {
		t.Error("an empty subject was accepted")
	}
	if n, err := testutil.GatherAndCount(reg); err != nil || n != 3 {
		t.Errorf("%d metrics, %v", n, err)
	}
}

func TestConnectRefusesMistakesOfConfiguration(t *testing.T) {
	absent := filepath.Join(t.TempDir(), "absent")
	for name, o := range map[string]ConnectOptions{
		"a caller that is no subject token": {Caller: "a.b"},
		"no caller":                         {},
		"credentials that are not there":    {Caller: "x", CredentialsFile: absent},
		"authorities that are not there":    {Caller: "x", CAFile: absent},
	} {
		t.Run(name, func(t *testing.T) {
			o.Log, o.Registerer = quiet(), prometheus.NewRegistry()
			if nc, err := Connect(o); err == nil {
				nc.Close()
				t.Error("accepted")
			}
		})
	}
}

func TestReconnectWaitIsJitteredWithinABoundThatGrows(t *testing.T) {
	for attempts, bound := range map[int]time.Duration{0: 250 * time.Millisecond, 1: 250 * time.Millisecond, 2: 500 * time.Millisecond, 100: 10 * time.Second} {
		different := map[time.Duration]bool{}
		for range 50 {
			w := reconnectWait(attempts, 10*time.Second)
			if w <= 0 || w > bound+time.Millisecond {
				t.Fatalf("attempt %d: %s is not within %s", attempts, w, bound)
			}
			different[w] = true
		}
		if len(different) < 10 {
			t.Errorf("attempt %d: only %d different waits of 50", attempts, len(different))
		}
	}
}
