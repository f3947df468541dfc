package smbsource

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"sync"
	"testing"
	"time"

	"chandler/agent/source"
	"chandler/agent/source/sambatest"
	"chandler/events"
)

// frame is what a server says in clear: a header and a body.
func frame(command uint16, status uint32, body ...byte) []byte {
	f := make([]byte, 4+headerSize, 4+headerSize+len(body))
	binary.BigEndian.PutUint32(f, uint32(headerSize+len(body)))
	copy(f[4:], "\xfeSMB\x40\x00")
	binary.LittleEndian.PutUint32(f[4+8:], status)
	binary.LittleEndian.PutUint16(f[4+12:], command)
	return append(f, body...)
}

// answer is the command and status of a server's answer in clear, and its body.
func answer(b []byte) (command uint16, status uint32, body []byte) {
	if len(b) < 4+headerSize || string(b[4:8]) != "\xfeSMB" {
		return 0xFFFF, 0, nil
	}
	return binary.LittleEndian.Uint16(b[4+12:]), binary.LittleEndian.Uint32(b[4+8:]), b[4+headerSize:]
}

// TestWhoeverStandsInBetweenLearnsAndChangesNothing: a real server, and somebody on the way.
func TestWhoeverStandsInBetweenLearnsAndChangesNothing(t *testing.T) {
	content := bytes.Repeat([]byte("the content of a licence file\n"), 20_000)
	for _, c := range []struct {
		name     string
		settings string
		alter    func(b []byte)
		reason   events.Reason // none: it reads
		visible  bool
	}{
		{"what can encrypt does", "smb encrypt = default", nil, "", false},
		{"what must encrypt does", "smb encrypt = required", nil, "", false},
		{"what cannot encrypt signs", "smb encrypt = off", nil, "", true},
		{"SMB 3.0 encrypts", "server max protocol = SMB3_00", nil, "", false},
		{"SMB 2 signs", "server max protocol = SMB2_02", nil, "", true},
		{"what is signed is not altered", "smb encrypt = off", func(b []byte) {
			if i := bytes.Index(b, []byte("licence")); i >= 0 {
				b[i] = 'L'
			}
		}, events.SourceUnreachable, true},
		{"what is encrypted is not altered", "smb encrypt = default", func(b []byte) {
			if len(b) > 30_000 {
				b[20_000] ^= 1
			}
		}, events.SourceUnreachable, false},
		{"a reader is not made a guest", "smb encrypt = off", func(b []byte) {
			if command, status, body := answer(b); command == commandLogon && status == 0 {
				body[2] |= flagGuest
			}
		}, events.CredentialRejected, false},
		{"a reader is not made anonymous", "smb encrypt = default", func(b []byte) {
			if command, status, body := answer(b); command == commandLogon && status == 0 {
				body[2] |= flagNull
			}
		}, events.CredentialRejected, false},
		{"signing is not talked away", "smb encrypt = off", func(b []byte) {
			if command, _, body := answer(b); command == commandNegotiate {
				body[2] = 0
			}
		}, events.SourceUnsupported, false},
		{"encryption is not talked away", "smb encrypt = default", func(b []byte) {
			if command, _, body := answer(b); command == commandNegotiate {
				if i := bytes.Index(body, []byte{contextCipher, 0, 4, 0}); i >= 0 {
					body[i] = 0x77 // a context that nobody knows
				}
			}
		}, events.SourceUnreachable, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			samba := sambatest.New(t, sambatest.Options{Settings: []string{c.settings}, Shares: []sambatest.Share{{Name: sambatest.Software, Files: map[string][]byte{"a": content}}}})
			samba.User("reader", secret)
			var mu sync.Mutex
			visible := false
			p := &proxy{alter: func(b []byte) {
				mu.Lock()
				defer mu.Unlock()
				visible = visible || bytes.Contains(b, content[:30])
				if c.alter != nil {
					c.alter(b)
				}
			}}
			s := New(Options{Patience: 20 * time.Second})
			if c.alter != nil { // the library drops what it cannot decrypt, and goes on waiting
				s = New(Options{Patience: 2 * time.Second})
			}
			defer s.Close()
			got := make([]byte, len(content))
			o, err := s.Open(t.Context(), "smb://"+p.start(t, samba.Host())+"/software/a", login("reader", secret))
			if err == nil {
				defer o.Close()
				_, err = o.ReadAt(t.Context(), got, 0)
			}
			if c.reason != "" {
				wantReason(t, err, c.reason, "")
			} else if err != nil || !bytes.Equal(got, content) {
				t.Errorf("read otherwise: %v", err)
			}
			mu.Lock()
			defer mu.Unlock()
			if visible != c.visible {
				t.Errorf("visible: %v", visible)
			}
		})
	}
}

func TestAServerOfOldProtocolsIsRefused(t *testing.T) {
	samba := sambatest.New(t, sambatest.Options{Settings: []string{"server min protocol = NT1", "server max protocol = NT1"}})
	samba.User("reader", secret)
	s := New(Options{Patience: 2 * time.Second})
	defer s.Close()
	_, err := s.Open(t.Context(), samba.Address(sambatest.Software, "a"), login("reader", secret))
	if e, ok := err.(*source.Error); !ok || e.Reason != events.SourceUnreachable && e.Reason != events.SourceUnsupported {
		t.Errorf("error: %v", err)
	}
	if n := len(samba.Logons()); n != 0 {
		t.Errorf("%d logons", n)
	}
}

func TestAFolderTellsOnlyWhatCanBeOpened(t *testing.T) {
	for name, want := range map[string]bool{
		"setup.exe": true, "a b%20#ü.txt": true, "$RECYCLE.BIN": true, "": false, ".": false, "..": false, `a\b`: false, "a/b": false, "a:b": false, "a\x00b": false, "a\nb": false, "a\xff": false, "a\ufffd": false,
		string(bytes.Repeat([]byte("x"), 2000)): false,
	} {
		if got := speakable(name); got != want {
			t.Errorf("%q: %v", name, got)
		}
	}
}

func TestAFolderOfTooManyFilesIsAnError(t *testing.T) {
	samba := newServed(t)
	files := func(from, to int) {
		for i := from; i < to; i++ {
			samba.Write(sambatest.Software, fmt.Sprint("many/", i), nil)
		}
	}
	s := New(Options{})
	defer s.Close()
	files(0, source.MaxEntries)
	o := openT(t, s, samba.Address(sambatest.Software, "many"), "reader")
	if list, err := o.List(t.Context()); err != nil || len(list) != source.MaxEntries {
		t.Errorf("%d files: %v", len(list), err)
	}
	files(source.MaxEntries, source.MaxEntries+1)
	_, err := o.List(t.Context())
	wantReason(t, err, events.SourceUnsupported, "20000")
}
