package main

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"chandler/events/order"
)

// signer signs orders with a context's key, for the agents that hold its trust bundle.
type signer struct {
	key   order.Key
	trust order.Trust
}

func loadSigner(c connection) (signer, error) {
	if c.SigningKey == "" || c.Trust == "" {
		return signer{}, fmt.Errorf("context %s names no signing key and trust bundle: add them with `chandler context add %s --server %s --signing-key FILE --trust FILE`", c.Name, c.Name, c.Server)
	}
	if err := checkPrivate(c.SigningKey); err != nil {
		return signer{}, err
	}
	data, err := readSmall(c.SigningKey)
	if err != nil {
		return signer{}, fmt.Errorf("read the signing key: %w", err)
	}
	key, err := order.ParseKey(data)
	clear(data)
	if err != nil {
		return signer{}, fmt.Errorf("signing key %s: %w", c.SigningKey, err)
	}
	trust, err := readTrust(c.Trust)
	return signer{key, trust}, err
}

func readTrust(file string) (order.Trust, error) {
	data, err := readSmall(file)
	if err != nil {
		return order.Trust{}, fmt.Errorf("read the trust bundle: %w", err)
	}
	trust, err := order.ParseTrust(data)
	if err != nil {
		return order.Trust{}, fmt.Errorf("%s: %w", file, err)
	}
	return trust, nil
}

// sign makes the envelope and reads it as an agent will, so that an order that no agent would obey is
// refused here.
func (s signer) sign(o order.Order) ([]byte, error) {
	envelope, err := order.Sign(o, s.key)
	if err != nil {
		return nil, err
	}
	if _, _, err := order.Verify(envelope, s.trust, o.Issued); err != nil {
		return nil, fmt.Errorf("agents would refuse this order: %w", err)
	}
	return envelope, nil
}

// checkPrivate refuses a key that others may read.
func checkPrivate(name string) error {
	info, err := os.Stat(name)
	if err != nil {
		return fmt.Errorf("signing key: %w", err)
	}
	if othersMayRead(info) {
		return fmt.Errorf("signing key %s can be read by others (mode %04o): chmod 600 %s", name, info.Mode().Perm(), name)
	}
	return nil
}

// makeKeys makes, at the first start, a key that signs orders (keyFile) and the bundle that lets agents
// trust it (trustFile). A bundle without its key is left as it is: the key was moved away, as it should be.
// made says whether a key was made.
func makeKeys(keyFile, trustFile string) (made bool, err error) {
	trusted, err := exists(trustFile)
	if err != nil || trusted {
		return false, err
	}
	key, made, err := makeKey(keyFile)
	if err != nil {
		return false, err
	}
	id := make([]byte, 8)
	_, _ = rand.Read(id) // never fails
	bundle, err := json.MarshalIndent(order.Trust{Fleet: "f" + hex.EncodeToString(id), Version: 1, Threshold: 1, Keys: []order.PublicKey{key.Public("first")}}, "", "  ")
	if err != nil {
		return false, err
	}
	return made, writePrivate(trustFile, append(bundle, '\n'))
}

// makeKey reads the key, or makes it.
func makeKey(file string) (key order.Key, made bool, err error) {
	data, err := readSmall(file)
	if err == nil {
		key, err = order.ParseKey(data)
		return key, false, err
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return order.Key{}, false, err
	}
	seed := make([]byte, 32)
	_, _ = rand.Read(seed) // never fails
	if key, err = order.NewKey(seed); err != nil {
		return order.Key{}, false, err
	}
	if data, err = key.Marshal(); err != nil {
		return order.Key{}, false, err
	}
	return key, true, writePrivate(file, data)
}

func exists(name string) (bool, error) {
	_, err := os.Stat(filepath.Clean(name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
