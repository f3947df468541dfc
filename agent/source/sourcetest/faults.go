package sourcetest

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"chandler/agent/source"
	"chandler/events"
)

// faults: every answer is a reason, and the code by which administrators look it up.
func (s Server) faults(t *testing.T, files map[string][]byte) {
	for _, c := range []struct {
		name   string
		fault  Fault
		path   string
		reason events.Reason
		codes  []source.Code // one of them
	}{
		{"there is no such file", None, "software/nothing", events.SourceNotFound, []source.Code{source.FileNotFound}},
		{"there is no such folder", None, "nowhere/nothing", events.SourceNotFound, []source.Code{source.PathNotFound, source.FileNotFound}},
		{"there is no such share", NoShare, large, events.SourceNotFound, []source.Code{source.ShareNotFound, source.PathNotFound, source.FileNotFound}},
		{"the account may not read the file", Denied, large, events.NetworkAccessDenied, []source.Code{source.AccessDenied}},
		{"the account may not enter the share", DeniedRoot, large, events.NetworkAccessDenied, []source.Code{source.AccessDenied}},
		{"the secret is wrong", WrongSecret, large, events.CredentialRejected, []source.Code{source.LogonRefused}},
		{"the account does not exist", NoUser, large, events.CredentialRejected, []source.Code{source.LogonRefused, source.NoSuchUser}},
		{"the account is disabled", Disabled, large, events.CredentialRejected, []source.Code{source.AccountDisabled, source.LogonRefused}},
		{"the secret must be changed", MustChange, large, events.CredentialRejected, []source.Code{source.MustChange, source.LogonRefused}},
		{"the account is locked", Locked, large, events.CredentialRejected, []source.Code{source.AccountLocked, source.LogonRefused}},
		{"the account has expired", Outdated, large, events.CredentialRejected, []source.Code{source.AccountExpired, source.LogonRefused}},
		{"nobody listens", Unreachable, large, events.SourceUnreachable, []source.Code{source.BadNetworkPath}},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := s.serve(t, files, c.fault)
			o, err := s.tryOpen(t, t.Context(), v, c.path)
			if err == nil {
				// A source may find out when it reads.
				_, err = read(t.Context(), o, 0)
				v.clean(t, err)
			}
			e := wantReason(t, err, c.reason)
			if !slices.ContainsFunc(c.codes, func(code source.Code) bool { return strings.Contains(e.Answer, fmt.Sprintf("(%d/0x", code)) }) {
				t.Errorf("answer %q holds none of the codes %d", e.Answer, c.codes)
			}
			if v.Logons != nil && c.fault != Unreachable {
				if n := v.Logons(); n != 1 {
					t.Errorf("one opening is %d logons", n)
				}
			}
		})
	}
}

func (s Server) noUser(t *testing.T, files map[string][]byte) {
	v := s.serve(t, files, None)
	if v.Contacts == nil {
		t.Skip("this kind of source knows no accounts")
	}
	for _, user := range []string{"", `EXAMPLE\`, "@example"} {
		login := source.Login{User: user, Method: events.ByPassword, Secret: v.Login.Secret}
		_, err := s.tryOpen(t, t.Context(), Served{Root: v.Root, Login: login}, large)
		wantReason(t, err, events.CredentialRejected)
	}
	if n := v.Contacts(); n != 0 {
		t.Errorf("the server was contacted %d times", n)
	}
}

// closed: neither an object that was read half nor one that failed leaves anything behind.
func (s Server) closed(t *testing.T, files map[string][]byte) {
	v, silent := s.serve(t, files, None), s.serve(t, files, Silent)
	settle := func() {
		if s.Settle != nil {
			s.Settle()
		}
	}
	settle()
	before := runtime.NumGoroutine()
	for range 3 {
		o := s.open(t, v, large)
		if _, err := o.ReadAt(t.Context(), make([]byte, 1000), 5); err != nil {
			t.Fatal(err)
		}
		if err := o.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		if n, err := o.ReadAt(t.Context(), make([]byte, 10), 0); n != 0 || err == nil {
			t.Errorf("a closed file reads as %d bytes: %v", n, err)
		}
		if _, err := s.tryOpen(t, t.Context(), v, "software/nothing"); err == nil {
			t.Error("what is missing opens")
		}
		o = s.open(t, silent, large)
		ctx, cancel := context.WithCancel(t.Context())
		go cancel()
		_, err := read(ctx, o, 0)
		silent.clean(t, err)
		o.Close()
	}
	settle()
	patience := time.After(20 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for runtime.NumGoroutine() > before {
		select {
		case <-tick.C:
		case <-patience:
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d goroutines before, %d after:\n%s", before, runtime.NumGoroutine(), stacks[:runtime.Stack(stacks, true)])
		}
	}
}
