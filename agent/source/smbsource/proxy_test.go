package smbsource

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// proxy stands between a client and a server, and spoils what the server sends.
type proxy struct {
	mute                  bool
	every                 int64 // bytes after which it pauses
	pause                 time.Duration
	silentAfter, cutAfter int64               // bytes; the cut comes once
	alter                 func(answer []byte) // may change what passes
	cut                   atomic.Bool
	end                   chan struct{}
	running               sync.WaitGroup
}

func (p *proxy) start(t *testing.T, server string) (address string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p.end = make(chan struct{})
	p.running.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			p.running.Go(func() { p.relay(client, server) })
		}
	})
	t.Cleanup(func() {
		close(p.end)
		l.Close()
		p.running.Wait()
	})
	return l.Addr().String()
}

func (p *proxy) relay(client net.Conn, server string) {
	defer client.Close()
	up, err := net.Dial("tcp", server)
	if err != nil {
		return
	}
	defer up.Close()
	over := make(chan struct{})
	defer close(over)
	go func() { // whatever ends first ends both
		select {
		case <-p.end:
		case <-over:
		}
		client.Close()
		up.Close()
	}()
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		_, _ = io.Copy(up, client)
		up.Close()
	}()
	p.answer(client, up, asked)
}

// answer sends what the server says, until the client is gone.
func (p *proxy) answer(client, up net.Conn, asked <-chan struct{}) {
	buf := make([]byte, 32<<10)
	for passed := int64(0); ; {
		n, err := up.Read(buf)
		if err != nil {
			return
		}
		if p.mute || p.silentAfter > 0 && passed > p.silentAfter {
			<-asked // nothing more comes, and nothing ends
			return
		}
		if p.cutAfter > 0 && passed > p.cutAfter && p.cut.CompareAndSwap(false, true) {
			return
		}
		if p.every > 0 && passed/p.every != (passed+int64(n))/p.every {
			select {
			case <-time.After(p.pause):
			case <-asked:
			}
		}
		if p.alter != nil {
			p.alter(buf[:n])
		}
		if _, err := client.Write(buf[:n]); err != nil {
			return
		}
		passed += int64(n)
	}
}
