package enrol

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"chandler/events"
	"chandler/events/enrolment"
)

// The files of a state directory, all 0600.
const (
	keyFile      = "agent.key"     // nkey seed
	identityFile = "identity.json" // what the token said, and what was conferred
	jwtFile      = "agent.jwt"     // the identity that the broker asks for; written last
	trustFile    = "trust.json"    // signed bundles
	caFile       = "ca.pem"        // the pinned CA
)

// Limits of what is read back, in bytes.
const (
	maxSmall = 256 << 10
	maxTrust = 64 << 20
)

// identityFormat is the form of identity.json.
const identityFormat = 1

// identity is identity.json.
type identity struct {
	Format    int              `json:"format"`
	Servers   []string         `json:"servers"`
	CA        string           `json:"ca,omitempty"`  // SHA-256 of the pinned CA's DER
	Root      string           `json:"root"`          // fingerprint of the root keys that the token named
	Enrolment string           `json:"enrolment_jwt"` // bearer identity of the enrolment user
	Machine   string           `json:"machine,omitempty"`
	Conferred events.Conferred `json:"conferred"`
	Received  time.Time        `json:"received,omitzero"` // of agent.jwt, by this machine's clock
	Expires   time.Time        `json:"expires,omitzero"`  // of agent.jwt

	// The service's last word, where it stays until an administrator turns it: so a restart does not forget it.
	Refused events.EnrolRefusal `json:"refused,omitempty"`
	Why     string              `json:"why,omitempty"`
}

// makeKey reads the agent's seed, or makes it.
func makeKey(dir string) ([]byte, error) {
	if err := MakeDir(dir); err != nil {
		return nil, err
	}
	seed, err := requireKey(dir)
	if err != nil || seed != nil {
		return seed, err
	}
	if seed, _, err = enrolment.NewKey(); err != nil {
		return nil, err
	}
	if err := writePrivate(dir, keyFile, seed); err != nil {
		return nil, err
	}
	return seed, nil
}

// requireKey gives nil where there is no key, and none is missing: a new one beside an identity that an old one
// proved would be a machine that nobody knows.
func requireKey(dir string) ([]byte, error) {
	seed, err := readKey(dir)
	if err != nil || len(seed) > 0 {
		return seed, err
	}
	id, err := readIdentity(dir)
	if err != nil {
		return nil, err
	}
	if id != nil {
		return nil, fmt.Errorf("%s is missing, and the identity beside it is of no use without it: put the key back, or make this machine another agent with `chandler-agent enrol --anew`",
			filepath.Join(dir, keyFile))
	}
	return nil, nil
}

// readKey gives nil where there is no key.
func readKey(dir string) ([]byte, error) {
	seed, err := readFile(dir, keyFile, maxSmall)
	return bytes.TrimSpace(seed), err
}

// damagedKey says what to do about a key that cannot be read.
func damagedKey(dir string, err error) error {
	return fmt.Errorf("%s is damaged: %w; put the key back, or make this machine another agent with `chandler-agent enrol --anew`", filepath.Join(dir, keyFile), err)
}

// LoadKey gives the agent's id, derived from its key, which is made if there is none. It is for an agent on
// a broker that asks for no identity.
func LoadKey(dir string) (id string, err error) {
	seed, err := makeKey(dir)
	if err != nil {
		return "", err
	}
	public, err := enrolment.PublicKey(seed)
	if err != nil {
		return "", damagedKey(dir, err)
	}
	return events.AgentID([]byte(public)), nil
}

// Forget removes the identity from a state directory, the key last. The machine enrols anew, as another agent.
func Forget(dir string) error {
	for _, name := range []string{jwtFile, trustFile, identityFile, caFile, keyFile} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("forget identity: %w", err)
		}
	}
	return nil
}

// Replace puts the identity that was made in another directory of the same file system in the place of the one in
// dir, which is forgotten. A crash in between leaves no identity, or one that New refuses, and never a mixed one.
func Replace(dir, from string) error {
	if err := Forget(dir); err != nil {
		return err
	}
	for _, name := range []string{keyFile, caFile, trustFile, identityFile, jwtFile} {
		if err := os.Rename(filepath.Join(from, name), filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("replace identity: %w", err)
		}
	}
	return nil
}

// readIdentity gives nil where the machine has not enrolled.
func readIdentity(dir string) (*identity, error) {
	data, err := readFile(dir, identityFile, maxSmall)
	if err != nil || data == nil {
		return nil, err
	}
	var id identity
	if err := json.Unmarshal(data, &id); err != nil {
		return nil, fmt.Errorf("read %s: %w", filepath.Join(dir, identityFile), err)
	}
	if id.Format != identityFormat || len(id.Servers) == 0 || events.ValidDigest(id.Root) != nil {
		return nil, fmt.Errorf("%s is damaged, or of another version: enrol with `chandler-agent enrol --anew`", filepath.Join(dir, identityFile))
	}
	return &id, nil
}

func writeIdentity(dir string, id identity) error {
	data, err := json.MarshalIndent(id, "", "  ")
	if err != nil {
		return err
	}
	return writePrivate(dir, identityFile, data)
}

func readJWT(dir string) (string, error) {
	data, err := readFile(dir, jwtFile, maxSmall)
	return strings.TrimSpace(string(data)), err
}

// readFile gives nil where there is no such file.
func readFile(dir, name string, most int64) ([]byte, error) {
	path := filepath.Join(dir, name)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read identity: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, fmt.Errorf("read identity: %w", err)
	}
	if int64(len(data)) > most {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, most)
	}
	return data, nil
}

// writePrivate replaces a file at once: half a key would make a second identity of one machine.
func writePrivate(dir, name string, data []byte) error {
	path := filepath.Join(dir, name)
	err := func() error {
		// The old one may have been left by a crash, with another mode.
		if err := os.Remove(path + ".new"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		_, err = f.Write(data)
		if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
			return err
		}
		return os.Rename(path+".new", path)
	}()
	if err != nil {
		return fmt.Errorf("keep %s: %w", name, err)
	}
	return nil
}

// MakeDir makes the state directory if there is none, closed to everybody but this user and, where the
// system has them, the administrators.
func MakeDir(dir string) error {
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make state directory: %w", err)
	}
	if err := closeToOthers(dir); err != nil {
		return fmt.Errorf("close state directory to others: %w", err)
	}
	return nil
}
