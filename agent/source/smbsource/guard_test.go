package smbsource

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"
)

// said is a connection on which a server says something.
type said struct {
	net.Conn
	io.Reader
}

func (s said) Read(p []byte) (int, error) { return s.Reader.Read(p) }

// negotiation is an answer that offers a dialect.
func negotiation(dialect byte, security, capabilities byte) []byte {
	body := make([]byte, 64)
	body[2], body[4], body[5], body[24] = security, dialect, 3, capabilities
	return frame(commandNegotiate, 0, body...)
}

func TestTheGuardLetsOnlyPassWhatProtects(t *testing.T) {
	settled := frame(commandLogon, 0, 9, 0, 0, 0, 0, 0, 0, 0)
	chained := frame(commandLogon, moreToDo, 9, 0, 0, 0)
	chained[4+20] = 64
	for _, c := range []struct {
		name string
		says [][]byte
		want error
	}{
		{"an ordinary beginning", [][]byte{negotiation(2, 3, 0), frame(commandLogon, moreToDo, 9, 0, 0, 0), settled, frame(8, 0, make([]byte, 1<<20)...), []byte("\x00\x00\x00\x05\xfdSMB.")}, io.EOF},
		{"SMB 1", [][]byte{[]byte("\x00\x00\x00\x05\xffSMBr")}, errOldProtocol},
		{"no signing", [][]byte{negotiation(2, 0, 0)}, errNoSigning},
		{"a guest", [][]byte{frame(commandLogon, 0, 9, 0, flagGuest, 0)}, errGuest},
		{"nobody", [][]byte{frame(commandLogon, 0, 9, 0, flagNull, 0)}, errGuest},
		{"a guest after a logon that nobody asked for", [][]byte{settled, frame(commandLogon, 0, 9, 0, flagGuest, 0)}, errGuest},
		{"answers in a chain", [][]byte{chained}, errMalformed},
		{"a logon without flags", [][]byte{frame(commandLogon, 0)}, errMalformed},
		{"a short negotiation", [][]byte{frame(commandNegotiate, 0, 65, 0, 3)}, errMalformed},
		{"much before the logon", [][]byte{frame(commandNegotiate, 0, make([]byte, maxHandshake)...)}, errMalformed},
		{"something else", [][]byte{[]byte("HTTP/1.1 400 Bad Request\r\n")}, errMalformed},
		{"something else in a frame", [][]byte{[]byte("\x00\x00\x00\x08GIF89a..")}, errMalformed},
		{"nothing", nil, io.EOF},
		{"half a frame", [][]byte{settled[:20]}, io.ErrUnexpectedEOF},
	} {
		t.Run(c.name, func(t *testing.T) {
			all := bytes.Join(c.says, nil)
			g := newGuard(said{Reader: iotest.OneByteReader(bytes.NewReader(all))})
			got, err := io.ReadAll(struct{ io.Reader }{g})
			if err == nil {
				err = io.EOF
			}
			if !errors.Is(err, c.want) || c.want == io.EOF && !bytes.Equal(got, all) {
				t.Errorf("%d bytes of %d: %v, want %v", len(got), len(all), err, c.want)
			}
		})
	}
}

func TestTheGuardAsksForEncryptionWhereItIsOffered(t *testing.T) {
	for offered, want := range map[byte]byte{0: 0, capEncryption: flagEncrypt} {
		g := newGuard(said{Reader: bytes.NewReader(append(negotiation(0, 1, offered), frame(commandLogon, 0, 9, 0, 0, 0)...))})
		got, _ := io.ReadAll(struct{ io.Reader }{g})
		if flags := got[len(got)-2]; flags != want {
			t.Errorf("capabilities %#x: flags %#x", offered, flags)
		}
	}
}

func TestSilenceIsCountedFromTheLastByte(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, client := net.Pipe()
		defer server.Close()
		g := newGuard(client)
		go io.Copy(io.Discard, g)
		ended := make(chan time.Duration, 1)
		began := time.Now()
		stop := g.watch(10*time.Second, func(error) { ended <- time.Since(began) })
		defer stop()
		time.Sleep(6 * time.Second) // of the bubble's time
		if _, err := server.Write([]byte{0, 0, 0, 80}); err != nil {
			t.Error(err)
		}
		if got := <-ended; got != 16*time.Second {
			t.Errorf("silence was noticed after %s", got)
		}
		g.watch(10*time.Second, func(error) { t.Error("silence was noticed after the request was over") })()
		time.Sleep(time.Minute)
		client.Close()
	})
}

// FuzzGuard: whatever a server says, the guard hands on what was said or nothing, and no guest gets in.
func FuzzGuard(f *testing.F) {
	f.Add(append(negotiation(0x11, 1, 0), frame(commandLogon, 0, 9, 0, 0, 0)...))
	f.Add(append(negotiation(0, 3, capEncryption), frame(commandLogon, 0, 9, 0, flagGuest, 0)...))
	f.Add(frame(commandLogon, moreToDo, 9, 0, 0, 0))
	f.Fuzz(func(t *testing.T, says []byte) {
		if len(says) > 1<<18 {
			return
		}
		g := newGuard(said{Reader: bytes.NewReader(says)})
		got, _ := io.ReadAll(struct{ io.Reader }{g})
		if len(got) > len(says) {
			t.Fatalf("%d bytes of %d", len(got), len(says))
		}
		for i, b := range got {
			if b != says[i] && b != says[i]|flagEncrypt {
				t.Fatalf("byte %d is %#x, and was %#x", i, b, says[i])
			}
		}
		for rest := got; len(rest) >= 4; {
			size := min(4+(int(rest[1])<<16|int(rest[2])<<8|int(rest[3])), len(rest))
			if command, status, body := answer(rest[:size]); command == commandLogon && status == 0 && len(body) > 3 && body[2]&(flagGuest|flagNull) != 0 {
				t.Fatal("a guest got in")
			}
			rest = rest[size:]
		}
	})
}

func FuzzTickets(f *testing.F) {
	f.Add([]byte{5, 4, 0, 12, 0, 1, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 'R', 0, 0, 0, 1, 'u'})
	f.Fuzz(func(t *testing.T, data []byte) {
		if cache, err := parseCache(data); (cache == nil) == (err == nil) {
			t.Fatalf("cache %v, error %v", cache, err)
		}
	})
}
