package manifest

import (
	"errors"
	"fmt"
	"slices"

	"chandler/events"
	"chandler/events/sign"
	"chandler/events/trust"
)

// PayloadType of the DSSE envelope.
const PayloadType = "application/vnd.chandler.manifest+json"

// MaxEnvelope bounds an envelope: a manifest of [MaxBytes] with all the signatures that it may have.
const MaxEnvelope = (MaxBytes+2)/3*4 + sign.Overhead

// Seal makes the DSSE envelope of a manifest, as JSON. The SHA-256 of its bytes is the package's digest, so
// that another signature makes another digest. Without signers it is one that agents refuse.
func Seal(m events.Manifest, signers ...sign.Signer) ([]byte, error) {
	payload, err := Encode(m)
	if err != nil {
		return nil, err
	}
	envelope, err := sign.Seal(PayloadType, payload, signers...)
	if err != nil {
		return nil, fmt.Errorf("seal manifest of %s %s: %w", m.Package, m.Version, err)
	}
	return envelope, nil
}

// Open reads an envelope without verifying signatures: for services, which store and show packages and are
// not who must be convinced.
func Open(envelope []byte) (events.Manifest, error) {
	payload, _, err := sign.Open(envelope, PayloadType, MaxEnvelope)
	if err != nil {
		return events.Manifest{}, err
	}
	return Decode(payload)
}

// Verify reads an envelope as an agent does: at least one publisher of the bundle signed exactly these bytes.
// Every error is a [sign.Refusal]: ManifestUnsigned (no publisher signed), ManifestMismatch (altered, or no
// envelope), UnsupportedFormat (signed, but not to be understood here), or AgentFault (a bundle that makes no sense).
func Verify(envelope []byte, bundle trust.Bundle) (events.Manifest, error) {
	payload, _, err := check(envelope, bundle)
	if err != nil {
		return events.Manifest{}, err
	}
	m, err := Decode(payload)
	if err != nil {
		return events.Manifest{}, sign.Refuse(events.UnsupportedFormat, "the signed manifest cannot be read: %v", err)
	}
	return m, nil
}

// Signed gives the names of the bundle's publishers who signed an envelope, sorted, at least one; the errors are
// those of [Verify].
func Signed(envelope []byte, bundle trust.Bundle) (names []string, err error) {
	_, signed, err := check(envelope, bundle)
	for _, k := range signed {
		names = append(names, k.Name)
	}
	slices.Sort(names)
	return names, err
}

func check(envelope []byte, bundle trust.Bundle) (payload []byte, signed []sign.PublicKey, err error) {
	if len(bundle.Publishers) == 0 {
		return nil, nil, sign.Refuse(events.ManifestUnsigned, "the trust bundle (version %d) names no publishers, so that nobody's packages are accepted", bundle.Version)
	}
	payload, signed, err = sign.Check(envelope, PayloadType, MaxEnvelope, bundle.Publishers, 1)
	if err != nil {
		return nil, nil, refusal(err, envelope, bundle)
	}
	return payload, signed, nil
}

// refusal gives what is said of orders the reasons that are there for manifests.
func refusal(err error, envelope []byte, bundle trust.Bundle) error {
	var refused *sign.Refusal
	if !errors.As(err, &refused) {
		return err
	}
	switch refused.Reason {
	case events.OrderUnsigned:
		return sign.Refuse(events.ManifestUnsigned, "no publisher signed the manifest")
	case events.OrderUnknownKey:
		if k, ok := bundle.RevokedSigner(envelope, PayloadType, MaxEnvelope); ok {
			return sign.Refuse(events.ManifestUnsigned, "the manifest is signed by %s, which is revoked, and by no publisher", k)
		}
		return sign.Refuse(events.ManifestUnsigned, "%s as a publisher", refused.Text)
	case events.OrderAltered, events.OrderMalformed:
		return sign.Refuse(events.ManifestMismatch, "%s", refused.Text)
	default:
		return err
	}
}
