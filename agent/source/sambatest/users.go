package sambatest

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
)

// User makes a user, or gives one another secret.
func (s *Server) User(name, secret string) {
	s.t.Helper()
	if !slices.Contains(s.users, name) {
		id := firstUID + len(s.users)
		s.users = append(s.users, name)
		s.add("passwd", fmt.Sprintf("%s:x:%d:%d::/nonexistent:/usr/sbin/nologin\n", name, id, id))
		s.add("group", fmt.Sprintf("%s:x:%d:\n", name, id))
	}
	s.SetPassword(name, secret)
}

// add a line to a file that smbd has mounted.
func (s *Server) add(file, line string) {
	s.t.Helper()
	f, err := os.OpenFile(s.own(file), os.O_APPEND|os.O_WRONLY, 0)
	s.must(err)
	_, err = f.WriteString(line)
	s.must(err)
	s.must(f.Close())
}

// SetPassword changes a user's secret.
func (s *Server) SetPassword(name, secret string) {
	s.t.Helper()
	s.run(secret+"\n"+secret+"\n", "smbpasswd", "-c", s.own("smb.conf"), "-s", "-a", name)
}

// Disable a user.
func (s *Server) Disable(name string) { s.t.Helper(); s.flag(name, "-d") }

// Enable a user who is disabled.
func (s *Server) Enable(name string) { s.t.Helper(); s.flag(name, "-e") }

func (s *Server) flag(name, flag string) {
	s.t.Helper()
	s.run("", "smbpasswd", "-c", s.own("smb.conf"), flag, name)
}

// MustChange makes a user change the secret before anything else.
func (s *Server) MustChange(name string) {
	s.t.Helper()
	s.run("", "net", "-s", s.own("smb.conf"), "sam", "set", "pwdmustchangenow", name, "yes")
}

// Lock a user, as after too many wrong secrets.
func (s *Server) Lock(name string) {
	s.t.Helper()
	s.run("", "net", "-s", s.own("smb.conf"), "sam", "set", "autolock", name, "yes")
}

// Expire ends a user's account.
func (s *Server) Expire(name string) {
	s.t.Helper()
	s.run("", "pdbedit", "-s", s.own("smb.conf"), "-r", "-u", name, "--kickoff-time=1")
}

// BadPasswords is how often somebody came with a wrong secret since the last right one.
func (s *Server) BadPasswords(name string) int {
	s.t.Helper()
	for line := range strings.Lines(s.run("", "pdbedit", "-s", s.own("smb.conf"), "-v", "-u", name)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "Bad password count" {
			n, err := strconv.Atoi(strings.TrimSpace(value))
			s.must(err)
			return n
		}
	}
	s.t.Fatal("pdbedit does not tell the bad password count")
	return 0
}
