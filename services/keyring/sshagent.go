package keyring

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"chandler/events/sign"
)

// agentTime bounds one question to the SSH agent. It may ask its user for consent, or to touch a token.
const agentTime = 60 * time.Second

// agentKey signs by way of the SSH agent, over a connection for each signature.
type agentKey struct {
	ref    string // for people
	key    *agent.Key
	public sign.PublicKey
}

// openAgent finds a key among those that the SSH agent holds.
func openAgent(name string) (sign.Signer, error) {
	var found agentKey
	err := withAgent(func(a agent.ExtendedAgent) error {
		held, err := a.List()
		if err != nil {
			return fmt.Errorf("list the keys of the SSH agent: %w", err)
		}
		key, err := pickKey(name, held)
		if err != nil {
			return err
		}
		public, err := parseAgentKey(key)
		found = agentKey{AgentPrefix + name, key, public}
		return err
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}

// pickKey chooses by fingerprint or comment among the Ed25519 keys; others cannot sign here.
func pickKey(name string, held []*agent.Key) (*agent.Key, error) {
	var fit []*agent.Key
	var there strings.Builder
	for _, k := range held {
		if k.Type() != ssh.KeyAlgoED25519 {
			continue
		}
		fmt.Fprintf(&there, "\n  %s%s  %s", AgentPrefix, ssh.FingerprintSHA256(k), k.Comment)
		if name != "" && (name == ssh.FingerprintSHA256(k) || name == k.Comment) {
			fit = append(fit, k)
		}
	}
	switch {
	case len(fit) == 1:
		return fit[0], nil
	case len(fit) > 1:
		return nil, fmt.Errorf("the SSH agent holds %d keys with the comment %q: say which by its fingerprint%s", len(fit), name, there.String())
	case there.Len() == 0:
		return nil, errors.New("the SSH agent holds no Ed25519 key: make one with `ssh-keygen -t ed25519` and add it with `ssh-add`")
	}
	return nil, fmt.Errorf("the SSH agent holds no Ed25519 key with the fingerprint or comment %q; it holds%s", name, there.String())
}

func parseAgentKey(key *agent.Key) (sign.PublicKey, error) {
	parsed, err := ssh.ParsePublicKey(key.Blob)
	if err != nil {
		return sign.PublicKey{}, fmt.Errorf("read the SSH agent's key %s: %w", key.Comment, err)
	}
	return publicKey(parsed)
}

func (k agentKey) Public() sign.PublicKey { return k.public }

// Sign gives the raw Ed25519 signature, after checking it: an agent that signs something else, or with
// another key, is found out here and not on every machine of the fleet.
func (k agentKey) Sign(message []byte) (signature []byte, err error) {
	err = withAgent(func(a agent.ExtendedAgent) error {
		answer, err := a.Sign(k.key, message)
		if err != nil {
			return fmt.Errorf("sign with %s: the SSH agent answered: %w", k.ref, err)
		}
		public, err := base64.StdEncoding.DecodeString(k.public.Key)
		if err != nil {
			return fmt.Errorf("sign with %s: %w", k.ref, err)
		}
		if answer.Format != ssh.KeyAlgoED25519 || len(answer.Blob) != ed25519.SignatureSize || !ed25519.Verify(public, message, answer.Blob) {
			return fmt.Errorf("sign with %s: what the SSH agent answered is not the key's signature", k.ref)
		}
		signature = answer.Blob
		return nil
	})
	return signature, err
}

// withAgent asks the SSH agent of this session: on Unix behind the socket that SSH_AUTH_SOCK names, on Windows
// the same, or the one that comes with the system.
func withAgent(ask func(agent.ExtendedAgent) error) error {
	conn, err := dialAgent()
	if err != nil {
		return fmt.Errorf("reach the SSH agent: %w", err)
	}
	defer conn.Close()
	// A pipe may know no deadlines; closing it ends what waits for it.
	late := time.AfterFunc(agentTime, func() { conn.Close() })
	err = ask(agent.NewClient(conn))
	if !late.Stop() {
		return fmt.Errorf("the SSH agent did not answer within %s: %w", agentTime, err)
	}
	return err
}
