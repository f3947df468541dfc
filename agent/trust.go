package agent

import (
	"context"
	"errors"
	"slices"

	"chandler/events"
	"chandler/events/sign"
	"chandler/events/trust"
)

// trust says whose orders the agent obeys now.
func (a *Agent) trust() trust.Bundle {
	if a.Enrolment == nil {
		return a.Trust
	}
	return a.Enrolment.Trust()
}

// byTrust verifies by the present trust bundle, and what its keys do not suffice for once more by the newest:
// machines get bundles at a time drawn at random, and what a new key signed must not be refused because it came first.
func (a *Agent) byTrust(ctx context.Context, verify func(trust.Bundle) error) error {
	present := a.trust()
	err := verify(present)
	refused, ok := errors.AsType[*sign.Refusal](err)
	if !ok || a.askTrust == nil || !slices.Contains([]events.Reason{events.OrderUnsigned, events.OrderUnknownKey, events.OrderRevokedKey, events.ManifestUnsigned}, refused.Reason) {
		return err
	}
	asking := a.newestTrust(ctx)
	switch newest := a.trust(); {
	case ctx.Err() != nil:
		return ctx.Err()
	case newest.Version > present.Version:
		return verify(newest)
	case asking != nil:
		return sign.Refuse(refused.Reason, "%s, by trust bundle version %d; whether there is a newer one could not be asked: %v", refused.Text, present.Version, asking)
	}
	return err
}

// heedTrust asks for newer bundles before the first start after each connection: a key may have been revoked while
// this machine was away. That they are withheld it cannot know; without an answer it goes on by what it has.
func (a *Agent) heedTrust(ctx context.Context) {
	if a.askTrust == nil || !a.conn.IsConnected() {
		return
	}
	a.heeding.Lock()
	defer a.heeding.Unlock()
	connection := a.conn.Stats().Reconnects + 1
	if a.heeded == connection {
		return
	}
	if err := a.newestTrust(ctx); err != nil && ctx.Err() == nil {
		a.log.WarnContext(ctx, "trust bundles not received before a start", "error", err)
	}
	a.heeded = connection
}

// newestTrust asks for what is newer, but not for long.
func (a *Agent) newestTrust(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, contactPatience)
	defer cancel()
	return a.askTrust(ctx)
}
