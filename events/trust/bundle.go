// Package trust holds the bundle that says whose signatures the agents of a fleet obey, and how an agent
// goes from one bundle to the next. Roots sign bundles; a bundle counts only if the roots of the one before
// it signed it, so that whoever carries bundles (broker, services) can withhold but never change them.
//
// It is pure: bytes in, values out. What is refused is a [sign.Refusal] somewhere in the error.
package trust

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"chandler/events"
	"chandler/events/sign"
)

// Format is the form of bundles that this version writes; it reads no newer one. A newer bundle may hold a
// restriction that this version would overlook, so unknown fields are refused too.
const Format = 1

// PayloadType of the DSSE envelope.
const PayloadType = "application/vnd.chandler.trust+json"

// Limits of a bundle.
const (
	MaxSize = 256 << 10 // of an envelope, in bytes
	MaxKeys = 256       // in all lists together
	// MaxThreshold leaves room for the signatures of old and new roots in one envelope.
	MaxThreshold = sign.MaxSignatures / 2
	MaxWhy       = 256 // bytes of the reason of a revocation
)

// Bundle says whose signatures agents obey.
type Bundle struct {
	Format     int              `json:"format"`
	Fleet      string           `json:"fleet"`
	Version    int              `json:"version"`              // from 1; agents never go back
	Threshold  int              `json:"threshold"`            // an order needs signatures of so many different keys
	Keys       []sign.PublicKey `json:"keys"`                 // of deployers, who sign orders
	Publishers []sign.PublicKey `json:"publishers,omitempty"` // one of them signs every package
	Revoked    []RevokedKey     `json:"revoked,omitempty"`    // trusted for nothing; kept so that agents can say why
	// PinnedReferences: programs refer to nothing outside but files whose SHA-256 the package names.
	PinnedReferences bool      `json:"pinned_references,omitempty"`
	Roots            Roots     `json:"roots"`
	Issued           time.Time `json:"issued"`
}

// Roots are the keys that sign bundles.
type Roots struct {
	Threshold int              `json:"threshold"` // signatures of so many different keys
	Keys      []sign.PublicKey `json:"keys"`
}

// RevokedKey is a key whose signatures count no more.
type RevokedKey struct {
	sign.PublicKey
	At  time.Time `json:"at"`
	Why string    `json:"why,omitempty"`
}

// Fingerprint names a root set: 64 hexadecimal digits that depend on the keys and their threshold, not on
// names or order; "" of no keys. Enrolment tokens carry it.
func (r Roots) Fingerprint() string {
	if len(r.Keys) == 0 {
		return ""
	}
	ids := make([]string, len(r.Keys))
	for i, k := range r.Keys {
		ids[i] = k.ID()
	}
	slices.Sort(ids)
	sum := sha256.Sum256(fmt.Appendf(nil, "chandler roots %d of %s\n", r.Threshold, strings.Join(ids, " ")))
	return hex.EncodeToString(sum[:])
}

// Validate checks a bundle that roots may sign.
func (b Bundle) Validate() error {
	if b.Version < 1 {
		return fmt.Errorf("version is %d: it counts from 1", b.Version)
	}
	if b.Format > Format {
		return fmt.Errorf("format is %d, this version knows up to %d", b.Format, Format)
	}
	if err := events.ValidToken(b.Fleet); err != nil {
		return fmt.Errorf("fleet: %w", err)
	}
	if n := len(b.Keys) + len(b.Publishers) + len(b.Revoked) + len(b.Roots.Keys); n > MaxKeys {
		return fmt.Errorf("%d keys, at most %d are allowed", n, MaxKeys)
	}
	if err := list("deployer's key", b.Keys, b.Threshold); err != nil {
		return err
	}
	if err := distinct("publisher's key", b.Publishers); err != nil {
		return err
	}
	if err := b.validateRevoked(); err != nil {
		return err
	}
	return list("root key", b.Roots.Keys, b.Roots.Threshold)
}

