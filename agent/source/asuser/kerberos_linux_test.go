package asuser

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chandler/agent/execute"
	"chandler/agent/logon"
	"chandler/agent/source"
	"chandler/agent/source/sambatest"
	"chandler/events"
)

// inRealm is a session of games on a machine that was set up for a realm of Kerberos, as the session's environment says.
type inRealm struct{ config string }

func (r inRealm) Prepare(ctx context.Context, req execute.Request) (execute.Prepared, error) {
	prepared, err := games{}.Prepare(ctx, req)
	prepared.Env = append(prepared.Env, "KRB5_CONFIG="+r.config)
	return prepared, err
}

// TestALoggedOnUserReadsByATicketOfTheirOwn has one user's process read from a real file server: by what else the user has
// running, which knows of a ticket, and by nothing that is not the user's own.
func TestALoggedOnUserReadsByATicketOfTheirOwn(t *testing.T) {
	needRoot(t)
	realm := sambatest.NewRealm(t)
	text := []byte("what the user alone may read")
	samba := sambatest.New(t, sambatest.Options{Settings: realm.Settings, Shares: []sambatest.Share{{Name: sambatest.Software, Users: []string{"gamer"}, Files: map[string][]byte{"a": text, "denied": nil, "without": nil}}}})
	for _, user := range []string{"gamer", "other"} {
		samba.User(user, "not-used-here")
	}
	samba.Deny(sambatest.Software, "denied", "gamer")
	dir := publicDir(t)
	config := filepath.Join(dir, "krb5.conf")
	copyFile(t, realm.Config, config, 0o644, 0)
	tickets, theirs := filepath.Join(dir, "tickets"), filepath.Join(dir, "theirs")
	copyFile(t, realm.Ticket("gamer", "1h"), tickets, 0o600, gamesID)
	copyFile(t, realm.Ticket("other", "1h"), theirs, 0o644, 0)
	reader := program(t, asReader)
	open := func(t *testing.T, file string) (source.Object, error) {
		t.Helper()
		s := newSource(t, Options{Program: reader, Session: logon.Session{User: "games", UID: gamesID}, Runner: inRealm{config}, Patience: 30 * time.Second})
		return s.Open(t.Context(), samba.Address(sambatest.Software, file), source.Login{})
	}
	for name, cache := range map[string]string{"nothing tells of a ticket": "", "it is another user's ticket": theirs} {
		t.Run("not where "+name, func(t *testing.T) {
			runsAsGames(t, cache)
			_, err := open(t, "without")
			wantReason(t, err, events.NoNetworkIdentity, "no ticket")
		})
	}
	if came, opened := samba.Logons(), samba.Audit(); len(came) != 0 || len(opened) != 0 {
		t.Errorf("without a ticket the file server met %v, %v", came, opened)
	}
	runsAsGames(t, tickets)
	o, err := open(t, "a")
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	got := make([]byte, len(text))
	if n, err := o.ReadAt(t.Context(), got, 0); n != len(text) || err != nil {
		t.Errorf("read %d bytes: %v", n, err)
	}
	_, err = open(t, "denied")
	wantReason(t, err, events.NetworkAccessDenied, "(5/0x80070005)")
	for what, diff := range map[string]string{
		"the bytes":     cmp.Diff(text, got),
		"who opened it": cmp.Diff([]string{"gamer"}, samba.Readers(sambatest.Software, "a")),
		"who may not":   cmp.Diff([]string{"gamer"}, samba.Refused(sambatest.Software, "denied")),
	} {
		if diff != "" {
			t.Errorf("%s: %s", what, diff)
		}
	}
}

func copyFile(t *testing.T, from, to string, mode os.FileMode, owner int) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, data, mode)
	}
	if err == nil {
		err = os.Chown(to, owner, -1)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// runsAsGames runs another program of the user's session until the test ends, which was told of a file of tickets.
func runsAsGames(t *testing.T, cache string) {
	t.Helper()
	prepared, err := games{}.Prepare(t.Context(), execute.Request{})
	if err != nil {
		t.Fatal(err)
	}
	shell := exec.CommandContext(t.Context(), "cat")
	shell.Dir, shell.Env = "/", prepared.Env
	if cache != "" {
		shell.Env = append(shell.Env, ticketVariable+"=FILE:"+cache)
	}
	stdin, err := shell.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := launch(shell, prepared); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		_ = shell.Wait() // it is killed with the test's context
	})
}
