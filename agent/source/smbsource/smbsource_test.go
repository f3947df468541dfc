package smbsource

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"chandler/agent/source"
	"chandler/agent/source/sambatest"
	"chandler/agent/source/sourcetest"
)

// secret is the right one of every user of these tests, wrong is not.
const secret, wrong = "s3cret-Zn4x-ü€𝄞", "s3cret-of-another"

// closedShare may be entered by nobody of these tests.
const closedShare = "closed"

// served is a Samba that serves one case after another.
type served struct {
	*sambatest.Server
	cases  int
	dialed atomic.Int64
}

func newServed(t testing.TB) *served {
	s := &served{Server: sambatest.New(t, sambatest.Options{Shares: []sambatest.Share{{Name: sambatest.Software}, {Name: closedShare, Users: []string{"other"}}}})}
	for _, user := range []string{"reader", "other", "disabled", "changing", "locked", "outdated"} {
		s.User(user, secret)
	}
	s.Disable("disabled")
	s.MustChange("changing")
	s.Lock("locked")
	s.Expire("outdated")
	return s
}

func (s *served) dial(ctx context.Context, network, address string) (net.Conn, error) {
	s.dialed.Add(1)
	return (&net.Dialer{}).DialContext(ctx, network, address)
}

// serve is a Server's Serve.
func (s *served) serve(t *testing.T, files map[string][]byte, fault sourcetest.Fault) (sourcetest.Served, bool) {
	s.cases++
	folder, share := fmt.Sprintf("case-%d", s.cases), sambatest.Software
	users := map[sourcetest.Fault]string{
		sourcetest.NoUser: "nobody-knows", sourcetest.Disabled: "disabled", sourcetest.MustChange: "changing", sourcetest.Locked: "locked", sourcetest.Outdated: "outdated",
	}
	v := sourcetest.Served{Login: source.Login{User: "reader", Secret: []byte(secret)}}
	if user := users[fault]; user != "" {
		v.Login.User = user
	}
	switch fault {
	case sourcetest.DeniedRoot:
		share = closedShare
	case sourcetest.WrongSecret:
		v.Login.Secret = []byte(wrong)
	}
	for path, data := range files {
		s.Write(share, folder+"/"+path, data)
		if fault == sourcetest.Denied {
			s.Deny(share, folder+"/"+path, "")
		}
	}
	v.Root = s.Address(share, folder)
	if fault == sourcetest.NoShare {
		v.Root = s.Address("nothing", folder)
	}
	large := filepath.Join(s.Dir(share), folder, "software", "setup.bin")
	half := int64(len(files["software/setup.bin"]) / 2)
	through := func(p *proxy) { v.Root = "smb://" + p.start(t, s.Host()) + "/" + share + "/" + folder }
	switch fault {
	case sourcetest.Unreachable:
		v.Root = "smb://" + unused(t) + "/" + share
	case sourcetest.Mute:
		through(&proxy{mute: true})
	case sourcetest.Slow:
		through(&proxy{every: 512 << 10, pause: 300 * time.Millisecond})
	case sourcetest.Silent:
		through(&proxy{silentAfter: half})
	case sourcetest.Cut:
		through(&proxy{cutAfter: half})
	case sourcetest.Changed:
		v.Change = func() { spoil(t, large, os.O_WRONLY, make([]byte, 2*half+1)) }
	case sourcetest.Shortened:
		v.Change = func() {
			if err := os.Truncate(large, half/2); err != nil {
				t.Error(err)
			}
		}
	case sourcetest.Replaced:
		v.Change = func() {
			spoil(t, large+".new", os.O_WRONLY|os.O_CREATE, []byte("another"))
			if err := os.Rename(large+".new", large); err != nil {
				t.Error(err)
			}
		}
	}
	dials, logons := s.dialed.Load(), len(s.Logons())
	v.Contacts = func() int { return int(s.dialed.Load() - dials) }
	v.Logons = func() int { return len(s.Logons()) - logons }
	return v, true
}

func spoil(t *testing.T, name string, flag int, data []byte) {
	f, err := os.OpenFile(name, flag, 0o644)
	if err != nil {
		t.Error(err)
		return
	}
	defer f.Close()
	if _, err := f.Write(data); err != nil {
		t.Error(err)
	}
}

// unused is an address at which nobody listens.
func unused(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestASourceOfShares(t *testing.T) {
	samba := newServed(t)
	s := New(Options{Patience: 2 * time.Second, Dial: samba.dial})
	defer s.Close()
	sourcetest.Run(t, sourcetest.Server{Source: s, Folders: true, Settle: s.CloseIdle, Serve: func(t *testing.T, files map[string][]byte, fault sourcetest.Fault) (sourcetest.Served, bool) {
		s.CloseIdle() // each case logs on by itself
		return samba.serve(t, files, fault)
	}})
}
