package logon

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/shirou/gopsutil/v4/process"

	"chandler/agent/account"
)

const (
	maxUtmp     = 4 << 20 // bytes
	userProcess = 7       // ut_type of a logon
	// A record is younger than its process, as far as clocks that are set meanwhile allow.
	clockSlack = time.Minute
	utmpPrefix = "utmp:"
)

// utmp reads the file that login and sshd write.
type utmp struct {
	file    string
	devices string            // directory
	uids    map[string]uint32 // of those seen at the last look; a Watcher asks one by one
}

// record is one logon as the file has it.
type record struct {
	pid              int
	line, user, host string
	since            time.Time
}

func isUtmp(s Session) bool { return strings.HasPrefix(s.ID, utmpPrefix) }

func (u *utmp) List(ctx context.Context) ([]Session, error) {
	file, err := os.Open(u.file)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxUtmp+1))
	if err != nil {
		return nil, err
	}
	records, err := parseUtmp(data, recordSize())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", u.file, err)
	}
	var sessions []Session
	uids := map[string]uint32{}
	for _, r := range records {
		if !r.alive(ctx) { // what a crash left behind
			continue
		}
		uid, known := u.uids[r.user]
		if !known {
			if uid, err = uidOf(ctx, r.user); err != nil {
				return nil, fmt.Errorf("%s: %w", u.file, err)
			}
		}
		uids[r.user] = uid
		s := r.session(activeTerminal())
		s.UID = uid
		sessions = append(sessions, s)
	}
	u.uids = uids
	return sessions, nil
}

func uidOf(ctx context.Context, user string) (uint32, error) {
	found, err := account.Lookup(ctx, user)
	var unusable *account.Unusable
	if errors.As(err, &unusable) { // it is logged on all the same
		err = nil
	}
	return found.UID, err
}

// recordSize is that of struct utmp, in bytes: glibc keeps the one of 32 bits where such programs may run too.
func recordSize() int {
	switch runtime.GOARCH {
	case "arm64", "loong64":
		return 400
	}
	return 384
}

// parseUtmp gives the logons among the records, each of size 384 or 400 bytes.
func parseUtmp(data []byte, size int) ([]record, error) {
	if len(data) > maxUtmp {
		return nil, fmt.Errorf("over the limit of %d bytes", maxUtmp)
	}
	if len(data)%size != 0 {
		return nil, fmt.Errorf("%d bytes are not records of %d", len(data), size)
	}
	var records []record
	for ; len(data) > 0; data = data[size:] {
		if binary.NativeEndian.Uint16(data) != userProcess {
			continue
		}
		r := record{
			pid:  int(int32(binary.NativeEndian.Uint32(data[4:]))),
			line: text(data[8:40]), user: text(data[44:76]), host: text(data[76:332]),
			since: time.Unix(int64(binary.NativeEndian.Uint32(data[340:])), 0).UTC(),
		}
		if size == 400 {
			r.since = time.Unix(int64(binary.NativeEndian.Uint64(data[344:])), 0).UTC()
		}
		if r.pid <= 0 || r.user == "" || !filepath.IsLocal(r.line) || !utf8.ValidString(r.line+r.user+r.host) {
			return nil, fmt.Errorf("a logon of user %q at %q, process %d", r.user, r.line, r.pid)
		}
		records = append(records, r)
	}
	return records, nil
}

func text(field []byte) string {
	field, _, _ = bytes.Cut(field, []byte{0})
	return string(field)
}

// alive says that the process that logged the user on is still there, and is no other with its number.
func (r record) alive(ctx context.Context) bool {
	p, err := process.NewProcessWithContext(ctx, int32(r.pid))
	if err != nil {
		return false
	}
	created, err := p.CreateTimeWithContext(ctx)
	return err == nil && !time.UnixMilli(created).After(r.since.Add(clockSlack))
}

// session is the record's; active is the name of the terminal in the foreground.
func (r record) session(active string) Session {
	s := Session{
		ID: fmt.Sprintf("%s%s:%d", utmpPrefix, r.line, r.pid), User: r.user, Leader: r.pid, Since: r.since,
		Type: "tty", Active: true, Remote: r.host != "" && !strings.HasPrefix(r.host, ":"),
	}
	switch {
	case strings.HasPrefix(r.line, ":"):
		s.Type, s.Display, s.Seat = "x11", r.line, "seat0"
	case strings.HasPrefix(r.line, "tty") && !strings.HasPrefix(r.line, "ttyS"):
		s.Seat, s.Active = "seat0", r.line == active
	}
	return s
}

func activeTerminal() string {
	name, err := os.ReadFile("/sys/class/tty/tty0/active")
	if err != nil { // a machine without screens
		return ""
	}
	return strings.TrimSpace(string(name))
}
