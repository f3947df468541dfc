package sambatest

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// get reads a file by Samba's own client, and returns what that says.
func get(t *testing.T, s *Server, share, path, user, secret string) (said string, ok bool) {
	t.Helper()
	host, port, _ := strings.Cut(s.Host(), ":")
	cmd := exec.CommandContext(t.Context(), "smbclient", "//"+host+"/"+share, "-p", port, "-U", user, "-s", s.own("smb.conf"), "-c", `get "`+path+`" -`)
	cmd.Env = append(cmd.Environ(), "PASSWD="+secret) // of a test
	out, err := cmd.CombinedOutput()
	return string(out), err == nil
}

func TestTheServerTellsWhoLoggedOnAndWhoReadWhat(t *testing.T) {
	if _, err := exec.LookPath("smbclient"); err != nil {
		if os.Getenv("CHANDLER_TEST_REQUIRE") == "1" {
			t.Fatal("apt-get install smbclient")
		}
		t.Skip("apt-get install smbclient")
	}
	s := New(t, Options{Shares: []Share{{Name: Software, Files: map[string][]byte{"a/b.txt": []byte("what b holds"), "a/c.txt": nil}}, {Name: "closed", Users: []string{"other"}}}})
	s.User("reader", "first")
	s.User("other", "first")
	s.User("reader", "second") // another secret for the same
	s.Deny(Software, "a/c.txt", "reader")
	for _, c := range []struct {
		share, path, user, secret string
		ok                        bool
	}{
		{Software, "a/b.txt", "reader", "second", true},
		{Software, "a/b.txt", "reader", "first", false},
		{Software, "a/c.txt", "reader", "second", false},
		{Software, "a/c.txt", "other", "first", true},
		{"closed", "x", "reader", "second", false},
	} {
		if said, ok := get(t, s, c.share, c.path, c.user, c.secret); ok != c.ok {
			t.Errorf("%+v: %s", c, said)
		}
	}
	wrong := Logon{Domain: s.Logons()[0].Domain, User: "reader", Status: "NT_STATUS_WRONG_PASSWORD"}
	right, other := wrong, wrong
	right.Status, other.User, other.Status = "NT_STATUS_OK", "other", "NT_STATUS_OK"
	if diff := cmp.Diff([]Logon{right, wrong, right, other, right}, s.Logons()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"reader"}, s.Readers(Software, "a/b.txt")); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"other"}, s.Readers(Software, "a/c.txt")); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"reader"}, s.Refused(Software, "a/c.txt")); diff != "" {
		t.Error(diff)
	}
	refused := Entry{User: "reader", Share: "closed", Operation: Enter}
	if all := s.Audit(); len(all) == 0 || all[len(all)-1] != refused {
		t.Errorf("the audit ends otherwise than by %+v: %+v", refused, all)
	}
}

func TestAccountsAreAsTheirStatesSay(t *testing.T) {
	s := New(t, Options{})
	for _, c := range []struct {
		name   string
		become func(string)
		secret string
		status string
		bad    int
	}{
		{"well", s.Enable, "right", "NT_STATUS_OK", 0},
		{"mistaken", s.Enable, "wrong", "NT_STATUS_WRONG_PASSWORD", 1},
		{"disabled", s.Disable, "right", "NT_STATUS_ACCOUNT_DISABLED", 0},
		{"changing", s.MustChange, "right", "NT_STATUS_PASSWORD_MUST_CHANGE", 0},
		{"locked", s.Lock, "right", "NT_STATUS_ACCOUNT_LOCKED_OUT", 0},
		{"outdated", s.Expire, "right", "NT_STATUS_ACCOUNT_EXPIRED", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			s.User(c.name, "right")
			c.become(c.name)
			said, ok := get(t, s, Software, "x", c.name, c.secret)
			logons := s.Logons()
			if last := logons[len(logons)-1]; last.User != c.name || last.Status != c.status || ok {
				t.Errorf("%s: %s", last, said)
			}
			if n := s.BadPasswords(c.name); n != c.bad {
				t.Errorf("%d bad passwords, want %d", n, c.bad)
			}
		})
	}
}

func TestAServerStopsAndStartsAgain(t *testing.T) {
	s := New(t, Options{Shares: []Share{{Name: Software, Files: map[string][]byte{"a": []byte("a")}}}})
	s.User("reader", "right")
	s.Stop()
	if said, ok := get(t, s, Software, "a", "reader", "right"); ok {
		t.Errorf("what is stopped answers: %s", said)
	}
	s.Start()
	if said, ok := get(t, s, Software, "a", "reader", "right"); !ok {
		t.Errorf("what was started again does not answer: %s", said)
	}
}
