package main

import (
	"fmt"
	"path/filepath"

	"chandler/services/credentials/vault"
)

const (
	usageKeyEncryption       = "what encrypts the keyset of accounts: file:PATH, transit:https://HOST:PORT/MOUNT/KEY?token-file=PATH (OpenBao or Vault; also &namespace=NAME, &ca=PATH), or command:PATH"
	usageFormerKeyEncryption = "what encrypted it until now, for one start with another --key-encryption"
)

// keyEncryption are two key-encryption keys as they are typed; see package vault.
type keyEncryption struct {
	current string // "": a file beside the data directory
	former  string // "": none
}

func (k keyEncryption) parse(at place) (current, former vault.Wrapper, err error) {
	name := k.current
	if name == "" {
		name = "file:" + at.accountsKey()
	}
	if current, err = vault.Parse(name); err != nil {
		return nil, nil, fmt.Errorf("--key-encryption: %w", err)
	}
	if k.former != "" {
		if former, err = vault.Parse(k.former); err != nil {
			return nil, nil, fmt.Errorf("--former-key-encryption: %w", err)
		}
	}
	return current, former, nil
}

// accountsKey is beside the data directory and not in it: who copies that has no key to what is encrypted there.
func (p place) accountsKey() string { return filepath.Join(p.data+"-key", "accounts.key") }

// warnKeys tells where one archive would hold the keyset and its key.
func (a *assembly) warnKeys(name string) {
	if keptTogether(a.Data, name) {
		a.Log.Warn("the key that encrypts the keyset of accounts is in the data directory: who has a copy of that reads every account's secret",
			"component", "server", "key_encryption", name, "data", a.Data)
	}
}
