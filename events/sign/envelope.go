package sign

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"

	"chandler/events"
)

// MaxSignatures of one envelope.
const MaxSignatures = 64

// MaxSize bounds every envelope, in bytes; most callers of [Open] and [Check] allow less.
const MaxSize = 16 << 20

// Overhead bounds what an envelope adds to the base64 of its payload, in bytes.
const Overhead = 1<<10 + MaxSignatures*256

// Room is how many bytes a payload may have so that its envelope, with all the signatures that may be added
// later, has at most maxSize.
func Room(maxSize int) int { return (maxSize - Overhead) / 4 * 3 }

// Refusal says why something signed is not accepted.
type Refusal struct {
	Reason events.Reason
	Text   string
}

func (r *Refusal) Error() string { return r.Text }

// Refuse makes a [Refusal].
func Refuse(reason events.Reason, format string, args ...any) error {
	return &Refusal{reason, fmt.Sprintf(format, args...)}
}

// TooFew says whether what [Check] refused lacks nothing but signatures of further keys.
func TooFew(err error) bool {
	var r *Refusal
	return errors.As(err, &r) && (r.Reason == events.OrderUnsigned || r.Reason == events.OrderUnknownKey)
}

// Seal makes the DSSE envelope of a payload, as JSON. Without signers it is one that nobody accepts yet.
func Seal(payloadType string, payload []byte, signers ...Signer) ([]byte, error) {
	e := dsse.Envelope{PayloadType: payloadType, Payload: base64.StdEncoding.EncodeToString(payload), Signatures: []dsse.Signature{}}
	return seal(e, payload, signers)
}

// Add adds a signature over what the envelope holds; one of the same key is replaced.
func Add(envelope []byte, s Signer) ([]byte, error) {
	e, payload, err := read(envelope, MaxSize)
	if err != nil {
		return nil, err
	}
	return seal(e, payload, []Signer{s})
}

// Merge unites the signatures of two envelopes of the very same payload. Of a key that signed both, the
// signature in b stays, as with [Add]. It verifies nothing: it need not know the keys.
func Merge(a, b []byte) ([]byte, error) {
	into, payload, err := read(a, MaxSize)
	if err != nil {
		return nil, err
	}
	from, other, err := read(b, MaxSize)
	if err != nil {
		return nil, err
	}
	if into.PayloadType != from.PayloadType || !bytes.Equal(payload, other) {
		return nil, Refuse(events.OrderAltered, "the signatures are for something else than the %s they are to be added to", noun(into.PayloadType))
	}
	for _, s := range from.Signatures {
		put(&into, s)
	}
	return write(into)
}

// Open reads an envelope of at most maxSize bytes without verifying anything. keyIDs are those of the keys
// that the signatures claim, each once. Every error is a [Refusal].
func Open(envelope []byte, payloadType string, maxSize int) (payload []byte, keyIDs []string, err error) {
	e, payload, err := readTyped(envelope, payloadType, maxSize)
	if err != nil {
		return nil, nil, err
	}
	for _, s := range e.Signatures {
		if !slices.Contains(keyIDs, s.KeyID) {
			keyIDs = append(keyIDs, s.KeyID)
		}
	}
	return payload, keyIDs, nil
}

// Check reads an envelope of at most maxSize bytes that at least threshold different ones of keys signed;
// signed are those that did, in the order of keys. Signatures of other keys say nothing, but one that claims
// a key of keys and does not fit means that the bytes were altered, however many others do fit.
//
// Every error is a [Refusal]: OrderMalformed, OrderAltered, OrderUnknownKey (only others signed),
// OrderUnsigned (too few; signed holds these few), or AgentFault (keys or threshold make no sense).
func Check(envelope []byte, payloadType string, maxSize int, keys []PublicKey, threshold int) (payload []byte, signed []PublicKey, err error) {
	e, payload, err := readTyped(envelope, payloadType, maxSize)
	if err != nil {
		return nil, nil, err
	}
	if threshold < 1 {
		return nil, nil, Refuse(events.AgentFault, "no signature is asked for: anybody's %s would be accepted", noun(payloadType))
	}
	valid, unknown, err := verify(e, payload, keys)
	if err != nil {
		return nil, nil, err
	}
	listed := map[string]bool{} // a key that is listed twice counts once
	for _, k := range keys {
		if id := k.ID(); valid[id] && !listed[id] {
			listed[id] = true
			signed = append(signed, k)
		}
	}
	switch {
	case len(signed) >= threshold:
		return payload, signed, nil
	case len(signed) == 0 && unknown > 0:
		return nil, nil, Refuse(events.OrderUnknownKey, "the %s is signed by %d keys, none of them trusted here", noun(payloadType), unknown)
	default:
		return nil, signed, Refuse(events.OrderUnsigned, "the %s has %d valid signatures, %d are needed", noun(payloadType), len(signed), threshold)
	}
}

