package enrol

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/nats-io/jwt/v2"

	"chandler/events"
	"chandler/events/bus"
	"chandler/events/enrolment"
	"chandler/events/sign"
	"chandler/events/trust"
)

// maxJWT is the largest identity taken, in bytes.
const maxJWT = 16 << 10

// maxWhy bounds what is kept of the service's words, in bytes.
const maxWhy = 1000

// askTime bounds one question to the enrolment service.
const askTime = 10 * time.Second

// Enrol makes this machine an agent of the token's fleet. What the service answers is kept only if it fits
// the token. A refusal is a *RefusedError; after one with events.RefusedPending the machine has enrolled and
// waits for approval, and Return or Run goes on without the token. BindMachine comes first, and facts tell
// what the machine says of itself.
func (k *Keeper) Enrol(ctx context.Context, token enrolment.Token, facts events.Facts) error {
	k.asking.Lock()
	defer k.asking.Unlock()
	k.Describe(facts)
	id, held, err := k.prepare(token)
	if err != nil {
		return err
	}
	var ca *x509.Certificate
	var config *tls.Config
	if token.CA != "" {
		if ca, err = k.findCA(ctx, k.brokers(id), token.CA); err != nil {
			return err
		}
		config = trusting(ca)
	}
	public, err := enrolment.PublicKey(token.Seed)
	if err != nil {
		return err
	}
	answer, err := k.state(ctx, id, config, events.AgentEnrol, public, token.Seed)
	if err != nil {
		if r := refusal(err); r != nil && r.Refused == events.RefusedPending {
			if err := k.await(id, ca, r); err != nil {
				return err
			}
		}
		return err
	}
	return k.accept(id, ca, held, answer)
}

// prepare makes the identity that the token leads to. A machine that holds a bundle stays in its fleet.
func (k *Keeper) prepare(token enrolment.Token) (identity, chain, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	id := identity{Format: identityFormat, Servers: token.Servers, CA: token.CA, Root: token.Root, Enrolment: token.JWT, Machine: k.machine}
	if len(k.chain.envelopes) == 0 {
		return id, chain{}, nil
	}
	if k.identity.Root != token.Root {
		return id, chain{}, errors.New("this machine belongs to a fleet with other root keys than the token names: `chandler-agent enrol --anew` makes it leave that")
	}
	id.Conferred, id.Received, id.Expires = k.identity.Conferred, k.identity.Received, k.identity.Expires
	return id, k.chain, nil
}

var errNotEnrolled = errors.New("this machine has not enrolled: `chandler-agent enrol` does it, with a token")

// Return asks for a new identity by proof of the enrolled key, as the enrolment user. A refusal is a
// *RefusedError.
func (k *Keeper) Return(ctx context.Context) error {
	k.asking.Lock()
	defer k.asking.Unlock()
	k.mu.Lock()
	if k.identity == nil {
		k.mu.Unlock()
		return errNotEnrolled
	}
	id, held := *k.identity, k.chain
	k.mu.Unlock()
	answer, err := k.askBack(ctx, id)
	if err != nil {
		return err
	}
	return k.accept(id, nil, held, answer)
}

// Confirm asks whether the fleet still takes this machine, and keeps the identity that is here. A refusal is a
// *RefusedError, and is kept.
func (k *Keeper) Confirm(ctx context.Context) error {
	k.asking.Lock()
	defer k.asking.Unlock()
	k.mu.Lock()
	if k.identity == nil {
		k.mu.Unlock()
		return errNotEnrolled
	}
	id := *k.identity
	k.mu.Unlock()
	_, err := k.askBack(ctx, id)
	return err
}

// askBack asks by proof of the enrolled key, and keeps a refusal.
func (k *Keeper) askBack(ctx context.Context, id identity) (events.EnrolAnswer, error) {
	if err := k.ownKey(); err != nil {
		return events.EnrolAnswer{}, err
	}
	config, err := k.TLS()
	if err != nil {
		return events.EnrolAnswer{}, err
	}
	answer, err := k.state(ctx, id, config, events.AgentReturn, "", nil)
	if err != nil {
		k.note(refusal(err))
	}
	return answer, err
}

