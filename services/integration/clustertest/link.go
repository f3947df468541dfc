package clustertest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// Weather is what a link does to what passes; the zero value is a good link.
type Weather struct {
	Refused     bool // connections end, and new ones are refused
	Forth, Back Way  // from who connects to the target, and back
}

// Way is one direction of a link.
type Way struct {
	Stalled bool          // nothing arrives until it ends
	Delay   time.Duration // of everything
	Loss    float64       // share of the pieces (reads of up to 32 KiB) that arrive retransmitted late
	Rate    int           // bytes a second; 0: no limit
}

// Stalled lets nothing pass in either direction, as when all packets are lost.
var Stalled = Weather{Forth: Way{Stalled: true}, Back: Way{Stalled: true}}

// retransmit is how much later a lost piece arrives: TCP's shortest wait on Linux.
const retransmit = 200 * time.Millisecond

// Link is a TCP proxy to one target, or to any of several.
type Link struct {
	listener net.Listener
	targets  []string

	mu      sync.Mutex
	weather Weather
	changed chan struct{} // closed when the weather changes
	conns   map[net.Conn]struct{}
	closed  bool
	working sync.WaitGroup
}

// NewLink listens (host:port; empty: a free port of loopback) and passes on to a target, until Close. Of several targets each
// connection takes one at random that answers.
func NewLink(listen string, targets ...string) (*Link, error) {
	if listen == "" {
		listen = "127.0.0.1:0"
	}
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return nil, fmt.Errorf("open link to %s: %w", targets, err)
	}
	l := &Link{listener: listener, targets: targets, changed: make(chan struct{}), conns: map[net.Conn]struct{}{}}
	l.working.Go(l.accept)
	return l, nil
}

// Addr is where the link listens, host:port.
func (l *Link) Addr() string { return l.listener.Addr().String() }

// Set changes the weather, also of what is under way.
func (l *Link) Set(w Weather) {
	l.mu.Lock()
	l.weather = w
	close(l.changed)
	l.changed = make(chan struct{})
	l.mu.Unlock()
	if w.Refused {
		l.Cut(1)
	}
}

// Cut ends about that share of the connections.
func (l *Link) Cut(share float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		if rand.Float64() < share {
			c.Close()
		}
	}
}

// Close ends the link and all it passes.
func (l *Link) Close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.listener.Close()
	l.Cut(1)
	l.Set(Weather{Refused: true})
	l.working.Wait()
}

func (l *Link) accept() {
	for {
		from, err := l.listener.Accept()
		if err != nil {
			return
		}
		l.working.Go(func() { l.join(from) })
	}
}

// join passes data of one connection until either end has closed it, or the link.
func (l *Link) join(from net.Conn) {
	if !l.keep(from) {
		return
	}
	defer l.drop(from)
	to := l.dial()
	if to == nil || !l.keep(to) {
		return
	}
	defer l.drop(to)
	var both sync.WaitGroup
	both.Go(func() { l.pass(to, from, func(w Weather) Way { return w.Forth }) })
	both.Go(func() { l.pass(from, to, func(w Weather) Way { return w.Back }) })
	both.Wait()
}

// dial connects to a target; nil: none answers.
func (l *Link) dial() net.Conn {
	for _, i := range rand.Perm(len(l.targets)) {
		if c, err := net.DialTimeout("tcp", l.targets[i], time.Second); err == nil {
			return c
		}
	}
	return nil
}

func (l *Link) keep(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.weather.Refused {
		c.Close()
		return false
	}
	l.conns[c] = struct{}{}
	return true
}

func (l *Link) drop(c net.Conn) {
	c.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
}

// piece is what was read at once, and when it arrives.
type piece struct {
	data []byte
	due  time.Time
}

// inFlight is how many pieces a direction holds at most; who sends more waits.
const inFlight = 64

// pass copies one direction through the weather. The end of either side closes both, when what was read before has arrived.
func (l *Link) pass(to, from net.Conn, way func(Weather) Way) {
	pieces := make(chan piece, inFlight)
	var writing sync.WaitGroup
	writing.Go(func() {
		defer to.Close()
		defer from.Close()
		for p := range pieces {
			if !l.arrive(p, way) {
				break
			}
			if _, err := to.Write(p.data); err != nil {
				break
			}
		}
		for range pieces { // who reads must not be stuck
		}
	})
	var last time.Time // when the piece before arrives
	for {
		data := make([]byte, 32<<10)
		n, err := from.Read(data)
		if n > 0 {
			last = l.due(last, n, way)
			pieces <- piece{data[:n], last}
		}
		if err != nil {
			break
		}
	}
	close(pieces)
	writing.Wait()
}

// due is when n bytes that were sent now arrive, after those before them.
func (l *Link) due(last time.Time, n int, way func(Weather) Way) time.Time {
	l.mu.Lock()
	w := way(l.weather)
	l.mu.Unlock()
	at := time.Now().Add(w.Delay)
	if w.Loss > 0 && rand.Float64() < w.Loss {
		at = at.Add(retransmit)
	}
	if at.Before(last) {
		at = last
	}
	if w.Rate > 0 {
		at = at.Add(time.Duration(n) * time.Second / time.Duration(w.Rate))
	}
	return at
}

// arrive waits until a piece is there; false: the link refuses what passes.
func (l *Link) arrive(p piece, way func(Weather) Way) bool {
	if d := time.Until(p.due); d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		<-timer.C
	}
	for {
		l.mu.Lock()
		refused, stalled, changed := l.weather.Refused, way(l.weather).Stalled, l.changed
		l.mu.Unlock()
		if refused || !stalled {
			return !refused
		}
		<-changed
	}
}