func (b Bundle) validateRevoked() error {
	revoked := map[string]bool{}
	for _, k := range b.Revoked {
		if err := k.Validate(); err != nil {
			return fmt.Errorf("revoked key: %w", err)
		}
		if revoked[k.ID()] {
			return fmt.Errorf("key %s is revoked twice", k)
		}
		if len(k.Why) > MaxWhy || !utf8.ValidString(k.Why) || strings.ContainsFunc(k.Why, func(r rune) bool { return !unicode.IsPrint(r) }) {
			return fmt.Errorf("why key %s is revoked must be one line of at most %d bytes", k, MaxWhy)
		}
		revoked[k.ID()] = true
	}
	for _, k := range slices.Concat(b.Keys, b.Publishers, b.Roots.Keys) {
		if revoked[k.ID()] {
			return fmt.Errorf("key %s is both trusted and revoked", k)
		}
	}
	return nil
}

// list checks keys of which threshold must sign.
func list(what string, keys []sign.PublicKey, threshold int) error {
	if err := distinct(what, keys); err != nil {
		return err
	}
	if threshold < 1 || threshold > len(keys) {
		return fmt.Errorf("%d signatures of %d %ss are asked for", threshold, len(keys), what)
	}
	if threshold > MaxThreshold {
		return fmt.Errorf("%d signatures are asked for, at most %d are supported", threshold, MaxThreshold)
	}
	return nil
}

// distinct checks that every key counts once and every name means one key.
func distinct(what string, keys []sign.PublicKey) error {
	ids, names := map[string]string{}, map[string]bool{}
	for _, k := range keys {
		if err := k.Validate(); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		if other, ok := ids[k.ID()]; ok {
			return fmt.Errorf("%s %s is listed twice, as %s too", what, k, other)
		}
		if names[k.Name] {
			return fmt.Errorf("two %ss are named %s", what, k.Name)
		}
		ids[k.ID()], names[k.Name] = k.Name, true
	}
	return nil
}

// Sign makes the envelope of a valid bundle, to which further roots may [sign.Add] their signatures. Signers
// are taken as given, because a rotation needs roots that are not in the bundle; [Missing] says who is.
func Sign(b Bundle, roots ...sign.Signer) ([]byte, error) {
	b.Format, b.Issued = Format, b.Issued.UTC().Truncate(time.Second)
	if err := b.Validate(); err != nil {
		return nil, fmt.Errorf("sign trust bundle version %d: %w", b.Version, err)
	}
	payload, err := json.Marshal(b)
	if err != nil {
		return nil, err
	}
	if most := sign.Room(MaxSize); len(payload) > most {
		return nil, fmt.Errorf("sign trust bundle version %d: it has %d bytes, at most %d are allowed", b.Version, len(payload), most)
	}
	envelope, err := sign.Seal(PayloadType, payload, roots...)
	if err != nil {
		return nil, fmt.Errorf("sign trust bundle version %d: %w", b.Version, err)
	}
	return envelope, nil
}

// Open reads an envelope without verifying signatures: for services and people, who carry and look at
// bundles. Agents use [Begin] and [Bundle.Follow].
func Open(envelope []byte) (Bundle, error) {
	payload, _, err := sign.Open(envelope, PayloadType, MaxSize)
	if err != nil {
		return Bundle{}, err
	}
	b, err := decode(payload)
	if err != nil {
		return Bundle{}, err
	}
	if b.Format < 1 {
		return Bundle{}, sign.Refuse(events.OrderMalformed, "the trust bundle does not say its format")
	}
	if err := b.Validate(); err != nil {
		return Bundle{}, sign.Refuse(events.OrderMalformed, "trust bundle: %v", err)
	}
	return b, nil
}

// decode reads a payload strictly.
func decode(payload []byte) (Bundle, error) {
	var format struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(payload, &format); err != nil {
		return Bundle{}, sign.Refuse(events.OrderMalformed, "the trust bundle is not JSON: %v", err)
	}
	if format.Format > Format {
		return Bundle{}, sign.Refuse(events.UnsupportedFormat, "the trust bundle has format %d, this version reads up to %d", format.Format, Format)
	}
	var b Bundle
	dec := json.NewDecoder(bytes.NewReader(payload))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&b); err != nil {
		if strings.Contains(err.Error(), "unknown field") {
			return Bundle{}, sign.Refuse(events.UnsupportedFormat, "the trust bundle says something this version does not know: %v", err)
		}
		return Bundle{}, sign.Refuse(events.OrderMalformed, "trust bundle: %v", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return Bundle{}, sign.Refuse(events.OrderMalformed, "something follows the trust bundle")
	}
	return b, nil
}
