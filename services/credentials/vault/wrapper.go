package vault

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// wrapTime bounds one call of a key-encryption key.
const wrapTime = 30 * time.Second

// Wrapper is a key-encryption key. Both calls end when ctx does, take and give at most some 100 KiB, and name no
// secret in errors; purpose is associated data: what was wrapped for one does not unwrap for another.
type Wrapper interface {
	// Name is the kind, a colon and which one, as in file:/var/lib/chandler-key/accounts.key. Nothing in it is secret.
	Name() string
	Wrap(ctx context.Context, plain, purpose []byte) (wrapped []byte, err error)
	// Unwrap gives the plain bytes, which the caller clears.
	Unwrap(ctx context.Context, wrapped, purpose []byte) (plain []byte, err error)
}

// maker is a Wrapper that can be made where it is not there yet.
type maker interface{ make() error }

// Parse reads which key-encryption key is meant: file:PATH, transit:URL or command:PATH, as the package
// documentation describes them. Nothing is opened yet but the authority of a transit URL.
func Parse(key string) (Wrapper, error) {
	kind, place, ok := strings.Cut(key, ":")
	switch {
	case !ok || place == "":
		return nil, errors.New("a key-encryption key is file:PATH, transit:URL or command:PATH")
	case len(key) > maxName:
		return nil, fmt.Errorf("the name of a key-encryption key is longer than %d bytes", maxName)
	}
	switch kind {
	case "file":
		return newFileKey(place)
	case "transit":
		return newTransit(place)
	case "command":
		return newCommand(place)
	}
	return nil, fmt.Errorf("key-encryption key of kind %q: there are file, transit and command", kind)
}
