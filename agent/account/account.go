// Package account looks up the users of this machine, and makes the one that programs of a legacy client run by.
//
// A user is what the operating system says it is, domain users included: NSS on Linux (asked by getent and id, for
// there is no cgo), Open Directory on macOS, the local security authority on Windows. No password is ever tested.
//
// Promises under failure. What the system answers is parsed strictly, and within limits of time and size; an answer that
// is not understood is an error and never a user. Ensure can be called again after a crash at any point: an account
// that was made half is finished or refused, never used with more rights than a typical user's.
package account

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
)

const (
	answerLimit = 30 * time.Second // for one question; a domain controller far away is slow
	maxName     = 256              // bytes
)

// Account is a user of this machine.
type Account struct {
	Name          string   // as the operating system names it: alice, EXAMPLE\alice, alice@example.com
	UID, GID      uint32   // not on Windows
	Groups        []uint32 // by number, the primary one included; not on Windows
	Home, Shell   string   // not on Windows
	SID           string   // on Windows only
	Administrator bool     // is uid 0 or in an administrators' group, nested ones included
	Local         bool     // is this machine's own and not a domain's
}

// ErrNotFound says that there is no such user.
var ErrNotFound = errors.New("no such user")

// Unusable says why nothing may run by an account that exists.
type Unusable struct{ Name, Why string }

func (u *Unusable) Error() string { return fmt.Sprintf("account %s %s", u.Name, u.Why) }

// Administrators are the groups whose members are administrators where nothing else is said. On Windows it is always
// the well-known group of that name, whatever it is called there.
func Administrators() []string { return []string{"sudo", "wheel", "admin"} }

// Lookup finds a user by exactly this name: another spelling that the system knows it by is accepted only where it leads
// to the same user. The error wraps ErrNotFound, or is an *Unusable, together with the Account, where the user is
// disabled or has expired as far as the system tells. administrators are names of groups; none: Administrators().
func Lookup(ctx context.Context, name string, administrators ...string) (Account, error) {
	if err := checkName(name); err != nil {
		return Account{}, fmt.Errorf("look up user %q: %w", name, err)
	}
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	found, err := lookup(ctx, name, orDefault(administrators))
	if err != nil {
		return found, fmt.Errorf("look up user %q: %w", name, err)
	}
	return found, nil
}

// LookupUID finds a user by number, with the errors of Lookup. There are no such numbers on Windows.
func LookupUID(ctx context.Context, uid uint32, administrators ...string) (Account, error) {
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	found, err := lookupUID(ctx, uid, orDefault(administrators))
	if err != nil {
		return found, fmt.Errorf("look up uid %d: %w", uid, err)
	}
	return found, nil
}

func orDefault(administrators []string) []string {
	if len(administrators) == 0 {
		return Administrators()
	}
	return administrators
}

// checkName refuses what a program that is asked could take for something else: an option, a number, two fields, a path.
func checkName(name string) error {
	switch {
	case name == "" || len(name) > maxName:
		return fmt.Errorf("a name of %d bytes", len(name))
	case strings.ContainsRune("-+#", rune(name[0])) || strings.ContainsAny(name, ":/,"):
		return errors.New("not a user's name")
	case strings.Trim(name, "0123456789") == "":
		return errors.New("a number is not a name")
	}
	for _, r := range name {
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			return errors.New("not a user's name")
		}
	}
	return nil
}

// userPart is alice of EXAMPLE\alice, EXAMPLE+alice is not split: it is winbind's only where configured so.
func userPart(name string) string {
	if _, user, found := strings.Cut(name, `\`); found {
		return user
	}
	user, _, _ := strings.Cut(name, "@")
	return user
}
