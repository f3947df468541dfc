package trust

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"chandler/events"
	"chandler/events/sign"
)

// Begin finds where an agent that knows only the fingerprint of its fleet's roots starts: the first envelope
// with exactly these roots that they themselves signed. From there it follows the others, as
// [Bundle.Follow] does, with the same results; Version is 0 if there is no such beginning.
func Begin(fingerprint string, envelopes [][]byte) (Bundle, error) {
	if err := events.ValidDigest(fingerprint); err != nil {
		return Bundle{}, fmt.Errorf("fingerprint of the roots: %w", err)
	}
	var first error
	for i, envelope := range envelopes {
		b, err := Open(envelope)
		if err == nil {
			if b.Roots.Fingerprint() != fingerprint {
				continue
			}
			err = signedBy(b.Roots, "own", envelope)
		}
		if err == nil {
			return b.Follow(envelopes[i+1:])
		}
		if first == nil {
			first = fmt.Errorf("%s: %w", nameOf(b, i), err)
		}
	}
	if first != nil {
		return Bundle{}, first
	}
	return Bundle{}, sign.Refuse(events.OrderUnknownKey, "none of %d trust bundles has the roots %.12s that the token names", len(envelopes), fingerprint)
}

// Follow goes from the bundle to the newest that the envelopes (oldest first) lead to. Each newer one must be
// of the same fleet and signed by the roots of the one before, and by its own where they changed; versions
// that are not newer are skipped. At the first that is refused it stops: the error names that one, and the
// bundle reached before it is returned and may be used.
func (b Bundle) Follow(envelopes [][]byte) (Bundle, error) {
	for i, envelope := range envelopes {
		next, err := Open(envelope)
		if err == nil && next.Version <= b.Version {
			continue
		}
		if err == nil {
			err = b.admit(next, envelope)
		}
		if err != nil {
			return b, fmt.Errorf("%s: %w", nameOf(next, i), err)
		}
		b = next
	}
	return b, nil
}

func nameOf(b Bundle, i int) string {
	if b.Version == 0 {
		return fmt.Sprintf("trust bundle %d in the list", i+1)
	}
	return fmt.Sprintf("trust bundle version %d", b.Version)
}

// admit says why next, as read from the envelope, may not follow b.
func (b Bundle) admit(next Bundle, envelope []byte) error {
	switch {
	case next.Fleet != b.Fleet:
		return sign.Refuse(events.OrderOtherFleet, "it is for fleet %s, not %s", next.Fleet, b.Fleet)
	case next.Version <= b.Version:
		return sign.Refuse(events.OrderSerialOld, "it is not newer than version %d", b.Version)
	}
	if err := signedBy(b.Roots, "present", envelope); err != nil {
		if k, ok := b.RevokedSigner(envelope, PayloadType, MaxSize); ok && sign.TooFew(err) {
			return sign.Refuse(events.OrderRevokedKey, "it is signed by %s, which is revoked, and by too few of the present roots", k)
		}
		return err
	}
	if next.Roots.Fingerprint() == b.Roots.Fingerprint() {
		return nil
	}
	return signedBy(next.Roots, "new", envelope)
}

func signedBy(r Roots, which string, envelope []byte) error {
	if len(r.Keys) == 0 {
		return sign.Refuse(events.AgentFault, "there are no %s roots that could have signed it", which)
	}
	_, _, err := sign.Check(envelope, PayloadType, MaxSize, r.Keys, r.Threshold)
	var refused *sign.Refusal
	if errors.As(err, &refused) {
		return sign.Refuse(refused.Reason, "signatures of the %s roots: %s", which, refused.Text)
	}
	return err
}

// RevokedSigner gives a revoked key that did sign an envelope, to tell why its signature does not count.
func (b Bundle) RevokedSigner(envelope []byte, payloadType string, maxSize int) (RevokedKey, bool) {
	keys := make([]sign.PublicKey, len(b.Revoked))
	for i, k := range b.Revoked {
		keys[i] = k.PublicKey
	}
	_, signed, err := sign.Check(envelope, payloadType, maxSize, keys, 1)
	if err != nil {
		return RevokedKey{}, false
	}
	i := slices.IndexFunc(b.Revoked, func(k RevokedKey) bool { return k.PublicKey == signed[0] })
	return b.Revoked[i], true
}

// Missing says who must still sign an envelope before agents that hold old follow it; old is nil for the
// first bundle of a fleet. ok is true when nobody must; otherwise text says for people what is wanting, which
// may also be something that no signature mends.
func Missing(old *Bundle, envelope []byte) (ok bool, text string) {
	next, err := Open(envelope)
	if err != nil {
		return false, err.Error()
	}
	var wanting []string
	ask := func(r Roots, which string) {
		_, signed, err := sign.Check(envelope, PayloadType, MaxSize, r.Keys, r.Threshold)
		switch {
		case sign.TooFew(err):
			wanting = append(wanting, fmt.Sprintf("%d more of the %s roots must sign: %s", r.Threshold-len(signed), which, strings.Join(others(r.Keys, signed), ", ")))
		case err != nil:
			wanting = append(wanting, err.Error())
		}
	}
	switch {
	case old == nil:
		ask(next.Roots, "first")
	case next.Fleet != old.Fleet || next.Version <= old.Version:
		return false, fmt.Sprintf("trust bundle version %d: %v", next.Version, old.admit(next, envelope))
	default:
		ask(old.Roots, "present")
		if next.Roots.Fingerprint() != old.Roots.Fingerprint() {
			ask(next.Roots, "new")
		}
	}
	return len(wanting) == 0, strings.Join(wanting, "; ")
}

func others(all, signed []sign.PublicKey) []string {
	done := map[string]bool{}
	for _, k := range signed {
		done[k.ID()] = true
	}
	var names []string
	for _, k := range all {
		if !done[k.ID()] {
			names = append(names, k.Name)
		}
	}
	return names
}
