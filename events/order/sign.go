package order

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"chandler/events"
	"chandler/events/sign"
	"chandler/events/trust"
)

// PayloadType of the DSSE envelope.
const PayloadType = "application/vnd.chandler.order+json"

// Sign makes the DSSE envelope of an order, as JSON. Without signers it is a draft that nobody signed yet;
// [sign.Add] and [sign.Merge] add signatures.
func Sign(o Order, signers ...sign.Signer) ([]byte, error) {
	o.Format = Format
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("sign order of deployment %s: %w", o.Deployment, err)
	}
	payload, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	if most := sign.Room(MaxSize); len(payload) > most {
		return nil, fmt.Errorf("sign order of deployment %s: it has %d bytes, at most %d are allowed", o.Deployment, len(payload), most)
	}
	envelope, err := sign.Seal(PayloadType, payload, signers...)
	if err != nil {
		return nil, fmt.Errorf("sign order of deployment %s: %w", o.Deployment, err)
	}
	return envelope, nil
}

// Open reads an envelope without verifying signatures: for services, which derive deployments from the
// signed bytes and are not who must be convinced. digest names the order.
func Open(envelope []byte) (o Order, digest string, err error) {
	payload, _, err := sign.Open(envelope, PayloadType, MaxSize)
	if err != nil {
		return Order{}, "", err
	}
	o, err = decode(payload)
	return o, events.DigestOf(payload), err
}

// Signed says who signed an envelope so far: the names of the deployers whose signatures fit, sorted, and
// whether they are enough for agents that hold the bundle. Too few are no error; a signature in a deployer's
// name that does not fit is, and so is what cannot be read.
func Signed(envelope []byte, bundle trust.Bundle) (names []string, complete bool, err error) {
	_, signed, err := sign.Check(envelope, PayloadType, MaxSize, bundle.Keys, bundle.Threshold)
	if err != nil && !sign.TooFew(err) {
		return nil, false, err
	}
	for _, k := range signed {
		names = append(names, k.Name)
	}
	slices.Sort(names)
	return names, err == nil, nil
}

// Verify reads an envelope as an agent does: enough signatures of trusted keys over exactly these bytes,
// of this fleet, within validity at now. What depends on the machine (target, serial) is the caller's.
func Verify(envelope []byte, bundle trust.Bundle, now time.Time) (o Order, digest string, err error) {
	payload, _, err := sign.Check(envelope, PayloadType, MaxSize, bundle.Keys, bundle.Threshold)
	if sign.TooFew(err) {
		if k, ok := bundle.RevokedSigner(envelope, PayloadType, MaxSize); ok {
			err = refuse(events.OrderRevokedKey, "the order is signed by %s, which is revoked%s, and by too few others", k, because(k.Why))
		}
	}
	if err != nil {
		return Order{}, "", err
	}
	o, err = decode(payload)
	if err != nil {
		return Order{}, "", err
	}
	switch {
	case o.Fleet != bundle.Fleet:
		return Order{}, "", refuse(events.OrderOtherFleet, "the order is for fleet %s, this machine belongs to %s", o.Fleet, bundle.Fleet)
	case now.After(o.NotAfter.Add(ClockTolerance)):
		return Order{}, "", refuse(events.OrderExpired, "the order was valid until %s", o.NotAfter.Format(time.RFC3339))
	case now.Before(o.Issued.Add(-ClockTolerance)):
		return Order{}, "", refuse(events.OrderNotYetValid, "the order was issued at %s, the clock here says %s", o.Issued.Format(time.RFC3339), now.Format(time.RFC3339))
	}
	return o, events.DigestOf(payload), nil
}

func because(why string) string {
	if why == "" {
		return ""
	}
	return " (" + why + ")"
}

func refuse(reason events.Reason, format string, args ...any) error {
	return sign.Refuse(reason, format, args...)
}
