package order

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"

	"chandler/events"
)

// PayloadType of the DSSE envelope.
const PayloadType = "application/vnd.chandler.order+json"

// Key signs orders.
type Key struct{ private ed25519.PrivateKey }

// NewKey makes a key from 32 bytes of entropy.
func NewKey(seed []byte) (Key, error) {
	if len(seed) != ed25519.SeedSize {
		return Key{}, fmt.Errorf("a key needs %d bytes of entropy, not %d", ed25519.SeedSize, len(seed))
	}
	return Key{ed25519.NewKeyFromSeed(seed)}, nil
}

// ParseKey reads a PKCS #8 PEM file's bytes.
func ParseKey(data []byte) (Key, error) {
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "PRIVATE KEY" {
		return Key{}, errors.New("not a PEM private key")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return Key{}, fmt.Errorf("parse private key: %w", err)
	}
	private, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return Key{}, errors.New("not an Ed25519 key")
	}
	return Key{private}, nil
}

// Marshal gives the PKCS #8 PEM form.
func (k Key) Marshal() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(k.private)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// Public gives the key as it stands in a trust bundle.
func (k Key) Public(name string) PublicKey {
	return PublicKey{Name: name, Key: base64.StdEncoding.EncodeToString(k.private.Public().(ed25519.PublicKey))}
}

// PublicKey is a key that agents trust.
type PublicKey struct {
	Name string `json:"name"`
	Key  string `json:"key"` // Ed25519, base64
}

func (p PublicKey) bytes() (ed25519.PublicKey, error) {
	raw, err := base64.StdEncoding.DecodeString(p.Key)
	if err != nil || len(raw) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("public key %q is not 32 bytes of base64", p.Name)
	}
	return raw, nil
}

// KeyID is the SHA-256 of the public key, in hexadecimal digits.
func keyID(public ed25519.PublicKey) string {
	sum := sha256.Sum256(public)
	return hex.EncodeToString(sum[:])
}

// Trust says whose signatures an agent obeys.
type Trust struct {
	Fleet     string      `json:"fleet"`
	Version   int         `json:"version"`
	Threshold int         `json:"threshold"` // signatures of so many different keys
	Keys      []PublicKey `json:"keys"`
}

// ParseTrust reads a trust bundle and checks it.
func ParseTrust(data []byte) (Trust, error) {
	var t Trust
	if err := json.Unmarshal(data, &t); err != nil {
		return Trust{}, fmt.Errorf("read trust bundle: %w", err)
	}
	if err := events.ValidToken(t.Fleet); err != nil {
		return Trust{}, fmt.Errorf("trust bundle: fleet: %w", err)
	}
	if t.Threshold < 1 || t.Threshold > len(t.Keys) {
		return Trust{}, fmt.Errorf("trust bundle asks for %d signatures of %d keys", t.Threshold, len(t.Keys))
	}
	for _, k := range t.Keys {
		if _, err := k.bytes(); err != nil {
			return Trust{}, fmt.Errorf("trust bundle: %w", err)
		}
	}
	return t, nil
}

// Sign makes the DSSE envelope of an order, as JSON.
func Sign(o Order, keys ...Key) ([]byte, error) {
	o.Format = Format
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("sign order of deployment %s: %w", o.Deployment, err)
	}
	payload, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	envelope := dsse.Envelope{PayloadType: PayloadType, Payload: base64.StdEncoding.EncodeToString(payload)}
	pae := dsse.PAE(PayloadType, payload)
	for _, k := range keys {
		envelope.Signatures = append(envelope.Signatures, dsse.Signature{
			KeyID: keyID(k.private.Public().(ed25519.PublicKey)), Sig: base64.StdEncoding.EncodeToString(ed25519.Sign(k.private, pae)),
		})
	}
	return json.Marshal(envelope)
}

