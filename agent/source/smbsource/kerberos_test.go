package smbsource

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chandler/agent/source"
	"chandler/agent/source/sambatest"
	"chandler/events"
)

func TestWhoIsNobodyReadsByTheTicketOfTheProcess(t *testing.T) {
	realm := sambatest.NewRealm(t)
	samba := sambatest.New(t, sambatest.Options{Settings: realm.Settings, Shares: []sambatest.Share{{Name: sambatest.Software, Files: map[string][]byte{"a": []byte("a"), "denied": nil}}}})
	samba.User("reader", secret)
	samba.Deny(sambatest.Software, "denied", "reader")
	cache := realm.Ticket("reader", "1h")
	t.Setenv("KRB5CCNAME", "FILE:"+cache)
	t.Setenv("KRB5_CONFIG", realm.Config)
	s := New(Options{Patience: 5 * time.Second})
	defer s.Close()
	o, err := s.Open(t.Context(), samba.Address(sambatest.Software, "a"), source.Login{})
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	p := make([]byte, 1)
	if n, err := o.ReadAt(t.Context(), p, 0); n != 1 || err != nil || p[0] != 'a' {
		t.Errorf("read %d bytes: %v", n, err)
	}
	_, err = s.Open(t.Context(), samba.Address(sambatest.Software, "denied"), source.Login{})
	wantReason(t, err, events.NetworkAccessDenied, "")
	if diff := cmp.Diff([]string{"reader"}, samba.Readers(sambatest.Software, "a")); diff != "" {
		t.Error(diff)
	}
	t.Run("not at a server of which the realm does not know", func(t *testing.T) {
		_, err := s.Open(t.Context(), strings.Replace(samba.Address(sambatest.Software, "a"), "127.0.0.1", "localhost", 1), source.Login{})
		wantReason(t, err, events.NoNetworkIdentity, "reader@TEST.EXAMPLE is not good for cifs/localhost")
	})
	t.Run("not by a ticket that others could have put there", func(t *testing.T) {
		theirs := filepath.Join(t.TempDir(), "krb5cc")
		data, err := os.ReadFile(cache)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(theirs, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(theirs, 65534, -1); err != nil {
			t.Fatal(err)
		}
		link := filepath.Join(t.TempDir(), "link")
		if err := os.Symlink(cache, link); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{theirs, link, "KEYRING:session", filepath.Dir(cache)} {
			_, err := New(Options{Kerberos: Kerberos{Cache: name}}).Open(t.Context(), samba.Address(sambatest.Software, "a"), source.Login{})
			wantReason(t, err, events.NoNetworkIdentity, "no ticket")
		}
	})
}
