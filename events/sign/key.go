// Package sign holds the keys that people sign with and the envelopes that they sign: Ed25519 over DSSE.
// Orders, package manifests and trust bundles are all signed through it, so that there is one rule for what
// counts as a signature.
//
// It is pure: bytes in, values out. What it refuses it refuses as a [Refusal] with a reason of package
// events; nothing that it reads is larger than its caller says. No way of printing a [Key] shows the key.
package sign

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxName bounds the name of a key, in bytes.
const MaxName = 64

// maxKeyFile bounds what [ParseKey] looks at; a PKCS #8 Ed25519 key has about 120 bytes.
const maxKeyFile = 16 << 10

// Signer signs with a private key that may be elsewhere (a file, an ssh-agent).
type Signer interface {
	Public() PublicKey
	// Sign gives the 64 bytes of the plain Ed25519 signature of message.
	Sign(message []byte) ([]byte, error)
}

// PublicKey is a key whose signatures somebody trusts.
type PublicKey struct {
	Name string `json:"name"`
	Key  string `json:"key"` // Ed25519, base64
}

// Named gives the same key under a name.
func (p PublicKey) Named(name string) PublicKey { return PublicKey{Name: name, Key: p.Key} }

// Raw gives the 32 bytes. Every key has one form only, so that equal keys have equal strings.
func (p PublicKey) Raw() (ed25519.PublicKey, error) {
	raw, err := base64.StdEncoding.DecodeString(p.Key)
	switch {
	case err != nil || len(raw) != ed25519.PublicKeySize:
		return nil, fmt.Errorf("public key %q is not 32 bytes of base64", p.Name)
	case base64.StdEncoding.EncodeToString(raw) != p.Key:
		return nil, fmt.Errorf("public key %q is not in the one form of base64 that is written", p.Name)
	case slices.Contains(anybodys(), hex.EncodeToString(append(raw[:len(raw)-1:len(raw)-1], raw[len(raw)-1]&0x7f))):
		return nil, fmt.Errorf("public key %q is of those that anybody can sign for", p.Name)
	}
	return raw, nil
}

// anybodys are the points of small order, in every encoding without the sign bit: a signature for one is made in a
// few tries, and ed25519.Verify takes it.
func anybodys() []string {
	return []string{
		"0000000000000000000000000000000000000000000000000000000000000000",
		"0100000000000000000000000000000000000000000000000000000000000000",
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	}
}

// ID is the SHA-256 of the raw key in hexadecimal digits; "" of a malformed key.
func (p PublicKey) ID() string {
	raw, err := p.Raw()
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:])
}

// Validate checks the form of key and name. Names are shown in terminals, so control characters are refused.
func (p PublicKey) Validate() error {
	if p.Name == "" || len(p.Name) > MaxName {
		return fmt.Errorf("name of key %.80q must have 1 to %d bytes", p.Name, MaxName)
	}
	if !utf8.ValidString(p.Name) || strings.ContainsFunc(p.Name, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return fmt.Errorf("name of key %q has characters that cannot be printed", p.Name)
	}
	_, err := p.Raw()
	return err
}

// String names the key for people: its name and the beginning of its id.
func (p PublicKey) String() string {
	id := p.ID()
	switch {
	case id == "":
		return fmt.Sprintf("%q (malformed)", p.Name)
	case p.Name == "":
		return id[:12]
	default:
		return fmt.Sprintf("%s (%s)", p.Name, id[:12])
	}
}

// Key is a private key in memory. Copies share the same bytes, so that [Key.Wipe] reaches all of them; they
// stand behind two pointers, because package fmt looks through one: it asks unexported fields for no String.
type Key struct{ box *box }

type box struct{ private *[ed25519.PrivateKeySize]byte }

// NewKey makes a key from 32 bytes of entropy.
func NewKey(seed []byte) (Key, error) {
	if len(seed) != ed25519.SeedSize {
		return Key{}, fmt.Errorf("a key needs %d bytes of entropy, not %d", ed25519.SeedSize, len(seed))
	}
	return keep(ed25519.NewKeyFromSeed(seed)), nil
}

// ParseKey reads a PKCS #8 PEM file's bytes; it does not keep them.
func ParseKey(data []byte) (Key, error) {
	if len(data) > maxKeyFile {
		return Key{}, fmt.Errorf("a key file of %d bytes is larger than %d", len(data), maxKeyFile)
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return Key{}, errors.New("not a PEM private key")
	}
	defer clear(block.Bytes)
	if block.Type != "PRIVATE KEY" {
		return Key{}, fmt.Errorf("a PEM file of %q, not a PKCS #8 private key", block.Type)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return Key{}, fmt.Errorf("parse private key: %w", err)
	}
	private, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return Key{}, errors.New("not an Ed25519 key")
	}
	return keep(private), nil
}

// keep takes the bytes over and clears where they came from.
func keep(private ed25519.PrivateKey) Key {
	kept := [ed25519.PrivateKeySize]byte(private)
	clear(private)
	return Key{&box{&kept}}
}

// Marshal gives the PKCS #8 PEM form, which the caller may clear after use.
func (k Key) Marshal() ([]byte, error) {
	if !k.usable() {
		return nil, errWiped
	}
	der, err := x509.MarshalPKCS8PrivateKey(ed25519.PrivateKey(k.box.private[:]))
	if err != nil {
		return nil, err
	}
	defer clear(der)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// Public gives the key as it stands in a trust bundle, without a name; of a zero or wiped Key, nothing.
func (k Key) Public() PublicKey {
	if !k.usable() {
		return PublicKey{}
	}
	return PublicKey{Key: base64.StdEncoding.EncodeToString(k.box.private[ed25519.SeedSize:])}
}

// Sign implements [Signer]. It fails only for a zero or wiped Key.
func (k Key) Sign(message []byte) ([]byte, error) {
	if !k.usable() {
		return nil, errWiped
	}
	return ed25519.Sign(k.box.private[:], message), nil
}

// Wipe clears the key in memory, in every copy. No copy may be in use elsewhere meanwhile.
func (k Key) Wipe() {
	if k.box != nil {
		clear(k.box.private[:])
	}
}

// String shows the public part alone.
func (k Key) String() string { return "private key of " + k.Public().String() }

// GoString is [Key.String], for %#v.
func (k Key) GoString() string { return k.String() }

var errWiped = errors.New("there is no key here: it was never set, or wiped")

func (k Key) usable() bool {
	return k.box != nil && *k.box.private != [ed25519.PrivateKeySize]byte{}
}
