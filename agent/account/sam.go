package account

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf16"
	"unicode/utf8"
)

// Flags of a Windows user.
const (
	flagDisabled = 0x2
	flagLocked   = 0x10
)

// never is the time at which a Windows user expires that does not.
const never = 1<<32 - 1

// The account may be logged on by the agent, as a batch job, and by nobody at the screen or over the network.
func logonRights() []string {
	return []string{"SeBatchLogonRight", "SeDenyInteractiveLogonRight", "SeDenyRemoteInteractiveLogonRight", "SeDenyNetworkLogonRight"}
}

// samUser is a local user of a Windows machine.
type samUser struct {
	sid     string
	comment string
	flags   uint32
	expires uint32   // seconds since 1970, or never
	groups  []string // SIDs of the local groups that it is in, by other groups too
}

func (u samUser) ended(now time.Time) string {
	switch {
	case u.flags&flagDisabled != 0:
		return "is disabled"
	case u.flags&flagLocked != 0:
		return "is locked out after bad passwords"
	case u.expires != never && now.Unix() >= int64(u.expires):
		return "has expired"
	}
	return ""
}

// sam is the account manager of a Windows machine.
type sam interface {
	Find(name string) (samUser, error) // the error wraps ErrNotFound
	// Add makes a disabled user that never expires and is in no group.
	Add(name, comment string, secret []uint16) error
	JoinUsers(sid string) error                // nothing changes if it is in the group already
	Entitle(sid string, rights []string) error // adds to those it has
	SetSecret(name string, secret []uint16) error
	SetDisabled(name string, disabled bool) error
	LogOn(domain, name string, secret []uint16) (token uintptr, err error)
	Close(token uintptr) error
}

// usersSID is the group Users, which every ordinary user is in.
const usersSID = "S-1-5-32-545"

// ensureSAM does everything again that a crash may have left out; the user is disabled meanwhile.
func ensureSAM(m sam, name string) (sid string, created bool, err error) {
	user, err := m.Find(name)
	if errors.Is(err, ErrNotFound) {
		secret := newSecret()
		defer clear(secret)
		if err = m.Add(name, Comment, secret); err == nil {
			created = true
			user, err = m.Find(name)
		}
	}
	if err != nil {
		return "", created, err
	}
	var has excess
	has.add(user.comment != Comment, "was not made by the agent, as its comment %q tells", user.comment)
	for _, group := range user.groups {
		has.add(group != usersSID, "is in the group %s", group)
	}
	if err := has.err(name); err != nil {
		return "", created, err
	}
	if err := m.JoinUsers(user.sid); err != nil {
		return "", created, err
	}
	return user.sid, created, m.Entitle(user.sid, logonRights())
}

// freshLogOn logs the account on by a secret that is made for it. The account is enabled for that moment only.
func freshLogOn(m sam, name string) (token uintptr, err error) {
	secret := newSecret()
	defer clear(secret)
	if err := m.SetSecret(name, secret); err != nil {
		return 0, fmt.Errorf("give %s another password: %w", name, err)
	}
	defer func() {
		if disabled := m.SetDisabled(name, true); disabled != nil {
			err = errors.Join(err, fmt.Errorf("disable %s again: %w", name, disabled))
			if token != 0 {
				err = errors.Join(err, m.Close(token))
				token = 0
			}
		}
	}()
	if err := m.SetDisabled(name, false); err != nil {
		return 0, fmt.Errorf("enable %s: %w", name, err)
	}
	if token, err = m.LogOn(".", name, secret); err != nil {
		return 0, fmt.Errorf("log on %s: %w", name, err)
	}
	return token, nil
}

// newSecret is a password of 256 random bits in all classes of characters that a policy may ask for, ending in a zero as
// Windows wants it. Whoever gets it clears it.
func newSecret() []uint16 {
	const classes = "aA0-"
	var random [32]byte
	rand.Read(random[:]) // never fails
	defer clear(random[:])
	text := base64.RawURLEncoding.AppendEncode([]byte(classes), random[:])
	defer clear(text)
	secret := make([]uint16, len(text)+1)
	for i, c := range text {
		secret[i] = uint16(c)
	}
	return secret
}

// wideSecret leaves no other copy of the secret behind. Whoever gets it clears it.
func wideSecret(secret []byte) []uint16 {
	wide := make([]uint16, 0, len(secret)+1) // no encoding of a rune has fewer bytes than units: it never grows
	for len(secret) > 0 {
		r, size := utf8.DecodeRune(secret)
		wide, secret = utf16.AppendRune(wide, r), secret[size:]
	}
	return append(wide, 0)
}

// SplitUser splits the three ways to write a Windows user; "." is this machine, and a name with @ goes without a domain.
func SplitUser(user string) (domain, name string) {
	if domain, name, found := strings.Cut(user, `\`); found {
		return domain, name
	}
	if strings.Contains(user, "@") {
		return "", user
	}
	return ".", user
}
