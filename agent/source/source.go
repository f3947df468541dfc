// Package source is what every reader of external sources has in common: one method, which opens what lies at an address.
//
// A source is a package of its own below this one (smbsource, httpssource, …) and passes the suite of sourcetest. It
// knows addresses and logins, and nothing of jobs, leases or caches.
//
// # Under failure
//
// One login is tried, once: no source ever falls back to another user, to a guest, or to none, and none asks again after
// it was refused, which is how accounts get locked out. Every failure is an [*Error] with a reason of package events and
// the words of whoever answered. Nothing blocks for longer than the source's patience without a byte. No error holds a
// secret.
package source

import (
	"context"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"chandler/events"
)

// Login is who reads, and what proves it. The zero value is nobody in particular: whoever the process is, by means of its
// own (its rights on local files, its ticket of Kerberos), or an anonymous reader of what is open to all.
type Login struct {
	User   string // as the resource knows it: EXAMPLE\reader, reader@example, reader
	Method string // events.ByPassword (also when empty), ByBearer, ByClientCertificate
	Secret []byte // belongs to whoever made the Login, and is not kept
	// Anew logs on although a session of the same user is there: whether the host lets it in now is what somebody asks.
	Anew bool
}

// Nobody says that the login names no account.
func (l Login) Nobody() bool { return l.User == "" && len(l.Secret) == 0 }

// Domain and name of the user, from either spelling; an empty domain where it names none.
func (l Login) Domain() (domain, name string) {
	if domain, name, ok := strings.Cut(l.User, `\`); ok {
		return domain, name
	}
	if name, domain, ok := strings.Cut(l.User, "@"); ok {
		return domain, name
	}
	return "", l.User
}

// Format keeps the secret out of whatever prints a login.
func (l Login) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "login of %s", l.User) }

// Source opens what lies at addresses of one scheme.
type Source interface {
	// Open opens a file or folder as login. The address is one of package resource. ctx bounds the opening alone.
	Open(ctx context.Context, address string, login Login) (Object, error)
}

// Object is what was opened. Its methods may be called concurrently; errors are *Errors where the source knows the reason.
type Object interface {
	Info() Info
	// ReadAt is io.ReaderAt's, which ends with ctx. Reading on where it stopped is as fast as the source can be. Where
	// the file is found to be another one than was opened the reason is events.ContentChanged.
	ReadAt(ctx context.Context, p []byte, offset int64) (int, error)
	// List lists a folder, sorted by name; at most [MaxEntries], more are an error.
	List(ctx context.Context) ([]Info, error)
	Close() error
}

// MaxEntries of one folder that are listed.
const MaxEntries = 20_000

// Info describes a file or folder.
type Info struct {
	Name     string // the last part of the path
	Folder   bool
	Size     int64 // bytes; -1: the source does not say
	Modified time.Time
	Mode     fs.FileMode // permission bits, where the source has them; 0 where not
}

// Error is why something could not be opened or read.
type Error struct {
	Reason events.Reason
	Answer string // what was answered, as [Answer] says it
	Err    error  // may be nil
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %s", e.Reason, e.Answer) }
func (e *Error) Unwrap() error { return e.Err }

// Code is what Windows calls a failure, by which administrators look it up.
type Code uint32

// The codes of failures that sources meet (domain-facts §2.3).
const (
	FileNotFound    Code = 2
	PathNotFound    Code = 3
	AccessDenied    Code = 5
	BadNetworkPath  Code = 53
	ShareNotFound   Code = 67
	LogonTime       Code = 1328 // outside of the account's hours
	PasswordExpired Code = 1330
	AccountDisabled Code = 1331
	LogonRefused    Code = 1326 // unknown user name or wrong password
	MustChange      Code = 1907
	AccountLocked   Code = 1909
	AccountExpired  Code = 1793
	NoSuchUser      Code = 1317
)

// CodeOf reads the code that [Answer] wrote; 0: there is none.
func CodeOf(answer string) Code {
	i := strings.LastIndexByte(answer, '(')
	if i < 0 {
		return 0
	}
	var code, hex uint32
	if n, _ := fmt.Sscanf(answer[i:], "(%d/0x%X)", &code, &hex); n != 2 || hex != 0x80070000|code {
		return 0
	}
	return Code(code)
}

// Answer is words and code: "access denied (5/0x80070005)".
func Answer(words string, code Code) string {
	return fmt.Sprintf("%s (%d/0x%08X)", words, code, 0x80070000|uint32(code))
}