// Open reads an envelope without verifying signatures: for services, which derive deployments from the
// signed bytes and are not who must be convinced. digest names the order.
func Open(envelope []byte) (o Order, digest string, err error) {
	_, payload, err := unwrap(envelope)
	if err != nil {
		return Order{}, "", err
	}
	o, err = decode(payload)
	return o, events.DigestOf(payload), err
}

// Verify reads an envelope as an agent does: enough signatures of trusted keys over exactly these bytes,
// of this fleet, within validity at now. What depends on the machine (target, serial) is the caller's.
func Verify(envelope []byte, trust Trust, now time.Time) (o Order, digest string, err error) {
	e, payload, err := unwrap(envelope)
	if err != nil {
		return Order{}, "", err
	}
	if err := trust.checkSignatures(e, payload); err != nil {
		return Order{}, "", err
	}
	o, err = decode(payload)
	if err != nil {
		return Order{}, "", err
	}
	switch {
	case o.Fleet != trust.Fleet:
		return Order{}, "", refuse(events.OrderOtherFleet, "the order is for fleet %s, this machine belongs to %s", o.Fleet, trust.Fleet)
	case now.After(o.NotAfter.Add(ClockTolerance)):
		return Order{}, "", refuse(events.OrderExpired, "the order was valid until %s", o.NotAfter.Format(time.RFC3339))
	case now.Before(o.Issued.Add(-ClockTolerance)):
		return Order{}, "", refuse(events.OrderNotYetValid, "the order was issued at %s, the clock here says %s", o.Issued.Format(time.RFC3339), now.Format(time.RFC3339))
	}
	return o, events.DigestOf(payload), nil
}

func unwrap(envelope []byte) (dsse.Envelope, []byte, error) {
	var e dsse.Envelope
	if len(envelope) > MaxSize {
		return e, nil, refuse(events.OrderMalformed, "an envelope of %d bytes is larger than %d", len(envelope), MaxSize)
	}
	if err := json.Unmarshal(envelope, &e); err != nil {
		return e, nil, refuse(events.OrderMalformed, "not a DSSE envelope: %v", err)
	}
	if e.PayloadType != PayloadType {
		return e, nil, refuse(events.OrderMalformed, "the envelope holds %q, not an order", e.PayloadType)
	}
	payload, err := e.DecodeB64Payload()
	if err != nil {
		return e, nil, refuse(events.OrderMalformed, "payload: %v", err)
	}
	return e, payload, nil
}

// checkSignatures counts the different trusted keys that signed. A signature that claims a trusted key
// and does not verify means that the bytes were altered; that is worse than a signature of a stranger.
func (t Trust) checkSignatures(e dsse.Envelope, payload []byte) error {
	trusted := map[string]ed25519.PublicKey{}
	for _, k := range t.Keys {
		public, err := k.bytes()
		if err != nil {
			return refuse(events.AgentFault, "%v", err)
		}
		trusted[keyID(public)] = public
	}
	pae := dsse.PAE(e.PayloadType, payload)
	valid, unknown := map[string]bool{}, 0
	for _, s := range e.Signatures {
		public, ok := trusted[s.KeyID]
		if !ok {
			unknown++
			continue
		}
		signature, err := base64.StdEncoding.DecodeString(s.Sig)
		if err != nil || !ed25519.Verify(public, pae, signature) {
			return refuse(events.OrderAltered, "the signature of key %.12s does not fit the order", s.KeyID)
		}
		valid[s.KeyID] = true
	}
	switch {
	case t.Threshold < 1:
		return refuse(events.AgentFault, "the trust bundle asks for no signature")
	case len(valid) >= t.Threshold:
		return nil
	case len(valid) == 0 && unknown > 0:
		return refuse(events.OrderUnknownKey, "the order is signed by %d keys, none of them trusted here", unknown)
	default:
		return refuse(events.OrderUnsigned, "the order has %d valid signatures, %d are needed", len(valid), t.Threshold)
	}
}
