package smbsource

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// guard stands between the library and the connection and reads the server's answers first, because the library
//   - believes a server that ends the logon by calling the account a guest, and then no longer demands signatures;
//   - encrypts only where the server demands it, not where it can;
//   - does not tell by which status a logon was refused at once.
//
// It also knows when the server last said something. Reads come from one goroutine, the library's.
type guard struct {
	net.Conn
	head    []byte // of the frame that is being read, not yet handed on
	left    int    // bytes of the frame that are still on the connection
	settled bool   // a logon succeeded: only the head of frames is looked at
	ciphers bool   // the server can encrypt

	mu     sync.Mutex
	heard  time.Time
	status uint32 // of the last answer to a logon
	why    error  // the connection is of no use
}

// What the guard does not let pass.
var (
	errOldProtocol = errors.New("the server speaks SMB 1 only, which nobody protects")
	errNoSigning   = errors.New("the server does not sign what it says")
	errGuest       = errors.New("the server took the account for a guest")
	errMalformed   = errors.New("the server answered what is not SMB")
	errSilent      = errors.New("the server says nothing")
)

const (
	headerSize   = 64
	maxHandshake = 64 << 10 // an answer before the logon is over
	afterLogon   = headerSize + 8

	commandNegotiate = 0
	commandLogon     = 1
	moreToDo         = 0xC0000016

	flagGuest     = 1
	flagNull      = 2
	flagEncrypt   = 4
	signingOn     = 1
	capEncryption = 0x40
	contextCipher = 2
)

func newGuard(c net.Conn) *guard { return &guard{Conn: c, heard: time.Now()} }

// Read hands on what inspect has let pass.
func (g *guard) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if len(g.head) == 0 && g.left == 0 {
		if err := g.next(); err != nil {
			return 0, g.fail(err)
		}
	}
	if len(g.head) > 0 {
		n := copy(p, g.head)
		g.head = g.head[n:]
		return n, nil
	}
	n, err := g.Conn.Read(p[:min(len(p), g.left)])
	g.left -= n
	if n > 0 {
		g.hear()
	}
	if err != nil {
		return n, g.fail(err)
	}
	return n, nil
}

// next reads the head of a frame: before the logon is over all of it.
func (g *guard) next() error {
	var length [4]byte
	if _, err := io.ReadFull(g.Conn, length[:]); err != nil {
		return err
	}
	g.hear()
	size := int(binary.BigEndian.Uint32(length[:]))
	if length[0] != 0 || !g.settled && size > maxHandshake {
		return errMalformed
	}
	look := size
	if g.settled {
		look = min(size, afterLogon)
	}
	g.head = make([]byte, 4+look)
	copy(g.head, length[:])
	if _, err := io.ReadFull(g.Conn, g.head[4:]); err != nil {
		return err
	}
	g.hear()
	g.left = size - look
	return g.inspect(g.head[4:])
}

// inspect looks at the beginning of a frame, and may alter it.
func (g *guard) inspect(frame []byte) error {
	switch {
	case len(frame) >= 4 && string(frame[:4]) == "\xfdSMB": // encrypted, and so from whoever knows the secret
		return nil
	case len(frame) >= 4 && string(frame[:4]) == "\xffSMB":
		return errOldProtocol
	case len(frame) < headerSize || string(frame[:4]) != "\xfeSMB":
		return errMalformed
	case binary.LittleEndian.Uint32(frame[20:]) != 0: // chained answers, which nothing here asks for
		return errMalformed
	}
	status := binary.LittleEndian.Uint32(frame[8:])
	switch binary.LittleEndian.Uint16(frame[12:]) {
	case commandNegotiate:
		if status == 0 && !g.settled {
			return g.negotiated(frame)
		}
	case commandLogon:
		return g.logon(frame, status)
	}
	return nil
}

func (g *guard) negotiated(frame []byte) error {
	body := frame[headerSize:]
	if len(body) < 64 {
		return errMalformed
	}
	if binary.LittleEndian.Uint16(body[2:])&signingOn == 0 {
		return errNoSigning
	}
	switch binary.LittleEndian.Uint16(body[4:]) {
	case 0x0300, 0x0302:
		g.ciphers = binary.LittleEndian.Uint32(body[24:])&capEncryption != 0
	case 0x0311:
		g.ciphers = namesCipher(frame, int(binary.LittleEndian.Uint32(body[60:])), int(binary.LittleEndian.Uint16(body[6:])))
	default:
		g.ciphers = false
	}
	return nil
}

// namesCipher looks for the cipher that was chosen among the contexts of an answer.
func namesCipher(frame []byte, offset, count int) bool {
	for ; count > 0 && offset >= headerSize && offset <= len(frame)-8; count-- {
		kind, length := binary.LittleEndian.Uint16(frame[offset:]), int(binary.LittleEndian.Uint16(frame[offset+2:]))
		data := frame[offset+8:]
		if length > len(data) {
			return false
		}
		if kind == contextCipher && length >= 4 && binary.LittleEndian.Uint16(data) == 1 {
			chosen := binary.LittleEndian.Uint16(data[2:])
			return chosen == 1 || chosen == 2
		}
		offset += 8 + (length+7)&^7
	}
	return false
}

// logon looks at the answer to a logon. Where the server can encrypt it is taken to demand it.
func (g *guard) logon(frame []byte, status uint32) error {
	g.mu.Lock()
	g.status = status
	g.mu.Unlock()
	if status != 0 {
		return nil
	}
	if len(frame) < headerSize+4 {
		return errMalformed
	}
	flags := frame[headerSize+2:]
	if flags[0]&(flagGuest|flagNull) != 0 {
		return errGuest
	}
	if g.ciphers {
		flags[0] |= flagEncrypt
	}
	g.settled = true
	return nil
}

// refusal is the status by which a logon was refused; 0 if it was not.
func (g *guard) refusal() uint32 {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.status == moreToDo {
		return 0
	}
	return g.status
}

func (g *guard) hear() {
	g.mu.Lock()
	g.heard = time.Now()
	g.mu.Unlock()
}

// fail notes why the connection is of no use; the first reason stays.
func (g *guard) fail(err error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.why == nil {
		g.why = err
	}
	return g.why
}

func (g *guard) failed() error {
	if g == nil {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.why
}

// end closes the connection.
func (g *guard) end(why error) {
	_ = g.fail(why)
	g.Conn.Close()
}

// watch calls end if the server says nothing for as long as patience lasts, until stop is called.
func (g *guard) watch(patience time.Duration, end func(error)) (stop func()) {
	began := time.Now()
	var mu sync.Mutex // held while timer is set, reset or stopped
	var timer *time.Timer
	stopped := false
	check := func() {
		mu.Lock()
		defer mu.Unlock()
		if stopped {
			return
		}
		if silent := min(time.Since(began), g.silent()); silent < patience {
			timer.Reset(patience - silent)
			return
		}
		end(errSilent)
	}
	mu.Lock()
	defer mu.Unlock()
	timer = time.AfterFunc(patience, check)
	return func() {
		mu.Lock()
		defer mu.Unlock()
		stopped = true
		timer.Stop()
	}
}

// silent is how long the server has said nothing.
func (g *guard) silent() time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	return time.Since(g.heard)
}
