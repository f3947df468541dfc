package smbsource

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cloudsoda/go-smb2"
	"github.com/google/go-cmp/cmp"

	"chandler/agent/source"
	"chandler/agent/source/sambatest"
	"chandler/events"
)

func wantReason(t *testing.T, err error, reason events.Reason, words string) {
	t.Helper()
	if e, ok := errors.AsType[*source.Error](err); !ok || e.Reason != reason || !strings.Contains(e.Answer, words) {
		t.Errorf("error %v, want %s of %q", err, reason, words)
	}
}

// eventually waits until something is so.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	patience := time.After(20 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !so() {
		select {
		case <-tick.C:
		case <-patience:
			t.Fatalf("never: %s", what)
		}
	}
}

// users of all sessions of a source.
func (s *Source) users() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ses := range s.sessions {
		n += ses.users
	}
	return n
}

func login(user, password string) source.Login {
	return source.Login{User: user, Method: events.ByPassword, Secret: []byte(password)}
}

func openT(t testing.TB, s *Source, address, user string) source.Object {
	t.Helper()
	o, err := s.Open(t.Context(), address, login(user, secret))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { o.Close() })
	return o
}

// TestAWrongSecretIsOneBadPassword: alone, and however many come with it at the same time.
func TestAWrongSecretIsOneBadPassword(t *testing.T) {
	samba := newServed(t)
	goOn := make(chan struct{})
	s := New(Options{Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		<-goOn
		return samba.dial(ctx, network, address)
	}})
	defer s.Close()
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			_, err := s.Open(t.Context(), samba.Address(sambatest.Software, fmt.Sprint("file-", i)), login("reader", wrong))
			wantReason(t, err, events.CredentialRejected, "(1326/0x8007052E)")
		})
	}
	eventually(t, "all wait for one logon", func() bool { return s.users() == 8 })
	close(goOn)
	all.Wait()
	if n := samba.BadPasswords("reader"); n != 1 || samba.dialed.Load() != 1 {
		t.Errorf("Samba counts %d bad passwords over %d connections", n, samba.dialed.Load())
	}
	_, err := s.Open(t.Context(), samba.Address(sambatest.Software, "x"), login("reader", wrong))
	wantReason(t, err, events.CredentialRejected, "")
	if n := samba.BadPasswords("reader"); n != 2 {
		t.Errorf("after another opening Samba counts %d bad passwords", n)
	}
}

func TestOpeningsShareASessionOnlyWhereWhoReadsIsTheSame(t *testing.T) {
	samba := newServed(t)
	samba.Write(sambatest.Software, "a/b.txt", []byte("b"))
	samba.Write(sambatest.Software, "c.txt", []byte("c"))
	s := New(Options{Dial: samba.dial})
	defer s.Close()
	openT(t, s, samba.Address(sambatest.Software, "a/b.txt"), "reader")
	openT(t, s, samba.Address(sambatest.Software, "c.txt"), "reader")
	openT(t, s, samba.Address(sambatest.Software, "c.txt"), "other")
	_, err := s.Open(t.Context(), samba.Address(sambatest.Software, "c.txt"), login("reader", wrong))
	wantReason(t, err, events.CredentialRejected, "")
	var logons []string
	for _, l := range samba.Logons() {
		logons = append(logons, l.User+" "+l.Status)
	}
	if diff := cmp.Diff([]string{"reader NT_STATUS_OK", "other NT_STATUS_OK", "reader NT_STATUS_WRONG_PASSWORD"}, logons); diff != "" {
		t.Error(diff)
	}
	for path, want := range map[string][]string{"a/b.txt": {"reader"}, "c.txt": {"reader", "other"}} {
		if diff := cmp.Diff(want, samba.Readers(sambatest.Software, path)); diff != "" {
			t.Errorf("%s: %s", path, diff)
		}
	}
}

func TestWhoAsksAnewLogsOnAnew(t *testing.T) {
	samba := newServed(t)
	samba.Write(sambatest.Software, "a.txt", []byte("a"))
	s := New(Options{Dial: samba.dial})
	defer s.Close()
	openT(t, s, samba.Address(sambatest.Software, "a.txt"), "reader")
	samba.Disable("reader")
	openT(t, s, samba.Address(sambatest.Software, "a.txt"), "reader") // by the session that is there
	anew := login("reader", secret)
	anew.Anew = true
	_, err := s.Open(t.Context(), samba.Address(sambatest.Software, "a.txt"), anew)
	wantReason(t, err, events.CredentialRejected, "(1331/")
	if n := len(samba.Logons()); n != 2 {
		t.Errorf("%d logons", n)
	}
}

func TestTheUserIsSpelledAsTheResourceKnowsIt(t *testing.T) {
	samba := newServed(t)
	samba.Write(sambatest.Software, "a", []byte("a"))
	s := New(Options{})
	defer s.Close()
	for _, user := range []string{"reader", `EXAMPLE\reader`, "reader@example", "READER"} {
		openT(t, s, samba.Address(sambatest.Software, "a"), user)
		logons := samba.Logons()
		if last := logons[len(logons)-1]; !strings.EqualFold(last.User, "reader") || strings.Contains(user, "e") && !strings.EqualFold(user, "reader") && !strings.EqualFold(last.Domain, "example") {
			t.Errorf("%s logged on as %s", user, last)
		}
	}
}