// ownKey says that another key took the place of this Keeper's: what it would keep does not belong beside that.
func (k *Keeper) ownKey() error {
	seed, err := readKey(k.Dir)
	if err == nil && len(seed) > 0 && !bytes.Equal(seed, k.seed) {
		err = fmt.Errorf("%s was replaced, as by `chandler-agent enrol --anew`: restart the agent, which is another one now", filepath.Join(k.Dir, keyFile))
	}
	return err
}

// renew asks over the agent's own connection.
func (k *Keeper) renew(ctx context.Context, b *bus.Bus) error {
	k.asking.Lock()
	defer k.asking.Unlock()
	if err := k.ownKey(); err != nil {
		return err
	}
	k.mu.Lock()
	id, held := *k.identity, k.chain
	request := events.RenewRequest{Machine: k.machine, Trust: held.bundle.Version}
	k.mu.Unlock()
	ctx, cancel := whileConnected(ctx, b.Conn())
	defer cancel()
	answer, err := bus.Request(ctx, b, k.id, events.AgentRenew, request)
	if err == nil {
		err = refusedBy(answer)
	}
	if err != nil {
		k.note(refusal(err))
		return err
	}
	return k.accept(id, nil, held, answer)
}

// state makes a signed statement over a connection of its own and gives the answer to it.
func (k *Keeper) state(ctx context.Context, id identity, config *tls.Config, call events.Call[events.EnrolRequest, events.EnrolAnswer], token string, tokenSeed []byte) (events.EnrolAnswer, error) {
	k.mu.Lock()
	facts := k.facts
	s := events.EnrolStatement{Purpose: call.Verb, Key: k.public, Token: token, Machine: k.machine, Nonce: rand.Text(), Trust: k.chain.bundle.Version}
	k.mu.Unlock()
	facts.ID = k.id
	s.Facts = facts
	request, err := enrolment.Sign(s, k.seed, tokenSeed)
	if err != nil {
		return events.EnrolAnswer{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	var answer events.EnrolAnswer
	err = k.speak(ctx, id, config, func(b *bus.Bus) (err error) {
		answer, err = bus.Request(ctx, b, k.id, call, request)
		return err
	})
	if err != nil {
		return events.EnrolAnswer{}, err
	}
	if answer.Nonce != s.Nonce {
		return events.EnrolAnswer{}, errors.New("the enrolment service answered another question than was asked")
	}
	return answer, refusedBy(answer)
}

func refusedBy(a events.EnrolAnswer) error {
	if a.Refused == "" {
		return nil
	}
	return &RefusedError{a.Refused, a.Why, time.Duration(a.Later)}
}

// note keeps what the service said last of this machine.
func (k *Keeper) note(r *RefusedError) {
	k.mu.Lock()
	was := k.refused
	fresh := r != nil && (was == nil || was.Refused != r.Refused)
	if r != nil {
		k.refused = r
	}
	var id identity
	if fresh && r.stays() {
		id = k.identity.refused(r)
		k.identity = &id
	}
	k.mu.Unlock()
	if !fresh {
		return
	}
	if r.stays() {
		if err := writeIdentity(k.Dir, id); err != nil {
			k.log.Warn("refusal not kept", "error", err)
		}
	}
	k.changed()
}

// refused is the identity with the service's word about it; nil: it is not refused.
func (id identity) refused(r *RefusedError) identity {
	id.Refused, id.Why = "", ""
	if r != nil {
		id.Refused, id.Why = r.Refused, r.Why[:min(len(r.Why), maxWhy)]
	}
	return id
}

// accept checks an answer whole, and only then keeps it: what the next start needs to ask again first, the
// identity itself last.
func (k *Keeper) accept(id identity, ca *x509.Certificate, held chain, answer events.EnrolAnswer) error {
	issued, expires, err := k.checkJWT(answer.JWT)
	if err != nil {
		return fmt.Errorf("identity from the enrolment service: %w", err)
	}
	next, err := held.follow(id.Root, answer.Bundles)
	switch {
	case len(next.envelopes) == 0 && err == nil:
		return errors.New("the enrolment service handed out no trust bundle")
	case len(next.envelopes) == 0:
		return fmt.Errorf("the enrolment service handed out another root than the token names: %w", err)
	case err != nil:
		k.logRefused(err)
	}
	received := k.Clock().UTC()
	id = id.refused(nil)
	id.Received, id.Expires = received, expires
	if answer.Conferred != nil {
		id.Conferred = *answer.Conferred
	}
	if err := k.keep(id, ca, next, held, answer.JWT); err != nil {
		return err
	}
	k.mu.Lock()
	k.identity, k.jwt, k.chain = &id, answer.JWT, next
	k.life, k.share = lifetime{issued, expires, received}, k.drawShare()
	k.refused, k.rejected, k.hurry = nil, false, false
	k.mu.Unlock()
	k.log.Info("identity received", "expires", expires, "trust", next.bundle.Version)
	k.changed()
	k.Wake()
	return nil
}

func (k *Keeper) keep(id identity, ca *x509.Certificate, next, held chain, jwt string) error {
	if err := k.keepCA(ca); err != nil {
		return err
	}
	if next.bundle.Version != held.bundle.Version {
		if err := writeChain(k.Dir, next); err != nil {
			return err
		}
	}
	if err := writeIdentity(k.Dir, id); err != nil {
		return err
	}
	return writePrivate(k.Dir, jwtFile, []byte(jwt))
}

func (k *Keeper) keepCA(ca *x509.Certificate) error {
	if ca == nil {
		return nil
	}
	return writePrivate(k.Dir, caFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Raw}))
}

