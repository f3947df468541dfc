package enrolment

import (
	"encoding/json"
	"errors"
	"fmt"

	"chandler/events"
)

// maxStatement is the largest statement, in bytes of JSON, that is read.
const maxStatement = 64 << 10

// maxNonce is the longest nonce, in bytes.
const maxNonce = 128

// signedPrefix stands before the statement in what is signed. The agent's key also signs whatever nonce a
// broker sends when it connects; a rogue broker could send a statement as the nonce. No nonce contains the
// byte 0xff: it arrives as JSON, where that byte is none.
const signedPrefix = "chandler enrolment\xff"

// Sign makes the request for a statement, whose Key must be the public key of agentSeed. To enrol, Token must
// be the public key of tokenSeed; to return, both are empty. The seeds are not kept.
func Sign(s events.EnrolStatement, agentSeed, tokenSeed []byte) (events.EnrolRequest, error) {
	fail := func(err error) (events.EnrolRequest, error) {
		return events.EnrolRequest{}, fmt.Errorf("sign statement: %w", err)
	}
	if err := check(s); err != nil {
		return fail(err)
	}
	text, err := json.Marshal(s)
	if err != nil {
		return fail(err)
	}
	if len(text) > maxStatement {
		return fail(fmt.Errorf("it takes %d bytes, more than %d", len(text), maxStatement))
	}
	r := events.EnrolRequest{Statement: text}
	if r.Signature, err = sign(text, agentSeed, s.Key); err != nil {
		return fail(fmt.Errorf("with the agent's key: %w", err))
	}
	if s.Token == "" {
		return r, nil
	}
	if r.TokenSignature, err = sign(text, tokenSeed, s.Token); err != nil {
		return fail(fmt.Errorf("with the token's key: %w", err))
	}
	return r, nil
}

func sign(text, seed []byte, public string) ([]byte, error) {
	pair, err := userKey(seed)
	if err != nil {
		return nil, err
	}
	defer pair.Wipe()
	if own, err := pair.PublicKey(); err != nil || own != public {
		return nil, errors.New("the statement names another key")
	}
	return pair.Sign(signed(text))
}

func signed(text []byte) []byte { return append([]byte(signedPrefix), text...) }

// Verify reads a statement for the given purpose ("enrol" or "return") and checks what it proves: that its
// sender has the secret of its Key and, to enrol, of its Token; that it speaks of the agent whose id the key
// derives; and that it is well formed. Whether the token or the agent is known is the caller's to know.
// Fields that this version does not know are left out, so that newer agents may enrol.
func Verify(r events.EnrolRequest, purpose string) (events.EnrolStatement, error) {
	fail := func(err error) (events.EnrolStatement, error) {
		return events.EnrolStatement{}, fmt.Errorf("verify statement: %w", err)
	}
	if len(r.Statement) > maxStatement {
		return fail(fmt.Errorf("it has %d bytes, more than %d", len(r.Statement), maxStatement))
	}
	var s events.EnrolStatement
	if err := json.Unmarshal(r.Statement, &s); err != nil {
		return fail(errors.New("it cannot be read"))
	}
	if s.Purpose != purpose {
		return fail(fmt.Errorf("its purpose is %q, not %q", s.Purpose, purpose))
	}
	if err := check(s); err != nil {
		return fail(err)
	}
	if err := verify(r.Statement, r.Signature, s.Key); err != nil {
		return fail(fmt.Errorf("the agent's key: %w", err))
	}
	if s.Token == "" {
		return s, nil
	}
	if err := verify(r.Statement, r.TokenSignature, s.Token); err != nil {
		return fail(fmt.Errorf("the token's key: %w", err))
	}
	return s, nil
}

func verify(text, signature []byte, public string) error {
	pair, err := publicKey(public)
	if err != nil {
		return err
	}
	return pair.Verify(signed(text), signature)
}

// check is what holds for every statement, whoever signed it.
func check(s events.EnrolStatement) error {
	if _, err := publicKey(s.Key); err != nil {
		return err
	}
	switch s.Purpose {
	case events.AgentEnrol.Verb:
		if _, err := publicKey(s.Token); err != nil {
			return fmt.Errorf("token: %w", err)
		}
		if s.Token == s.Key { // everybody who has the token has that key
			return errors.New("the agent has no key of its own")
		}
	case events.AgentReturn.Verb:
		if s.Token != "" {
			return errors.New("it names a token, and none is needed to return")
		}
	default:
		return fmt.Errorf("purpose %q is neither %s nor %s", s.Purpose, events.AgentEnrol.Verb, events.AgentReturn.Verb)
	}
	if want := events.AgentID([]byte(s.Key)); s.Facts.ID != want {
		return fmt.Errorf("it speaks of agent %q, but its key is that of %s", s.Facts.ID, want)
	}
	if s.Machine != "" && events.ValidDigest(s.Machine) != nil {
		return errors.New("the hash of the machine is not 64 lower-case hexadecimal digits")
	}
	if s.Nonce == "" || len(s.Nonce) > maxNonce {
		return fmt.Errorf("its nonce has %d bytes, not 1 to %d", len(s.Nonce), maxNonce)
	}
	if s.Trust < 0 {
		return errors.New("the version of its trust bundle is negative")
	}
	return nil
}
