package supervisetest

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// Patience is how long a test waits for another process before it fails.
const Patience = 30 * time.Second

// Meeting is where guests call.
type Meeting struct {
	listener net.Listener
	mu       sync.Mutex
	arrived  map[string]chan *Guest
}

// Guest is the test's end of a line to a program in mode "guest".
type Guest struct {
	PID  int
	name string
	conn net.Conn
	in   *bufio.Reader
}

// Meet opens a meeting for the length of the test. At its end every guest hangs up and exits.
func Meet(t testing.TB) *Meeting {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := &Meeting{listener: listener, arrived: map[string]chan *Guest{}}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { conn.Close() })
			conns.Go(func() { m.welcome(conn) })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		conns.Wait()
	})
	return m
}

func (m *Meeting) welcome(conn net.Conn) {
	conn.SetDeadline(time.Now().Add(Patience))
	in := bufio.NewReader(conn)
	g := &Guest{conn: conn, in: in}
	if _, err := fmt.Fscanln(in, &g.PID, &g.name); err == nil {
		m.chair(g.name) <- g
	}
}

func (m *Meeting) chair(name string) chan *Guest {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.arrived[name] == nil {
		m.arrived[name] = make(chan *Guest, 8)
	}
	return m.arrived[name]
}

// Program is the argv of a guest of this meeting.
func (m *Meeting) Program(name string) []string {
	return Program("guest", m.listener.Addr().String(), name)
}

// Guest waits for the guest of that name.
func (m *Meeting) Guest(t testing.TB, name string) *Guest {
	t.Helper()
	select {
	case g := <-m.chair(name):
		return g
	case <-time.After(Patience):
		t.Fatalf("no guest %q came", name)
		return nil
	}
}

// Absent fails if the guest of that name has come.
func (m *Meeting) Absent(t testing.TB, name string) {
	t.Helper()
	select {
	case <-m.chair(name):
		t.Errorf("guest %q came", name)
	default:
	}
}

// Do gives an order and waits until it is done: "ping", "print TEXT", "stat PATH", "child NAME", "orphan NAME".
func (g *Guest) Do(t testing.TB, order string) {
	t.Helper()
	if answer := g.Ask(t, order); answer != "ok" {
		t.Fatalf("guest %s, told to %s: %q", g.name, order, answer)
	}
}

// Ask gives an order and returns the answer: "ok" or words. "read PATH" is answered by the file's SHA-256 in hexadecimal
// digits or an error, "list PATH" lists a folder.
func (g *Guest) Ask(t testing.TB, order string) string {
	t.Helper()
	g.conn.SetDeadline(time.Now().Add(Patience))
	fmt.Fprintln(g.conn, order)
	answer, err := g.in.ReadString('\n')
	if err != nil {
		t.Fatalf("guest %s, told to %s: %v", g.name, order, err)
	}
	return strings.TrimSuffix(answer, "\n")
}

// Exit ends the guest with a code.
func (g *Guest) Exit(t testing.TB, code int) {
	t.Helper()
	fmt.Fprintln(g.conn, "exit", code)
	g.Gone(t)
}

// Gone waits for the death of the guest.
func (g *Guest) Gone(t testing.TB) {
	t.Helper()
	g.conn.SetDeadline(time.Now().Add(Patience))
	if answer, err := g.in.ReadString('\n'); err == nil {
		t.Fatalf("guest %s lives and says %q", g.name, answer)
	} else if wait, ok := err.(net.Error); ok && wait.Timeout() {
		t.Fatalf("guest %s lives", g.name)
	}
}
