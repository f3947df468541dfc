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
	"slices"
	"strings"

	"github.com/nats-io/nkeys"

	"chandler/events/access"
)

// A fleet's identities are made once. They are written to a directory beside where they belong, which gets
// its name firstStart only when they are complete, and then put to their places file by file; a start that is
// interrupted there is completed by the next. Nothing that exists is ever replaced.
const firstStart = "first-start"

// The parts of a first start, in the order in which they are put to their places: once identity is there
// the fleet is.
const (
	partAdministrator = administration
	partAccounts      = "accounts"
	partIdentity      = "identity"
)

// ensureIdentities makes a new fleet's identities, or completes what an interrupted start left. made says
// that this is a first start. A directory of which only a part is there is refused.
func ensureIdentities(at place, administrator string) (made bool, err error) {
	ready, err := exists(filepath.Join(at.data, firstStart))
	if err != nil {
		return false, err
	}
	if !ready {
		there, err := exists(at.identity())
		if err != nil {
			return false, err
		}
		if there {
			return false, refuseLost(at)
		}
		if err := refuseRemains(at, administrator); err != nil {
			return false, err
		}
		if err := prepareIdentities(at); err != nil {
			return false, fmt.Errorf("make the fleet's identities: %w", err)
		}
	}
	if err := settleIdentities(at, administrator); err != nil {
		return false, fmt.Errorf("put the fleet's identities to their places: %w", err)
	}
	return true, refuseLost(at)
}

// refuseLost says what is missing of identities that were complete once.
func refuseLost(at place) error {
	i, err := openIdentities(at.identity(), services())
	if err != nil {
		return fmt.Errorf("%w; for a new fleet, say another --data", err)
	}
	if err := refuseMissing(filepath.Join(at.identity(), operatorName)); err != nil {
		return err
	}
	for _, key := range i.fleet.Accounts {
		if err := refuseMissing(filepath.Join(at.accounts(), key+".jwt")); err != nil {
			return err
		}
	}
	return nil
}

func refuseMissing(file string) error {
	there, err := exists(file)
	if err == nil && !there {
		err = fmt.Errorf("%s is missing: put it back from a copy (a new one would forget who was revoked); for a new fleet, say another --data", file)
	}
	return err
}

// refuseRemains keeps a start from making a second fleet out of the first one's data.
func refuseRemains(at place, administrator string) error {
	for _, remains := range []string{filepath.Join(at.broker(), "jetstream"), at.accounts(), filepath.Join(administrator, operatorKeyName)} {
		there, err := exists(remains)
		if err != nil {
			return err
		}
		if there {
			return fmt.Errorf("%s belongs to a fleet whose identities %s are missing: put them back from a copy; for a new fleet, say another --data and --administrator-dir", remains, at.identity())
		}
	}
	return nil
}

// prepareIdentities writes all files of a new fleet to DATA/first-start.
func prepareIdentities(at place) error {
	keys, err := access.NewKeys()
	if err != nil {
		return err
	}
	files, err := identityFiles(newFleetName(), keys)
	if err != nil {
		return err
	}
	unfinished, err := filepath.Glob(filepath.Join(at.data, "."+firstStart+"-*")) // no identity in there was ever used
	if err != nil {
		return err
	}
	for _, dir := range unfinished {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	dir, err := os.MkdirTemp(at.data, "."+firstStart+"-*") // mode 0700
	if err != nil {
		return err
	}
	for name, data := range files {
		if err := writePrivate(filepath.Join(dir, filepath.FromSlash(name)), data); err != nil {
			return errors.Join(err, os.RemoveAll(dir))
		}
	}
	return os.Rename(dir, filepath.Join(at.data, firstStart))
}

// newFleetName is in every order and in the trust bundle.
func newFleetName() string {
	id := make([]byte, 8)
	_, _ = rand.Read(id) // never fails
	return "f" + hex.EncodeToString(id)
}

// settleIdentities puts DATA/first-start to its places. It can be repeated.
func settleIdentities(at place, administrator string) error {
	from := filepath.Join(at.data, firstStart)
	for _, part := range []struct{ name, to string }{{partAdministrator, administrator}, {partAccounts, at.accounts()}, {partIdentity, at.identity()}} {
		if err := putFiles(filepath.Join(from, part.name), part.to); err != nil {
			return err
		}
	}
	return os.RemoveAll(from)
}

// putFiles copies: the administrator's directory may be on another file system.
func putFiles(from, to string) error {
	return filepath.WalkDir(from, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		below, err := filepath.Rel(from, name)
		if err != nil {
			return err
		}
		data, err := readSmall(name)
		if err != nil {
			return err
		}
		defer clear(data)
		return putFile(filepath.Join(to, below), data)
	})
}

// putFile writes a file that is not there. One with the same content is what an interrupted start wrote.
func putFile(name string, data []byte) error {
	there, err := readSmall(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return writePrivate(name, data)
	case err == nil && string(there) != string(data):
		err = fmt.Errorf("%s is there already, of another fleet: choose another --administrator-dir or --data", name)
	}
	clear(there)
	return err
}

