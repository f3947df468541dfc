package access

import (
	"errors"
	"fmt"

	"github.com/nats-io/jwt/v2"
)

// maxCredentials is the largest credentials file, in bytes, that is read.
const maxCredentials = 64 << 10

// Credentials is a user's JWT and seed in the form of a .creds file, which every NATS client reads.
func Credentials(token string, seed []byte) ([]byte, error) {
	data, err := jwt.FormatUserConfig(token, seed)
	if err != nil {
		return nil, fmt.Errorf("write credentials: %w", err)
	}
	return data, nil
}

// ParseCredentials reads a .creds file: the JWT, the user's name, public key and role, and its seed. It
// checks that they belong together, not that a broker would take them. Of a user who is none of ours the
// role is empty.
func ParseCredentials(data []byte) (token, name, key string, role Role, seed []byte, err error) {
	fail := func(err error) (string, string, string, Role, []byte, error) {
		return "", "", "", "", nil, fmt.Errorf("read credentials: %w", err)
	}
	if len(data) > maxCredentials {
		return fail(fmt.Errorf("they have %d bytes, more than %d", len(data), maxCredentials))
	}
	if token, err = jwt.ParseDecoratedJWT(data); err != nil {
		return fail(errors.New("there is no JWT in them"))
	}
	c, err := jwt.DecodeUserClaims(token)
	if err != nil {
		return fail(errors.New("the JWT is not that of a user, or it is damaged"))
	}
	pair, err := jwt.ParseDecoratedUserNKey(data)
	if err != nil {
		return fail(errors.New("there is no seed of a user in them"))
	}
	if own, err := pair.PublicKey(); err != nil || own != c.Subject {
		return fail(errors.New("the seed is not that of the user"))
	}
	if seed, err = pair.Seed(); err != nil {
		return fail(errors.New("there is no seed of a user in them"))
	}
	return token, c.Name, c.Subject, Role(tag(c.Tags, roleTag)), seed, nil
}
