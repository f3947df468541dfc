package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"chandler/events"
	"chandler/events/manifest"
	"chandler/events/order"
	"chandler/events/sign"
	"chandler/events/trust"
	"chandler/services/keyring"
)

// signer signs packages and deployments with the context's key, for agents that hold the trust bundle as this
// machine can vouch for it.
type signer struct {
	key   sign.Signer
	trust trust.Bundle
	dir   string // the context's trust directory
}

// signer opens the context's key and finds out what agents trust.
func (a *app) signer(ctx context.Context, c *client, asked *asking) (signer, error) {
	bundle, err := a.followTrust(ctx, c)
	if err != nil {
		return signer{}, err
	}
	if c.SigningKey == "" {
		return signer{}, fmt.Errorf("context %s names no key to sign with: `%s context add %s --signing-key KEY` (a file, or ssh-agent:…); `%s trust key FILE --new` makes one, for an administrator to add to the bundle",
			c.Name, a.self, c.Name, a.self)
	}
	dir, err := a.trustDir(c.connection)
	if err != nil {
		return signer{}, err
	}
	key, err := asked.open(c.SigningKey)
	return signer{key, bundle, dir}, err
}

// mayDeploy refuses a key that agents do not trust with orders, before anything is asked or signed with it.
func (s signer) mayDeploy() error { return s.among(s.trust.Keys, "deployers", "--deployer-only") }

// mayPublish refuses a key that agents do not trust with packages.
func (s signer) mayPublish() error {
	return s.among(s.trust.Publishers, "publishers", "--publisher-only")
}

func (s signer) among(keys []sign.PublicKey, role, flag string) error {
	id := s.key.Public().ID()
	same := func(k sign.PublicKey) bool { return k.ID() == id }
	if slices.ContainsFunc(keys, same) {
		return nil
	}
	for _, k := range s.trust.Revoked {
		if k.ID() == id {
			return fmt.Errorf("agents would refuse this: your key %s is revoked", k)
		}
	}
	return fmt.Errorf("agents would refuse this: your key %.12s is not among the %s that they trust (`chandler trust show`): an administrator adds it with `chandler trust add NAME --key FILE`, %s for this alone", id, role, flag)
}

// order signs an order and reads it as an agent will, so that one that no agent would obey is refused here.
// complete is false where it needs further signatures.
func (s signer) order(o order.Order) (envelope []byte, complete bool, err error) {
	if envelope, err = order.Sign(o, s.key); err != nil {
		return nil, false, err
	}
	if err := s.check(envelope, o); err != nil {
		return nil, false, err
	}
	_, complete, err = order.Signed(envelope, s.trust)
	return envelope, complete, err
}

// check verifies all of an order but whether it has enough signatures.
func (s signer) check(envelope []byte, o order.Order) error {
	lenient := s.trust
	lenient.Threshold = 1
	if _, _, err := order.Verify(envelope, lenient, o.Issued); err != nil {
		return fmt.Errorf("agents would refuse this order: %w", err)
	}
	return nil
}

// seal signs a manifest as a publisher.
func (s signer) seal(m events.Manifest) ([]byte, error) {
	envelope, err := manifest.Seal(m, s.key)
	if err != nil {
		return nil, err
	}
	if _, err := manifest.Verify(envelope, s.trust); err != nil {
		return nil, fmt.Errorf("agents would refuse this package: %w", err)
	}
	return envelope, nil
}

// errEncrypted: a key cannot be looked at without its passphrase.
var errEncrypted = errors.New("it is encrypted")

// examineKeys looks at what this machine signs with, without asking for passphrases or the broker.
func (a *app) examineKeys(where connection) []finding {
	dir, err := a.trustDir(where)
	if err != nil {
		return []finding{problem("trust", "", "%v", err)}
	}
	bundle, envelope, err := pinned{dir}.load()
	switch {
	case err != nil:
		return []finding{problem("trust", "put it back from a copy, or accept the roots again with `chandler trust pin`", "%v", err)}
	case envelope == nil:
		return []finding{warning("trust", "`chandler trust init` makes a fleet's keys, `chandler trust pin` accepts those made elsewhere", "this machine has accepted no root keys, so that nothing can be signed here")}
	}
	found := examineRoots(dir)
	if where.SigningKey == "" {
		return append(found, warning("signing key", "needed only where deployments are created: chandler context add", "context %s names none", where.Name))
	}
	key, err := keyring.Open(where.SigningKey, func(string) ([]byte, error) { return nil, errEncrypted })
	switch {
	case errors.Is(err, errEncrypted):
		return append(found, ok("signing key", "%s is readable by its owner alone, and encrypted", where.SigningKey))
	case err != nil:
		return append(found, problem("signing key", "nothing can be signed here until this is mended", "%v", err))
	}
	s := signer{key, bundle, dir}
	if deploys, publishes := s.mayDeploy(), s.mayPublish(); deploys != nil && publishes != nil {
		return append(found, problem("signing key", "use the key that belongs to the bundle", "%v", deploys))
	}
	return append(found, ok("signing key", "readable by its owner alone, and trusted by agents with bundle version %d (fleet %s)", bundle.Version, bundle.Fleet))
}

// examineRoots notices root keys that were never taken away, and what others may read.
func examineRoots(dir string) (found []finding) {
	roots, err := rootFiles(dir)
	if err != nil {
		return []finding{problem("root keys", "", "%v", err)}
	}
	if len(roots) > 0 {
		found = append(found, warning("root keys", "take each to another place that is not connected to anything", "%s in %s: whoever has this machine decides what every machine runs", plural(len(roots), "root key lies", "root keys lie"), dir))
	}
	for _, file := range roots {
		if err := checkPrivate(file); err != nil {
			found = append(found, problem("root keys", "", "%v", err))
		}
	}
	return found
}

func exists(name string) (bool, error) {
	if name == "" { // which os.Stat and filepath.Clean take for the present directory
		return false, nil
	}
	_, err := os.Stat(filepath.Clean(name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
