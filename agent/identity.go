package agent

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/nats-io/nkeys"

	"chandler/events"
)

// loadIdentity reads the agent's key, made here at the first start and never shown to anybody, and
// derives the agent's id from it.
func loadIdentity(path string) (id string, err error) {
	seed, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if seed, err = newSeed(); err != nil {
			return "", err
		}
		if err := writePrivate(path, seed); err != nil {
			return "", fmt.Errorf("keep agent key: %w", err)
		}
	} else if err != nil {
		return "", fmt.Errorf("read agent key: %w", err)
	}
	pair, err := nkeys.FromSeed(seed)
	if err != nil {
		return "", fmt.Errorf("agent key %s is damaged: %w", path, err)
	}
	defer pair.Wipe()
	public, err := pair.PublicKey()
	if err != nil {
		return "", err
	}
	return events.AgentID([]byte(public)), nil
}

func newSeed() ([]byte, error) {
	pair, err := nkeys.CreatePairWithRand(nkeys.PrefixByteUser, rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make agent key: %w", err)
	}
	return pair.Seed()
}

// writePrivate is atomic: a half-written key would make a second identity of one machine.
func writePrivate(path string, data []byte) error {
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// checkMachine ties a state directory to the machine it was made on. A copied directory (a cloned disk)
// would be a second agent with the first one's identity: both would take its jobs.
func checkMachine(path, machine string) error {
	if machine == "" {
		return nil // the system does not tell
	}
	known, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return writePrivate(path, []byte(machine))
	}
	if err != nil {
		return fmt.Errorf("read machine id: %w", err)
	}
	if string(known) != machine {
		return fmt.Errorf("the state directory %s was made on another machine, or as another user; two agents must not have one identity: "+
			"remove it, and this agent gets an identity of its own", filepath.Dir(path))
	}
	return nil
}
