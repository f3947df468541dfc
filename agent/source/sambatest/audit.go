package sambatest

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Entry is what Samba's own audit says of one operation.
type Entry struct {
	User      string // who the server took whoever asked for
	Share     string
	Operation Operation
	OK        bool   // false: it failed, whyever
	Path      string // below the share; "" of Enter
}

// Operation is what somebody did.
type Operation string

// The operations.
const (
	Enter Operation = "enter" // a share
	Read  Operation = "read"  // a file or folder was opened to be read
	Look  Operation = "look"  // it was opened to see what it is
)

// auditMark begins the audit's lines in Samba's log.
const auditMark = "sambatest-audit"

// reading are the rights of which whoever wants to read asks for one: GENERIC_READ, GENERIC_ALL, MAXIMUM_ALLOWED, FILE_READ_DATA.
const reading = 0x80000000 | 0x10000000 | 0x02000000 | 1

// refused is how Samba says that it let somebody not enter a share.
var refused = regexp.MustCompile(`user '([^']*)' \(from session setup\) not permitted to access this share \(([^)]*)\)`)

// Audit is what was done at the shares since the server was made, in order.
func (s *Server) Audit() (entries []Entry) {
	s.t.Helper()
	for line := range strings.Lines(s.log()) {
		if m := refused.FindStringSubmatch(line); m != nil {
			entries = append(entries, Entry{User: m[1], Share: m[2], Operation: Enter})
		}
		// mark | user | share | create_file | ok or fail (why) | rights | kind | disposition | path
		part := strings.SplitN(strings.TrimSpace(line), "|", 9)
		if len(part) < 6 || part[0] != auditMark {
			continue
		}
		e := Entry{User: part[1], Share: part[2], OK: part[4] == "ok", Operation: Enter}
		if part[3] == "create_file" && len(part) == 9 {
			rights, err := strconv.ParseUint(part[5], 0, 32)
			s.must(err)
			e.Operation = Look
			if rights&reading != 0 {
				e.Operation = Read
			}
			e.Path = strings.TrimPrefix(strings.TrimPrefix(part[8], s.Dir(e.Share)), "/")
		}
		entries = append(entries, e)
	}
	return entries
}

// Readers are the users who opened a file of a share to read it, each once, in order of their first time.
func (s *Server) Readers(share, path string) []string { return s.who(share, path, true) }

// Refused are the users to whom a file of a share was not opened, each once, in order of their first time.
func (s *Server) Refused(share, path string) []string { return s.who(share, path, false) }

func (s *Server) who(share, path string, ok bool) (users []string) {
	s.t.Helper()
	for _, e := range s.Audit() {
		if e.OK == ok && e.Operation == Read && e.Share == share && e.Path == path && !slices.Contains(users, e.User) {
			users = append(users, e.User)
		}
	}
	return users
}

// Logon is what Samba's own audit says of one attempt to log on.
type Logon struct {
	Domain, User string // the domain is Samba's own where none was given
	Status       string // NT_STATUS_OK, NT_STATUS_WRONG_PASSWORD…
}

func (l Logon) String() string { return fmt.Sprintf(`%s\%s: %s`, l.Domain, l.User, l.Status) }

var logonLine = regexp.MustCompile(`Auth: \[SMB2?,[^\]]*\] user \[([^\]]*)\]\\\[([^\]]*)\] at .* status \[([A-Z0-9_]+)\]`)

// Logons are the attempts to log on since the server was made, in order.
func (s *Server) Logons() (logons []Logon) {
	s.t.Helper()
	for _, m := range logonLine.FindAllStringSubmatch(s.log(), -1) {
		logons = append(logons, Logon{m[1], m[2], m[3]})
	}
	return logons
}