func TestWhoIsNobodyAndHasNoTicketHasNoIdentity(t *testing.T) {
	s := New(Options{Kerberos: Kerberos{Cache: t.TempDir() + "/none"}, Dial: func(context.Context, string, string) (net.Conn, error) {
		t.Error("the server was contacted")
		return nil, errors.New("not here")
	}})
	_, err := s.Open(t.Context(), "smb://files/software/a", source.Login{})
	wantReason(t, err, events.NoNetworkIdentity, "no ticket of Kerberos")
}

func TestWhatNoShareCanHaveIsRefusedWithoutContact(t *testing.T) {
	s := New(Options{Dial: func(context.Context, string, string) (net.Conn, error) {
		t.Error("the server was contacted")
		return nil, errors.New("not here")
	}})
	for _, c := range []struct {
		address string
		login   source.Login
		reason  events.Reason
	}{
		{"smb://files/software/setup.exe:hidden", login("reader", secret), events.SourceNotFound},
		{"smb://files/software/*.exe", login("reader", secret), events.SourceNotFound},
		{"smb://files/ipc$/lsarpc", login("reader", secret), events.SourceUnsupported},
		{"https://files/software/a", login("reader", secret), events.SourceUnsupported},
		{"smb://files/software/../x", login("reader", secret), events.SourceUnsupported},
		{"smb://files/software/a", source.Login{User: "reader", Method: events.ByBearer, Secret: []byte(secret)}, events.SourceUnsupported},
		{"smb://files/software/a", source.Login{User: "reader"}, events.CredentialRejected},
		{"smb://files/software/a", source.Login{User: "reader", Secret: []byte("\xff\xfe")}, events.CredentialRejected},
		{"smb://files/software/a", source.Login{Secret: []byte(secret)}, events.CredentialRejected},
	} {
		_, err := s.Open(t.Context(), c.address, c.login)
		wantReason(t, err, c.reason, "")
	}
}

func TestASessionThatBrokeIsNotUsedAgain(t *testing.T) {
	samba := newServed(t)
	samba.Write(sambatest.Software, "a", make([]byte, 3*pieceSize))
	s := New(Options{Linger: time.Hour})
	defer s.Close()
	address := samba.Address(sambatest.Software, "a")
	o := openT(t, s, address, "reader")
	lingers := openT(t, s, address, "other")
	lingers.Close()
	samba.Stop()
	_, err := o.ReadAt(t.Context(), make([]byte, 10), 0)
	wantReason(t, err, events.SourceUnreachable, "")
	eventually(t, "the sessions are known to be broken", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, ses := range s.sessions {
			if !ses.dead() {
				return false
			}
		}
		return true
	})
	_, err = s.Open(t.Context(), address, login("reader", secret))
	wantReason(t, err, events.SourceUnreachable, "(53/0x80070035)")
	samba.Start()
	for _, user := range []string{"reader", "other"} {
		if n, err := openT(t, s, address, user).ReadAt(t.Context(), make([]byte, 10), 0); n != 10 || err != nil {
			t.Errorf("%s reads %d bytes: %v", user, n, err)
		}
	}
}

func TestSessionsEndWhenNobodyNeedsThem(t *testing.T) {
	samba := newServed(t)
	samba.Write(sambatest.Software, "a", []byte("a"))
	address := samba.Address(sambatest.Software, "a")
	s := New(Options{Linger: 20 * time.Millisecond})
	openT(t, s, address, "reader").Close()
	eventually(t, "a session lingered long enough", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.sessions) == 0 && s.idle == 0
	})
	o := openT(t, s, address, "reader")
	s.CloseIdle()
	if _, err := o.ReadAt(t.Context(), make([]byte, 1), 0); err != nil {
		t.Errorf("what is in use was closed: %v", err)
	}
	s.Close()
	eventually(t, "what is open fails", func() bool { _, err := o.ReadAt(t.Context(), make([]byte, 1), 0); return err != nil })
	if _, err := s.Open(t.Context(), address, login("reader", secret)); !errors.Is(err, errClosed) {
		t.Errorf("a closed source opens: %v", err)
	}
	if s.users() != 0 || len(s.sessions) != 0 {
		t.Errorf("%d sessions are kept", len(s.sessions))
	}
}

func TestNothingIsKeptOfASecretAfterTheLogon(t *testing.T) {
	samba := newServed(t)
	samba.Write(sambatest.Software, "a", []byte("a"))
	s := New(Options{})
	defer s.Close()
	where, err := parse(samba.Address(sambatest.Software, "a"))
	if err != nil {
		t.Fatal(err)
	}
	for _, password := range []string{secret, wrong} {
		who, err := s.proof(where, login("reader", password))
		if err != nil {
			t.Fatal(err)
		}
		initiator, _ := who.initiator()
		ntlm := initiator.(*smb2.NTLMInitiator)
		if ntlm.Password != "" || string(ntlm.Hash) == string(make([]byte, 16)) {
			t.Fatalf("the logon is by %d bytes of password, %d of hash", len(ntlm.Password), len(ntlm.Hash))
		}
		if ses, err := s.acquire(t.Context(), where, who); err == nil {
			s.release(ses)
		}
		if string(ntlm.Hash) != string(make([]byte, 16)) {
			t.Error("the hash is kept")
		}
	}
}
