package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/nats-io/nkeys"

	"chandler/events/access"
)

// renewAccounts makes what the broker's accounts let roles do what this version of the program needs, after one
// of another version ran here. That takes the operator's key: where the administrator's directory was moved
// away, advice says what to do. The broker must not run yet.
func renewAccounts(at place, administrator string) (advice string, err error) {
	fleet, err := readFleet(at.identity())
	if err != nil {
		return "", err
	}
	operator, err := openOperator(administrator, fleet.Operator)
	if err != nil {
		return "", err
	}
	defer operator.Wipe()
	files, accounts := map[access.Account]string{}, map[access.Account]string{}
	for account, key := range fleet.Accounts {
		files[account] = filepath.Join(at.accounts(), key+".jwt")
		text, err := readSmall(files[account])
		if err != nil {
			return "", err
		}
		accounts[account] = strings.TrimSpace(string(text))
	}
	renewed, err := access.Renewed(accounts, operator)
	if err != nil {
		return "", fmt.Errorf("renew what the fleet's accounts may: %w", err)
	}
	for account, text := range renewed {
		if text == "" {
			return fmt.Sprintf("WARNING: what the roles of this fleet may is that of another version, and services may be refused what they need. Start once with --administrator-dir naming the directory that has %s.", operatorKeyName), nil
		}
		if err := writePrivate(files[account], []byte(text)); err != nil {
			return "", err
		}
	}
	return "", nil
}

// openOperator gives the operator's key, or where it is not there the public one.
func openOperator(administrator, public string) (nkeys.KeyPair, error) {
	key, err := readSeed(filepath.Join(administrator, operatorKeyName))
	if errors.Is(err, fs.ErrNotExist) {
		return nkeys.FromPublicKey(public)
	}
	if err != nil {
		return nil, err
	}
	if is, err := key.PublicKey(); err != nil || is != public {
		return nil, fmt.Errorf("%s in %s is not the operator of this fleet", operatorKeyName, administrator)
	}
	return key, nil
}
