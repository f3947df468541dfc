// Package newcredentials makes, on Windows, a token that is its process's own on this machine and another user's wherever
// it reaches over the network: what runas calls /netonly (LOGON32_LOGON_NEW_CREDENTIALS). A process or thread with such a
// token reads shares as that user and does everything else as before.
//
// # Under failure
//
// Nothing is asked of any domain: whether the secret is right is found out where it is used first, so that making a token
// never counts as an attempt to log on. The copy of the secret that is handed to Windows is cleared before Token returns;
// Windows keeps one of its own for as long as anything has the token. No error holds a secret. Elsewhere than on Windows
// every call is refused with [account.ErrNoLogon].
package newcredentials

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// maxSecret is what Windows takes, in UTF-16 units.
const maxSecret = 256

// system is what makes and closes tokens. Tests stand in for it, because users are make-believe under Wine.
type system interface {
	LogOn(user, domain string, secret []uint16) (uint64, error) // secret ends with a 0
	Close(token uint64)
}

// Token gives the handle of a primary token, which done closes. The domain is empty for a user with an @ in its name, and
// "." is this machine. The secret is UTF-8; it is not kept or changed.
func Token(user, domain string, secret []byte) (token uint64, done func(), err error) {
	return tokenBy(newSystem(), user, domain, secret)
}

func tokenBy(s system, user, domain string, secret []byte) (uint64, func(), error) {
	if err := check(user, domain, secret); err != nil {
		return 0, nil, fmt.Errorf("make a token for the network: %w", err)
	}
	wide := make([]uint16, 0, len(secret)+1) // no rune has fewer bytes than units: it never grows
	defer func() { clear(wide) }()
	for rest := secret; len(rest) > 0; {
		r, size := utf8.DecodeRune(rest)
		wide, rest = utf16.AppendRune(wide, r), rest[size:]
	}
	if len(wide) > maxSecret {
		return 0, nil, fmt.Errorf("make a token for the network: the secret is longer than %d characters", maxSecret)
	}
	wide = append(wide, 0)
	token, err := s.LogOn(user, domain, wide)
	if err != nil {
		return 0, nil, fmt.Errorf("make a token for the network: user %s: %w", user, err)
	}
	return token, func() { s.Close(token) }, nil
}

func check(user, domain string, secret []byte) error {
	switch {
	case user == "" || strings.Contains(user, `\`) || strings.ContainsRune(user+domain, 0) || !utf8.ValidString(user+domain):
		return errors.New("no user's name")
	case domain == "" && !strings.Contains(user, "@"):
		return errors.New("the user has no domain")
	case len(secret) == 0 || !utf8.Valid(secret) || bytes.IndexByte(secret, 0) >= 0:
		return errors.New("the secret is empty, not UTF-8, or holds a NUL")
	}
	return nil
}
