package enrolment

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/nats-io/nkeys"

	"chandler/events"
)

// NewKey makes a user nkey: the seed (text, secret) and the public key.
func NewKey() (seed []byte, public string, err error) {
	pair, err := nkeys.CreateUser()
	if err != nil {
		return nil, "", fmt.Errorf("make key: %w", err)
	}
	if seed, err = pair.Seed(); err != nil {
		return nil, "", fmt.Errorf("make key: %w", err)
	}
	if public, err = pair.PublicKey(); err != nil {
		return nil, "", fmt.Errorf("make key: %w", err)
	}
	return seed, public, nil
}

// PublicKey is the public key of a user nkey's seed.
func PublicKey(seed []byte) (string, error) {
	pair, err := userKey(seed)
	if err != nil {
		return "", err
	}
	defer pair.Wipe()
	return pair.PublicKey()
}

// userKey opens a seed. The caller wipes what it gets.
func userKey(seed []byte) (nkeys.KeyPair, error) {
	prefix, _, err := nkeys.DecodeSeed(seed)
	if err != nil || prefix != nkeys.PrefixByteUser {
		return nil, errors.New("the secret is not the seed of a user nkey")
	}
	return nkeys.FromSeed(seed)
}

// publicKey checks that s is a real public user nkey: the form, the checksum and the point on the curve.
func publicKey(s string) (nkeys.KeyPair, error) {
	if s == events.NoKey {
		return nil, errors.New("there is no key")
	}
	if err := events.ValidKey(s); err != nil {
		return nil, err
	}
	if !nkeys.IsValidPublicUserKey(s) {
		return nil, fmt.Errorf("key %q is not a public user key: its checksum is wrong", s)
	}
	return nkeys.FromPublicKey(s)
}

// MachineHash is what a statement says of the machine's own id: enough to notice a copy, and not the id,
// which on some systems must not be told. "" for "".
func MachineHash(id string) string {
	if id == "" {
		return ""
	}
	h := sha256.Sum256([]byte("chandler machine\n" + id))
	return hex.EncodeToString(h[:])
}
