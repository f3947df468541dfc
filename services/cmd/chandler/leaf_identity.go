package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/nats-io/nkeys"
	"github.com/spf13/cobra"

	"chandler/events"
	"chandler/events/access"
)

// leafIdentity is what a site's leaf node is: a directory with fleet.json, operator.jwt, the credentials of one
// user in each of its accounts, accounts/ with what accounts may, and tls/ if the fleet's authority made it a
// certificate. accounts.conf is for those who run nats-server instead of chandler leaf.
type leafIdentity struct{ dir string }

const leafAccountsName = "accounts.conf"

func (l leafIdentity) accounts() string { return filepath.Join(l.dir, partAccounts) }
func (l leafIdentity) credentials(a access.Account) string {
	return filepath.Join(l.dir, string(a)+".creds")
}

// addLeaf tells the fleet, as addUser does, and makes the directory.
func (a *app) addLeaf(cmd *cobra.Command, c *client, name string, f userFlags) error {
	out := cellOr(f.out, name+".leaf")
	if there, err := exists(out); err != nil {
		return err
	} else if there {
		return fmt.Errorf("%s is there already: say another --out", out)
	}
	user, err := f.user(name, access.Leaf, a.now())
	if err != nil {
		return err
	}
	seed, key, err := newUserKey()
	if err != nil {
		return err
	}
	defer clear(seed)
	user.Key = key
	if user.Now = a.now(); c.Administrator == "" {
		return fmt.Errorf("leaf nodes are made with the keys of the administrator's directory, and context %s names none: `chandler context add %s --administrator DIR`", c.Name, c.Name)
	}
	accounts, err := a.lookUpAccounts(cmd.Context(), c.connection)
	if err != nil {
		return err
	}
	files, err := leafFiles(c.Administrator, user, seed, accounts)
	if err != nil {
		return err
	}
	added, err := ask(cmd.Context(), c, events.UserAdd, events.UserNotice{User: name, Role: string(access.Leaf), Key: key, Expires: user.Expires})
	if err != nil {
		return err
	}
	dir, err := filepath.Abs(out)
	if err == nil {
		err = a.writeLeaf(dir, files, c.Administrator, f.tlsNames)
	}
	if err != nil {
		return fmt.Errorf("%w; the leaf node is of no use to anybody now: `%s user revoke %s`", err, a.self, name)
	}
	if !people(a.output) {
		return writeDetail(cmd.OutOrStdout(), a.output, madeUser{added, dir}, name, nil)
	}
	note(cmd.OutOrStdout(), "leaf node %s, %s. What it connects with is in %s: carry that to the site, as a secret, and there:", name, until(user.Expires, a), out)
	note(cmd.OutOrStdout(), "  %s leaf --identity %s --hub tls://HUB:7422", a.self, filepath.Base(out))
	note(cmd.OutOrStdout(), "The hub takes leaf nodes where `%s up --leaf-listen ADDRESS` says. Agents of the site have it as their server, and \"domain: %s\".", a.self, access.Domain)
	return nil
}

// lookUpAccounts asks the broker for all accounts, by their public keys.
func (a *app) lookUpAccounts(ctx context.Context, where connection) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	system := where
	system.Credentials = filepath.Join(where.Administrator, systemCreds)
	asker, err := dial(system, a.timeout)
	if err != nil {
		return nil, err
	}
	defer asker.bus.Conn().Close()
	all := map[string]string{}
	for _, account := range access.Accounts() {
		claims, err := openAccountClaims(where, account)
		if err != nil {
			return nil, err
		}
		claims.operator.Wipe()
		claims.client = asker
		if all[claims.account], _, err = claims.lookUp(ctx); err != nil {
			return nil, fmt.Errorf("look up account %s: %w", account, err)
		}
	}
	return all, nil
}

// leafFiles are the contents of a leaf node's directory, by name. accounts are the JWTs of all accounts by their
// public keys.
func leafFiles(administrator string, user access.User, seed []byte, accounts map[string]string) (map[string][]byte, error) {
	fleet, err := readFleet(administrator)
	if err != nil {
		return nil, err
	}
	operator, err := leafOperator(administrator, fleet)
	if err != nil {
		return nil, err
	}
	public, err := json.MarshalIndent(fleet, "", "  ")
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{fleetName: append(public, '\n'), operatorName: []byte(operator + "\n")}
	for key, text := range accounts {
		files[filepath.Join(partAccounts, key+".jwt")] = []byte(text)
	}
	for _, account := range access.LeafAccounts() {
		key, err := readSeed(filepath.Join(administrator, "accounts", string(account)+".nk"))
		if err != nil {
			return nil, err
		}
		token, err := access.MintLeaf(account, key, user)
		key.Wipe()
		if err != nil {
			return nil, err
		}
		if files[string(account)+".creds"], err = access.Credentials(token, seed); err != nil {
			return nil, err
		}
		files[leafAccountsName] = fmt.Appendf(files[leafAccountsName], "%s: %q\n", strings.ToUpper(string(account)), fleet.Accounts[account])
	}
	return files, nil
}

// leafOperator is the operator as brokers know it, made from its key.
func leafOperator(administrator string, fleet fleetFile) (string, error) {
	operator, err := readSeed(filepath.Join(administrator, operatorKeyName))
	if err != nil {
		return "", err
	}
	defer operator.Wipe()
	if key, err := operator.PublicKey(); err != nil || key != fleet.Operator {
		return "", fmt.Errorf("%s in %s is not the operator of fleet %s", operatorKeyName, administrator, fleet.Fleet)
	}
	system, err := nkeys.FromPublicKey(fleet.Accounts[access.System])
	if err != nil {
		return "", err
	}
	return access.Keys{Operator: operator, Accounts: map[access.Account]nkeys.KeyPair{access.System: system}}.OperatorJWT(fleet.Fleet)
}

// writeLeaf writes the directory, and with names a certificate of the fleet's authority.
func (a *app) writeLeaf(dir string, files map[string][]byte, administrator string, names []string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	for name, data := range files {
		if err := writePrivate(filepath.Join(dir, name), data); err != nil {
			return err
		}
		clear(data)
	}
	if len(names) == 0 {
		return nil
	}
	authority := ownAuthority{at: place{dir}, administrator: administrator, now: a.now()}
	if err := checkPrivate(authority.keyFile()); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("--tls-name asks for a certificate of the fleet's authority, and there is no %s: `%s up --tls` makes one", authority.keyFile(), a.self)
	} else if err != nil {
		return err
	}
	_, err := authority.certificate(serverNames{must: names})
	return err
}
