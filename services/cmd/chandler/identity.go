package main

import (
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

// fleetFile is fleet.json: what names a fleet. Nothing in it is secret.
type fleetFile struct {
	Fleet    string                    `json:"fleet"`
	Operator string                    `json:"operator"` // public key
	Accounts map[access.Account]string `json:"accounts"` // public keys
}

// identities are what the services of a fleet need to be who they are, in one directory. Whoever has it
// speaks as the services and gives machines identities, but cannot change what the roles may.
type identities struct {
	dir   string
	fleet fleetFile
}

// The files of identities.
const (
	fleetName      = "fleet.json"
	operatorName   = "operator.jwt"
	agentKeyName   = "agent-signing.nk"
	enrolmentName  = "enrolment.jwt"
	servicesName   = "services"
	provisionName  = "provisioner.creds"
	administration = "administrator"
)

func (i identities) service(name string) string {
	return filepath.Join(i.dir, servicesName, name+".creds")
}
func (i identities) provisioner() string { return filepath.Join(i.dir, provisionName) }

// agentSigner signs the identities of agents.
func (i identities) agentSigner() (nkeys.KeyPair, error) {
	return readSeed(filepath.Join(i.dir, agentKeyName))
}

// enrolmentJWT is the identity of machines that have none.
func (i identities) enrolmentJWT() (string, error) {
	data, err := readPrivate(filepath.Join(i.dir, enrolmentName))
	return strings.TrimSpace(string(data)), err
}

// openIdentities reads what the fleet is and makes sure that the files which these services need are there,
// and are their owner's alone. credentials that are given elsewhere are not looked for.
func openIdentities(dir string, services []string) (identities, error) {
	i := identities{dir: dir}
	var err error
	if i.fleet, err = readFleet(dir); err != nil {
		return i, err
	}
	needed := []string{i.provisioner()}
	for _, name := range services {
		needed = append(needed, i.service(name))
	}
	if slices.Contains(services, "credentials") {
		needed = append(needed, filepath.Join(dir, agentKeyName), filepath.Join(dir, enrolmentName))
	}
	for _, file := range needed {
		if err := checkPrivate(file); errors.Is(err, fs.ErrNotExist) {
			return i, fmt.Errorf("%s is missing: put it back from a copy; for a service that is new here, `chandler user add` with the service's role makes its file", file)
		} else if err != nil {
			return i, err
		}
	}
	return i, nil
}

func readFleet(dir string) (fleetFile, error) {
	var f fleetFile
	name := filepath.Join(dir, fleetName)
	data, err := readSmall(name)
	if err != nil {
		return f, fmt.Errorf("read the fleet's identities: %w", err)
	}
	if err := json.Unmarshal(data, &f); err != nil {
		return f, fmt.Errorf("read %s: %w", name, err)
	}
	if f.Fleet == "" || f.Operator == "" || f.Accounts[access.Fleet] == "" || f.Accounts[access.System] == "" {
		return f, fmt.Errorf("%s does not name a fleet, its operator and its accounts", name)
	}
	return f, nil
}

// readPrivate reads a secret that only its owner may read.
func readPrivate(name string) ([]byte, error) {
	if err := checkPrivate(name); err != nil {
		return nil, err
	}
	return readSmall(name)
}

// checkPrivate refuses a secret that others may read.
func checkPrivate(name string) error {
	info, err := os.Stat(name)
	if err != nil {
		return err
	}
	if othersMayRead(info) {
		return fmt.Errorf("%s can be read by others (mode %04o): chmod 600 %s", name, info.Mode().Perm(), name)
	}
	return nil
}

// readSeed reads an nkey.
func readSeed(name string) (nkeys.KeyPair, error) {
	data, err := readPrivate(name)
	if err != nil {
		return nil, err
	}
	defer clear(data)
	key, err := nkeys.FromSeed([]byte(strings.TrimSpace(string(data))))
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", name, err)
	}
	return key, nil
}