// identityFiles are the contents of all files of a new fleet, by part and name.
func identityFiles(fleet string, keys access.Keys) (map[string][]byte, error) {
	f := &identityMaker{fleet: fleet, keys: keys, files: map[string][]byte{}}
	f.public = fleetFile{Fleet: fleet, Accounts: map[access.Account]string{}}
	for _, step := range []func() error{f.accounts, f.signingKeys, f.services, f.people} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	data, err := json.MarshalIndent(f.public, "", "  ")
	if err != nil {
		return nil, err
	}
	data = append(data, '\n')
	f.put(data, partIdentity, fleetName)
	f.put(data, partAdministrator, fleetName)
	return f.files, nil
}

// identityMaker collects files.
type identityMaker struct {
	fleet  string
	keys   access.Keys
	public fleetFile
	files  map[string][]byte
}

func (f *identityMaker) put(data []byte, path ...string) { f.files[strings.Join(path, "/")] = data }

func (f *identityMaker) putSeed(key nkeys.KeyPair, path ...string) error {
	seed, err := key.Seed()
	if err != nil {
		return err
	}
	f.put(append(seed, '\n'), path...)
	return nil
}

// accounts makes the operator and the accounts: the broker holds what they say, the administrator their keys.
func (f *identityMaker) accounts() (err error) {
	if f.public.Operator, err = f.keys.Operator.PublicKey(); err != nil {
		return err
	}
	operator, err := f.keys.OperatorJWT(f.fleet)
	if err != nil {
		return err
	}
	f.put([]byte(operator+"\n"), partIdentity, operatorName)
	if err := f.putSeed(f.keys.Operator, partAdministrator, operatorKeyName); err != nil {
		return err
	}
	jwts, err := f.keys.AccountJWTs(f.fleet)
	if err != nil {
		return err
	}
	for account, key := range f.keys.Accounts {
		public, err := key.PublicKey()
		if err != nil {
			return err
		}
		f.public.Accounts[account] = public
		f.put([]byte(jwts[account]), partAccounts, public+".jwt") // the form in which the broker keeps them
		if err := f.putSeed(key, partAdministrator, "accounts", string(account)+".nk"); err != nil {
			return err
		}
	}
	return nil
}

// signingKeys make users: the administrator has them all, the services that of agents.
func (f *identityMaker) signingKeys() error {
	for role, key := range f.keys.Roles {
		if err := f.putSeed(key, partAdministrator, "roles", string(role)+".nk"); err != nil {
			return err
		}
	}
	return f.putSeed(f.keys.Roles[access.Agent], partIdentity, agentKeyName)
}

// services get users of their own, and so do machines that have no identity yet.
func (f *identityMaker) services() error {
	for _, name := range services() {
		if err := f.user(access.Service(name), name, partIdentity, servicesName, name+".creds"); err != nil {
			return err
		}
	}
	if err := f.user(access.Provisioner, "provisioner", partIdentity, provisionName); err != nil {
		return err
	}
	_, key, err := newUserKey()
	if err != nil {
		return err
	}
	jwt, err := access.Mint(access.Enrolling, f.keys.Roles[access.Enrolling], f.public.Accounts[access.Enrolling.Account()], access.User{Name: "enrolment", Key: key, Bearer: true})
	if err != nil {
		return err
	}
	f.put([]byte(jwt+"\n"), partIdentity, enrolmentName)
	return nil
}

// people are the first administrator, and the user that changes accounts on the broker.
func (f *identityMaker) people() error {
	if err := f.user(access.Administrator, defaultCaller, partAdministrator, adminCreds); err != nil {
		return err
	}
	seed, key, err := newUserKey()
	if err != nil {
		return err
	}
	jwt, err := access.MintSystem(f.keys.Accounts[access.System], defaultCaller, key)
	if err != nil {
		return err
	}
	return f.creds(jwt, seed, partAdministrator, systemCreds)
}

// adminCreds is the file of the first administrator, systemCreds that of the user that changes accounts on the
// broker.
const (
	operatorKeyName = "operator.nk"
	adminCreds      = "admin.creds"
	systemCreds     = "system.creds"
)

func (f *identityMaker) user(role access.Role, name string, path ...string) error {
	seed, key, err := newUserKey()
	if err != nil {
		return err
	}
	jwt, err := access.Mint(role, f.keys.Roles[role], f.public.Accounts[role.Account()], access.User{Name: name, Key: key})
	if err != nil {
		return fmt.Errorf("make user %s: %w", name, err)
	}
	return f.creds(jwt, seed, path...)
}

func (f *identityMaker) creds(jwt string, seed []byte, path ...string) error {
	data, err := access.Credentials(jwt, seed)
	if err != nil {
		return err
	}
	clear(seed)
	f.put(data, path...)
	return nil
}

// newUserKey makes the key of a NATS user.
func newUserKey() (seed []byte, public string, err error) {
	key, err := nkeys.CreateUser()
	if err != nil {
		return nil, "", err
	}
	defer key.Wipe()
	if public, err = key.PublicKey(); err != nil {
		return nil, "", err
	}
	seed, err = key.Seed()
	return slices.Clone(seed), public, err
}