// verify gives the ids of the keys whose signatures fit, and counts the signatures of others.
func verify(e dsse.Envelope, payload []byte, keys []PublicKey) (valid map[string]bool, unknown int, err error) {
	trusted := make(map[string]PublicKey, len(keys))
	for _, k := range keys {
		if _, err := k.Raw(); err != nil {
			return nil, 0, Refuse(events.AgentFault, "%v", err)
		}
		trusted[k.ID()] = k
	}
	pae := dsse.PAE(e.PayloadType, payload)
	valid = map[string]bool{}
	for _, s := range e.Signatures {
		k, ok := trusted[s.KeyID]
		if !ok {
			unknown++
			continue
		}
		signature, err := base64.StdEncoding.DecodeString(s.Sig)
		if err != nil || !fits(k, pae, signature) {
			return nil, 0, Refuse(events.OrderAltered, "the signature of key %s does not fit the %s", k, noun(e.PayloadType))
		}
		valid[s.KeyID] = true
	}
	return valid, unknown, nil
}

func fits(k PublicKey, message, signature []byte) bool {
	raw, err := k.Raw()
	return err == nil && ed25519.Verify(raw, message, signature)
}

// seal adds signatures. They are verified at once: what signs may be another program, with another key.
func seal(e dsse.Envelope, payload []byte, signers []Signer) ([]byte, error) {
	pae := dsse.PAE(e.PayloadType, payload)
	for _, s := range signers {
		public := s.Public()
		signature, err := s.Sign(pae)
		if err != nil {
			return nil, fmt.Errorf("sign with key %s: %w", public, err)
		}
		if !fits(public, pae, signature) {
			return nil, fmt.Errorf("sign with key %s: the signature does not fit this key", public)
		}
		put(&e, dsse.Signature{KeyID: public.ID(), Sig: base64.StdEncoding.EncodeToString(signature)})
	}
	return write(e)
}

// put replaces what claims to be a signature of the same key.
func put(e *dsse.Envelope, s dsse.Signature) {
	e.Signatures = slices.DeleteFunc(e.Signatures, func(o dsse.Signature) bool { return o.KeyID == s.KeyID })
	e.Signatures = append(e.Signatures, s)
}

func write(e dsse.Envelope) ([]byte, error) {
	if len(e.Signatures) > MaxSignatures {
		return nil, Refuse(events.OrderMalformed, "the %s would have %d signatures, at most %d are allowed", noun(e.PayloadType), len(e.Signatures), MaxSignatures)
	}
	data, err := json.Marshal(e)
	if err != nil {
		return nil, err
	}
	if len(data) > MaxSize {
		return nil, Refuse(events.OrderMalformed, "an envelope of %d bytes is larger than %d", len(data), MaxSize)
	}
	return data, nil
}

func readTyped(envelope []byte, payloadType string, maxSize int) (dsse.Envelope, []byte, error) {
	e, payload, err := read(envelope, min(maxSize, MaxSize))
	if err == nil && e.PayloadType != payloadType {
		err = Refuse(events.OrderMalformed, "the envelope holds %.100q, not a %s", e.PayloadType, noun(payloadType))
	}
	return e, payload, err
}

func read(envelope []byte, maxSize int) (dsse.Envelope, []byte, error) {
	var e dsse.Envelope
	if len(envelope) > maxSize {
		return e, nil, Refuse(events.OrderMalformed, "an envelope of %d bytes is larger than %d", len(envelope), maxSize)
	}
	if err := json.Unmarshal(envelope, &e); err != nil {
		return e, nil, Refuse(events.OrderMalformed, "not a DSSE envelope: %v", err)
	}
	if len(e.Signatures) > MaxSignatures {
		return e, nil, Refuse(events.OrderMalformed, "the envelope has %d signatures, at most %d are allowed", len(e.Signatures), MaxSignatures)
	}
	payload, err := e.DecodeB64Payload()
	if err != nil {
		return e, nil, Refuse(events.OrderMalformed, "payload: %v", err)
	}
	if e.Signatures == nil {
		e.Signatures = []dsse.Signature{}
	}
	return e, payload, nil
}

// noun says for people what a payload type of Chandler's is.
func noun(payloadType string) string {
	name := strings.TrimSuffix(strings.TrimPrefix(payloadType, "application/vnd.chandler."), "+json")
	switch {
	case name == "trust":
		return "trust bundle"
	case strings.ContainsAny(name, "/.+") || name == "":
		return "payload"
	default:
		return name
	}
}
