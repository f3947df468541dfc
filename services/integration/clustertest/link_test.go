package clustertest

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// echo is a server that sends back what it reads.
func echo(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); c.Close() }()
		}
	}()
	return listener.Addr().String()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// linked is a connection through a new link to an echo.
func linked(t *testing.T) (*Link, net.Conn) {
	t.Helper()
	l, err := NewLink("", echo(t))
	must(t, err)
	t.Cleanup(l.Close)
	return l, dial(t, l)
}

func dial(t *testing.T, l *Link) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", l.Addr())
	must(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

func send(t *testing.T, c net.Conn, text string) {
	t.Helper()
	_, err := io.WriteString(c, text)
	must(t, err)
}

// hear reads until as much as the text holds has come.
func hear(t *testing.T, c net.Conn, want string) {
	t.Helper()
	must(t, c.SetReadDeadline(time.Now().Add(10*time.Second)))
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Fatalf("heard %q, %v; want %q", got, err, want)
	}
}

// silent asserts that nothing comes for a moment.
func silent(t *testing.T, c net.Conn) {
	t.Helper()
	must(t, c.SetReadDeadline(time.Now().Add(100*time.Millisecond)))
	if n, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("read %d bytes, %v", n, err)
	}
}

func TestWhatAStalledLinkHeldBackComesLater(t *testing.T) {
	for name, w := range map[string]Weather{"forth": {Forth: Way{Stalled: true}}, "back": {Back: Way{Stalled: true}}, "both": Stalled} {
		t.Run(name, func(t *testing.T) {
			l, c := linked(t)
			send(t, c, "before")
			hear(t, c, "before")
			l.Set(w)
			send(t, c, "meanwhile")
			silent(t, c)
			l.Set(Weather{})
			send(t, c, " after")
			hear(t, c, "meanwhile after")
		})
	}
}

func TestARefusedLinkEndsItsConnectionsAndTakesNoNewOnes(t *testing.T) {
	l, c := linked(t)
	send(t, c, "before")
	hear(t, c, "before")
	l.Set(Weather{Refused: true})
	for _, c := range []net.Conn{c, dial(t, l)} {
		must(t, c.SetReadDeadline(time.Now().Add(10*time.Second)))
		if n, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("read %d bytes, %v", n, err)
		}
	}
	l.Set(Weather{})
	again := dial(t, l)
	send(t, again, "after")
	hear(t, again, "after")
}

func TestABadLineKeepsOrderAndIsAsSlowAsItSays(t *testing.T) {
	l, c := linked(t)
	const rate = 4 << 20
	l.Set(Weather{Forth: Way{Delay: 20 * time.Millisecond, Loss: 0.2, Rate: rate}})
	sent := make([]byte, 1<<20)
	for i := range sent {
		sent[i] = byte(i >> 8)
	}
	began := time.Now()
	go func() { _, _ = c.Write(sent) }()
	got := make([]byte, len(sent))
	must(t, c.SetReadDeadline(time.Now().Add(30*time.Second)))
	_, err := io.ReadFull(c, got)
	must(t, err)
	if !bytes.Equal(got, sent) {
		t.Error("what arrived is not what was sent")
	}
	if took, least := time.Since(began), time.Duration(len(sent))*time.Second/rate; took < least {
		t.Errorf("%d bytes took %s, less than %s", len(sent), took, least)
	}
}

func TestALinkTakesATargetThatAnswers(t *testing.T) {
	l, err := NewLink("", nowhere, echo(t), nowhere)
	must(t, err)
	t.Cleanup(l.Close)
	for range 5 {
		c := dial(t, l)
		send(t, c, "hello")
		hear(t, c, "hello")
	}
}

func TestACutShareOfConnectionsEnds(t *testing.T) {
	l, c := linked(t)
	send(t, c, "x")
	hear(t, c, "x")
	l.Cut(0)
	send(t, c, "y")
	hear(t, c, "y")
	l.Cut(1)
	must(t, c.SetReadDeadline(time.Now().Add(10*time.Second)))
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("the connection is still there: %v", err)
	}
}
