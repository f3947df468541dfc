package integration

import (
	"bufio"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// faultProxy stands between one service and the broker. Once armed, it lets the service receive and do
// its work, swallows the first acknowledgement that it is armed for, and is gone for good from that
// moment: the broker sees a service that died between receiving and acknowledging.
type faultProxy struct {
	listener net.Listener
	broker   string
	lost     chan string // the subject of the swallowed acknowledgement, once

	mu    sync.Mutex
	armed func(subject string) bool
	gone  bool
	conns []net.Conn
}

func newFaultProxy(t *testing.T, brokerURL string) *faultProxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	p := &faultProxy{listener: listener, broker: strings.TrimPrefix(brokerURL, "nats://"), lost: make(chan string, 1)}
	t.Cleanup(p.cut)
	go p.accept()
	return p
}

func (p *faultProxy) url() string { return "nats://" + p.listener.Addr().String() }

// arm swallows the next acknowledgement whose subject the function picks.
func (p *faultProxy) arm(pick func(subject string) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.armed = pick
}

func (p *faultProxy) accept() {
	for {
		service, err := p.listener.Accept()
		if err != nil {
			return
		}
		broker, err := net.Dial("tcp", p.broker)
		if err != nil {
			service.Close()
			continue
		}
		p.mu.Lock()
		p.conns = append(p.conns, service, broker)
		if p.gone {
			go p.cut()
		}
		p.mu.Unlock()
		go func() { _, _ = io.Copy(service, broker); service.Close() }()
		go func() { p.forward(broker, bufio.NewReaderSize(service, 1<<16)); broker.Close() }()
	}
}

// forward passes on what the service says, one operation of the protocol at a time.
func (p *faultProxy) forward(broker io.Writer, service *bufio.Reader) {
	for {
		line, err := service.ReadString('\n')
		if err != nil {
			return
		}
		fields := strings.Fields(line)
		publishes := len(fields) > 2 && (fields[0] == "PUB" || fields[0] == "HPUB")
		if publishes && strings.HasPrefix(fields[1], "$JS.ACK.") && p.swallows(fields[1]) {
			p.cut()
			p.lost <- fields[1]
			return
		}
		size := int64(0) // of the body that follows
		if publishes {
			body, err := strconv.ParseInt(fields[len(fields)-1], 10, 64)
			if err != nil {
				return
			}
			size = body + int64(len("\r\n"))
		}
		if _, err := io.CopyN(broker, io.MultiReader(strings.NewReader(line), service), int64(len(line))+size); err != nil {
			return
		}
	}
}

// swallows says so once, for the connection that is cut after it.
func (p *faultProxy) swallows(subject string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	picked := p.armed != nil && p.armed(subject)
	if picked {
		p.armed = nil
	}
	return picked
}

func (p *faultProxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gone = true
	p.listener.Close()
	for _, c := range p.conns {
		c.Close()
	}
}