// await keeps an identity that waits for approval.
func (k *Keeper) await(id identity, ca *x509.Certificate, r *RefusedError) error {
	if err := k.keepCA(ca); err != nil {
		return err
	}
	id = id.refused(r)
	if err := writeIdentity(k.Dir, id); err != nil {
		return err
	}
	k.mu.Lock()
	k.identity, k.refused = &id, r
	k.mu.Unlock()
	k.changed()
	k.Wake()
	return nil
}

var errOtherKey = errors.New("the JWT is for another key")

// checkJWT says whether a JWT is of this agent. Whether it is of the fleet is for the broker to judge.
func (k *Keeper) checkJWT(text string) (issued, expires time.Time, err error) {
	if len(text) > maxJWT {
		return issued, expires, fmt.Errorf("the JWT has %d bytes, more than %d", len(text), maxJWT)
	}
	claims, err := jwt.DecodeUserClaims(text)
	if err != nil {
		return issued, expires, fmt.Errorf("the JWT cannot be read: %w", err)
	}
	switch {
	case claims.Subject != k.public:
		err = errOtherKey
	case claims.Name != k.id:
		err = fmt.Errorf("the JWT is of %.64q, not of agent %s", claims.Name, k.id)
	case claims.BearerToken:
		err = errors.New("the JWT asks for no proof of the key")
	}
	issued = time.Unix(claims.IssuedAt, 0).UTC()
	if claims.Expires != 0 {
		expires = time.Unix(claims.Expires, 0).UTC()
	}
	return issued, expires, err
}

// logRefused tells the reason in one word beside the words for people.
func (k *Keeper) logRefused(err error) {
	var reason events.Reason
	if r, ok := errors.AsType[*sign.Refusal](err); ok {
		reason = r.Reason
	}
	k.log.Warn("trust bundle refused", "have", k.Trust().Version, "reason", reason, "error", err)
}

// followBundles keeps what is newer and properly signed, and gives the bundle that it led to. A bundle that is
// refused ends it, and the log says why.
func (k *Keeper) followBundles(bundles [][]byte) (trust.Bundle, error) {
	k.asking.Lock()
	defer k.asking.Unlock()
	k.mu.Lock()
	root, held := k.identity.Root, k.chain
	k.mu.Unlock()
	next, err := held.follow(root, bundles)
	if err != nil {
		k.logRefused(err)
	}
	if next.bundle.Version == held.bundle.Version {
		return held.bundle, nil
	}
	if err := k.ownKey(); err != nil {
		return held.bundle, err
	}
	if err := writeChain(k.Dir, next); err != nil {
		return held.bundle, err
	}
	k.mu.Lock()
	k.chain = next
	k.mu.Unlock()
	k.log.Info("trust bundle followed", "from", held.bundle.Version, "to", next.bundle.Version)
	k.changed()
	return next.bundle, nil
}
